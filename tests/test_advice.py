from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from ffdask import advice
from ffdask.advice import RULES, Seen
from ffdask.config import load


def history(errors, train_error=None) -> xr.Dataset:
    """A history of these errors (chapters, layers), and of the head's (chapters,)."""
    errors = np.asarray(errors, float)
    head = np.full(len(errors), np.nan) if train_error is None else np.asarray(train_error, float)
    return xr.Dataset(
        {"error": (("chapter", "layer"), errors), "train_error": (("chapter",), head)},
        coords={"chapter": np.arange(len(errors)), "layer": np.arange(1, errors.shape[1] + 1)},
    )


FALLING = np.stack([np.linspace(0.30, 0.03, 12), np.linspace(0.28, 0.02, 12)], axis=1)


def seen(errors=FALLING, train_error=None, keys=None, records=(), images=True, paired=True, **summary) -> Seen:
    figures = {
        "test_accuracy": 0.97,
        "test_accuracy_softmax": summary.get("test_accuracy", 0.97),
        "classifier": "softmax",
        "nodes": 2,
        "threads": 2,
        "utilization": 0.95,
    }
    tables = load(None, keys or {}).tables()
    return Seen(tables, figures | summary, history(errors, train_error), records, images, paired)


def step(node: int, start: float, stop: float, kind: str = "train") -> dict:
    return {"kind": kind, "node": node, "layer": 1, "start": start, "stop": stop}


def test_a_run_with_nothing_to_mend_is_told_nothing():
    assert advice.advice(seen()) == []


def test_an_idle_node_is_named():
    records = [step(0, 0, 10), step(1, 0, 2), step(1, 0, 9, "evaluate")]
    said = advice.idle_node(seen(records=records, utilization=0.6))
    assert said.startswith("Node 1 worked 20 % of the time, node 0 100 %")
    assert advice.idle_units(seen(records=records, utilization=0.6)) is None, "it is said once"
    assert advice.idle_node(seen(records=[step(0, 0, 10), step(1, 0, 6)], utilization=0.6)) is None
    assert advice.idle_node(seen(records=records, utilization=0.9)) is None
    assert advice.idle_node(seen(records=[step(0, 0, 10)], nodes=1, utilization=0.5)) is None
    assert advice.idle_node(seen(records=[], utilization=0.5)) is None


def test_a_node_that_did_nothing_at_all_is_named():
    assert "Node 2 worked 0 %" in advice.idle_node(
        seen(records=[step(0, 0, 9), step(1, 0, 9)], nodes=3, utilization=0.6)
    )


def test_idle_units():
    records = [step(0, 0, 10), step(1, 0, 9)]
    assert "busy 40 %" in advice.idle_units(seen(records=records, utilization=0.4))
    assert advice.idle_units(seen(records=records, utilization=0.8)) is None
    assert advice.idle_units(seen(records=records, utilization=0.4, threads=1)) is None


@pytest.mark.parametrize(
    ("keys", "images", "ways"),
    [
        ({"training.shift": 0}, True, "--shift 1 or --dropout 0.2 or more data"),
        ({}, True, "--dropout 0.2 or more data"),
        ({"training.shift": 0}, False, "--dropout 0.2 or more data"),
        ({"layer.dropout": 0.1}, True, "more data"),
    ],
)
def test_rows_known_by_heart(keys, images, ways):
    train = np.linspace(0.2, 0.001, 12)
    said = advice.learned_by_heart(seen(train_error=train, keys=keys, images=images))
    assert "(0.10 %)" in said
    assert "(3.00 %)" in said
    assert f" {ways} may help" in said
    assert advice.still_falling(seen(train_error=train, keys=keys)) is None, "more epochs would not help"


def test_rows_are_not_known_by_heart():
    assert advice.learned_by_heart(seen(train_error=np.linspace(0.2, 0.025, 12))) is None
    assert advice.learned_by_heart(seen(train_error=np.linspace(0.2, 0.001, 12), test_accuracy=0.998)) is None
    assert advice.learned_by_heart(seen()) is None, "nobody answered in training"


