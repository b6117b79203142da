"""A child trains a tiny network and writes a checkpoint after each round; it is killed at random instants of writing.

It tells of the beginning and the end of each write. The kill comes a random time after the beginning of a write that is
drawn from all but the first, so that it lies between the first checkpoint and the end however fast the machine is just
now, and it is known whether it fell inside a write. After each kill another child goes on from what is there, to the
end: its digest, of the weights and of all records in its last checkpoint, must be that of a child that nobody killed.
Children are forks, so that a kill costs no start of Python. Whole runs whose driver is killed are chaos.py's:

python benchmarks/kills.py --kills 200
python benchmarks/chaos.py --kinds 'driver killed' --runs 10
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from made_rows import make_rows
from side_by_side import arguments, median, show, where

from ffdask import checkpoints, datasets, machine
from ffdask.checkpoints import Checkpoint
from ffdask.config import load
from ffdask.job import Data
from ffdask.network import Network
from ffdask.records import Records
from ffdask.resolved import Resolved, resolve
from ffdask.schedules.ledger import Ledger
from ffdask.schedules.steps import Need, static_steps
from ffdask.work import perform

ROUNDS = 12
BEGUN, WRITTEN = b"[", b"]"


def train(resolved: Resolved, data: Data, folder: Path, tell: Callable[[bytes], None]) -> str:
    """Train from the last checkpoint in a folder, or from the start; write one after each round; return the digest."""
    job, plan = resolved.job, resolved.plan
    resumed = checkpoints.read(folder, lambda line: None) if folder.exists() else None
    ledger: Ledger[dict[str, Any]] = Ledger(plan)
    steps, records = list(static_steps(resolved.entry.steps, plan)), Records(resumed.records if resumed else None)
    written: checkpoints.Manifest | None = None
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        ledger.open(step.round)
        if resumed and step.round <= resumed.round:
            for piece in step.gives:
                if Need(step.name, piece) in resumed.pieces:
                    ledger.put(step, {piece: resumed.pieces[Need(step.name, piece)]}, [piece])
            continue
        inputs = {role: ledger.get(need)[need.piece] for role, need in step.needs.items()}  # type: ignore[index]
        outcome = perform(job, step, inputs, data)
        ledger.put(step, outcome)
        records[step.name] = outcome["record"] | {"name": step.name, "round": step.round}
        if following is None or following.round > step.round:
            kept = {need: one[need.piece] for need, one in ledger.kept().items() if plan.reach(need.piece)}
            tell(BEGUN)
            # As a run does: only what came since the one before is written of the records.
            written = checkpoints.write(folder, Checkpoint(step.round, kept, records.up_to(step.round)), written)
            tell(WRITTEN)
    states = tuple(ledger.newest[layer]["state"] for layer in range(1, plan.layers + 1))
    network = Network(states, ledger.newest[0]["state"], job.classes, job.overlay)
    last = checkpoints.read(folder, lambda line: None)
    assert last is not None
    return f"{network.sha256()} {sha256(b''.join(sorted(last.records.lines()))).hexdigest()}"


class Child:
    """A fork that works, and tells of it.

    Parameters
    ----------
    work : callable
        Takes what tells a byte; returns the digest.
    """

    def __init__(self, work: Callable[[Callable[[bytes], None]], str]) -> None:
        reading, writing = os.pipe()
        self.pid, self.told = os.fork(), b""
        if self.pid == 0:
            os.close(reading)
            try:
                os.write(writing, b" " + work(lambda what: os.write(writing, what) and None).encode())
            finally:
                os._exit(0)
        os.close(writing)
        self._pipe = os.fdopen(reading, "rb", buffering=0)

    def wait_for(self, begun: int) -> bool:
        """Return when it has begun so many writes, or has come to its end: whether it has begun them."""
        while self.told.count(BEGUN) < begun and (more := self._pipe.read(1)):
            self.told += more
        return self.told.count(BEGUN) == begun

    def kill(self) -> None:
        """Kill it at once."""
        os.kill(self.pid, signal.SIGKILL)

    def end(self) -> str | None:
        """Return its digest when it has ended, None if it was killed before it had told it."""
        with self._pipe:
            self.told += self._pipe.read()
        os.waitpid(self.pid, 0)
        return self.told.decode().partition(" ")[2] or None


def has_torn(folder: Path) -> bool:
    """Return whether there are files of a checkpoint that no manifest names."""
    manifests = list(folder.glob("*.json"))
    named = {file for manifest in manifests for file in json.loads(manifest.read_text())["files"]}
    return bool({path.name for path in folder.glob("round*")} - named - {path.name for path in manifests})


def outcomes(kills: int, seed: int) -> tuple[Counter[str], float]:
    """Return when children were killed and how many went on to the digest, and the seconds between two writes."""
    random, found = Random(seed), Counter[str]()
    with tempfile.TemporaryDirectory() as name, machine.one_thread():
        make_rows(Path(name) / "rows.npz")
        keys = {"data.dataset": str(Path(name) / "rows.npz"), "data.chunk": 300, "network.layers": [64, 64]}
        keys |= {"training.epochs": ROUNDS // 2, "schedule.name": "sequential", "network.negatives": "sampled"}
        config = load(None, keys | {"schedule.chapters": ROUNDS, "training.kernels": "numpy"})
        dataset = datasets.obtain(config.data.dataset)
        resolved, rows = resolve(config, dataset, 1), partial(datasets.load, dataset.path)
        data = Data.of(resolved.plan.calendar, rows("train"), lambda: rows("test"))
        whole = partial(train, resolved, data)
        undisturbed, begun = Child(partial(whole, Path(name) / "whole")), list[float]()
        while undisturbed.wait_for(len(begun) + 1):
            begun.append(time.perf_counter())
        expected, seconds = undisturbed.end(), median(list(np.diff(begun)))
        for number in range(kills):
            folder = Path(name) / f"run{number}"
            child = Child(partial(whole, folder))
            child.wait_for(random.randint(2, len(begun)))
            time.sleep(random.uniform(0, seconds))
            child.kill()
            ended = child.end()
            any_whole = any(folder.glob("*.json"))
            found["after the end" if ended else "after a checkpoint" if any_whole else "before the first"] += 1
            found["inside a write"] += not ended and child.told.endswith(BEGUN)
            found["torn files found"] += has_torn(folder)
            found["same digest"] += Child(partial(whole, folder)).end() == expected is not None
            shutil.rmtree(folder, ignore_errors=True)
    return found, seconds


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found, seconds = outcomes(given.kills, given.seed)
    columns = ["kills", "before the first", "after a checkpoint", "after the end", "inside a write", "torn files found"]
    columns += ["same digest"]
    row = [given.kills, *(found[column] for column in columns[1:])]
    note = where({"fingerprint": machine.fingerprint()})
    show(
        f"{given.kills} kills, {seconds:.3f} s from a checkpoint to the next of {ROUNDS}",
        columns,
        [row],
        note,
        given.json,
    )
    sys.exit(found["same digest"] != given.kills or found["after a checkpoint"] < 0.95 * given.kills)


if __name__ == "__main__":
    main()
