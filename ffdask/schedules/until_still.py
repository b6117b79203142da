"""A dynamic schedule: All-Layers that stops when the training error stands still."""

from __future__ import annotations

from ffdask.schedules.rules import Newest, chapter_steps
from ffdask.schedules.steps import Await, Plan, Schedule, Step

PATIENCE = 3
"""Chapters without a new lowest error after which training stops."""


def until_still(plan: Plan) -> Schedule:
    """Yield All-Layers chapters until the error has not fallen for three of them, or the chapters are done.

    The error is the head's on the training rows, before their update, where there is a head, else the last
    layer's. It is read as late as the negatives' probabilities are, so that the nodes stay busy while it is awaited;
    which chapter is the last depends on the figures alone, never on the nodes or the workers.
    """
    newest = Newest()
    lowest, since = float("inf"), 0
    for chapter in range(plan.rounds):
        if chapter > plan.staleness:
            name = _judge(plan, chapter - 1 - plan.staleness)
            error = (yield Await((name,)))[name]["error"]
            lowest, since = (error, 0) if error < lowest else (lowest, since + 1)
            if since >= PATIENCE:
                return
        yield from chapter_steps(plan, lambda layer, chapter: chapter % plan.nodes, chapter, newest)


def _judge(plan: Plan, chapter: int) -> str:
    return Step("head", chapter, 0).name if plan.trains_head else Step("train", chapter, 0, plan.layers).name
