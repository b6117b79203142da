"""Who watches a run: told what happens in it, and unable to lose it."""

from __future__ import annotations

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
        self._heard: set[str] = set()

    def begin(self, resolved: Resolved, dashboard: str) -> None:
        """Tell all what is about to be computed."""
        self._tell("begin", resolved, dashboard)

    def record(self, record: Record) -> None:
        """Tell all of a finished step; of one that is done again, because a worker was lost, nobody is told twice."""
        if record["name"] not in self._heard:
            self._heard.add(record["name"])
            self._tell("record", record)

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
