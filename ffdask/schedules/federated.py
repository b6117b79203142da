"""Federated: as All-Layers, but each node trains on its own shard, which never leaves it [PFF]."""

from __future__ import annotations

from ffdask.schedules.rules import Newest, chapter_steps
from ffdask.schedules.steps import Plan, Schedule


def federated(plan: Plan) -> Schedule:
    """Yield the steps of the chapter rule, chapter by chapter round the ring of nodes, each on its own rows.

    What differs from `all_layers` is the calendar: chapter c visits the shard of node c mod N, so only layer states go
    round the ring; labels, probabilities, negatives and activities have no reader elsewhere.
    """
    newest = Newest()
    for chapter in range(plan.rounds):
        yield from chapter_steps(plan, lambda layer, chapter: chapter % plan.nodes, chapter, newest)
