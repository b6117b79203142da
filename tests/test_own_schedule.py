"""A schedule of one's own: what it does wrong is said before the run, with the step's name; the examples run."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import SMALL
from hypothesis import given
from hypothesis import strategies as st
from test_schedules import plan_of

from ffdask import conduct, datasets, plan
from ffdask.config import load
from ffdask.errors import BadInput
from ffdask.resolved import resolve
from ffdask.schedules import SCHEDULES
from ffdask.schedules.all_layers import all_layers
from ffdask.schedules.roles import KINDS
from ffdask.schedules.rules import Newest, chapter_steps, negatives, push, train
from ffdask.schedules.steps import Await, Need, Step, static_steps
from ffdask.tasks import tasks_of
from ffdask.work import _KINDS

OWN = Path(__file__).parents[1] / "graphs" / "own"


@pytest.fixture
def forecast(tiny):
    """Foresee a run of a schedule of one's own, as the plan and the run do before anything starts."""

    def go(schedule, **keys):
        dotted = {key.replace("__", "."): value for key, value in keys.items()}
        config = load(None, SMALL | {"data.dataset": str(tiny), "schedule.name": schedule} | dotted)
        return conduct.foresee(config)

    return go


def changed(kind, change, round_=1):
    """All-layers, with the first step of `kind` in a round replaced by ``change(step)``."""

    def steps(plan):
        for step in all_layers(plan):
            yield change(step) if step.kind == kind and step.round == round_ else step

    return steps


def without(role):
    return lambda step: replace(step, needs={name: need for name, need in step.needs.items() if name != role})


def reading(role, name, piece):
    return lambda step: replace(step, needs={**step.needs, role: Need(name, piece)})


def misnumbered(step):
    return replace(step, visits=step.visits[::-1] + step.visits)


WRONG = {
    "unknown need": (
        changed("push", reading("labels", "negativs-chapter001", "labels")),
        "step push_layer2-chapter001 needs negativs-chapter001 (labels), which no earlier step is: a misspelling or a "
        "cycle (did you mean 'negatives-chapter001'?)",
    ),
    "later step": (
        changed("push", reading("state1", "train_layer2-chapter001", "state")),
        "step push_layer2-chapter001 needs train_layer2-chapter001 (state1), which no earlier step is",
    ),
    "itself": (
        changed("push", reading("activities", "push_layer2-chapter001", "activities")),
        "step push_layer2-chapter001 needs push_layer2-chapter001 (activities), which no earlier step is",
    ),
    "piece not given": (
        changed("push", reading("state1", "train_layer1-chapter001", "stat")),
        "step push_layer2-chapter001 needs 'stat' of train_layer1-chapter001, which gives state",
    ),
    "fork of a chain": (
        changed("train", without("state")),
        "step train_layer1-chapter001 trains the initial state; the layer's newest state is train_layer1-chapter000",
    ),
    "state of another layer": (
        changed("push", reading("state1", "train_layer2-chapter000", "state")),
        "step push_layer2-chapter001 takes the state of train_layer2-chapter000 as 'state1'; name the step that "
        "trained layer 1",
    ),
    "node": (
        changed("train", lambda step: replace(step, node=9)),
        "step train_layer1-chapter001 is on node 9; the run has nodes 0 to 1",
    ),
    "layer": (
        changed("push", lambda step: replace(step, layer=3)),
        "step push_layer3-chapter001 is of layer 3; the network has layers 1 to 2",
    ),
    "push of layer one": (
        changed("push", lambda step: replace(step, layer=1)),
        "step push_layer1-chapter001 is of layer 1; a push step is of a layer from 2 to 2",
    ),
    "half a node": (
        changed("train", lambda step: replace(step, node=0.5)),
        "a train step has the node 0.5; give a whole number from 0",
    ),
    "no round": (
        changed("train", lambda step: replace(step, round="1")),
        "a train step has the round '1'; give a whole number from 0",
    ),
    "kind": (
        changed("push", lambda step: replace(step, kind="psh")),
        "step psh_layer2-chapter001 is of kind 'psh'; kinds are",
    ),
    "no activities": (
        changed("push", lambda step: replace(step, kind="train", gives=("state",), needs={})),
        "step train_layer2-chapter001 trains the initial state",
    ),
    "no labels": (
        changed("train", without("labels")),
        "step train_layer1-chapter001 has no `labels`; give it those of the round's negatives step",
    ),
    "labels as activities": (
        changed("push", reading("activities", "negatives-chapter001", "labels")),
        "step push_layer2-chapter001 takes 'labels' of negatives-chapter001 as 'activities'; that role takes 'activ",
    ),
    "unknown role": (
        changed("train", reading("targets", "negatives-chapter001", "labels")),
        "step train_layer1-chapter001 reads 'targets'; a train step reads labels, activities, neutral, state",
    ),
    "head without neutral rows": (
        changed("head", without("neutral2")),
        "step head-chapter001 has no `neutral2`; give it those of the round's push_head step, yielded before it",
    ),
    "push_head through no state": (
        changed("push_head", without("state2")),
        "step push_head-chapter001 passes layer 2 and has no `state2`; name the step that trained it",
    ),
    "push_head without its pieces": (
        changed("push_head", lambda step: replace(step, gives=("neutral1",))),
        "step push_head-chapter001 does not give 'neutral2'; a push_head step takes gives=('neutral2',)",
    ),
    "push through no state": (
        changed("push", without("state1")),
        "step push_layer2-chapter001 passes layer 1 and has no `state1`; name the step that trained it",
    ),
    "no rows": (
        changed("train", lambda step: replace(step, visits=())),
        "step train_layer1-chapter001 works through no rows; make it by plan.step(...), or give `visits`",
    ),
    "other rows": (
        changed("train", misnumbered),
        "step train_layer1-chapter001 takes 'labels' of negatives-chapter001, which worked through other rows",
    ),
    "gives too much": (
        changed("train", lambda step: replace(step, gives=("state", "gradient"))),
        "step train_layer1-chapter001 gives 'gradient'; a train step gives state, activities, neutral",
    ),
    "a round left out": (
        changed("negatives", lambda step: replace(step, round=7)),
        "step negatives-chapter007 comes right after round 0; leave no round out",
    ),
}


