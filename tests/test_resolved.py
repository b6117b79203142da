"""A configuration held against its data and cluster: what is left open, and how it is closed."""

from __future__ import annotations

import pytest

from ffdask.config import load
from ffdask.datasets import Dataset
from ffdask.errors import BadInput
from ffdask.resolved import Resolved, resolve
from ffdask.schedules import SCHEDULES


def resolved(units: int = 2, rows: int = 1000, side: int = 6, **keys: object) -> Resolved:
    dotted = {"data.chunk": 100, "training.batch_size": 20, "training.epochs": 4}
    dotted |= {key.replace("__", "."): value for key, value in keys.items()}
    return resolve(load(None, dotted), Dataset("made", "/nowhere", "0" * 64, rows, 50, (side, side), 10, "made"), units)


def network(objective: str, negatives: str, classifier: str) -> dict[str, object]:
    return {"network__objective": objective, "network__negatives": negatives, "network__classifier": classifier}


@pytest.mark.parametrize("objective", ["goodness", "symba"])
@pytest.mark.parametrize(
    ("negatives", "classifier", "head", "probabilities", "goodness"),
    [
        ("sampled", "softmax", True, True, False),
        ("sampled", "goodness", True, True, False),
        ("random", "softmax", True, False, False),
        ("random", "goodness", False, False, False),
        ("fixed", "softmax", True, False, False),
        ("fixed", "goodness", False, False, False),
        ("adaptive", "softmax", True, True, False),
        ("adaptive", "goodness", False, False, True),
    ],
)
def test_what_negatives_read_is_what_the_run_trains(objective, negatives, classifier, head, probabilities, goodness):
    plan = resolved(**network(objective, negatives, classifier)).plan
    assert (plan.trains_head, plan.reads_probabilities, plan.reads_goodness) == (head, probabilities, goodness)
    assert plan.paired


@pytest.mark.parametrize("classifier", ["all-heads", "last-head"])
@pytest.mark.parametrize("overlay", ["replace", "append"])
def test_the_objective_classifier_takes_one_row_without_a_label(classifier, overlay):
    made = resolved(data__overlay=overlay, **network("classifier", "none", classifier))
    plan, job = made.plan, made.job
    assert not any((plan.trains_head, plan.reads_probabilities, plan.reads_goodness, plan.paired))
    assert (job.overlay, job.fan_in, job.copies) == ("none", 36, 1)
    assert job.initial_layer(2).head.weights.shape == (1000, 10)


def test_labels_that_are_appended_have_inputs_of_their_own():
    replaced, appended = resolved().job, resolved(data__overlay="append").job
    assert (replaced.overlay, replaced.fan_in, replaced.copies) == ("replace", 36, 2)
    assert (appended.overlay, appended.fan_in) == ("append", 46)
    assert appended.initial_layer(1).weights.shape == (46, 1000)
    assert appended.initial_layer(1).head is None


def test_small_images_need_labels_of_their_own_inputs_or_none():
    with pytest.raises(BadInput, match=r"3 x 3 have no room for the 10 inputs of the label; .* --overlay append"):
        resolved(side=3)
    assert resolved(side=3, data__overlay="append").job.fan_in == 19
    assert resolved(side=3, network__objective="classifier").job.fan_in == 9


@pytest.mark.parametrize(("candidates", "tried"), [(None, 9), (1, 1), (5, 5), (9, 9), (10, 9), (400, 9)])
def test_candidates_are_at_most_the_wrong_labels(candidates, tried):
    keys = network("goodness", "adaptive", "goodness") | ({"network__candidates": candidates} if candidates else {})
    assert resolved(**keys).job.tried == tried


@pytest.mark.parametrize(
    ("scale", "epochs", "widths"),
    [
        (1.0, 4, (1000, 30, 5)),
        (0.5, 2, (496, 16, 8)),
        (0.25, 1, (248, 8, 8)),
        (0.001, 1, (8, 8, 8)),
        (2.0, 8, (2000, 64, 8)),
        (1.3, 5, (1296, 40, 8)),
    ],
)
def test_scale_rounds_epochs_and_widths(scale, epochs, widths):
    made = resolved(training__scale=scale, network__layers=[1000, 30, 5])
    assert made.plan.calendar.epochs == epochs
    assert made.job.widths == widths
    if scale != 1:
        assert all(width % 8 == 0 for width in made.job.widths)
    # Two chapters an epoch, of the epochs that there are.
    assert made.plan.calendar.chapters == 2 * epochs


def test_rows_held_out_leave_before_anything_else():
    calendar = resolved(data__validation=130).plan.calendar
    assert (calendar.rows, calendar.validation, calendar.chunks) == (870, 130, 9)
    assert len(calendar.held_out()) == 130


@pytest.mark.parametrize("validation", [1000, 1001, 2**31 - 1])
def test_holding_out_every_row_is_refused(validation):
    with pytest.raises(BadInput, match=rf"--validation\): given {validation} of 1000 training rows.*hold out fewer"):
        resolved(data__validation=validation)


def test_a_minibatch_must_fit_into_the_rows_that_are_left():
    assert resolved(data__validation=980).plan.calendar.rows == 20
    with pytest.raises(BadInput, match=r"--batch-size\): given 20, but a chunk has 19 rows"):
        resolved(data__validation=981)


@pytest.mark.parametrize("name", SCHEDULES)
def test_only_streaming_hands_on_minibatches(name):
    keys = {"schedule__name": name, "schedule__exchange": "batch"}
    if SCHEDULES[name].by_visit:
        assert resolved(**keys).plan.by_batch
        assert not resolved(schedule__name=name).plan.by_batch
    else:
        with pytest.raises(BadInput, match=rf"--exchange\): given 'batch' with {name}"):
            resolved(**keys)


@pytest.mark.parametrize(
    ("name", "nodes", "staleness"),
    [
        ("sequential", 1, 3),
        ("single-layer", 3, 3),
        ("all-layers", 5, 3),
        ("streaming", 3, 4),
        ("until-still", 5, 3),
        ("worst-layer", 5, 3),
    ],
)
def test_nodes_and_staleness_that_are_left_out_are_as_the_schedule_likes(name, nodes, staleness):
    plan = resolved(units=5, schedule__name=name).plan
    assert (plan.nodes, plan.staleness) == (nodes, staleness)
    plan = resolved(units=5, schedule__name=name, schedule__nodes=7, schedule__staleness=0).plan
    assert (plan.nodes, plan.staleness) == (7, 0)
