"""What a run will do, before it does it: steps, memory, the ideal timeline, the bound on speed-up."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from ffdask import datasets
from ffdask.errors import BadInput
from ffdask.lanes import KEY, lanes
from ffdask.resolved import Resolved
from ffdask.schedules.costs import NOMINAL, Rates, activity_bytes, cost, node_costs, nominal, state_bytes
from ffdask.schedules.evaluated import evaluated
from ffdask.schedules.ideal import Timed, ideal, makespan, speed_up_bound, units_taken
from ffdask.schedules.steps import Plan, Schedule, Step, static_steps

PROCESS_BYTES = 250_000_000
"""What a Python process with Dask, NumPy and Zarr in it takes before any data."""

RUN_BYTES = 130_000_000
"""What the run itself takes beside its workers, if they are threads of its process: the test at its end, pictures."""

MOST_STEPS = 20_000
"""Steps that are forecast; the rounds of a longer run resemble one another."""

MOST_LINES = 16
"""Nodes that are drawn."""

CHECKPOINT_CHAPTERS = 4
"""Between checkpoints, where nobody says how many."""

CHECKPOINT_REST = 50
"""How many times as long as the checkpoint before took must have passed then: they take 2 % of the time at most."""

GIB = 1 << 30


def default_look_ahead(plan: Plan) -> int:
    """Return how many rounds may be in work: what staleness and nodes can use, and two to hide the client behind."""
    return max(plan.nodes, plan.staleness + 1 if plan.reads_probabilities or plan.reads_goodness else 1) + 2


def schedule_of(resolved: Resolved) -> Callable[[Plan], Schedule]:
    """Return what yields the run's steps: the schedule, with the looks at the test set that are asked for."""
    every = resolved.config.run.evaluate_every
    return evaluated(resolved.entry.steps, every) if every else resolved.entry.steps


def cut_rounds(resolved: Resolved) -> int:
    """Return after how many rounds the graph is cut: the configured chapters, in rounds."""
    return _rounds(resolved, resolved.config.run.cut_every)


def checkpoint_rounds(resolved: Resolved) -> int:
    """Return after how many rounds a checkpoint is due; 0 for never."""
    every = resolved.config.run.checkpoint_every
    every = CHECKPOINT_CHAPTERS if every is None else every
    return _rounds(resolved, every) if every else 0


