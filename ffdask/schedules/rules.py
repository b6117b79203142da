"""The two rules of dependency. A schedule is one of them plus a placement: which node runs what.

**Chapter rule**: ``state(c, l) = train(state(c-1, l), the chapter's minibatches pushed through state(c, 1..l-1))``.
Push and train are two steps, and push never waits for state(c-1, l): it is off that chain.

**Streaming rule**: visit after visit, layer l trains on the visit's rows and passes on the activities that it
computed for each minibatch before that minibatch's update. Nothing is pushed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ffdask.network import layers_read
from ffdask.schedules.steps import Need, Plan, Step

Placement = Callable[[int, int], int]
"""``place(layer, round) -> node``; layer L + 1 is the head."""

Newest = dict[int, str]
"""Layer (0: the head) -> name of the step that gave its newest state; empty before any."""


def chapter_steps(plan: Plan, place: Placement, chapter: int, newest: Newest) -> Iterator[Step]:
    """Yield the steps of one chapter by the chapter rule; moves `newest` on."""
    negatives = plan.negatives(chapter, place(1, chapter))
    yield negatives
    below: Step | None = None
    for layer in range(1, plan.layers + 1):
        node = place(layer, chapter)
        if layer > 1:
            below = push(plan, chapter, layer, node, newest, negatives, below)
            yield below
        step = train(plan, chapter, layer, node, newest, negatives, below)
        newest[layer] = step.name
        yield step
    if plan.trains_head:
        yield from _head_steps(plan, chapter, place(plan.layers, chapter), newest)


def push(
    plan: Plan, chapter: int, layer: int, node: int, newest: Newest, negatives: Step, below: Step | None, again: int = 0
) -> Step:
    """Return the step that computes `layer`'s input: on from the push `below` on that node, else from pixels."""
    if below is not None and below.node == node:
        needs = {"paired": Need(below.name, "paired"), f"state{layer - 1}": Need(newest[layer - 1], "state")}
    else:
        needs = {f"state{lower}": Need(newest[lower], "state") for lower in range(1, layer)}
        needs["labels"] = Need(negatives.name, "labels")
    return plan.step("push", chapter, node, layer, again, needs=needs, gives=("paired",))


def train(
    plan: Plan, chapter: int, layer: int, node: int, newest: Newest, negatives: Step, below: Step | None, again: int = 0
) -> Step:
    """Return the step that trains `layer` on the push `below`, layer one on pixels."""
    needs = {"state": Need(newest[layer], "state")} if layer in newest else {}
    if below is None:
        needs["labels"] = Need(negatives.name, "labels")
    else:
        needs["paired"] = Need(below.name, "paired")
    return plan.step("train", chapter, node, layer, again, needs=needs, gives=("state",))


def _head_steps(plan: Plan, chapter: int, node: int, newest: Newest) -> Iterator[Step]:
    pieces = tuple(f"neutral{layer}" for layer in layers_read(plan.layers))
    states = {f"state{layer}": Need(newest[layer], "state") for layer in range(1, plan.layers + 1)}
    pushed = plan.step("push_head", chapter, node, needs=states, gives=pieces)
    yield pushed
    yield _head(plan, chapter, node, newest, {piece: Need(pushed.name, piece) for piece in pieces})


def _head(plan: Plan, round_: int, node: int, newest: Newest, needs: dict[str, Need]) -> Step:
    if 0 in newest:
        needs = needs | {"state": Need(newest[0], "state")}
    step = plan.step("head", round_, node, needs=needs, gives=("state", "probabilities"))
    newest[0] = step.name
    return step


def visit_steps(plan: Plan, place: Placement, visit: int, newest: Newest) -> Iterator[Step]:
    """Yield the steps of one visit by the streaming rule; moves `newest` on."""
    negatives = plan.negatives(visit, place(1, visit))
    yield negatives
    neutral: dict[str, Need] = {}
    below: dict[str, Need] = {"labels": Need(negatives.name, "labels")}
    for layer in range(1, plan.layers + 1):
        paired, neutrals = layer < plan.layers, plan.trains_head
        passes_on = [piece for piece, read in (("paired", paired), ("neutral", neutrals)) if read]
        needs = below | ({"state": Need(newest[layer], "state")} if layer in newest else {})
        step = plan.step("train", visit, place(layer, visit), layer, needs=needs, gives=("state", *passes_on))
        newest[layer] = step.name
        yield step
        below = {piece: Need(step.name, piece) for piece in passes_on}
        if plan.trains_head and layer in layers_read(plan.layers):
            neutral[f"neutral{layer}"] = Need(step.name, "neutral")
    if plan.trains_head:
        yield _head(plan, visit, place(plan.layers, visit), newest, neutral)
