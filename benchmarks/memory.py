"""The memory that runs take, against what `--dry-run` says of them: the fullest worker process of each.

Rows of MNIST's size, made, so that nothing is downloaded; each run is a process of its own, looked at until it ends.
A process's memory is the most that it ever had resident, as the system counts it. Threads: the process of the run is
the one worker process; processes: those below it, of which the fullest counts.

python benchmarks/memory.py --rows 60000
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from side_by_side import arguments, flags_of, plain_environment, show, where

from ffdask import machine
from ffdask.conduct import foresee
from ffdask.config import load

GIB = 1 << 30
LEAST, MOST = 2 / 3, 1.5
"""Between which the memory that is taken lies, of the memory that is foretold."""

THREADS: dict[str, Any] = {"cluster.units": 2}
PROCESSES: dict[str, Any] = {"cluster.processes": True, "cluster.workers": 2, "cluster.units": 2}
RUNS: dict[str, dict[str, Any]] = {
    "streaming, 3 x 1000": THREADS,
    "streaming, 3 x 1000, processes": PROCESSES,
    "streaming, 4 x 2000, chunks of 6000": THREADS | {"network.layers": [2000] * 4, "data.chunk": 6000},
    "all-layers, 3 x 1000, 8 chapters": THREADS | {"schedule.name": "all-layers", "schedule.chapters": 8},
    "all-layers, 4 x 2000, 8 chapters, processes": PROCESSES
    | {"schedule.name": "all-layers", "schedule.chapters": 8, "network.layers": [2000] * 4},
    "all-layers, 2 x 500, 2 chapters": THREADS
    | {"schedule.name": "all-layers", "schedule.chapters": 2, "network.layers": [500] * 2},
    "sequential, 3 x 1000, 16 chapters": THREADS
    | {"cluster.units": 1, "schedule.name": "sequential", "schedule.chapters": 16},
    "federated, 3 x 500, 4 nodes, processes": PROCESSES
    | {"schedule.name": "federated", "schedule.nodes": 4, "schedule.chapters": 8, "network.layers": [500] * 3},
    "adaptive by goodness, 3 x 500": THREADS
    | {"network.layers": [500] * 3, "network.negatives": "adaptive", "network.classifier": "goodness"},
    "classifier, all-layers, 3 x 1000": THREADS
    | {
        "schedule.name": "all-layers",
        "schedule.chapters": 8,
        "network.objective": "classifier",
        "network.negatives": "none",
        "network.classifier": "all-heads",
    },
}


def make_images(path: Path, rows: int) -> None:
    """Write rows of MNIST's shape, whose bright pixels tell the class."""
    random, split = np.random.default_rng(0), {}
    for name, count in (("train", rows), ("test", max(rows // 6, 1))):
        labels = random.integers(0, 10, count).astype(np.uint8)
        images = random.integers(0, 60, (count, 28, 28), np.uint8)
        images[np.arange(count), 10 + labels] = 255
        split |= {f"x_{name}": images, f"y_{name}": labels}
    np.savez(path, **split)


def foretold(keys: dict[str, Any]) -> int:
    """Return the bytes of the fullest worker process, as the plan says."""
    config = load(None, keys)
    together = 1 if config.cluster.processes else config.cluster.workers or 1
    return foresee(config).memory(together)


def taken(keys: dict[str, Any], folder: Path) -> int:
    """Return the most bytes that any worker process of a run ever had resident.

    Raises
    ------
    subprocess.CalledProcessError
        If the run fails.
    """
    plain = {key: ",".join(map(str, value)) if isinstance(value, list) else str(value) for key, value in keys.items()}
    plain = {key: value.lower() if value in ("True", "False") else value for key, value in plain.items()}
    command = [sys.executable, "-m", "ffdask.train", "--quiet", "--out", str(folder / "run"), *flags_of(plain)]
    most: dict[int, int] = {}
    with subprocess.Popen(command, env=plain_environment(), cwd=folder) as driver:
        while driver.poll() is None:
            for process in [driver.pid, *_workers(driver.pid)]:
                most[process] = max(most.get(process, 0), _peak(process))
            time.sleep(0.1)
    if driver.returncode:
        raise subprocess.CalledProcessError(driver.returncode, command)
    ours = most.pop(driver.pid)
    return max(most.values()) if keys.get("cluster.processes") else ours


def _workers(driver: int) -> list[int]:
    try:
        below = psutil.Process(driver).children()
        return [process.pid for process in below if any("spawn_main" in word for word in process.cmdline())]
    except psutil.Error:
        return []


def _peak(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")), 0)


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=60_000, help="rows to train on")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=list(RUNS), metavar="NAME")
    given = parser.parse_args()
    rows: list[list[Any]] = []
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "rows.npz"
        make_images(data, given.rows)
        for run in given.runs:
            keys = RUNS[run] | {"data.dataset": str(data), "training.epochs": given.epochs}
            folder = Path(name) / str(len(rows))
            folder.mkdir()
            ahead = foretold(keys)
            most = taken(keys, folder)
            rows.append([run, ahead / GIB, most / GIB, most / ahead])
            print(f"{run}: {most / ahead:.2f} of what was foretold", flush=True)
    title = f"the fullest worker process, {given.rows} rows, {given.epochs} epochs"
    columns = ["run", "foretold, GiB", "taken, GiB", "of it"]
    show(title, columns, rows, where({"fingerprint": machine.fingerprint()}), given.json)
    sys.exit(any(not LEAST <= row[3] <= MOST for row in rows))


if __name__ == "__main__":
    main()
