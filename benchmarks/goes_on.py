"""How soon a run goes on after a worker was killed: on a given cluster of two workers, whose nannies bring them back.

Timed from the kill to the end of the first step that was begun anew, and to the first step that had not been done yet.

python benchmarks/goes_on.py --kills 10
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

from distributed import Client
from made_rows import make_rows
from outside import outside_cluster
from side_by_side import arguments, median, show, where

from ffdask import machine
from ffdask.conduct import conduct
from ffdask.config import load
from ffdask.errors import RunFailed, told
from ffdask.resolved import Resolved
from ffdask.slots import workers_of
from ffdask.told import TOPIC

STOPS = 20.0
"""Seconds in which a run stops that was asked to."""


class Killer:
    """A watcher that kills a worker now and then; beside it, all that workers tell is heard."""

    def __init__(self, client: Client, kills: int, every: float, patience: float = 60.0) -> None:
        self.client, self.left, self.every, self.patience = client, kills, every, patience
        self.killed_at, self.beginning = 0.0, ""
        self.failed: Exception | None = None
        self.ended = threading.Event()
        self.begun, self.further = list[float](), list[float]()
        client.subscribe_topic(TOPIC, self.hear)

    def begin(self, resolved: Resolved, dashboard: str) -> None:
        """Begin to kill."""
        threading.Thread(target=self.kill_all, daemon=True).start()

    def kill_all(self) -> None:
        """Kill workers; then, or when that fails, stop the run."""
        try:
            while self.left and not self.ended.is_set():
                self.kill()
        except Exception as error:
            # On a thread: who reads the table is to be told.
            self.failed = error
        # A run that does not go on does not come to a checkpoint either: then it is asked once more.
        while not self.ended.is_set():
            os.kill(os.getpid(), signal.SIGINT)
            self.ended.wait(STOPS)

    def kill(self) -> None:
        """Wait until two workers are there, and some seconds; kill one; return when the run has gone on.

        Raises
        ------
        RunFailed
            If it does not go on within its patience.
        """
        self.client.wait_for_workers(2, timeout=self.patience)
        time.sleep(self.every)
        address = sorted(workers_of(self.client))[self.left % 2]
        pid = self.client.run(os.getpid, workers=[address])[address]
        self.left -= 1
        self.killed_at = time.time()
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + self.patience
        while self.killed_at and not self.ended.is_set():
            if time.monotonic() > deadline:
                raise RunFailed(f"the run did not go on within {self.patience:g} s of a kill")
            time.sleep(0.05)

    def hear(self, event: tuple[float, Any]) -> None:
        """Note when the first step of a new beginning has ended."""
        if "record" not in event[1]:
            return
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
        """Note that the run has come to its end."""
        self.ended.set()


def disturbed(kills: int, every: float, patience: float = 60.0) -> Killer:
    """Train on a given cluster whose workers are killed; return what was timed, and what failed, if anything did."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_rows(folder / "rows.npz")
        keys: dict[str, Any] = {"data.dataset": str(folder / "rows.npz"), "run.out": str(folder / "run")}
        keys |= {"data.chunk": 300, "network.layers": [160] * 3}
        keys |= {"training.epochs": 100_000, "schedule.chapters": 200_000}
        with outside_cluster(folder) as address, Client(address, set_as_default=False) as client:
            client.wait_for_workers(2)
            killer = Killer(client, kills, every, patience)
            try:
                conduct(load(None, keys | {"cluster.scheduler": address}), watchers=[killer])
            except KeyboardInterrupt:
                pass
            except Exception as error:
                killer.failed = killer.failed or error
    return killer


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between a worker's return and the next kill")
    given = parser.parse_args()
    killer = disturbed(given.kills, given.every)
    if killer.failed:
        print(f"failed with {killer.left} kills to come: {told(killer.failed)}", file=sys.stderr)
    if killer.further:
        rows = [["first step begun anew", median(killer.begun), max(killer.begun)]]
        rows += [["first step not done before", median(killer.further), max(killer.further)]]
        title = f"seconds from each of {len(killer.further)} kills to the end of the"
        note = where({"fingerprint": machine.fingerprint()})
        show(title, ["step", "median", "longest"], rows, note, given.json)
    sys.exit(bool(killer.failed) or len(killer.further) < given.kills or median(killer.begun) >= 3)


if __name__ == "__main__":
    main()
