"""The ideal timeline of a schedule: list scheduling, each step as early as its needs and its worker's units allow."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ffdask.schedules.steps import Step


@dataclass(frozen=True, slots=True)
class Timed:
    """A step and when it runs, in seconds from the start."""

    step: Step
    start: float
    stop: float


def units_taken(units: int, nodes: int) -> int:
    """Return how many of a worker's units a step takes, with so many nodes on the worker.

    A node alone on its worker does one step at a time: its steps take all units. Where several share one, their steps
    take turns at single units, as many steps at a time as that makes; two of them may be of one node, and the bits do
    not care.
    """
    return max(1, units // max(nodes, 1))


def ideal(
    steps: Sequence[Step],
    seconds: Callable[[Step], float],
    worker_of: Callable[[int], int],
    units: Sequence[int],
    look_ahead: int | None = None,
) -> list[Timed]:
    """Return when each step would run with free transfers and no overhead.

    Parameters
    ----------
    steps : sequence of Step
        In the schedule's order, which is their priority.
    seconds : callable
        Of a step on one unit.
    worker_of : callable
        Node -> number of its worker.
    units : sequence of int
        Steps that each worker does at a time.
    look_ahead : int, optional
        Rounds that may be in work at once; a step waits until the oldest unfinished round is that near.

    Returns
    -------
    list of Timed
        In the schedule's order.

    Examples
    --------
    >>> from ffdask.schedules.steps import Need
    >>> first = Step("train", 0, node=0, layer=1, gives=("state",))
    >>> then = Step("train", 0, node=1, layer=2, needs={"state1": Need(first.name, "state")}, gives=("state",))
    >>> other = Step("train", 1, node=0, layer=1, needs={"state": Need(first.name, "state")}, gives=("state",))
    >>> timed = ideal([first, then, other], lambda step: 2.0, lambda node: node, [1, 1])
    >>> [(one.step.name, one.start, one.stop) for one in timed][1:]
    [('train_layer2-chapter000', 2.0, 4.0), ('train_layer1-chapter001', 2.0, 4.0)]
    """
    index = {step.name: i for i, step in enumerate(steps)}
    waiting = [len({need.step for need in step.needs.values()}) for step in steps]
    readers: list[list[int]] = [[] for _ in steps]
    left: dict[int, int] = {}
    for i, step in enumerate(steps):
        left[step.round] = left.get(step.round, 0) + 1
        for name in {need.step for need in step.needs.values()}:
            readers[index[name]].append(i)
    rounds, oldest = sorted(left), 0
    free, ready = list(units), [list[int]() for _ in units]
    held: list[int] = []  # ready, but beyond the look-ahead
    timed: dict[int, Timed] = {}
    running: list[tuple[float, int]] = []
    now = 0.0

    def offer(i: int) -> None:
        if look_ahead is not None and steps[i].round >= rounds[oldest] + look_ahead:
            heapq.heappush(held, i)
        else:
            heapq.heappush(ready[worker_of(steps[i].node)], i)

    for i, count in enumerate(waiting):
        if not count:
            offer(i)
    while len(timed) < len(steps):
        for worker, queue in enumerate(ready):
            while queue and free[worker]:
                i = heapq.heappop(queue)
                free[worker] -= 1
                timed[i] = Timed(steps[i], now, now + seconds(steps[i]))
                heapq.heappush(running, (timed[i].stop, i))
        if not running:
            raise ValueError("the steps need one another in a circle")
        now, i = heapq.heappop(running)
        free[worker_of(steps[i].node)] += 1
        left[steps[i].round] -= 1
        while oldest < len(rounds) - 1 and not left[rounds[oldest]]:
            oldest += 1
        while held and look_ahead is not None and steps[held[0]].round < rounds[oldest] + look_ahead:
            j = heapq.heappop(held)
            heapq.heappush(ready[worker_of(steps[j].node)], j)
        for j in readers[i]:
            waiting[j] -= 1
            if not waiting[j]:
                offer(j)
    return [timed[i] for i in range(len(steps))]


def makespan(timed: Sequence[Timed]) -> float:
    """Return the seconds from the first start to the last stop; 0 for no steps."""
    return max((one.stop for one in timed), default=0.0)


def speed_up_bound(
    steps: Sequence[Step], seconds: Callable[[Step], float], nodes: int, staleness: int, rounds: int
) -> float:
    """Return min(nodes, rounds in work at once, all costs / the costliest layer's chain of train steps).

    `rounds` is how many rounds an epoch has (0 where a round has several epochs): a row's negatives read what was
    recorded at a visit of that row at least staleness + 1 rounds ago, so as many rounds as lie between are in work.
    """
    total = sum(seconds(step) for step in steps)
    chains: dict[int, float] = {}
    for step in steps:
        if "state" in step.gives:
            chains[step.layer] = chains.get(step.layer, 0.0) + seconds(step)
    bounds = [float(nodes), total / max(chains.values())] if chains and max(chains.values()) else [float(nodes)]
    between = max(rounds, 1)
    bounds.append(float(-(-(staleness + 1) // between) * between))
    return min(bounds)
