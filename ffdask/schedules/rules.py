"""The two rules of dependency. A schedule is one of them plus a placement: which node runs what.

**Chapter rule**: ``state(c, l) = train(state(c-1, l), the chapter's minibatches pushed through state(c, 1..l-1))``.
Push and train are two steps, and push never waits for state(c-1, l): it is off that chain.

**Streaming rule**: visit after visit, layer l trains on the visit's rows and passes on the activities that it
computed for each minibatch before that minibatch's update. Nothing is pushed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

from ffdask.head import layers_read
from ffdask.schedules.steps import Need, Plan, Step

Placement = Callable[[int, int], int]
"""``place(layer, round) -> node``; layer L + 1 is the head."""


class Newest(dict[int, str]):
    """Layer (0: the head) -> name of the step that gave its newest state; empty before any.

    Remembers what the layers were after each of the last rounds, for negatives that are chosen by goodness.
    """

    def __init__(self) -> None:
        super().__init__()
        self._after: dict[int, dict[int, str]] = {}

    def begin(self, round_: int, plan: Plan) -> None:
        """Remember the states with which round `round_` begins: those after the round before."""
        self._after[round_ - 1] = {layer: name for layer, name in self.items() if layer}
        self._after.pop(round_ - 2 - plan.staleness, None)

    def after(self, round_: int) -> dict[int, str]:
        """Return the layers' states after round `round_`: layer -> the step that gave it; empty before the first."""
        return self._after.get(round_, {})


def negatives(plan: Plan, chapter: int, node: int, newest: Newest, again: int = 0) -> Step:
    """Return the step that draws a chapter's negative labels, with what it may read of the network as it was."""
    needs = plan.sources(chapter, again) if plan.reads_probabilities else {}
    if plan.reads_goodness:
        before = _all_or_none(plan, newest.after(chapter - 1 - plan.staleness))
        needs = {f"state{layer}": Need(name, "state") for layer, name in sorted(before.items())}
    return plan.step("negatives", chapter, node, again=again, needs=needs, gives=("labels",))


def chapter_steps(plan: Plan, place: Placement, chapter: int, newest: Newest) -> Iterator[Step]:
    """Yield the steps of one chapter by the chapter rule; moves `newest` on."""
    newest.begin(chapter, plan)
    labels = negatives(plan, chapter, place(1, chapter), newest) if plan.paired else None
    if labels:
        yield labels
    below: Step | None = None
    for layer in range(1, plan.layers + 1):
        node = place(layer, chapter)
        if layer > 1:
            below = push(plan, chapter, layer, node, newest, labels, below)
            yield below
        step = train(plan, chapter, layer, node, newest, labels, below)
        newest[layer] = step.name
        yield step
    if plan.trains_head:
        yield from head_steps(plan, chapter, place(plan.layers, chapter), newest)


def push(
    plan: Plan,
    chapter: int,
    layer: int,
    node: int,
    newest: Newest,
    labels: Step | None,
    below: Step | None,
    again: int = 0,
) -> Step:
    """Return the step that computes `layer`'s input: on from the push `below` on that node, else from pixels."""
    if below is not None and below.node == node:
        needs = {"activities": Need(below.name, "activities"), f"state{layer - 1}": Need(newest[layer - 1], "state")}
    else:
        # A layer below that was never trained is passed as it began.
        lower = [lower for lower in range(1, layer) if lower in newest]
        needs = {f"state{number}": Need(newest[number], "state") for number in lower} | _labels(labels)
    return plan.step("push", chapter, node, layer, again, needs=needs, gives=("activities",))


def train(
    plan: Plan,
    chapter: int,
    layer: int,
    node: int,
    newest: Newest,
    labels: Step | None,
    below: Step | None,
    again: int = 0,
) -> Step:
    """Return the step that trains `layer` on the push `below`, layer one on pixels."""
    needs = {"state": Need(newest[layer], "state")} if layer in newest else {}
    needs |= _labels(labels) if below is None else {"activities": Need(below.name, "activities")}
    return plan.step("train", chapter, node, layer, again, needs=needs, gives=("state",))


