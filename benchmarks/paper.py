"""The tables of [PFF] beside ours: each cell of ``graphs/paper`` as a whole run of its own.

    python benchmarks/paper.py --scale 0.25                          # all of them: hours
    python benchmarks/paper.py random-softmax adaptive-goodness-all-layers --scale 0.25
    python benchmarks/paper.py --table paper.json                    # the table of what is there

A cell's name is its graph's: ``random-softmax-all-layers`` on MNIST, ``cifar-10/random-softmax``. A row is any
beginning of such a name. `sequential` runs on one unit, the others on ``--units``. Each finished cell is written at
once, so a run that was stopped goes on with the cells that are missing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from side_by_side import commit, flags_of, train

from ffdask.conduct import foresee
from ffdask.config import load
from ffdask.errors import BadInput
from ffdask.schedules.ideal import makespan

GRAPHS = Path(__file__).resolve().parents[1] / "graphs" / "paper"

Cell = dict[str, Any]

PAPER: dict[str, tuple[float, float | None]] = {
    "adaptive-goodness-sequential": (98.52, 11190.72),
    "adaptive-goodness-single-layer": (98.43, 5254.87),
    "adaptive-goodness-all-layers": (98.51, 2980.76),
    "random-goodness-sequential": (98.33, 7178.71),
    "random-goodness-single-layer": (98.26, 1974.10),
    "random-goodness-all-layers": (98.17, 2008.25),
    "fixed-goodness-sequential": (97.95, 7143.28),
    "fixed-goodness-single-layer": (97.94, 1920.80),
    "fixed-goodness-all-layers": (97.89, 1978.21),
    "adaptive-softmax-sequential": (98.38, 8365.96),
    "adaptive-softmax-single-layer": (98.31, 2471.27),
    "adaptive-softmax-all-layers": (98.30, 1886.42),
    "random-softmax-sequential": (98.48, 8104.96),
    "random-softmax-single-layer": (98.31, 1891.86),
    "random-softmax-all-layers": (98.33, 1786.30),
    "random-softmax-own-settings-sum": (98.33, 1786.30),
    "random-softmax-own-settings-mean": (98.33, 1786.30),
    "performance-optimised-last-head": (98.30, 4219.97),
    "performance-optimised-all-heads": (98.38, 4219.97),
    "cifar-10/performance-optimised-last-head": (53.11, None),
    "cifar-10/performance-optimised-all-heads": (53.50, None),
    "cifar-10/random-softmax": (52.18, None),
    "cifar-10/fixed-softmax": (50.89, None),
    "cifar-10/adaptive-goodness": (11.10, None),
}
"""The paper's test accuracy in % and training seconds of each cell, in the tables' order."""

SCHEDULES = ("sequential", "single-layer", "all-layers")
HEADS = ("last-head", "all-heads")
SETTINGS = ("scale", "seed", "units", "dataset")
COLUMNS = (
    *("row", "schedule", "paper, %", "paper, s", "ours, %", "other classifiers, %", "ours, s", "workers x units"),
    *("ideal", "speed-up", "paper's speed-up"),
)


def graph_of(name: str) -> Path:
    """Return the graph file of a cell."""
    return GRAPHS / (f"{name}.toml" if "/" in name else f"mnist/{name}.toml")


def row_of(name: str) -> str:
    """Return the row to which a cell belongs: the cells that are one computation."""
    for ending in (*SCHEDULES, *HEADS):
        if name.endswith(f"-{ending}"):
            return name.removesuffix(f"-{ending}")
    return name


def chosen(rows: Sequence[str]) -> list[str]:
    """Return the cells whose names begin as one of `rows`, all if there are none.

    Raises
    ------
    BadInput
        If no cell begins as one of the rows does.
    """
    unknown = [row for row in rows if not any(name.startswith(row) for name in PAPER)]
    if unknown:
        known = ", ".join(dict.fromkeys(map(row_of, PAPER)))
        raise BadInput(f"no row begins as {', '.join(map(repr, unknown))}; known are {known}")
    return [name for name in PAPER if not rows or name.startswith(tuple(rows))]


def keys_of(name: str, settings: Cell) -> Cell:
    """Return the keys, beside its graph's own, that a cell runs with."""
    schedule = load(graph_of(name)).schedule.name
    keys = {
        "training.scale": settings["scale"],
        "training.seed": settings["seed"],
        "cluster.workers": 1,
        "cluster.units": 1 if schedule == "sequential" else settings["units"],
    }
    if settings["dataset"] is not None:
        # A small data set has too few visits for the graphs' chapters: it gets one an epoch.
        epochs = load(graph_of(name)).training.epochs
        keys |= {"data.dataset": settings["dataset"], "schedule.chapters": max(1, round(epochs * settings["scale"]))}
    if name.endswith("own-settings-sum"):
        # The paper's theta is one for the sum of the squares, whatever the width; the key is theta over the width.
        config = load(graph_of(name), keys)
        (width,) = set(foresee(config).resolved.job.widths)
        keys["layer.threshold"] = config.layer.threshold * config.network.layers[0] / width
    return keys


