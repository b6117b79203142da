"""Runs a schedule in place, one step after another, with no cluster: the same steps, so the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ffdask.job import Data, Job
from ffdask.network import Network
from ffdask.resident import home
from ffdask.schedules.ledger import Ledger
from ffdask.schedules.steps import Await, Checker, Need, Plan, Schedule, Step
from ffdask.work import Outcome, perform

Watch = Callable[[Step, dict[str, Any]], None]


def train_inline(
    job: Job, plan: Plan, schedule: Callable[[Plan], Schedule], data: Data, watch: Watch = lambda step, record: None
) -> tuple[Network, dict[str, dict[str, Any]]]:
    """Train by `schedule` in this thread.

    Parameters
    ----------
    job : Job
    plan : Plan
    schedule : callable
        ``schedule(plan)`` yields the steps.
    data : Data
    watch : callable
        ``watch(step, record)``, called as each step ends.

    Returns
    -------
    network : Network
    records : dict
        Each step's record, by the step's name.

    Raises
    ------
    Exception
        Whatever `watch` raises.
    """
    steps, checker = schedule(plan), Checker(plan)
    ledger: Ledger[Outcome] = Ledger(plan)
    records: dict[str, dict[str, Any]] = {}
    step = next(steps, None)
    while step is not None:
        if isinstance(step, Await):
            try:
                step = steps.send({name: records[name] for name in step.steps})
            except StopIteration:
                break
            continue
        if job.calendar.chapter_of(step.round) >= job.ends:
            break
        checker.see(step)
        ledger.open(step.round, step.part or 0)
        inputs = {}
        for role, need in step.needs.items():
            outcome = ledger.get(need)
            assert outcome is not None, need
            inputs[role] = outcome[need.piece]
        outcome = perform(job, step, inputs, data)
        watch(step, outcome["record"])
        ledger.put(step, outcome)
        for piece in step.gives:
            # Each piece alone: one that is kept long must not keep the others.
            ledger.replace(Need(step.name, piece), step.layer if piece == "state" else None, {piece: outcome[piece]})
        records[step.name] = outcome["record"]
        step = next(steps, None)
    states = tuple(ledger.newest[layer]["state"] for layer in range(1, plan.layers + 1))
    head = ledger.newest[0]["state"] if plan.trains_head else None
    return home(Network(states, head, job.classes, job.overlay)), records
