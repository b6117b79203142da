"""What a run keeps alive of its steps' outcomes: each piece for as long as a later step may read it, no longer.

One rule for every executor, so that memory is bounded whatever the number of chapters, also for a dynamic schedule
whose future steps nobody knows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Generic, TypeVar

from ffdask.schedules.steps import Need, Plan, Step

T = TypeVar("T")


class Ledger(Generic[T]):
    """Step and piece -> whatever the executor keeps for it (an outcome, a future)."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.newest: dict[int, T] = {}
        self._kept: dict[Need, tuple[Step, T]] = {}

    def put(self, step: Step, value: T, pieces: Iterable[str] | None = None) -> None:
        """Keep `value` for every piece that `step` gives, or for some of them."""
        given = step.gives if pieces is None else tuple(pieces)
        for piece in given:
            self._kept[Need(step.name, piece)] = (step, value)
        if "state" in given:
            self.newest[step.layer] = value

    def kept(self) -> dict[Need, T]:
        """Return everything that is kept."""
        return {need: value for need, (_, value) in self._kept.items()}

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

    def open(self, round_: int, part: int = 0, keep: Collection[Need] = ()) -> None:
        """Forget every piece that no step from minibatch `part` of `round_` on may read.

        A layer's newest state is kept, and what is named in `keep`: a step that waits may read a state that was the
        newest when the step was drawn.
        """
        newest = {id(value) for value in self.newest.values()}
        gone = [
            need
            for need, (step, value) in self._kept.items()
            if need not in keep
            and self._past(step, need.piece, round_, part)
            and not (need.piece == "state" and id(value) in newest)
        ]
        for need in gone:
            del self._kept[need]

    def close(self, keep: Callable[[Need, T], bool]) -> None:
        """Forget every piece but the layers' newest states and those to `keep`: no step will come that reads one."""
        newest = {id(value) for value in self.newest.values()}
        self._kept = {
            need: kept
            for need, kept in self._kept.items()
            if keep(need, kept[1]) or (need.piece == "state" and id(kept[1]) in newest)
        }

    def _past(self, step: Step, piece: str, round_: int, part: int) -> bool:
        if step.round + self.plan.reach(piece) < round_:
            return True
        # What one minibatch hands to the layers is read by its own steps, a state by the next minibatch's.
        within = step.part is not None and piece != "probabilities" and not (piece == "state" and step.last)
        return within and (step.round, step.part or 0) < (round_, part)
