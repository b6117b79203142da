"""Steps that wait until all their inputs can be named: each waits at the first that cannot, and is woken by it.

So a step that ends costs what it wakes, not a look at everything that waits: with as many nodes as layers, most of
the look-ahead does.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterable

from ffdask.schedules.steps import Need, Step

Waiting = tuple[int, Step]
"""A step's place in the schedule's order, and the step."""


class Parked:
    """The steps that wait, in the schedule's order."""

    def __init__(self) -> None:
        self._steps: dict[int, Step] = {}
        self._at: dict[Need, list[int]] = {}
        self._oldest: list[tuple[int, int, int]] = []
        self._named: Counter[Need] = Counter()

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def steps(self) -> Iterable[Step]:
        """Return the steps, the first of the schedule's first."""
        return [self._steps[order] for order in sorted(self._steps)]

    @property
    def named(self) -> Collection[Need]:
        """Return every input of a step that waits: nothing that it may read is forgotten before."""
        return self._named.keys()

    def oldest(self) -> tuple[int, int] | None:
        """Return the lowest (round, minibatch) of those that wait; None if none does."""
        while self._oldest and self._oldest[0][2] not in self._steps:
            heapq.heappop(self._oldest)
        return self._oldest[0][:2] if self._oldest else None

    def park(self, order: int, step: Step, missing: Need) -> None:
        """Have a step wait at its input `missing`."""
        self._steps[order] = step
        self._at.setdefault(missing, []).append(order)
        heapq.heappush(self._oldest, (step.round, step.part or 0, order))
        self._named.update(step.needs.values())

    def wake(self, needs: Iterable[Need]) -> list[Waiting]:
        """Return the steps that wait at one of `needs`, in the schedule's order; they wait no longer."""
        woken = sorted(order for need in needs for order in self._at.pop(need, ()))
        found = [(order, self._steps.pop(order)) for order in woken]
        for _, step in found:
            self._named.subtract(step.needs.values())
            for need in step.needs.values():
                if not self._named[need]:
                    del self._named[need]
        return found
