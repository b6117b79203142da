"""What a run keeps alive of its steps' outcomes: each piece for as long as a later step may read it, no longer.

One rule for every executor, so that memory is bounded whatever the number of chapters, also for a dynamic schedule
whose future steps nobody knows.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from ffdask.schedules.steps import Need, Plan, Step

T = TypeVar("T")


class Ledger(Generic[T]):
    """Step and piece -> whatever the executor keeps for it (an outcome, a future)."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.newest: dict[int, T] = {}
        self._kept: dict[Need, tuple[int, T]] = {}

    def put(self, step: Step, value: T) -> None:
        """Keep `value` for every piece that `step` gives."""
        for piece in step.gives:
            self._kept[Need(step.name, piece)] = (step.round, value)
        if "state" in step.gives:
            self.newest[step.layer] = value

    def get(self, need: Need) -> T | None:
        """Return what is kept for `need`, or None."""
        kept = self._kept.get(need)
        return kept[1] if kept else None

    def replace(self, need: Need, layer: int | None, value: T) -> None:
        """Put `value` in the place of what is kept for `need` (`layer`: whose newest state it is, if so)."""
        if need in self._kept:
            if layer is not None and self.newest.get(layer) is self._kept[need][1]:
                self.newest[layer] = value
            self._kept[need] = (self._kept[need][0], value)

    def clear(self) -> list[T]:
        """Forget everything; return what was kept."""
        values = [*self.newest.values(), *(value for _, value in self._kept.values())]
        self.newest.clear()
        self._kept.clear()
        return values

    def open_round(self, round_: int) -> None:
        """Forget every piece that no step of `round_` or later may read: a layer's newest state is kept."""
        gone = [
            need
            for need, (kept, value) in self._kept.items()
            if kept + self.plan.reach(need.piece) < round_
            and not (need.piece == "state" and any(value is newest for newest in self.newest.values()))
        ]
        for need in gone:
            del self._kept[need]
