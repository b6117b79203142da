"""Who watches a run: told what happens in it, and unable to lose it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ffdask.errors import told
from ffdask.resolved import Resolved

Record = dict[str, Any]


class Watcher(Protocol):
    """Told what happens in a run; one that raises is told no more."""

    def begin(self, resolved: Resolved, dashboard: str) -> None:
        """Hear what is about to be computed."""

    def record(self, record: Record) -> None:
        """Hear of a finished step."""

    def end(self) -> None:
        """Hear that no step follows, whether the run succeeded or not."""


class Tally:
    """Counts a run's trained states, one a layer and round, as they come.

    Attributes
    ----------
    done, total : int
    chapter, chapters : int
        Which was trained last, from 1, by the head (the last layer where there is none), and how many there are.
    error : float
        Its training error, 0 to 1; NaN before the first.
    """

    def __init__(self) -> None:
        self.done, self.total, self.chapter, self.chapters, self.error = 0, 0, 0, 0, math.nan

    def begin(self, resolved: Resolved, dashboard: str) -> None:
        """Hear how many there will be."""
        plan = resolved.plan
        self.total = plan.rounds * (plan.layers + plan.trains_head)
        self.calendar, self.chapters = plan.calendar, plan.calendar.chapters
        self.shown = 0 if plan.trains_head else plan.layers

    def record(self, record: Record) -> None:
        """Count one."""
        if record["kind"] not in ("train", "head") or record["again"] or not record["last"]:
            return
        self.done += 1
        if record["layer"] == self.shown:
            self.chapter, self.error = self.calendar.chapter_of(record["round"]) + 1, record["error"]

    def end(self) -> None:
        """Hear that there are no more."""


class Watchers:
    """Watchers as one; whoever raises is named in a line, and left out from then on: training is worth more.

    Parameters
    ----------
    watchers : sequence of Watcher
    say : callable
        Takes the line.
    """

    def __init__(self, watchers: Sequence[Watcher], say: Callable[[str], None]) -> None:
        self.listening, self.say = list(watchers), say
        # Round -> the steps of it that were told.
        self._heard: dict[int, set[str]] = {}

    def begin(self, resolved: Resolved, dashboard: str) -> None:
        """Tell all what is about to be computed."""
        self._tell("begin", resolved, dashboard)

    def record(self, record: Record) -> None:
        """Tell all of a finished step; of one that is done again, because a worker was lost, nobody is told twice."""
        heard = self._heard.setdefault(record["round"], set())
        if record["name"] not in heard:
            heard.add(record["name"])
            self._tell("record", record)

    def settled(self, round_: int) -> None:
        """Forget who was told up to a round, behind which the run goes on if a worker is lost: nothing comes twice."""
        self._heard = {each: heard for each, heard in self._heard.items() if each > round_}

    def end(self) -> None:
        """Tell all that no step follows."""
        self._tell("end")

    def _tell(self, method: str, *what: Any) -> None:
        for watcher in list(self.listening):
            try:
                getattr(watcher, method)(*what)
            except Exception as error:
                self.listening.remove(watcher)
                name = type(watcher).__name__
                self.say(f"watcher {name} raised {told(error)} in {method}; it is told no more, training goes on")
