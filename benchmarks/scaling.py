"""How a run grows: with the nodes, emulated on however few cores; and with the training rows, of which memory tells.

*nodes*: one network of `--layers` layers, chapter by chapter round more and more nodes, as overlap.py emulates them;
the speed-up is over the schedule's own work on one node. Where steps are too short for a scheduler, the steps a second
that it manages are what is left.

*rows*: more and more rows through one small network, each a process of its own whose images stay on the disk. With
random negatives nothing is kept of a row; with those that are drawn from probabilities (P), 44 bytes are: ten
probabilities and where the row is.

python benchmarks/scaling.py nodes --nodes 1 2 4 8 16 32 64 --step 0.5
python benchmarks/scaling.py rows --rows 1000 10000 100000 1000000 10000000
"""

from __future__ import annotations

import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import overlap
from side_by_side import arguments, flags_of, show, train, where

import ffdask
from ffdask import datasets
from ffdask.conduct import foresee

NEGATIVES = ("random", "adaptive")
"""Without P, and with it."""

MIB = 1 << 20
A_ROW = 44
"""Bytes of P."""


def by_nodes(given: Namespace) -> tuple[str, list[str], list[list[Any]], dict[str, Any]]:
    """Return the title, the columns and the rows of the table by nodes, and the last run's summary."""
    rows: list[list[Any]] = []
    last: dict[str, Any] = {}
    how = Namespace(
        layers=given.layers,
        width=given.width,
        chapters=given.chapters,
        optimizer="adam",
        schedule="all-layers",
        processes=False,
        apart=False,
        unshared=False,
        evaluate_every=10,
        checkpoint_every=4,
        cut_every=4,
    )
    with tempfile.TemporaryDirectory() as name:
        path = overlap.make_rows(Path(name))
        for step in given.step:
            for nodes in given.nodes:
                config = overlap.config_of(how, nodes, path)
                rates, ideal, speed_up = overlap.slowed(config, step, nodes)
                last = overlap.measured(config, rates, Path(name))
                seconds = last["train_seconds"]
                steps = len(foresee(config).steps)
                figures = [ideal, seconds, ideal / seconds, speed_up * ideal / seconds, steps / seconds]
                rows.append([nodes, step, *figures, last["peak_memory_bytes"] / MIB])
                print(f"{nodes} nodes, steps of {step} s: {ideal / seconds:.3f} of the ideal", flush=True)
    columns = ["nodes", "step, s", "ideal, s", "measured, s", "efficiency", "speed-up", "steps a second", "peak, MiB"]
    title = (
        f"{given.layers} layers of {given.width}, {given.chapters} chapters, all-layers, emulated nodes in one process"
    )
    return title, columns, rows, last


def by_rows(given: Namespace) -> tuple[str, list[str], list[list[Any]], dict[str, Any]]:
    """Return the title, the columns and the rows of the table by rows, and the last run's summary."""
    found: list[list[Any]] = []
    last: dict[str, Any] = {}
    before: dict[str, tuple[int, float]] = {}
    for count in given.rows:
        data = make_images(count)
        for negatives in NEGATIVES:
            keys = {
                "data.dataset": data.path,
                "data.chunk": min(given.chunk, count),
                "network.layers": "64,64",
                "network.negatives": negatives,
                "training.epochs": 1,
                "training.shift": 0,
                "run.checkpoint_every": 0,
            }
            # The least that can be told to stay in memory: all images are on the disk.
            last = train(*flags_of(keys), environment={"FFDASK_IMAGES_GIB": "1e-6"})
            peak = last["peak_memory_bytes"]
            fewer, less = before.get(negatives, (0, peak))
            more, before[negatives] = (peak - less) / (count - fewer), (count, peak)
            found.append([negatives, count, peak / MIB, more, last["train_seconds"]])
            print(f"{negatives}, {count} rows: {peak / MIB:.0f} MiB, {more:.1f} bytes a row more", flush=True)
    columns = ["negatives", "rows", "peak, MiB", "bytes a row more", "training, s"]
    title = (
        f"one epoch of 64-64 on rows of 16 x 16, chunks of at most {given.chunk}; more: than in the line above; "
        f"P takes {A_ROW} bytes"
    )
    return title, columns, sorted(found, key=lambda row: NEGATIVES.index(row[0])), last


def make_images(rows: int) -> datasets.Dataset:
    """Keep made images, whose bright pixel tells the class, in the cache; a chunk at a time."""
    chunk = min(rows, 100_000)

    def images(count: int) -> da.Array:
        labels = da.arange(count, chunks=chunk, dtype=np.int64) % 10
        pixels = da.random.default_rng(0).integers(0, 60, (count, 256), np.uint8, chunks=(chunk, 256))
        bright = 100 + labels[:, None] == da.arange(256, chunks=256)[None, :]
        return da.where(bright, np.uint8(255), pixels).reshape(count, 16, 16)

    split = [part for count in (rows, 1000) for part in (images(count), np.arange(count, dtype=np.int64) % 10)]
    return ffdask.from_arrays(*split, name=f"made-{rows}")


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("by", choices=("nodes", "rows"), help="what grows")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--step", type=float, nargs="+", default=[0.5], help="seconds of a training step, in the mean")
    parser.add_argument("--layers", type=int, default=64)
    parser.add_argument("--width", type=int, default=72, help="of all layers; 72 by 72 with Adam are 64 kB")
    parser.add_argument("--chapters", type=int, default=128)
    parser.add_argument("--rows", type=int, nargs="+", default=[10**power for power in range(3, 8)])
    parser.add_argument("--chunk", type=int, default=10_000, help="rows to a visit")
    given = parser.parse_args()
    title, columns, rows, last = by_nodes(given) if given.by == "nodes" else by_rows(given)
    show(title, columns, rows, where(last), given.json)


if __name__ == "__main__":
    main()
