"""All-Layers: node c mod N does chapter c, all layers in turn [PFF]."""

from __future__ import annotations

from ffdask.schedules.rules import Newest, chapter_steps
from ffdask.schedules.steps import Plan, Schedule


def all_layers(plan: Plan) -> Schedule:
    """Yield the steps of the chapter rule, chapter by chapter round the ring of nodes.

    Layer l of chapter c starts when the node before has published layer l of chapter c - 1. Two layers and a head,
    two nodes, four chapters (names as in `sequential`)::

        node 0 | N0 T10 P20 T20 PH0 H0 N2 T12 P22 T22 PH2 H2
        node 1 | N1 T11 P21 T21 PH1 H1 N3 T13 P23 T23 PH3 H3
    """
    newest = Newest()
    for chapter in range(plan.rounds):
        yield from chapter_steps(plan, lambda layer, chapter: chapter % plan.nodes, chapter, newest)