def ideal_speed_up(name: str, keys: Cell) -> float:
    """Return the speed-up over `sequential` on one unit that the cost model allows a cell."""
    sequential = {"schedule.name": "sequential", "schedule.nodes": 1, "cluster.units": 1}
    one, cell = (foresee(load(graph_of(name), given)) for given in (keys | sequential, keys))
    return makespan(one.timed) / makespan(cell.timed)


def run(name: str, settings: Cell) -> Cell:
    """Run a cell as a process of its own; return its figures.

    Raises
    ------
    BadInput, subprocess.CalledProcessError
        If it cannot start; if it failed.
    """
    keys = keys_of(name, settings)
    ideal, now = ideal_speed_up(name, keys), commit()
    summary = train(str(graph_of(name)), *flags_of(keys))
    fingerprint = summary["fingerprint"]
    return {
        "schedule": summary["schedule"],
        "test_accuracy": summary["test_accuracy"],
        "classifier": summary["classifier"],
        "by_classifier": {
            key.removeprefix("test_accuracy_"): value
            for key, value in summary.items()
            if key.startswith("test_accuracy_")
        },
        "train_seconds": summary["train_seconds"],
        "utilization": summary["utilization"],
        **{key: summary[key] for key in ("workers", "threads", "nodes", "layers", "epochs", "chapters")},
        "ideal_speed_up": ideal,
        "weights_sha256": summary["weights_sha256"],
        **settings,
        "commit": now,
        "processor": fingerprint["processor"],
        "blas": fingerprint["blas"],
        "cores": os.cpu_count(),
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "versions": summary["versions"],
    }


def alarms(cells: dict[str, Cell]) -> list[str]:
    """Return what must not be: cells of one row with different digests, though made alike."""
    found = []
    for row in dict.fromkeys(map(row_of, cells)):
        alike: dict[tuple[str, ...], dict[str, str]] = {}
        for name, cell in cells.items():
            if row_of(name) == row:
                made = (cell["commit"], cell["processor"], cell["blas"])
                alike.setdefault(made, {})[name] = cell["weights_sha256"]
        for digests in alike.values():
            if len(set(digests.values())) > 1:
                each = ", ".join(f"{name} {digest[:12]}" for name, digest in digests.items())
                found.append(f"DIGESTS DIFFER in {row}, which is one computation: {each}")
    return found


