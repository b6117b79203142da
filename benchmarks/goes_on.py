"""How soon a run goes on after a worker was killed: on a given cluster of two workers, whose nannies bring them back.

Timed from the kill to the end of the first step that was begun anew, and to the first step that had not been done yet.

python benchmarks/goes_on.py --kills 10
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from distributed import Client
from made_rows import make_rows
from outside import outside_cluster
from side_by_side import arguments, median, show, where

from ffdask import machine
from ffdask.conduct import conduct
from ffdask.config import load
from ffdask.errors import RunFailed
from ffdask.resolved import Resolved
from ffdask.told import TOPIC


class Killer:
    """A watcher that kills a worker now and then; beside it, all that workers tell is heard."""

    def __init__(self, client: Client, kills: int, every: float) -> None:
        self.client, self.left, self.every = client, kills, every
        self.killed_at, self.beginning = 0.0, ""
        self.begun, self.further = list[float](), list[float]()
        client.subscribe_topic(TOPIC, self.hear)

    def begin(self, resolved: Resolved, dashboard: str) -> None:
        """Begin to kill."""
        self.thread = threading.Thread(target=self.kill, daemon=True)
        self.thread.start()

    def kill(self) -> None:
        """Kill a worker, wait until two are there again, and so on; then stop the run."""
        while self.left:
            self.client.wait_for_workers(2, timeout=60)
            time.sleep(self.every)
            address = sorted(self.client.scheduler_info(n_workers=-1)["workers"])[self.left % 2]
            pid = self.client.run(os.getpid, workers=[address])[address]
            self.left -= 1
            self.killed_at = time.time()
            os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + 60
            while self.killed_at:
                if time.monotonic() > deadline:
                    raise RunFailed("the run did not go on within a minute")
                time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    def hear(self, event: tuple[float, Any]) -> None:
        """Note when the first step of a new beginning has ended."""
        run = event[1]["run"]
        if self.killed_at and run != self.beginning and len(self.begun) == len(self.further):
            if self.beginning:
                self.begun.append(time.time() - self.killed_at)
            self.beginning = run
        elif not self.killed_at:
            self.beginning = run

    def record(self, record: dict[str, Any]) -> None:
        """Note when the first step that was never done before has ended."""
        if self.killed_at and len(self.begun) > len(self.further):
            self.further.append(time.time() - self.killed_at)
            self.killed_at = 0.0

    def end(self) -> None:
        """Do nothing."""


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between a worker's return and the next kill")
    given = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_rows(folder / "rows.npz")
        keys: dict[str, Any] = {"data.dataset": str(folder / "rows.npz"), "run.out": str(folder / "run")}
        keys |= {"data.chunk": 300, "network.layers": [160] * 3}
        keys |= {"training.epochs": 100_000, "schedule.chapters": 200_000}
        with outside_cluster(folder) as address, Client(address, set_as_default=False) as client:
            client.wait_for_workers(2)
            killer = Killer(client, given.kills, given.every)
            with contextlib.suppress(KeyboardInterrupt):
                conduct(load(None, keys | {"cluster.scheduler": address}), watchers=[killer])
            note = where({"fingerprint": machine.fingerprint()})
    rows = [["first step begun anew", median(killer.begun), max(killer.begun)]]
    rows += [["first step not done before", median(killer.further), max(killer.further)]]
    title = f"seconds from each of {len(killer.begun)} kills to the end of the"
    show(title, ["step", "median", "longest"], rows, note, given.json)
    sys.exit(len(killer.begun) < given.kills or median(killer.begun) >= 3)


if __name__ == "__main__":
    main()
