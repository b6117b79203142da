"""What is told of a run by events of Dask's: by its workers each step's record as it ends, by its client what it is.

A record's event takes the connection on which a worker also reports that the task is done, and comes first. So whoever
hears that a step has ended has its record already; no task of its own brings it.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from distributed import Client, get_worker

from ffdask.resolved import Resolved
from ffdask.topic import TOPIC

Record = dict[str, Any]

_of_run: WeakKeyDictionary[Client, dict[str, dict[str, Record]]] = WeakKeyDictionary()


def tell(run: str, record: Record) -> None:
    """Tell a step's record to whoever listens to the run; called in the step's task, on its worker."""
    get_worker().log_event(TOPIC, {"run": run, "record": record})


class Announcement:
    """A watcher that tells whoever shows a scheduler's runs what one is, and that it has ended.

    Parameters
    ----------
    client : distributed.Client
    run : str
        The run's id.
    """

    def __init__(self, client: Client, run: str) -> None:
        self.client, self.run = client, run

    def begin(self, resolved: Resolved, dashboard: str) -> None:
        """Tell what is about to be computed."""
        plan = resolved.plan
        about = {
            "dataset": os.path.basename(resolved.dataset.name),
            "widths": list(resolved.job.widths),
            "layers": plan.layers,
            "head": plan.trains_head,
            "schedule": str(resolved.config.schedule.name),
            "nodes": plan.nodes,
            "rounds": plan.rounds,
            "chapters": plan.calendar.chapters,
        }
        self.client.log_event(TOPIC, {"run": self.run, "begin": about})

    def record(self, record: Record) -> None:
        """Nothing to tell: its worker did."""

    def end(self) -> None:
        """Tell that no step follows."""
        # What ends the run before its time is under way here.
        error = sys.exception()
        how = "ended" if error is None else "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
        # A scheduler that is gone shows nothing any more.
        if self.client.status == "running":
            self.client.log_event(TOPIC, {"run": self.run, "end": how})


class Listener:
    """Hears the records of one run.

    Parameters
    ----------
    client : distributed.Client
        It may have several runs at a time.
    run : str
        The run's id.
    """

    def __init__(self, client: Client, run: str) -> None:
        self.client, self.run = client, run
        self.heard: dict[str, Record] = {}

    def begin(self) -> None:
        """Listen."""
        runs = _of_run.setdefault(self.client, {})
        if not runs:
            self.client.subscribe_topic(TOPIC, partial(_hear, runs))
        runs[self.run] = self.heard

    def end(self) -> None:
        """Listen no more."""
        runs = _of_run.get(self.client, {})
        if runs.pop(self.run, None) is not None and not runs:
            self.client.unsubscribe_topic(TOPIC)

    def take(self, step: str) -> Record | None:
        """Return what was told of a step, by its name, and forget it; None if nothing was."""
        return self.heard.pop(step, None)


def _hear(runs: dict[str, dict[str, Record]], event: tuple[float, Any]) -> None:
    _, said = event
    # Of a step that is done again, because its worker was lost, the last record counts.
    if isinstance(said, dict) and "record" in said and said.get("run") in runs:
        runs[said["run"]][said["record"]["name"]] = said["record"]