@pytest.mark.parametrize(("schedule", "says"), WRONG.values(), ids=WRONG)
def test_a_wrong_step_is_named_before_the_run(forecast, schedule, says):
    with pytest.raises(BadInput, match=re.escape(says)):
        forecast(schedule, schedule__nodes=2)


def only_layer_one(plan):
    newest = Newest()
    for chapter in range(plan.rounds):
        labels = negatives(plan, chapter, 0, newest)
        yield labels
        step = train(plan, chapter, 1, 0, newest, labels, None)
        newest[1] = step.name
        yield step


def skips_a_state(plan):
    newest = Newest()
    for chapter in range(plan.rounds):
        before = dict(newest)
        yield from chapter_steps(plan, lambda layer, chapter: 0, chapter, newest)
        newest |= before


def trains_on_anothers_input(plan):
    newest = Newest()
    labels = negatives(plan, 0, 0, newest)
    yield labels
    for layer in (1, 2):
        pushed = push(plan, 0, 2, 0, newest, labels, None) if layer == 2 else None
        if pushed:
            yield replace(pushed, needs=dict(pushed.needs))
        step = train(plan, 0, layer, 0, newest, labels, pushed)
        newest[layer] = step.name
        yield replace(step, layer=3, gives=("state",)) if layer == 2 else step


def bare_top(plan):
    labels = negatives(plan, 0, 0, Newest())
    yield labels
    yield train(plan, 0, 2, 0, Newest(), None, None)


def no_generator(plan):
    return list(all_layers(plan))


def raises(plan):
    yield from chapter_steps(plan, lambda layer, chapter: 0, 0, Newest())
    raise RuntimeError("out of\nideas")