def test_rows_held_out_are_believed_before_the_test_set():
    known = seen(train_error=np.full(12, 0.01), validation_accuracy=0.9, test_accuracy=0.99)
    assert "(10.00 %)" in advice.learned_by_heart(known)


def test_who_answers_in_training_is_compared_with_itself():
    train = np.full(12, 0.04)
    assert advice.learned_by_heart(seen(train_error=train, test_accuracy=0.5, test_accuracy_softmax=0.95)) is None
    own = {"test_accuracy": 0.9, "test_accuracy_last-head": 0.99, "classifier": "all-heads"}
    assert advice.learned_by_heart(seen(np.full((12, 2), 0.01), paired=False, **own)) is None


def test_layers_own_heads_answer_in_training_too():
    errors = np.full((12, 2), [0.5, 0.004])
    assert "(0.40 %)" in advice.learned_by_heart(seen(errors, paired=False))
    assert advice.learned_by_heart(seen(errors)) is None, "errors of goodness are no answers"


def test_an_error_that_still_falls():
    said = advice.still_falling(seen(train_error=np.linspace(0.3, 0.1, 12), test_accuracy=0.9))
    first, last = np.linspace(0.3, 0.1, 12)[6:9].mean(), np.linspace(0.3, 0.1, 12)[9:].mean()
    assert f"fell by {100 * (1 - last / first):.0f} %" in said
    assert advice.still_falling(seen(train_error=np.full(12, 0.1), test_accuracy=0.9)) is None
    assert advice.still_falling(seen(FALLING[:4], np.linspace(0.3, 0.1, 4), test_accuracy=0.9)) is None, "too short"


def test_layers_that_stand_still():
    still = np.stack([FALLING[:, 0], np.full(12, 0.2), np.full(12, 0.3)], axis=1)
    assert advice.layers_that_stand_still(seen(still)).startswith("The error of layers 2, 3 stands still")
    assert advice.layers_that_stand_still(seen()) is None
    assert advice.layers_that_stand_still(seen(still[:4])) is None, "too short to say"
    assert advice.layers_that_stand_still(seen(np.full((12, 2), 0.001))) is None, "low enough to stand still"


def test_a_layer_that_some_chapters_leave_out_does_not_count_as_standing_still():
    errors = FALLING.copy()
    errors[::2, 1] = np.nan
    assert advice.layers_that_stand_still(seen(errors)) is None


def test_last_layers_that_add_little():
    errors = np.full((12, 4), [0.2, 0.05, 0.08, 0.09])
    said = advice.last_layers_add_little(seen(errors))
    assert said.startswith("Layer 2 ends with the smallest error (5.00 %); layers 3, 4 above it end with more (9.00 %")
    assert advice.last_layers_add_little(seen()) is None
    assert advice.last_layers_add_little(seen(FALLING[:, :1])) is None
    never = np.full((12, 2), [0.05, np.nan])
    assert advice.last_layers_add_little(seen(never)) is None


def test_another_classifier():
    said = advice.another_classifier(seen(test_accuracy_goodness=0.98))
    assert said.startswith("goodness answers better than softmax (98.00 % right against 97.00 % of the test rows)")
    assert advice.another_classifier(seen(test_accuracy_goodness=0.971)) is None
    held = {"validation_accuracy": 0.97, "validation_accuracy_softmax": 0.97, "validation_accuracy_goodness": 0.96}
    assert advice.another_classifier(seen(test_accuracy_goodness=0.99, **held)) is None, "rows held out decide"


def test_the_test_set_is_not_to_choose_by():
    assert advice.chosen_by_the_test_set(seen(keys={"run.evaluate_every": 1})) is not None
    assert advice.chosen_by_the_test_set(seen(keys={"run.evaluate_every": 1, "data.validation": 100})) is None
    assert advice.chosen_by_the_test_set(seen()) is None


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_rule_bears_a_run_of_which_little_is_known(rule):
    whole = seen()
    assert rule(Seen(whole.tables, whole.summary, None, [], False, True)) is None
    assert rule(seen(np.full((1, 1), np.nan), paired=False)) is None
