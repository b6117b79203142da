"""The same whole job in ffdask and in three PyTorch loops: seconds of training, alternating, and the accuracy of each.

The loops are in `torch_loops.py`; `best` is the fastest of them. All have all cores; each run is a process of its own.
PyTorch's own gain from cores is measured beside, by `together` with one thread. The floor is the time of the streaming
recipe's products alone in float32, at the rate of all cores together, measured before each turn. PyTorch is not a
dependency: `pip install torch`; bfloat16 needs `pip install 'ffdask[bfloat16]'`.

python benchmarks/run.py --epochs 3 --repeats 3
python benchmarks/run.py --epochs 3 --repeats 3 --precisions float32 bfloat16
python benchmarks/run.py --epochs 12 --repeats 3 --schedules streaming --loops             # the default job
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any, get_args

from floor import Place
from floor import seconds as seconds_of
from side_by_side import arguments, median, plain_environment, show, train, where

from ffdask import machine
from ffdask.conduct import foresee
from ffdask.config import load
from ffdask.kernels import Precision

ONE = "PyTorch, together, one thread"
LOOPS = ("together", "compiled", "chapters")


def floor(given: Any, cores: int) -> float:
    """Return the seconds of the streaming recipe's products at this machine's rate, all cores busy."""
    layers = [int(width) for width in given.layers.split(",")]
    flops = foresee(load(None, {"network.layers": layers, "training.epochs": given.epochs})).flops
    with machine.one_thread():
        places = [Place(f"{layers[0]}x{layers[-1]}x200") for _ in range(cores)]
        one = seconds_of([place.products for place in places], 100)
    return flops * one / (cores * 4 * places[0].rows * places[0].inputs * places[0].width)


def torch(loop: str, precision: str, given: Any, seed: int, threads: int) -> dict[str, Any]:
    """Return the figures of a PyTorch loop."""
    script = Path(__file__).with_name("torch_loops.py")
    flags = ["--layers", given.layers, "--epochs", str(given.epochs), "--seed", str(seed), "--threads", str(threads)]
    flags += ["--precision", precision]
    done = subprocess.run(
        [sys.executable, str(script), loop, *flags],
        check=True,
        capture_output=True,
        text=True,
        env=plain_environment(),
    )
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--layers", default="1000,1000,1000")
    parser.add_argument("--schedules", nargs="+", default=["streaming", "all-layers"], help="of ffdask")
    parser.add_argument("--loops", nargs="*", default=LOOPS, choices=LOOPS, metavar="LOOP", help="of PyTorch")
    parser.add_argument("--precisions", nargs="+", default=["float32"], choices=get_args(Precision))
    parser.add_argument("--repeats", type=int, default=3, help="each with a seed of its own")
    given = parser.parse_args()
    cores = os.cpu_count() or 1
    found: dict[str, list[dict[str, Any]]] = {}
    last: dict[str, Any] = {}
    floors: list[float] = []
    for seed in range(given.repeats):
        floors.append(floor(given, cores))
        for schedule, precision in product(given.schedules, given.precisions):
            flags = ["--schedule", schedule, "--epochs", str(given.epochs), "--layers", given.layers]
            last = train(*flags, "--seed", str(seed), "--precision", precision)
            found.setdefault(f"ffdask, {schedule}, {precision}", []).append(last)
        for loop, precision in product(given.loops, given.precisions):
            figures = torch(loop, precision, given, seed, cores)
            found.setdefault(f"PyTorch, {loop}, {precision}", []).append(figures)
        if "together" in given.loops:
            found.setdefault(ONE, []).append(torch("together", given.precisions[0], given, seed, 1))
    seconds = {name: [one["train_seconds"] for one in each] for name, each in found.items()}
    theirs = [name for name in found if name.startswith("PyTorch") and name != ONE]
    best = min(theirs or found, key=lambda name: median(seconds[name]))
    rows = []
    for name, each in found.items():
        faster = median([least / own for least, own in zip(seconds[best], seconds[name], strict=True)])
        over = median([ours / least for ours, least in zip(seconds[name], floors, strict=True)])
        accuracy = 100 * mean(one["test_accuracy"] for one in each)
        rows.append([name, median(seconds[name]), f"{faster:.2f}", f"{over:.2f}", f"{accuracy:.2f}"])
    columns = ["loop", "seconds", "best / this", "over the floor", "accuracy, %"]
    title = f"{given.layers}, {given.epochs} epochs, {cores} cores, medians of {given.repeats}"
    note = f"{where(last)}; floor {median(floors):.3g} s"
    note += f"; PyTorch {found[best][0]['torch']}" if theirs else ""
    if "together" in given.loops:
        pairs = zip(seconds[ONE], seconds[f"PyTorch, together, {given.precisions[0]}"], strict=True)
        note += f"; PyTorch's {cores} threads are {median([a / b for a, b in pairs]):.2f} times as fast as one"
    show(title, columns, rows, note, given.json)


if __name__ == "__main__":
    main()
