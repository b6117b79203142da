"""A child trains a tiny network and writes a checkpoint after each round; it is killed at random instants of writing.

After each kill another child goes on from what is there, to the end: its digest must be that of a child that nobody
killed. Children are forks, so that a kill costs no start of Python. Whole runs whose driver is killed are chaos.py's:

python benchmarks/kills.py --kills 200
python benchmarks/chaos.py --kinds 'driver killed' --runs 10
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from made_rows import make_rows
from side_by_side import arguments, show, where

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


def train(resolved: Resolved, data: Data, folder: Path) -> str:
    """Train from the last checkpoint in a folder, or from the start; write one after each round; return the digest."""
    job, plan = resolved.job, resolved.plan
    before = checkpoints.read(folder, lambda line: None) if folder.exists() else None
    ledger: Ledger[dict[str, Any]] = Ledger(plan)
    steps, records = list(static_steps(resolved.entry.steps, plan)), {}
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        ledger.open(step.round)
        if before and step.round <= before.round:
            for piece in step.gives:
                if Need(step.name, piece) in before.pieces:
                    ledger.put(step, {piece: before.pieces[Need(step.name, piece)]}, [piece])
            continue
        inputs = {role: ledger.get(need)[need.piece] for role, need in step.needs.items()}  # type: ignore[index]
        outcome = perform(job, step, inputs, data)
        ledger.put(step, outcome)
        records[step.name] = outcome["record"] | {"name": step.name, "round": step.round}
        if following is None or following.round > step.round:
            kept = {need: one[need.piece] for need, one in ledger.kept().items() if plan.reach(need.piece)}
            checkpoints.write(folder, Checkpoint(step.round, kept, Records(records)))
    states = tuple(ledger.newest[layer]["state"] for layer in range(1, plan.layers + 1))
    return Network(states, ledger.newest[0]["state"], job.classes, job.overlay).sha256()


def forked(work: Callable[[], str], after: float | None = None) -> str | None:
    """Return what `work` returns in a fork; None if that was killed, `after` seconds."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            os.write(writing, work().encode())
        finally:
            os._exit(0)
    os.close(writing)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said or None


def outcomes(kills: int, seed: int) -> tuple[Counter[str], float]:
    """Return when children were killed and how many went on to the digest, and the seconds of one that was not."""
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
        begun = time.perf_counter()
        expected = forked(partial(whole, Path(name) / "whole"))
        seconds = time.perf_counter() - begun
        for number in range(kills):
            folder = Path(name) / f"run{number}"
            ended = forked(partial(whole, folder), random.uniform(0, 1.1) * seconds)
            last = len(list(folder.glob("*.json"))) if folder.exists() else 0
            found["after the end" if ended else "after a checkpoint" if last else "before the first"] += 1
            found["torn files found"] += len({path.name.split(".")[0] for path in folder.glob("round*")}) > last
            found["same digest"] += forked(partial(whole, folder)) == expected
            shutil.rmtree(folder, ignore_errors=True)
    return found, seconds


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found, seconds = outcomes(given.kills, given.seed)
    columns = ["kills", "before the first", "after a checkpoint", "after the end", "torn files found", "same digest"]
    row = [given.kills, *(found[column] for column in columns[1:])]
    note = where({"fingerprint": machine.fingerprint()})
    show(f"{given.kills} kills, {seconds:.2f} s a run of {ROUNDS} checkpoints", columns, [row], note, given.json)
    sys.exit(found["same digest"] != given.kills)


if __name__ == "__main__":
    main()
