"""Where the cores' seconds go while a run trains: the processor time of each kind of thread, beside the run's own.

What a second worker gains is less than the schedule's ideal where steps take more processor time beside others (caches
and memory are shared), where something else needs a core meanwhile (Dask's event loop, the client, checkpoints), and
where a core waits for a step. One process has all of a run's threads, so that the system knows which took how much.

python benchmarks/cores.py --workers 1 2 --repeats 3
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
from interpreter import kind_of
from side_by_side import arguments, median, show, where

from ffdask.conduct import conduct
from ffdask.config import load

COLUMNS = ["", "workers", "seconds", "of all cores, %"]


class Clock:
    """A watcher that reads each thread's processor time when the first step has ended, and the last."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.first: dict[int, float] = {}
        self.last: dict[int, float] = {}
        self.began = self.ended = self.steps = 0.0

    def begin(self, resolved: Any, dashboard: str | None) -> None:
        """Do nothing."""

    def record(self, record: dict[str, Any]) -> None:
        """Read the time."""
        self.ended, self.last = time.perf_counter(), self._read()
        if self.first:
            self.steps += record["stop"] - record["start"]
        else:
            self.began, self.first = self.ended, self.last

    def end(self) -> None:
        """Do nothing."""

    def _read(self) -> dict[int, float]:
        self.names |= {thread.native_id or 0: thread.name for thread in threading.enumerate()}
        return {thread.id: thread.user_time + thread.system_time for thread in psutil.Process().threads()}

    def shares(self) -> dict[str, float]:
        """Return the processor seconds of each kind of thread, and two more: the run's own, and its steps' own."""
        took: Counter[str] = Counter()
        for thread, seconds in self.last.items():
            took[kind_of(self.names.get(thread, "threads that were gone"))] += seconds - self.first.get(thread, 0.0)
        return {"the run": self.ended - self.began, "steps, by the clock": self.steps, **took}


def timed(keys: dict[str, Any], workers: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the shares of a run, and its summary."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        more = {"cluster.workers": workers, "cluster.units": workers, "run.out": str(Path(folder) / "run")}
        summary = conduct(load(None, keys | more), watchers=[clock]).summary
    return clock.shares(), summary


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--schedule", default="all-layers")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--chapters", type=int, default=40)
    parser.add_argument("--layers", type=int, nargs="+", default=[1000, 1000, 1000])
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("OPENBLAS_")]:
        del os.environ[name]
    keys = {"schedule.name": given.schedule, "schedule.nodes": given.nodes, "schedule.chapters": given.chapters}
    keys |= {"training.epochs": given.epochs, "network.layers": given.layers}
    found: dict[int, list[dict[str, float]]] = {workers: [] for workers in given.workers}
    summary: dict[str, Any] = {}
    # Each run in a new process, which has never loaded BLAS.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for _ in range(given.repeats):
            for workers, each in found.items():
                shares, summary = pool.submit(timed, keys, workers).result()
                each.append(shares)
    rows, cores = [], os.cpu_count() or 1
    for workers, each in found.items():
        kinds = sorted(each[-1], key=lambda kind: -each[-1][kind])
        for kind in [kind for kind in kinds if each[-1][kind] >= 0.05]:
            seconds = median([shares.get(kind, 0.0) for shares in each])
            share = 100 * seconds / (cores * median([shares["the run"] for shares in each]))
            rows.append([kind, workers, seconds, share])
    title = f"{given.schedule}, {given.epochs} epochs, {given.chapters} chapters, medians of {given.repeats}"
    show(f"{title}; processor time, where nothing else is said", COLUMNS, rows, where(summary), given.json)


if __name__ == "__main__":
    main()
