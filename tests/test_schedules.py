"""Schedules against the drawings in their docstrings, and the checks on schedules of any kind."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffdask.calendar import Calendar
from ffdask.errors import BadInput
from ffdask.schedules import SCHEDULES
from ffdask.schedules.all_layers import all_layers
from ffdask.schedules.evaluated import evaluated
from ffdask.schedules.ledger import Ledger
from ffdask.schedules.sequential import sequential
from ffdask.schedules.single_layer import single_layer
from ffdask.schedules.steps import Await, Checker, Need, Plan, static_steps
from ffdask.schedules.streaming import streaming
from ffdask.schedules.until_still import PATIENCE, until_still
from ffdask.schedules.worst_layer import worst_layer


def plan_of(
    layers=2, nodes=1, epochs=2, chapters=2, by_visit=False, staleness=0, head=True, reads=True, rows=40, **more
):
    calendar = Calendar(rows, 20, 10, epochs, chapters, by_visit, seed=1)
    return Plan(layers, nodes, calendar, staleness, head, reads, **more)


READS = {
    "probabilities": {"head": True, "reads": True},
    "nothing, with a head": {"head": True, "reads": False},
    "nothing": {"head": False, "reads": False},
    "goodness": {"head": False, "reads": False, "reads_goodness": True},
    "no negatives": {"head": False, "reads": False, "paired": False},
}
"""What a run's negatives read of the network: the plans that a configuration can make."""


def answered(schedule, plan, record=lambda name: {"loss": 1.0, "error": 0.5}):
    """All steps of a schedule, its questions answered by `record`; each step checked."""
    checker, steps, answer, generator = Checker(plan), [], None, schedule(plan)
    while True:
        try:
            drawn = generator.send(answer)
        except StopIteration:
            return steps
        answer = None
        if isinstance(drawn, Await):
            answer = {name: record(name) for name in drawn.steps}
        else:
            checker.see(drawn)
            steps.append(drawn)


def drawing(steps, nodes):
    letters = {"negatives": "N", "candidates": "C", "push": "P", "train": "T", "push_head": "PH", "head": "H"}
    rows = [[] for _ in range(nodes)]
    for step in steps:
        layer = str(step.layer) if step.layer else ""
        rows[step.node].append(f"{letters[step.kind]}{layer}{step.round}" + "'" * step.again)
    return [f"node {node} | {' '.join(row)}" for node, row in enumerate(rows)]


def drawn_in_docstring(schedule):
    return [line.strip() for line in inspect.getdoc(schedule).splitlines() if re.match(r"\s+node \d", line)]


@pytest.mark.parametrize(
    ("schedule", "plan", "record"),
    [
        (sequential, plan_of(), None),
        (all_layers, plan_of(nodes=2, chapters=4), None),
        (single_layer, plan_of(nodes=2, epochs=3, chapters=3), None),
        (streaming, plan_of(nodes=2, epochs=3, chapters=1, by_visit=True, rows=20), None),
        (worst_layer, plan_of(chapters=1, head=False), lambda name: {"loss": float("layer2" in name)}),
    ],
)
def test_schedule_is_its_drawing(schedule, plan, record):
    steps = answered(schedule, plan, record or (lambda name: {}))
    assert drawing(steps, plan.nodes) == drawn_in_docstring(schedule)


def test_worst_layer_repeats_the_layer_with_the_largest_loss():
    plan = plan_of(layers=3, epochs=2, chapters=3)
    losses = {1: 0.1, 2: 0.9, 3: 0.5}
    steps = answered(worst_layer, plan, lambda name: {"loss": losses[int(name[len("train_layer")])]})
    assert [step.layer for step in steps if step.again and step.kind == "train"] == [2, 2, 2]
    again = next(step for step in steps if step.again and step.kind == "train")
    assert again.needs["state"] == Need("train_layer2-chapter000", "state")
    after = next(step for step in steps if step.name == "train_layer2-chapter001")
    assert after.needs["state"] == Need(again.name, "state")


