"""The tasks that a run puts on Dask's scheduler, found without one: the run's own `Graph`, on a client that notes them.

So the keys, the pieces picked for another worker and the cuts are by the very rules of a run, whatever they become.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ffdask.graph import Graph
from ffdask.plan import Forecast, cut_rounds
from ffdask.schedules.steps import Step
from ffdask.slots import Placement, Slot

RUN = "run"
"""Stands for the run's id, which is left out of the keys."""


@dataclass(frozen=True, eq=False)
class Task:
    """A task: its key without the run's id, and what it takes.

    Attributes
    ----------
    key : str
    function : str
        ``run_step``, or a helper's: ``pick``, ``recall`` (what is taken up anew on its worker).
    step : Step or None
        What a ``run_step`` does.
    takes : tuple of (Task, str)
        A task and a piece of its outcome; of ``recall`` what it takes up, which Dask knows nothing of.
    """

    key: str
    function: str
    step: Step | None = None
    takes: tuple[tuple[Task, str], ...] = ()


@dataclass
class _Notes:
    """Takes the place of a client: notes what is submitted, computes nothing."""

    tasks: list[Task] = field(default_factory=list)

    def submit(self, function: Callable[..., Any], *args: Any, key: str, **how: Any) -> Task:
        """Note a task; return it in the place of its future."""
        step: Step | None = None
        takes: tuple[tuple[Task, str], ...]
        if function.__name__ == "run_step":
            step, inputs, pieces = args[1], args[3], args[4]
            takes = tuple((inputs[role], pieces[role]) for role in inputs)
        elif function.__name__ == "pick":
            takes = ((args[0], args[1]),)
        elif function.__name__ == "recall":
            takes = tuple((task, args[1]) for task in self.tasks if task.key == args[0])
        else:
            takes = ()
        task = Task(key.removesuffix(f"-{RUN}"), function.__name__, step, takes)
        self.tasks.append(task)
        return task


class _Noted(Graph):
    """A graph whose client notes: no task of it ever ends."""

    def _hold(self, outcome: Any, until: Any) -> None:
        """Hold nothing."""


def tasks_of(forecast: Forecast, steps: Iterable[Step]) -> list[Task]:
    """Return the tasks of a forecast's first steps, in the order of their submission.

    As in a run whose workers all read the rows themselves. Its rounds overlap; what is submitted does not depend on
    that, for a piece behind which the graph is cut is read by later rounds only once it has been cut.
    """
    resolved, notes = forecast.resolved, _Notes()
    workers = [Slot("", f"worker{index}", units) for index, units in enumerate(forecast.units)]
    readers = frozenset(worker.name for worker in workers)
    placement = Placement([workers[worker] for worker in forecast.worker_of], readers, {})
    graph = _Noted(notes, RUN, resolved, placement, cut_rounds(resolved))
    finished: list[Step] = []
    for order, step in enumerate(steps):
        if finished and finished[-1].round != step.round:
            for before in finished:
                graph.cut(before)
            finished.clear()
            graph.ledger.open(step.round, step.part or 0)
        graph.submit(step, order)
        finished.append(step)
    return notes.tasks
