"""Single-Layer: node (l - 1) mod N trains layer l, in every chapter [PFF]."""

from __future__ import annotations

from ffdask.schedules.rules import Newest, chapter_steps
from ffdask.schedules.steps import Plan, Schedule


def single_layer(plan: Plan) -> Schedule:
    """Yield the steps of the chapter rule, each layer on its own node; the head on the last layer's.

    A node pushes the chapter's rows through the published states below, then trains its own layer. Two layers and a
    head, two nodes, three chapters (names as in `sequential`)::

        node 0 | N0 T10 N1 T11 N2 T12
        node 1 | P20 T20 PH0 H0 P21 T21 PH1 H1 P22 T22 PH2 H2
    """
    newest = Newest()
    for chapter in range(plan.rounds):
        yield from chapter_steps(plan, lambda layer, chapter: (layer - 1) % plan.nodes, chapter, newest)