def raises_in_our_rules(plan):
    yield from chapter_steps(plan, lambda layer, chapter: 1 // 0, 0, Newest())


def yields_a_name(plan):
    yield negatives(plan, 0, 0, Newest())
    yield "train_layer1-chapter000"


class Extended(Step):
    pass


def yields_a_class_of_its_own(plan):
    yield Extended("negatives", 0, 0)


def awaits_nobody(plan):
    yield negatives(plan, 0, 0, Newest())
    yield Await(("train_layer1-chapter000",))


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        (lambda plan: iter(()), "it must be a generator: yield each step"),
        (lambda plan: (yield from ()), "schedule: it yields no train step; yield at least one for each layer"),
        (only_layer_one, "schedule: it ended without training layer 2, the head; yield steps for it"),
        (
            skips_a_state,
            "step train_layer1-chapter002 trains train_layer1-chapter000; the layer's newest state is "
            "train_layer1-chapter001",
        ),
        (trains_on_anothers_input, "step train_layer3-chapter000 is of layer 3; the network has layers 1 to 2"),
        (bare_top, "step train_layer2-chapter000 has no `activities`; give it those of a push step of layer 2"),
        (no_generator, "no_generator returned a list, [Step("),
        (raises, "after step head-chapter000, raised RuntimeError: out of ideas (test_own_schedule.py:"),
        (raises_in_our_rules, "before its first step, raised ZeroDivisionError"),
        (yields_a_name, "after step negatives-chapter000, yielded a str, 'train_layer1-chapter000'; it must yield"),
        (yields_a_class_of_its_own, "before its first step, yielded a Extended"),
        (awaits_nobody, "after step negatives-chapter000, awaits train_layer1-chapter000, which it has not yielded"),
        (lambda: None, "before its first step, raised TypeError"),
    ],
)
def test_a_wrong_schedule_is_named_before_the_run(forecast, schedule, says):
    with pytest.raises(BadInput) as caught:
        forecast(schedule, schedule__nodes=1, schedule__chapters=3)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def endless(plan):
    newest, chapter = Newest(), 0
    while True:
        yield from chapter_steps(plan, lambda layer, chapter: 0, chapter, newest)
        chapter += 1


def test_a_schedule_without_end_is_refused_and_one_that_decides_is_not(forecast, monkeypatch):
    monkeypatch.setattr(plan, "MOST_STEPS", 200)
    with pytest.raises(BadInput, match=r"it has no end: step .* is number 200, and the epochs have 2 chapters; yield"):
        forecast(endless, schedule__nodes=1)

    def decides(plan):
        for step in endless(plan):
            yield step
            if step.kind == "head" and (yield Await((step.name,)))[step.name]["error"] < 0.5:
                return

    assert {step.round for step in forecast(decides, schedule__nodes=1).steps} == {0}


def test_fit_refuses_before_it_fetches_or_writes(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "obtain", lambda *given: pytest.fail("fetched"))
    keys = SMALL | {"data.dataset": str(tiny), "schedule.name": only_layer_one, "run.out": str(tmp_path / "out")}
    with pytest.raises(BadInput, match="ended without training layer 2"):
        conduct.conduct(load(None, keys))
    with pytest.raises(BadInput, match="ended without training layer 2"):
        conduct.dry_run(load(None, keys))
    assert not (tmp_path / "out").exists()


def test_every_kind_that_can_be_done_is_in_the_table():
    assert set(KINDS) == set(_KINDS)


@pytest.fixture
def alternating():
    return load(OWN / "alternating.toml").schedule.name.meaning.steps


@given(layers=st.integers(1, 5), nodes=st.integers(1, 5), chapters=st.integers(1, 6), head=st.booleans())
def test_the_example_passes_its_checks_whatever_the_shape(layers, nodes, chapters, head):
    steps = load(OWN / "alternating.toml").schedule.name.meaning.steps
    shape = plan_of(layers, nodes, 3, chapters, head=head, reads=head)
    if layers > 1 and chapters == 1:
        with pytest.raises(BadInput, match="ended without training layer 2"):
            list(static_steps(steps, shape))
        return
    trained = [(step.round, step.layer) for step in static_steps(steps, shape) if step.kind == "train"]
    period = min(2, layers)
    expected = [(c, layer) for c in range(chapters) for layer in range(1 + c % period, layers + 1, 2)]
    assert sorted(trained) == expected