def table(cells: dict[str, Cell], now: str | None = None) -> str:
    """Return the paper's table beside ours, in Markdown, with what a reader must know of it below."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * 2}{'---:|' * (len(COLUMNS) - 2)}"]
    names = [name for name in PAPER if name in cells]
    for name in names:
        cell, row = cells[name], row_of(name)
        paper, seconds = PAPER[name]
        sequential, published = cells.get(f"{row}-sequential"), PAPER.get(f"{row}-sequential")
        others = (
            f"{100 * value:.2f} ({by})" for by, value in cell["by_classifier"].items() if by != cell["classifier"]
        )
        label = row + next((f", {ending}" for ending in HEADS if name == f"{row}-{ending}"), "")
        theirs = published[1] / seconds if published and published[1] and seconds else None
        ours = sequential["train_seconds"] / cell["train_seconds"] if sequential else None
        values = [
            label,
            cell["schedule"],
            f"{paper:.2f}",
            f"{seconds:,.2f}" if seconds else "-",
            f"{100 * cell['test_accuracy']:.2f}",
            ", ".join(others) or "-",
            f"{cell['train_seconds']:,.1f}",
            f"{cell['workers']} x {cell['threads'] // cell['workers']}",
            f"{cell['ideal_speed_up']:.2f}",
            f"{ours:.2f}" if ours else "-",
            f"{theirs:.2f}" if theirs else "-",
        ]
        lines.append(f"| {' | '.join(values)} |")
    return "\n".join([*lines, "", *foot({name: cells[name] for name in names}, now)])


def foot(cells: dict[str, Cell], now: str | None) -> list[str]:
    """Return the lines below a table: what ran where, what differs, and what is wrong."""
    if not cells:
        return ["No cell is there yet."]
    first = next(iter(cells.values()))
    sizes = {
        f"{'-'.join(map(str, cell['layers']))}, {cell['epochs']} epochs in {cell['chapters']} chapters"
        for cell in cells.values()
    }
    data = f", on {first['dataset']} in place of the paper's data" if first["dataset"] is not None else ""
    lines = [
        f"Ours at scale {first['scale']:g} of the paper's size ({'; '.join(sorted(sizes))}), "
        f"seed {first['seed']}{data}; the paper's at its own, on four nodes. "
        "Seconds are of training alone. Ideal and speed-up are over sequential on one unit: by the cost model, and as "
        "measured beside it."
    ]
    groups: dict[str, list[str]] = {}
    for cell in cells.values():
        versions = ", ".join(f"{name} {cell['versions'][name]}" for name in ("python", "numpy", "distributed"))
        where = f"commit {cell['commit']}; {cell['processor']}, {cell['cores']} cores, {cell['blas']}; {versions}"
        groups.setdefault(where, []).append(cell["date"])
    for where, dates in groups.items():
        when = " to ".join(dict.fromkeys((min(dates), max(dates))))
        lines.append(f"{len(dates)} {'cell' if len(dates) == 1 else 'cells'}: {where}; {when}.")
    others = [name for name, cell in cells.items() if now is not None and cell["commit"] != now]
    if others:
        lines.append(f"Kept from another commit than {now}: {', '.join(others)}.")
    return [part for line in [*lines, *(f"**{alarm}**" for alarm in alarms(cells))] for part in (line, "")][:-1]


def read(path: Path) -> dict[str, Cell]:
    """Return the cells of a file, none if there is no such file.

    Raises
    ------
    BadInput
        If the file is not one that this benchmark wrote.
    """
    if not path.exists():
        return {}
    try:
        cells: dict[str, Cell] = json.loads(path.read_text())["cells"]
        foot(cells, None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise BadInput(f"{path} is not a file of this benchmark ({error!r})") from None
    return cells


def write(path: Path, cells: dict[str, Cell]) -> None:
    """Write the cells, and their table beside them."""
    for file, text in ((path, json.dumps({"cells": cells}, indent=2)), (path.with_suffix(".md"), table(cells))):
        whole = file.with_name(f"{file.name}.new")
        whole.write_text(f"{text}\n")
        whole.replace(file)


def missing(names: Sequence[str], cells: dict[str, Cell], settings: Cell, keep: bool) -> list[str]:
    """Return which of `names` are still to be run.

    Raises
    ------
    BadInput
        If the cells were run with other settings.
    """
    for key in SETTINGS:
        other = {json.dumps(cell[key]) for cell in cells.values()} - {json.dumps(settings[key])}
        if other:
            raise BadInput(
                f"--out holds cells with {key} {', '.join(sorted(other))}, and this is {json.dumps(settings[key])}; "
                "give another file, or --again to begin it afresh"
            )
    now = commit()
    return [name for name in names if name not in cells or (cells[name]["commit"] != now and not keep)]


def fill(names: Sequence[str], settings: Cell, out: Path, again: bool = False, keep: bool = False) -> list[str]:
    """Run the cells that `out` does not hold yet, writing each at once; return those that failed."""
    cells = read(out)
    if again:
        alike = all(cell[key] == settings[key] for cell in cells.values() for key in SETTINGS)
        cells = {name: cell for name, cell in cells.items() if name not in names} if alike else {}
    failed, left = [], missing(names, cells, settings, keep)
    for number, name in enumerate(left, start=1):
        print(f"{number} of {len(left)}: {name}", file=sys.stderr, flush=True)
        try:
            cells[name] = run(name, settings)
        except (BadInput, subprocess.CalledProcessError) as error:
            print(f"{name} FAILED: {error}", file=sys.stderr, flush=True)
            failed.append(name)
            continue
        write(out, cells)
        for alarm in alarms({other: cell for other, cell in cells.items() if row_of(other) == row_of(name)}):
            print(alarm, file=sys.stderr, flush=True)
    return failed


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    made = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    made.add_argument("rows", metavar="ROW", nargs="*", help="beginning of the cells' names (default: all)")
    made.add_argument("--scale", type=float, default=0.25, help="times the epochs and widths (default: 0.25)")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--units", type=int, default=2, help="of one worker, for all but sequential (default: 2)")
    made.add_argument("--dataset", help="in place of the graphs' own, such as a small one")
    made.add_argument("--out", type=Path, default=Path("paper.json"), help="file for the figures; the table beside it")
    made.add_argument("--again", action="store_true", help="run cells again that are there")
    made.add_argument("--keep", action="store_true", help="keep cells of other commits")
    made.add_argument("--table", type=Path, metavar="FILE.json", help="print the table of what is there, and stop")
    return made


def main() -> int:
    given = parser().parse_args()
    try:
        names = chosen(given.rows)
        if given.table is not None:
            if not given.table.exists():
                raise BadInput(f"--table: {given.table} does not exist")
            cells = {name: cell for name, cell in read(given.table).items() if name in names}
            print(table(cells, commit()))
            return 0
        settings = {key: getattr(given, key) for key in SETTINGS}
        foresee(load(graph_of(names[0]), keys_of(names[0], settings)))
        if not given.out.absolute().parent.is_dir():
            raise BadInput(f"--out: given {given.out}, whose folder does not exist")
        failed = fill(names, settings, given.out, given.again, given.keep)
    except BadInput as error:
        print(f"paper: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"paper: stopped; finished cells are in {given.out}, the same command goes on", file=sys.stderr)
        return 130
    print(table(read(given.out), commit()))
    if failed:
        print(f"\nNot run to the end: {', '.join(failed)}.")
    return int(bool(failed) or bool(alarms(read(given.out))))


if __name__ == "__main__":
    sys.exit(main())
