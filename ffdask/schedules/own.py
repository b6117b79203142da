"""A schedule of the user's own, guarded: whatever it does wrong is one message that names where."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from ffdask.errors import BadInput, told
from ffdask.schedules.roles import whole_numbers
from ffdask.schedules.steps import Await, Plan, Schedule, Step


def guarded(schedule: Callable[[Plan], Any], name: str) -> Callable[[Plan], Schedule]:
    """Return a schedule that yields `schedule`'s steps and answers it, and raises BadInput for what is no step.

    Parameters
    ----------
    schedule : callable
        ``schedule(plan) -> generator of Step or Await``.
    name : str
        For messages.
    """

    def steps(plan: Plan) -> Schedule:
        inner, answer, last = None, None, "before its first step"
        yielded: set[str] = set()
        try:
            inner = schedule(plan)
        except Exception as error:
            raise BadInput(f"schedule {name}, {last}, raised {told(error)}") from error
        if not isinstance(inner, Generator):
            raise BadInput(f"schedule {name} returned {_shown(inner)}; it must be a generator: yield each step")
        try:
            while True:
                try:
                    drawn = inner.send(answer)
                except StopIteration:
                    return
                except Exception as error:
                    raise BadInput(f"schedule {name}, {last}, raised {told(error)}") from error
                # Exactly: a worker may lack the class of another kind of step.
                if type(drawn) not in (Step, Await):
                    raise BadInput(f"schedule {name}, {last}, yielded {_shown(drawn)}; it must yield Step or Await")
                if isinstance(drawn, Step) and not whole_numbers(drawn):
                    last = f"after step {drawn.name}"
                    yielded.add(drawn.name)
                unknown = [wanted for wanted in drawn.steps if wanted not in yielded] if type(drawn) is Await else []
                if unknown:
                    raise BadInput(f"schedule {name}, {last}, awaits {unknown[0]}, which it has not yielded")
                answer = yield drawn
        finally:
            inner.close()

    return steps


def _shown(value: object) -> str:
    text = repr(value)
    return f"a {type(value).__name__}, {text if len(text) <= 60 else text[:60] + '...'}"
