"""A schedule of one's own: every other layer learns, all of them at once, on top of layers that stand still."""

from __future__ import annotations

from ffdask.schedules.rules import Newest, head_steps, negatives, push, train
from ffdask.schedules.steps import Plan, Schedule


def alternating(plan: Plan) -> Schedule:
    """Yield chapters in which layers 1, 3, ... learn, and in turn chapters in which layers 2, 4, ... do."""
    newest = Newest()  # layer -> the step that trained it last
    for chapter in range(plan.rounds):
        newest.begin(chapter, plan)
        labels = negatives(plan, chapter, 0, newest) if plan.paired else None
        if labels:
            yield labels
        # From the top down: rows are pushed up through the layers as the chapter found them, so nobody waits.
        for layer in reversed(range(1 + chapter % min(2, plan.layers), plan.layers + 1, 2)):
            node = (layer - 1) % plan.nodes
            pushed = push(plan, chapter, layer, node, newest, labels, None) if layer > 1 else None
            if pushed:
                yield pushed
            step = train(plan, chapter, layer, node, newest, labels, pushed)
            newest[layer] = step.name
            yield step
        if plan.trains_head:
            yield from head_steps(plan, chapter, (plan.layers - 1) % plan.nodes, newest)


alternating.nodes = lambda layers, units: layers
