"""The same whole job in ffdask and in three PyTorch loops: seconds of training, alternating, and the accuracy of each.

The loops are in `torch_loops.py`. All have all cores; each run is a process of its own. PyTorch's own gain from cores
is measured beside, by `together` with one thread. PyTorch is not a dependency: `pip install torch`.

python benchmarks/run.py --epochs 3 --repeats 3
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import Any

from side_by_side import arguments, median, plain_environment, show, train, where

LOOPS = ("together", "compiled", "chapters")


def torch(loop: str, given: Any, seed: int, threads: int) -> dict[str, Any]:
    """Return the figures of a PyTorch loop."""
    script = Path(__file__).with_name("torch_loops.py")
    flags = ["--layers", given.layers, "--epochs", str(given.epochs), "--seed", str(seed), "--threads", str(threads)]
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
    parser.add_argument("--repeats", type=int, default=3, help="each with a seed of its own")
    given = parser.parse_args()
    cores = os.cpu_count() or 1
    found: dict[str, list[dict[str, Any]]] = {}
    last: dict[str, Any] = {}
    for seed in range(given.repeats):
        for schedule in given.schedules:
            flags = ["--schedule", schedule, "--epochs", str(given.epochs), "--layers", given.layers]
            last = train(*flags, "--seed", str(seed))
            found.setdefault(f"ffdask, {schedule}", []).append(last)
        for loop in LOOPS:
            found.setdefault(f"PyTorch, {loop}", []).append(torch(loop, given, seed, cores))
        found.setdefault("PyTorch, together, one thread", []).append(torch("together", given, seed, 1))
    seconds = {name: [one["train_seconds"] for one in each] for name, each in found.items()}
    best = min((f"PyTorch, {loop}" for loop in LOOPS), key=lambda name: median(seconds[name]))
    rows = []
    for name, each in found.items():
        faster = median([theirs / ours for theirs, ours in zip(seconds[best], seconds[name], strict=True)])
        accuracy = 100 * mean(one["test_accuracy"] for one in each)
        rows.append([name, median(seconds[name]), f"{faster:.2f}", f"{accuracy:.2f}"])
    columns = ["loop", "seconds", "PyTorch's best / this", "accuracy, %"]
    title = f"{given.layers}, {given.epochs} epochs, {cores} cores, medians of {given.repeats}"
    one = seconds["PyTorch, together, one thread"]
    gain = median([a / b for a, b in zip(one, seconds["PyTorch, together"], strict=True)])
    version = found[best][0]["torch"]
    note = f"{where(last)}; PyTorch {version}, whose {cores} threads are {gain:.2f} times as fast as one"
    show(title, columns, rows, note, given.json)


if __name__ == "__main__":
    main()
