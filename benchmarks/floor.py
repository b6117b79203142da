"""What this machine can do at best, at the very shapes of training: its products, and its memory's bandwidth.

For each shape, a training step's two products (activities times weights, the activities' transpose times the
derivative), and one pass of the moving average over weights, moment and gradient: with one thread busy, and with as
many copies as there are cores, each with one thread and arrays of its own. Small weights stay in the cache, and their
pass is faster than memory.

python benchmarks/floor.py --shapes 784x1000x200 1000x1000x200 2000x2000x128 --precisions float32 bfloat16
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from threading import Barrier
from typing import Any, get_args

import numpy as np
from side_by_side import arguments, median, show, where

from ffdask import machine
from ffdask.kernels import Precision, named

SHAPES = ("784x1000x200", "1000x1000x200", "2000x2000x128", "2000x2000x200")
"""Inputs x units x rows."""

PASS = 4 * 5
"""Bytes that the moving average moves for each weight: weight and moment read and written, gradient read."""


class Place:
    """Arrays of one shape, and the loops that are timed on them; for one thread."""

    def __init__(self, shape: str, precision: Precision = "float32") -> None:
        self.kernels = named("numba", precision)
        self.inputs, self.width, self.rows = map(int, shape.split("x"))
        random = np.random.default_rng(0)
        self.x = random.standard_normal((self.rows, self.inputs), dtype=np.float32)
        self.dz = random.standard_normal((self.rows, self.width), dtype=np.float32) / 1000
        self.weights = random.standard_normal((self.inputs, self.width), dtype=np.float32)
        self.moment, self.gradient = np.zeros_like(self.weights), np.zeros_like(self.weights)
        self.z = np.empty_like(self.dz)
        # Rounded beforehand, where they are: what is timed is the products alone.
        self.factors = [self.kernels.rounded(each) for each in (self.x, self.weights, self.dz)]

    def products(self) -> None:
        """Do a step's two products."""
        x, weights, dz = self.factors
        self.kernels.matmul(x, weights, out=self.z)
        self.kernels.matmul(x.T, dz, out=self.gradient)

    def passed(self) -> None:
        """Do the optimiser's pass."""
        named("numba").momentum(self.weights, (self.moment,), self.gradient, 0.01, 0.9, 0.002)


def seconds(loops: list[Callable[[], None]], repeats: int) -> float:
    """Return the median seconds of one call, with all loops called at once, each on a thread of its own."""
    together = Barrier(len(loops))

    def timed(loop: Callable[[], None]) -> list[float]:
        loop()
        together.wait()
        found = []
        for _ in range(repeats):
            begun = time.perf_counter()
            loop()
            found.append(time.perf_counter() - begun)
        return found

    with ThreadPoolExecutor(len(loops)) as pool:
        return median([one for found in pool.map(timed, loops) for one in found])


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="INPUTSxUNITSxROWS")
    parser.add_argument("--precisions", nargs="+", default=["float32"], choices=get_args(Precision))
    parser.add_argument("--copies", type=int, default=os.cpu_count() or 1, help="loops at once, beside one alone")
    parser.add_argument("--repeats", type=int, default=30)
    given = parser.parse_args()
    rows: list[list[Any]] = []
    with machine.one_thread():
        for shape in given.shapes:
            for precision, copies in product(given.precisions, dict.fromkeys((1, given.copies))):
                places = [Place(shape, precision) for _ in range(copies)]
                place = places[0]
                products = seconds([each.products for each in places], given.repeats)
                passed = seconds([each.passed for each in places], given.repeats)
                rate = 4e-9 * place.rows * place.inputs * place.width / products
                bandwidth = 1e-9 * PASS * place.weights.size / passed
                rows.append([shape, precision, copies, 1e3 * products, rate, 1e3 * passed, bandwidth, copies * rate])
    columns = [
        "shape",
        "precision",
        "copies",
        "products, ms",
        "GFLOP/s each",
        "pass, ms",
        "GB/s each",
        "GFLOP/s together",
    ]
    show("the machine's floor", columns, rows, where({"fingerprint": machine.fingerprint()}), given.json)


if __name__ == "__main__":
    main()
