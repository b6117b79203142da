"""A long run, looked at each second: memory, tasks that the scheduler knows, open files and sockets.

The line through the memory is by least squares, from minute 2 on. Tasks are bounded by four times what the run can
have in work, keep between two cuts, and read of an epoch's probabilities and labels.

python benchmarks/soak.py --minutes 10
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import dask
import numpy as np
import psutil
from distributed import Client
from made_rows import make_rows
from side_by_side import arguments, show, where

from ffdask import datasets, machine
from ffdask.conduct import conduct
from ffdask.config import load
from ffdask.embedded import SETTINGS, embedded_cluster
from ffdask.plan import cut_rounds, default_look_ahead, schedule_of
from ffdask.resolved import Resolved, resolve
from ffdask.schedules.steps import static_steps

MIB = 1 << 20


def most_tasks(resolved: Resolved) -> int:
    """Return the bound on the tasks that the scheduler may know."""
    plan = resolved.plan
    steps = list(static_steps(schedule_of(resolved), plan))
    between = sum(step.round < cut_rounds(resolved) for step in steps)
    epoch = plan.rounds // plan.calendar.epochs
    labels = sum(step.round < epoch and step.kind in ("negatives", "head") for step in steps)
    return 4 * (plan.nodes * default_look_ahead(plan) + between + labels)


class Looking(threading.Thread):
    """Looks each second, until it stops the run."""

    def __init__(self, scheduler: Any, seconds: float) -> None:
        super().__init__(daemon=True)
        self.scheduler, self.seconds, self.seen = scheduler, seconds, list[tuple[float, int, int, int, int]]()

    def run(self) -> None:
        """Look; at the end do what Ctrl-C does."""
        process, begun = psutil.Process(), time.monotonic()
        while (now := time.monotonic() - begun) < self.seconds:
            files, sockets = process.num_fds(), len(process.net_connections("all"))
            self.seen.append((now, process.memory_info().rss, len(self.scheduler.tasks), files, sockets))
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGINT)


class Count:
    """Counts steps."""

    def __init__(self) -> None:
        self.steps = 0

    def begin(self, resolved: Resolved, dashboard: str) -> None:
        """Do nothing."""

    def record(self, record: dict[str, Any]) -> None:
        """Count."""
        self.steps += 1

    def end(self) -> None:
        """Do nothing."""


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--schedules", nargs="+", default=["streaming"])
    parser.add_argument("--width", type=int, default=160)
    parser.add_argument("--rows", type=int, default=2400)
    parser.add_argument("--chunk", type=int, default=1200, help="rows to a visit: the more, the fewer steps a minute")
    parser.add_argument("--batch", type=int, default=4, help="rows to a minibatch: the fewer, the fewer steps a minute")
    given = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rows: list[list[Any]] = []
    for schedule in given.schedules:
        with tempfile.TemporaryDirectory() as name:
            make_rows(Path(name) / "rows.npz", given.rows)
            keys = {
                "data.dataset": str(Path(name) / "rows.npz"),
                "data.chunk": given.chunk,
                "network.layers": [given.width] * 3,
                "training.epochs": 100_000,
                "training.batch_size": given.batch,
                # At which so many small minibatches go on learning to the end.
                "optimizer.learning_rate": 0.0001,
                "schedule.name": schedule,
                "schedule.chapters": 200_000,
                "run.out": str(Path(name) / "run"),
            }
            config, count = load(None, keys), Count()
            short = load(None, keys | {"training.epochs": 20, "schedule.chapters": 40})
            bound = most_tasks(resolve(short, datasets.obtain(keys["data.dataset"]), os.cpu_count() or 1))
            # As a run's own: Dask's defaults remember the last thousand messages of each connection, states and all.
            with dask.config.set(SETTINGS), embedded_cluster(config.cluster) as cluster:
                looking = Looking(cluster.scheduler, 60 * given.minutes)
                with Client(cluster, set_as_default=False) as client:
                    looking.start()
                    try:
                        conduct(config, client=client, watchers=[count])
                    except KeyboardInterrupt:
                        looking.join()
        seen = np.array(looking.seen)
        later = seen[seen[:, 0] >= 60 * given.minutes / 5]
        slope = np.polyfit(later[:, 0], later[:, 1], 1)[0] * (later[-1, 0] - later[0, 0]) / MIB
        tasks, files, sockets = ([int(later[0, i]), int(later[-1, i])] for i in (2, 3, 4))
        rise = [f"{first} / {last}" for first, last in (tasks, files, sockets)]
        rows.append([schedule, count.steps, float(slope), int(later[:, 2].max()), bound, *rise])
    columns = ["schedule", "steps", "memory rises, MiB", "most tasks", "bound"]
    title = f"{given.minutes:g} minutes; from a fifth of them on, first / last"
    note = where({"fingerprint": machine.fingerprint()})
    show(title, [*columns, "tasks", "open files", "sockets"], rows, note, given.json)
    sys.exit(any(row[2] >= 5 or row[3] > row[4] for row in rows))


if __name__ == "__main__":
    main()
