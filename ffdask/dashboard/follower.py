"""Follows the runs on a scheduler by their events, and serves the page there."""

from __future__ import annotations

import logging
import re
from collections import Counter
from typing import Any

from distributed import Scheduler
from distributed.diagnostics.plugin import SchedulerPlugin

from ffdask.dashboard.shown import Shown
from ffdask.topic import TOPIC

_log = logging.getLogger(__name__)


class Follower(SchedulerPlugin):
    """A scheduler's plugin: keeps of the run that began last what the page shows, also when it has ended.

    Without a dashboard it follows nothing. Nothing that goes wrong in it reaches a run.

    Attributes
    ----------
    shown : Shown or None
    """

    name = "ffdask-page"
    idempotent = True

    def __init__(self) -> None:
        self.shown: Shown | None = None
        self._watched = True

    async def start(self, scheduler: Scheduler) -> None:
        """Serve the page; hear of a run that has begun already, as far as its events are still there."""
        try:
            if not scheduler.http_application.applications:
                self._watched = False
                return
            # Here, for it takes Bokeh: whoever has a dashboard has it already.
            from ffdask.dashboard.page import serve

            serve(scheduler)
            for _, said in scheduler.get_events(TOPIC):
                self.log_event(TOPIC, said)
        except Exception:
            _log.exception("the page /forward-forward cannot be served")

    def log_event(self, topic: str, msg: Any) -> None:
        """Hear what is told of a run; what nobody understands is left out."""
        if topic == TOPIC and self._watched:
            try:
                self._hear(msg)
            except Exception:
                _log.info("not understood: %s", msg, exc_info=True)

    def _hear(self, msg: dict[str, Any]) -> None:
        # Behind the first dot is which beginning of the run says it.
        run = msg["run"].partition(".")[0]
        if "begin" in msg:
            if self.shown is None or not self.shown.goes_on(run, msg["begin"]):
                self.shown = Shown(run, msg["begin"])
        elif self.shown is not None and self.shown.run == run:
            if "end" in msg:
                self.shown.end(msg["end"])
            else:
                self.shown.add(msg["record"])

    def in_work(self, scheduler: Scheduler) -> Counter[int]:
        """Return how many of each layer's training steps (0: the head's) the scheduler has given to workers."""
        found: Counter[int] = Counter()
        if self.shown is not None:
            training = re.compile(rf"(?:train_layer(\d+)|head)-\w+-{re.escape(self.shown.run)}\b")
            for worker in scheduler.workers.values():
                names = (training.match(str(task.key)) for task in worker.processing)
                found.update(int(name[1] or 0) for name in names if name)
        return found