def test_layers_of_the_example_that_learn_together_wait_for_none_of_each_other(alternating):
    for step in static_steps(alternating, plan_of(layers=5, nodes=5, epochs=3, chapters=6)):
        if step.kind == "push":
            names = [need.step for role, need in step.needs.items() if role.startswith("state")]
            assert not any(name.endswith(f"chapter{step.round:03d}") for name in names)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_the_graph_is_cut_behind_every_layer_of_the_example(forecast, every):
    """Also where no cut's round is one in which the layer learns: else its chain would grow for ever."""
    keys = {"training__epochs": 6, "schedule__chapters": 12, "run__cut_every": every, "schedule__nodes": 2}
    ahead = forecast(load(OWN / "alternating.toml").schedule.name, **keys)
    cut = {task.key for task in tasks_of(ahead, ahead.steps) if task.key.startswith("load_state-train")}
    rounds = {
        layer: [c for c in range(12) if f"load_state-train_layer{layer}-chapter{c:03d}" in cut] for layer in (1, 2)
    }
    assert rounds == {
        1: {1: list(range(0, 12, 2)), 2: list(range(2, 12, 2)), 3: [2, 6, 8]}[every],
        2: {1: list(range(1, 11, 2)), 2: list(range(1, 11, 2)), 3: [3, 5, 9]}[every],
    }


def test_the_readmes_schedule_is_the_examples_without_its_head():
    blocks = re.findall(r"```python\n(.*?)```", (OWN.parents[1] / "README.md").read_text(), re.DOTALL)
    (block,) = [block for block in blocks if "def alternating" in block]
    words = {"Newest": Newest, "negatives": negatives, "push": push, "train": train}
    exec(block.partition("ffdask.fit(")[0], words)
    shape = plan_of(layers=3, nodes=3, chapters=4, head=False, reads=False)
    example = load(OWN / "alternating.toml").schedule.name.meaning.steps
    assert list(static_steps(words["alternating"], shape)) == list(static_steps(example, shape))
    assert "schedule=alternating" in block.partition("ffdask.fit(")[2]


def test_the_example_has_about_twenty_lines():
    text = (OWN / "alternating.py").read_text().partition("def alternating")[2]
    assert len([line for line in text.splitlines() if line.strip()]) <= 22


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--evaluate-every", "1", "--layers", "20,30,10"],
        ["--negatives", "adaptive", "--classifier", "goodness"],
        ["--objective", "classifier"],
    ],
)
def test_the_example_trains_from_its_file_in_any_folder(command, tiny, tmp_path, monkeypatch, flags):
    monkeypatch.chdir(tmp_path)
    small = ["--chunk", "100", "--batch-size", "20", "--layers", "20,30", "--epochs", "2", "--units", "2"]
    said = command("train", OWN / "alternating.toml", "--dataset", tiny, *small, "--out", "out", *flags)
    assert (said.code, said.err) == (0, "")
    assert "test accuracy" in said.out
    evaluated = command("evaluate", "out")
    assert evaluated.code == 0


def test_a_name_on_the_command_line_is_found_in_the_working_folder(command, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "found_by_flag", raising=False)
    (tmp_path / "found_by_flag.py").write_text(
        "from ffdask.schedules.sequential import sequential\ndef steps(plan):\n    yield from sequential(plan)\n"
    )
    flags = ["--dataset", tiny, "--chunk", "100", "--batch-size", "20", "--layers", "20", "--dry-run"]
    said = command("train", "--schedule", "found_by_flag:steps", *flags)
    assert said.code == 0, said.err
    assert "schedule   found_by_flag:steps" in said.out
    wrong = command("train", "--schedule", "found_by_flag:stops", *flags)
    assert wrong.code == 2
    assert wrong.err.count("\n") == 1
    assert "found_by_flag has no 'stops' (did you mean 'steps'?)" in wrong.err


def test_by_visit_is_the_streaming_rule(tiny):
    def mine(plan):
        yield from SCHEDULES["streaming"].steps(plan)

    mine.by_visit = True
    keys = SMALL | {"data.dataset": str(tiny)}
    described = datasets.describe(str(tiny))
    own = resolve(load(None, keys | {"schedule.name": mine}), described, 2)
    table = resolve(load(None, keys | {"schedule.name": "streaming"}), described, 2)
    assert own.plan == table.plan
    assert list(static_steps(own.entry.steps, own.plan)) == list(static_steps(table.entry.steps, table.plan))