def _labels(labels: Step | None) -> dict[str, Need]:
    return {"labels": Need(labels.name, "labels")} if labels else {}


def head_steps(plan: Plan, chapter: int, node: int, newest: Newest) -> Iterator[Step]:
    """Yield the two steps that train the head on a chapter, through the layers as they are; moves `newest` on."""
    pieces = tuple(f"neutral{layer}" for layer in layers_read(plan.layers))
    states = {f"state{layer}": Need(newest[layer], "state") for layer in range(1, plan.layers + 1) if layer in newest}
    pushed = plan.step("push_head", chapter, node, needs=states, gives=pieces)
    yield pushed
    yield _head(plan, chapter, node, newest, {piece: Need(pushed.name, piece) for piece in pieces})


def _head(plan: Plan, round_: int, node: int, newest: Newest, needs: dict[str, Need], **part: Any) -> Step:
    if 0 in newest:
        needs = needs | {"state": Need(newest[0], "state")}
    step = plan.step("head", round_, node, needs=needs, gives=("state", "probabilities"), **part)
    newest[0] = step.name
    return step


def visit_steps(plan: Plan, place: Placement, visit: int, newest: Newest) -> Iterator[Step]:
    """Yield the steps of one visit by the streaming rule; moves `newest` on."""
    newest.begin(visit, plan)
    labels = yield from _visit_negatives(plan, place, visit, newest) if plan.paired else _none()
    parts = plan.parts(visit)
    for part in parts:
        yield from _flow(plan, place, visit, newest, labels, part=part, last=part == parts[-1])


def _flow(plan: Plan, place: Placement, visit: int, newest: Newest, labels: Step | None, **part: Any) -> Iterator[Step]:
    """Yield the steps by which a visit's rows, or one minibatch of them, pass through the layers."""
    neutral: dict[str, Need] = {}
    below = _labels(labels)
    for layer in range(1, plan.layers + 1):
        passed, neutrals = layer < plan.layers, plan.trains_head
        passes_on = [piece for piece, read in (("activities", passed), ("neutral", neutrals)) if read]
        needs = below | ({"state": Need(newest[layer], "state")} if layer in newest else {})
        step = plan.step("train", visit, place(layer, visit), layer, needs=needs, gives=("state", *passes_on), **part)
        newest[layer] = step.name
        yield step
        below = {piece: Need(step.name, piece) for piece in passes_on}
        if plan.trains_head and layer in layers_read(plan.layers):
            neutral[f"neutral{layer}"] = Need(step.name, "neutral")
    if plan.trains_head:
        yield _head(plan, visit, place(plan.layers, visit), newest, neutral, **part)


def _visit_negatives(plan: Plan, place: Placement, visit: int, newest: Newest) -> Generator[Step, None, Step]:
    """Yield the steps that choose a visit's negative labels; return the one that gives them.

    By goodness: the rows under each label tried pass through the layers as these were some visits ago, each on its
    layer's node, where that state is.
    """
    before = _all_or_none(plan, newest.after(visit - 1 - plan.staleness)) if plan.reads_goodness else {}
    needs = plan.sources(visit) if plan.reads_probabilities else {}
    for layer, name in sorted(before.items()):
        needs = needs | {f"state{layer}": Need(name, "state")}
        step = plan.step("candidates", visit, place(layer, visit), layer, needs=needs, gives=("candidates",))
        yield step
        needs = {"candidates": Need(step.name, "candidates")}
    drawn = plan.step("negatives", visit, place(1, visit), needs=needs, gives=("labels",))
    yield drawn
    return drawn


def _all_or_none(plan: Plan, before: dict[int, str]) -> dict[int, str]:
    """Return states by which a label can be weighed: every layer's, or none while some layer was never trained."""
    return before if len(before) == plan.layers else {}


def _none() -> Generator[Step, None, None]:
    yield from ()