def _rounds(resolved: Resolved, chapters: int) -> int:
    plan = resolved.plan
    return max(1, chapters * plan.rounds // plan.calendar.chapters)


@dataclass(frozen=True)
class Forecast:
    """A run, forecast by its schedule and the cost model.

    Attributes
    ----------
    steps : tuple of Step
        All of them; of a dynamic schedule those until its first decision.
    timed : tuple of Timed
        The ideal timeline, in nominal seconds.
    worker_of : tuple of int
        Each node's worker.
    units : tuple of int
        Of each worker.
    resolved : Resolved
    rates : Rates
        Of the cost model.
    """

    steps: tuple[Step, ...]
    timed: tuple[Timed, ...]
    worker_of: tuple[int, ...]
    units: tuple[int, ...]
    resolved: Resolved
    rates: Rates = NOMINAL

    @property
    def partly(self) -> str:
        """Return for how much of the run the forecast is, if not for all of it, with a space before."""
        if self.steps and self.steps[-1].round == self.resolved.plan.rounds - 1:
            return ""
        return " in the first rounds" if len(self.steps) == MOST_STEPS else " until the schedule's first decision"

    @property
    def work(self) -> float:
        """Return the nominal seconds of all steps together."""
        return sum(cost(self.resolved.job, step).seconds(self.rates) for step in self.steps)

    @property
    def flops(self) -> float:
        """Return the floating-point operations of all products."""
        return sum(cost(self.resolved.job, step).flops for step in self.steps)

    @property
    def speed_up(self) -> float:
        """Return the ideal speed-up over one compute unit."""
        span = makespan(self.timed)
        return self.work / span if span else 1.0

    @property
    def bound(self) -> float:
        """Return the bound on speed-up, whatever the number of workers."""
        plan, job = self.resolved.plan, self.resolved.job
        between = plan.calendar.chunks if plan.calendar.by_visit else plan.calendar.chapters // plan.calendar.epochs
        # Without anything of the network to read, no round waits for another by its negatives. By goodness a round's
        # negatives wait for the one staleness + 1 before, whichever rows that had.
        stale = plan.staleness if plan.reads_probabilities or plan.reads_goodness else plan.rounds
        between = 1 if plan.reads_goodness else between
        return speed_up_bound(self.steps, lambda step: cost(job, step).seconds(self.rates), plan.nodes, stale, between)

    def activities(self) -> list[int]:
        """Return each worker's largest number of bytes in activities at any time of the ideal timeline."""
        last: dict[str, float] = {}
        for one in self.timed:
            for need in one.step.needs.values():
                last[need.step] = max(last.get(need.step, 0.0), one.stop)
        peaks = [0] * len(self.units)
        for worker in range(len(self.units)):
            events: list[tuple[float, int]] = []
            for one in self.timed:
                size = activity_bytes(self.resolved.job, one.step)
                if size and self.worker_of[one.step.node] == worker:
                    events += [(one.start, size), (last.get(one.step.name, one.stop), -size)]
            held = 0
            for _, change in sorted(events):
                held += change
                peaks[worker] = max(peaks[worker], held)
        return peaks

    def memory(self, workers_in_process: int = 1) -> int:
        """Return the forecast peak bytes of the fullest worker process."""
        dataset, job = self.resolved.dataset, self.resolved.job
        row, most = dataset.inputs * (4 if dataset.dtype == "float32" else 1), datasets.most_in_memory()
        # What memory is not to hold whole is read from the disk.
        data = sum(rows * row for rows in (dataset.train_rows, dataset.test_rows) if rows * row <= most)
        kept = 4 * job.classes * dataset.train_rows * (2 if self.resolved.plan.trains_head else 0)
        peaks = self.activities()
        activities = sum(peaks) if workers_in_process > 1 else max(peaks)
        # A state exists as the one before, the private copy, and its gradient; in two checkpoints, one being written
        # and one that waits; and as those that negatives by goodness are late by.
        late = self.resolved.plan.staleness if self.resolved.plan.reads_goodness else 0
        versions = 3 + late + (2 if checkpoint_rounds(self.resolved) else 0)
        own = self.resolved.config.cluster
        process = PROCESS_BYTES + (0 if own.processes or own.scheduler else RUN_BYTES)
        return process + data + kept + versions * state_bytes(job) + activities


def forecast(
    resolved: Resolved, worker_of: Sequence[int], units: Sequence[int], rates: Rates | None = None
) -> Forecast:
    """Return the forecast of a run on workers with `units`, node n on worker ``worker_of[n]``."""
    steps, rates = check_schedule(resolved), rates or nominal(resolved.job.precision)
    look_ahead, nodes = default_look_ahead(resolved.plan), Counter(worker_of)
    at_a_time = [each // units_taken(each, nodes[worker]) for worker, each in enumerate(units)]
    timed = ideal(
        steps, lambda step: cost(resolved.job, step).seconds(rates), lambda node: worker_of[node], at_a_time, look_ahead
    )
    return Forecast(steps, tuple(timed), tuple(worker_of), tuple(units), resolved, rates)


def check_schedule(resolved: Resolved) -> tuple[Step, ...]:
    """Return the schedule's steps, checked: all of them, or the first `MOST_STEPS`, or those to its first decision.

    Raises
    ------
    BadInput
        That names the first step that cannot work, or says what the schedule lacks; or, of a schedule that awaits
        nothing, that it has no end.
    """
    steps = tuple(islice(static_steps(schedule_of(resolved), resolved.plan), MOST_STEPS))
    if len(steps) == MOST_STEPS and steps[-1].round >= resolved.plan.rounds:
        word, rounds = resolved.plan.word, resolved.plan.rounds
        raise BadInput(
            f"schedule: it has no end: step {steps[-1].name} is number {MOST_STEPS}, and the epochs have {rounds} "
            f"{word}s; yield those of range(plan.rounds), or decide by Await when to stop"
        )
    return steps


def costs_of_nodes(resolved: Resolved) -> list[float]:
    """Return each node's nominal seconds, for its placement."""
    steps = islice(static_steps(resolved.entry.steps, resolved.plan), MOST_STEPS)
    return node_costs(resolved.job, steps, resolved.plan.nodes)


def check_memory(forecast: Forecast, limit: int, workers_in_process: int) -> None:
    """Raise BadInput if a worker process needs more than `limit` bytes; name the largest chapter that fits."""
    need = forecast.memory(workers_in_process)
    if need <= limit:
        return
    calendar = forecast.resolved.plan.calendar
    peaks = forecast.activities()
    activities = sum(peaks) if workers_in_process > 1 else max(peaks)
    room = limit - (need - activities)
    if calendar.by_visit or room <= 0:
        remedy = "give more memory, or make data.chunk (--chunk) or the layers smaller"
    else:
        rows = calendar.rows_of(0) * room // activities
        chapters = math.ceil(calendar.epochs * calendar.rows / max(rows, 1))
        remedy = (
            f"the largest chapter that fits has about {rows} rows: give at least {chapters} chapters (--chapters, now "
            f"{calendar.chapters}), or more memory"
        )
    raise BadInput(f"memory: a worker needs about {need / GIB:.2f} GiB and has {limit / GIB:.2f} GiB; {remedy}")


def text(forecast: Forecast, where: str, workers_in_process: int) -> str:
    """Return the plan as lines for a terminal; `where` says where the data are."""
    resolved = forecast.resolved
    job, plan, dataset = resolved.job, resolved.plan, resolved.dataset
    calendar, config = plan.calendar, resolved.config
    kinds = Counter(step.name.partition("-")[0] for step in forecast.steps)
    lines = [
        f"data       {dataset.name}: {dataset.train_rows} training rows in {calendar.chunks} chunks of "
        f"{calendar.chunk}, {dataset.test_rows} test rows; {where}",
        f"network    {'-'.join(str(width) for width in (job.fan_in, *job.widths))}, objective "
        f"{config.network.objective}, negatives {config.network.negatives}, classifier {config.network.classifier}",
        f"training   {calendar.epochs} epochs, batches of {calendar.batch}, {config.optimizer.name} at "
        f"{config.optimizer.learning_rate:g}, seed {calendar.seed}",
        f"schedule   {config.schedule.name}: {calendar.chapters} chapters, {plan.rounds} {plan.word}s, staleness "
        f"{plan.staleness}, {plan.nodes} nodes on {len(forecast.units)} workers with {sum(forecast.units)} units",
        f"steps      {len(forecast.steps)}{forecast.partly}: "
        + ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())),
        f"products   {forecast.flops / 1e9:,.0f} GFLOP",
        f"memory     about {forecast.memory(workers_in_process) / GIB:.2f} GiB for the fullest worker process, of it "
        f"{max(forecast.activities()) / GIB:.2f} GiB activities",
        f"ideal      {makespan(forecast.timed):,.1f} s at a nominal {forecast.rates.flops / 1e9:.0f} GFLOP/s a unit: "
        f"a speed-up of {forecast.speed_up:.2f} with {sum(forecast.units)} units; never above {forecast.bound:.2f} "
        "however many",
    ]
    if plan.nodes > math.ceil(forecast.bound):
        lines.append(f"note       {plan.nodes} nodes are more than the bound of {forecast.bound:.2f} can keep busy")
    return "\n".join(lines + _drawing(forecast))


def _drawing(forecast: Forecast, width: int = 72) -> list[str]:
    """Return the first rounds of the ideal timeline, one line a node."""
    plan = forecast.resolved.plan
    nodes = min(plan.nodes, MOST_LINES)
    shown = [one for one in forecast.timed if one.step.round < 2 * max(nodes, 2)]
    end = makespan(shown)
    later = [one for one in forecast.timed if one.step.round >= 2 * max(nodes, 2) and one.start < end]
    drawn = lanes(shown, nodes, width, later)
    return [f"the first {plan.word}s ({KEY}):", *drawn] if drawn else []