def test_until_still_stops_when_the_error_stands_still():
    plan = plan_of(epochs=20, chapters=20)
    errors = [0.5, 0.4, 0.3, 0.3, 0.3, 0.3, 0.2]
    steps = answered(until_still, plan, lambda name: {"error": errors[int(name[-3:])]})
    # The third figure that is no new lowest is chapter 5's; chapter 6 is not begun.
    assert max(step.round for step in steps) == 2 + PATIENCE
    falling = answered(until_still, plan, lambda name: {"error": 1 / (1 + int(name[-3:]))})
    assert max(step.round for step in falling) == 19


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@given(
    layers=st.integers(1, 4),
    nodes=st.integers(1, 5),
    epochs=st.integers(1, 4),
    staleness=st.integers(0, 4),
    reads=st.sampled_from(sorted(READS)),
    by_batch=st.booleans(),
    data=st.data(),
)
def test_every_schedule_passes_its_checks(name, layers, nodes, epochs, staleness, reads, by_batch, data):
    entry = SCHEDULES[name]
    chapters = data.draw(st.integers(1, 2 * epochs))
    keys = READS[reads] | {"by_batch": by_batch and entry.by_visit, "rows": data.draw(st.integers(10, 50))}
    plan = plan_of(layers, nodes, epochs, min(chapters, epochs), entry.by_visit, staleness, **keys)
    steps = answered(entry.steps, plan)
    trained = [(step.round, step.part, step.layer) for step in steps if step.kind == "train" and not step.again]
    rounds = {step.round for step in steps}
    assert len(set(trained)) == len(trained)
    assert set(trained) == {
        (round_, part, layer)
        for round_ in rounds
        for part in (plan.parts(round_) if entry.by_visit else (None,))
        for layer in range(1, layers + 1)
    }
    kinds = {step.kind for step in steps}
    assert ("head" in kinds) == plan.trains_head
    assert ("negatives" in kinds) == plan.paired
    assert ("candidates" in kinds) == (plan.reads_goodness and entry.by_visit and plan.rounds > staleness + 1)
    # The last of a layer's steps in a round, and no other, is marked so: its state is read later.
    last = {(step.round, step.layer): step for step in steps if step.kind == "train" and not step.again}
    first = [step for step in steps if step.kind == "train" and not step.again]
    assert all(step.last == (last[step.round, step.layer] is step) for step in first)
    # Whatever a step needs, a ledger that forgets as it may still has it.
    ledger = Ledger(plan)
    for step in steps:
        ledger.open(step.round, step.part or 0)
        for need in step.needs.values():
            given_by = ledger.get(need)
            assert given_by is not None
            assert given_by.name == need.step
        ledger.put(step, step)
    if name != "until-still":
        assert rounds == set(range(plan.rounds))


@given(layers=st.integers(1, 4), nodes=st.integers(1, 4), chapters=st.integers(2, 6))
def test_push_never_waits_for_the_state_that_its_layer_trains(layers, nodes, chapters):
    plan = plan_of(layers, nodes, 3, chapters)
    for step in static_steps(all_layers, plan):
        if step.kind == "push":
            states = [need.step for role, need in step.needs.items() if role.startswith("state")]
            assert all(f"layer{step.layer}-" not in name for name in states)
            assert all(name.endswith(f"chapter{step.round:03d}") for name in states)


def test_negatives_read_probabilities_as_old_as_staleness_says():
    # Two chunks an epoch, a chapter a visit: visit v of a chunk comes two rounds after the one before.
    for staleness, back in ((0, 2), (1, 2), (2, 4), (3, 4), (4, 6)):
        plan = plan_of(epochs=6, chapters=12, staleness=staleness)
        for step in static_steps(sequential, plan):
            if step.kind == "negatives":
                expected = f"head-chapter{step.round - back:03d}"
                assert [need.step for need in step.needs.values()] == ([expected] if step.round >= back else [])


@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_negatives_by_goodness_read_the_states_as_old_as_staleness_says(staleness):
    plan = plan_of(epochs=6, chapters=6, staleness=staleness, **READS["goodness"])
    for step in static_steps(all_layers, plan):
        if step.kind == "negatives":
            old = step.round - 1 - staleness
            names = {f"state{layer}": f"train_layer{layer}-chapter{old:03d}" for layer in (1, 2)} if old >= 0 else {}
            assert {role: need.step for role, need in step.needs.items()} == names


