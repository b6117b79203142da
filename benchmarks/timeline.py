"""The ideal timeline that each schedule predicts, against the measured one.

The cost model has four rates (products, the optimiser's bytes, the activities' bytes, calls); with them, list
scheduling predicts how long each schedule takes, with free transfers and no overhead; the run says how long it took.
The rates are fitted twice. *Ahead*: to short runs of `sequential` just before, one a compute unit at once, so that
the units share the memory as they do later; this forecast fails where the machine is another one a minute later. *Its
own*: to the durations of the run's own steps, each kind's cost still by the model; what is then off is the model's and
the schedule's.

python benchmarks/timeline.py --epochs 2 --repeats 3
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from side_by_side import arguments, flags_of, median, show, train, where

from ffdask import datasets
from ffdask.conduct import place
from ffdask.config import load
from ffdask.federation import expected
from ffdask.resolved import Resolved, resolve
from ffdask.schedules.costs import Rates, cost, fitted
from ffdask.schedules.ideal import makespan
from ffdask.schedules.steps import static_steps
from ffdask.slots import Slot

SCHEDULES = ("sequential", "single-layer", "all-layers", "federated", "streaming")


def resolved_of(keys: dict[str, Any], units: int) -> Resolved:
    """Return the run that `keys` declare, as its workers would have it."""
    config = load(None, keys)
    dataset = datasets.obtain(config.data.dataset)
    return resolve(config, dataset, units, expected(config, dataset))


def rates_of(keys: dict[str, Any], copies: int) -> Rates:
    """Return this machine's rates with `copies` threads busy: fitted to as many short runs of `sequential` at once."""
    short = keys | {"schedule.name": "sequential", "training.epochs": 1, "schedule.chapters": 4}
    resolved = resolved_of(short, 1)
    records: list[dict[str, Any]] = []
    flags = [*flags_of(short), "--workers", "1", "--units", "1"]
    with ThreadPoolExecutor(copies) as pool:
        list(pool.map(lambda _: train(*flags, records=records), range(copies)))
    return rates_by(resolved, records)


def rates_by(resolved: Resolved, records: list[dict[str, Any]]) -> Rates:
    """Return the rates that explain the durations of a run's steps best."""
    steps = {step.name: step for step in static_steps(resolved.entry.steps, resolved.plan)}
    costs = [cost(resolved.job, steps[record["name"]]) for record in records]
    return fitted(costs, [record["stop"] - record["start"] for record in records])


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--layers", default="1000,1000,1000")
    parser.add_argument("--units", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--schedules", nargs="+", default=SCHEDULES, choices=SCHEDULES, metavar="NAME")
    given = parser.parse_args()
    keys: dict[str, Any] = {"network.layers": [int(width) for width in given.layers.split(",")]}
    keys |= {"training.epochs": given.epochs}
    measured: dict[str, list[float]] = {name: [] for name in given.schedules}
    ahead: dict[str, list[float]] = {name: [] for name in given.schedules}
    by_its_own: dict[str, list[float]] = {name: [] for name in given.schedules}
    last: dict[str, Any] = {}
    for _ in range(given.repeats):
        # The machine is not the same from one minute to the next: rates and runs alternate.
        rates = {units: rates_of(keys, units) for units in {1, given.units}}
        for name in given.schedules:
            units = 1 if name == "sequential" else given.units
            own = keys | {"schedule.name": name}
            resolved = resolved_of(own, units)
            slots, records = [Slot("", "worker0", units)], list[dict[str, Any]]()
            last = train(*flags_of(own), "--workers", "1", "--units", str(units), records=records)
            measured[name].append(last["train_seconds"])
            ahead[name].append(makespan(place(resolved, slots, rates[units])[1].timed))
            by_its_own[name].append(makespan(place(resolved, slots, rates_by(resolved, records))[1].timed))
    rows = []
    for name in given.schedules:
        off = [
            f"{100 * median([m / p - 1 for m, p in zip(measured[name], each[name], strict=True)]):+.1f} %"
            for each in (ahead, by_its_own)
        ]
        units = 1 if name == "sequential" else given.units
        rows.append(
            [name, units, median(measured[name]), median(ahead[name]), off[0], median(by_its_own[name]), off[1]]
        )
    title = f"{given.layers}, {given.epochs} epochs, one worker, medians of {given.repeats}"
    columns = ["schedule", "units", "measured, s", "ahead, s", "off", "by its own rates, s", "off by"]
    show(title, columns, rows, where(last), given.json)


if __name__ == "__main__":
    main()
