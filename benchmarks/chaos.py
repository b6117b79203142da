"""Runs disturbed at random: each ends with the bits of the undisturbed run, or as promised, and resumes to them.

Kinds of faults, their instants and their number are drawn from the seed, each run's apart. A run is a process of its
own, `python -m ffdask.train`, in one of three layouts: threads, worker processes of its own, a given cluster. Of no run
may a process be left, or a port be held.

python benchmarks/chaos.py --runs 50 --seed 0
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from faults import DONE, FAULTS, LATE, Doing
from made_rows import make_rows
from outcome import GOOD, LONGEST, SAME, UNDISTURBED, digest, judge
from scene import command, left, scene
from side_by_side import arguments, flags_of, plain_environment, show, where

from ffdask.schedules import SCHEDULES


@dataclass
class Disturbed:
    """A disturbed run: what it was, what was to be done to it, what came of that, and what became of the run."""

    number: int
    schedule: str
    layout: str
    faults: list[str]
    became: list[str] = field(default_factory=list)
    outcome: str = ""
    seconds: float = 0.0
    said: str = ""


def train_flags(schedule: str, data: Path) -> list[str]:
    """Return the flags of a run of some seconds."""
    return flags_of(
        {
            "data.dataset": data,
            "data.chunk": 100,
            "network.layers": "24,32,16",
            "training.epochs": 30,
            "training.batch_size": 50,
            "schedule.name": schedule,
            "schedule.chapters": 64 if schedule == "federated" else 60,
            "cluster.wait": 30,
            # Left to themselves they come less often in a run of seconds, and there is little to go on from.
            "run.checkpoint_every": 4,
        }
    )


def disturb(run: Disturbed, data: Path, expected: str, wall: float, random: Random) -> None:
    """Do a run, its faults at random instants of it; write down what became of it."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder, flags = Path(name).resolve(), train_flags(run.schedule, data)
        with scene(run.layout, flags, folder) as made:
            out, err = [""], [""]
            reader = threading.Thread(target=_read, args=(made.driver, out, err))
            reader.start()
            started = time.monotonic()
            doing = [
                Doing(kind, made, started + random.uniform(0.0, 0.85) * wall, Random(random.random()))
                for kind in run.faults
            ]
            for one in doing:
                one.start()
            while made.lasts(0.5) and time.monotonic() < started + LONGEST:
                made.look()
            hung = not made.ended()
            if hung:
                made.driver.kill()
            reader.join()
            for one in doing:
                one.join(60)
            remains = left(folder / "driver")
        run.became, run.said = [one.became for one in doing], err[0][-2000:]
        run.outcome = "hung" if hung else judge(made.driver.returncode, out[0], err[0], made.out, flags, expected)
        remains += left(folder, made.ports)
    if run.outcome == SAME and DONE not in run.became:
        run.outcome = UNDISTURBED
    if remains and run.outcome in GOOD:
        run.outcome = "; ".join(remains)
    run.seconds = time.monotonic() - begun


def _read(driver: subprocess.Popen[str], out: list[str], err: list[str]) -> None:
    out[0], err[0] = driver.communicate()


def undisturbed(schedule: str, data: Path, folder: Path) -> tuple[dict[str, Any], float]:
    """Return the summary of a run that nobody disturbs, and the seconds of its whole process."""
    out, begun = folder / f"undisturbed-{schedule}", time.monotonic()
    call = command("--out", str(out), "--quiet", *train_flags(schedule, data))
    subprocess.run(call, check=True, env=plain_environment(), cwd=folder)
    wall = time.monotonic() - begun
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    assert digest(out) == summary["weights_sha256"]
    return summary, wall


def draw(number: int, seed: int, schedules: list[str], kinds: list[str]) -> tuple[Disturbed, Random]:
    """Return a run that was drawn, and what its instants are drawn from."""
    random = Random(f"{seed}/{number}")
    # Each kind has its turn, in one of its layouts, with others beside it.
    first = kinds[number % len(kinds)]
    layout = random.choice(FAULTS[first].layouts)
    fitting = [kind for kind in kinds if layout in FAULTS[kind].layouts]
    faults = [first, *(random.choice(fitting) for _ in range(random.choice((0, 0, 1, 2))))]
    random.shuffle(faults)
    return Disturbed(number, schedules[number % len(schedules)], layout, faults), random


COLUMNS = ["fault", "drawn", "too late", "not done", "done", *GOOD[:-1], "otherwise"]


def table(runs: list[Disturbed], kinds: list[str]) -> list[list[Any]]:
    """Return a row for each kind of fault, and one of all runs: what came of the faults, then of the runs.

    Outcomes are of those runs to which the fault was done; in the last row, of all to which any was. Of a run to which
    none was, the last row counts why, and its bits only if they are wrong.
    """
    rows = []
    for kind in kinds:
        came = [(one, run) for run in runs for name, one in zip(run.faults, run.became, strict=True) if name == kind]
        # A run to which it was done twice is one run.
        touched = {run.number: run for one, run in came if one == DONE}
        rows.append(_row(kind, [one for one, _ in came], list(touched.values())))
    each = [DONE if DONE in run.became else max(run.became, key=lambda one: one != LATE) for run in runs]
    disturbed = [run for run in runs if run.outcome != UNDISTURBED]
    return [*rows, _row("all runs", each, disturbed)]


def _row(name: str, became: list[str], runs: list[Disturbed]) -> list[Any]:
    late, done = became.count(LATE), became.count(DONE)
    found = Counter(run.outcome for run in runs)
    good = [found[outcome] for outcome in GOOD[:-1]]
    return [name, len(became), late, len(became) - late - done, done, *good, found.total() - sum(good)]


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--first", type=int, default=0, help="number of the first run, to do one again")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--schedules", nargs="+", default=list(SCHEDULES), choices=list(SCHEDULES))
    parser.add_argument("--kinds", nargs="+", default=list(FAULTS), choices=list(FAULTS))
    given = parser.parse_args()
    # Of the clusters that are disturbed, what their clients here have to say is known.
    # Dask sets a level of its own for the second.
    for logger in ("distributed", "distributed.client"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    runs: list[Disturbed] = []
    summaries: dict[str, tuple[dict[str, Any], float]] = {}
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "rows.npz"
        make_rows(data)
        for number in range(given.first, given.first + given.runs):
            run, random = draw(number, given.seed, given.schedules, given.kinds)
            if run.schedule not in summaries:
                summaries[run.schedule] = undisturbed(run.schedule, data, Path(name))
            summary, wall = summaries[run.schedule]
            disturb(run, data, summary["weights_sha256"], wall, random)
            runs.append(run)
            came = "; ".join(f"{kind} ({one})" for kind, one in zip(run.faults, run.became, strict=True))
            print(
                f"{run.number:3} {run.schedule}, {run.layout}: {came}: {run.outcome}, {run.seconds:.0f} s", flush=True
            )
            if run.outcome not in GOOD:
                print(run.said, flush=True)
    title = f"{len(runs)} runs, seed {given.seed}; bits are those of the undisturbed run"
    show(title, COLUMNS, table(runs, given.kinds), where(next(iter(summaries.values()))[0]), given.json)
    sys.exit(any(run.outcome not in GOOD for run in runs))


if __name__ == "__main__":
    main()