@pytest.mark.parametrize("by_batch", [False, True])
def test_streaming_tries_labels_on_each_layers_node_with_the_state_of_then(by_batch):
    plan = plan_of(3, 3, epochs=4, chapters=1, by_visit=True, staleness=1, by_batch=by_batch, **READS["goodness"])
    tried = [step for step in static_steps(streaming, plan) if step.kind in ("candidates", "negatives")]
    for visit in range(plan.rounds):
        steps = [step for step in tried if step.round == visit]
        if visit < 2:
            assert [(step.kind, dict(step.needs)) for step in steps] == [("negatives", {})]
            continue
        assert [(step.kind, step.layer, step.node) for step in steps] == [
            *(("candidates", layer, layer - 1) for layer in (1, 2, 3)),
            ("negatives", 0, 0),
        ]
        part = "batch001" if by_batch else ""
        for layer, step in enumerate(steps[:3], start=1):
            assert step.needs[f"state{layer}"].step == f"train_layer{layer}-visit{visit - 2:03d}{part}"
            assert step.part is None


def test_by_batch_a_visits_minibatches_follow_one_another_up_the_layers():
    plan = plan_of(2, 2, epochs=1, chapters=1, by_visit=True, rows=30, by_batch=True)
    assert [plan.parts(visit) for visit in range(plan.rounds)] == [(0, 1), (0,)]
    steps = [step for step in static_steps(streaming, plan) if step.kind == "train"]
    assert [(step.round, step.part, step.layer, step.last) for step in steps] == [
        *((0, 0, 1, False), (0, 0, 2, False), (0, 1, 1, True), (0, 1, 2, True)),
        *((1, 0, 1, True), (1, 0, 2, True)),
    ]
    assert steps[2].needs["state"].step == steps[0].name == "train_layer1-visit000batch000"
    assert steps[3].needs["activities"].step == steps[2].name
    assert steps[4].needs["state"].step == steps[2].name
    assert plan_of(by_visit=True).parts(0) == (None,)


def test_names_are_dask_prefixes():
    from dask.utils import key_split

    steps = list(static_steps(streaming, plan_of(by_visit=True)))
    prefixes = {key_split(f"{step.name}-0a1b2c3d") for step in steps}
    assert prefixes == {"negatives", "train_layer1", "train_layer2", "head"}


# Of a run without negatives: its step needs no labels.
ALONE = replace(plan_of(), paired=False, reads_probabilities=False)
STEP = ALONE.step("train", 0, 0, 1, gives=("state",))


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([replace(STEP, node=3)], "train_layer1-chapter000 is on node 3; the run has nodes 0 to 0"),
        ([replace(STEP, layer=3)], "is of layer 3; the network has layers 1 to 2"),
        ([STEP, STEP], "was yielded before"),
        ([replace(STEP, round=1), replace(STEP, layer=2)], "yield rounds in order"),
        ([replace(STEP, needs={"labels": Need("negatives-chapter000", "labels")})], "which no earlier step is"),
        ([STEP, replace(STEP, layer=2, needs={"activities": Need(STEP.name, "activities")})], "which gives state"),
        (
            [STEP, replace(STEP, round=1)],
            "trains the initial state; the layer's newest state is train_layer1-chapter000",
        ),
        (
            [
                replace(STEP, gives=("state", "activities")),
                replace(STEP, round=1, layer=2, needs={"activities": Need(STEP.name, "activities")}),
            ],
            "1 rounds back; it is kept for 0",
        ),
    ],
)
def test_a_bad_schedule_is_named_by_its_step(steps, message):
    checker = Checker(ALONE)
    for step in steps[:-1]:
        checker.see(step)
    with pytest.raises(BadInput, match=re.escape(message)):
        checker.see(steps[-1])


def test_evaluated_looks_after_every_second_chapter_and_changes_nothing_else():
    plan = plan_of(epochs=6, chapters=6)
    plain = list(static_steps(sequential, plan))
    steps = list(static_steps(evaluated(sequential, 2), plan))
    looks = [step for step in steps if step.kind == "evaluate"]
    assert [step for step in steps if step.kind != "evaluate"] == plain
    assert [step.round for step in looks] == [1, 3, 5]
    assert {need.step for need in looks[0].needs.values()} == {
        "train_layer1-chapter001",
        "train_layer2-chapter001",
        "head-chapter001",
    }
