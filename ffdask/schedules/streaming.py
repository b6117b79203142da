"""Streaming: chunks pass through the per-layer training tasks, each layer pinned to its node."""

from __future__ import annotations

from ffdask.schedules.rules import Newest, visit_steps
from ffdask.schedules.steps import Plan, Schedule


def streaming(plan: Plan) -> Schedule:
    """Yield the steps of the streaming rule, layer l on node (l - 1) mod N; the head on the last layer's.

    Given the negatives' labels this is the original FF loop, all layers on each minibatch [FF], unrolled over the
    nodes. Two layers and a head, two nodes, three visits (``Tlv``: layer l trains on visit v)::

        node 0 | N0 T10 N1 T11 N2 T12
        node 1 | T20 H0 T21 H1 T22 H2
    """
    newest = Newest()
    for visit in range(plan.rounds):
        yield from visit_steps(plan, lambda layer, visit: (layer - 1) % plan.nodes, visit, newest)
