"""A dynamic schedule: All-Layers, and after each chapter one more for the layer with the largest loss."""

from __future__ import annotations

from ffdask.schedules.rules import Newest, chapter_steps, negatives, push, train
from ffdask.schedules.steps import Await, Plan, Schedule


def worst_layer(plan: Plan) -> Schedule:
    """Yield All-Layers chapters, each followed by a repetition of it for the layer whose loss was largest.

    The repetition draws its own orders and negatives. Two layers, the second the worst (``T20'``: again)::

        node 0 | N0 T10 P20 T20 N0' P20' T20'
    """
    newest = Newest()
    for chapter in range(plan.rounds):
        node = chapter % plan.nodes
        yield from chapter_steps(plan, lambda layer, chapter: chapter % plan.nodes, chapter, newest)
        names = [newest[layer] for layer in range(1, plan.layers + 1)]
        records = yield Await(tuple(names))
        worst = 1 + max(range(plan.layers), key=lambda index: records[names[index]]["loss"])
        labels = negatives(plan, chapter, node, newest, again=1) if plan.paired else None
        if labels:
            yield labels
        pushed = push(plan, chapter, worst, node, newest, labels, None, again=1) if worst > 1 else None
        if pushed:
            yield pushed
        step = train(plan, chapter, worst, node, newest, labels, pushed, again=1)
        newest[worst] = step.name
        yield step
