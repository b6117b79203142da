"""Sequential: one node trains layer after layer, chapter after chapter [PFF]. The baseline."""

from __future__ import annotations

from ffdask.schedules.rules import Newest, chapter_steps
from ffdask.schedules.steps import Plan, Schedule


def sequential(plan: Plan) -> Schedule:
    """Yield the steps of the chapter rule, all on node 0.

    Two layers and a head, two chapters; ``Nc`` negatives, ``Plc`` push to layer l, ``Tlc`` train it, ``PHc`` and
    ``Hc`` the head's, in chapter c::

        node 0 | N0 T10 P20 T20 PH0 H0 N1 T11 P21 T21 PH1 H1
    """
    newest = Newest()
    for chapter in range(plan.rounds):
        yield from chapter_steps(plan, lambda layer, chapter: 0, chapter, newest)
