"""What workers tell of each step as it ends: its record, as an event of Dask's.

An event takes the connection on which a worker also reports that the task is done, and comes first. So whoever hears
that a step has ended has its record already; no task of its own brings it.
"""

from __future__ import annotations

from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from distributed import Client, get_worker

Record = dict[str, Any]

TOPIC = "ffdask"
"""One for all runs: a scheduler keeps each topic that it ever heard of, and a few events of each."""

_of_run: WeakKeyDictionary[Client, dict[str, dict[str, Record]]] = WeakKeyDictionary()


def tell(run: str, record: Record) -> None:
    """Tell a step's record to whoever listens to the run; called in the step's task, on its worker."""
    get_worker().log_event(TOPIC, {"run": run, "record": record})


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
    if isinstance(said, dict) and said.get("run") in runs:
        runs[said["run"]][said["record"]["name"]] = said["record"]
