"""The number of workers changes the time, never the result: one digest, wherever the steps run."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ffdask.config import ALLOWED
from ffdask.kernels import without_bfloat16
from ffdask.schedules import SCHEDULES
from tests.system.conftest import outside_cluster

pytestmark = pytest.mark.slow

LAYOUTS = {
    "one worker, one unit": {"cluster__units": 1},
    "one worker, two units": {"cluster__units": 2},
    "two workers in threads": {"cluster__workers": 2, "cluster__units": 2},
    "four nodes on two workers": {"cluster__workers": 2, "cluster__units": 2, "schedule__nodes": 4},
    "two workers in processes": {"cluster__workers": 2, "cluster__units": 2, "cluster__processes": True},
}


@pytest.mark.parametrize(
    "name", ["sequential", "single-layer", "all-layers", "streaming", "until-still", "worst-layer"]
)
def test_every_layout_gives_the_digest_of_a_run_in_one_thread(name, train, inline_digest):
    layouts = LAYOUTS if name in ("all-layers", "streaming") else dict(list(LAYOUTS.items())[1:3])
    digests = {layout: train(schedule__name=name, **keys).summary["weights_sha256"] for layout, keys in layouts.items()}
    assert set(digests.values()) == {inline_digest(schedule__name=name)}


def test_the_placements_of_the_chapter_rule_are_one_computation(train):
    one = train(schedule__name="sequential")
    others = [train(schedule__name=name, schedule__nodes=3) for name in ("all-layers", "single-layer")]
    assert {other.summary["weights_sha256"] for other in others} == {one.summary["weights_sha256"]}
    assert [run.summary["nodes"] for run in (one, *others)] == [1, 3, 3]


LACKING = without_bfloat16()


@pytest.mark.slow
@pytest.mark.skipif(bool(LACKING), reason=f"no bfloat16 products here: {LACKING}")
def test_bfloat16_gives_one_digest_everywhere_and_auto_is_settled_and_recorded(train, inline_digest):
    wide = {"network__layers": [40, 48, 64], "training__precision": "bfloat16"}
    digest = inline_digest(**wide)
    assert digest != inline_digest(**wide | {"training__precision": "float32"})
    for keys in list(LAYOUTS.values())[1:]:
        assert train(**wide, **keys).summary["weights_sha256"] == digest
    said: list[str] = []
    run = train(say=said.append, **wide | {"training__precision": "auto"})
    assert (run.summary["weights_sha256"], run.summary["precision"]) == (digest, "bfloat16")
    assert said.count("precision: bfloat16") == 1
    attributes = json.loads((run.path / "run.zarr" / "zarr.json").read_text())["attributes"]
    assert attributes["configuration"]["training"]["precision"] == "bfloat16"
    assert attributes["resolved"]["precision"] == "bfloat16"


SHORT = {
    "data__chunk": 200,
    "training__batch_size": 50,
    "training__epochs": 2,
    "schedule__chapters": 3,
    "schedule__staleness": 1,
}
"""Of few steps, whose negatives still read what came before."""

CLASSIFIER = {"network__objective": "classifier"}
BY_GOODNESS = {"network__negatives": "adaptive", "network__classifier": "goodness"}
BY_HEAD = {"network__objective": "symba", "network__negatives": "adaptive"}
KINDS = {"classifier": CLASSIFIER, "adaptive by goodness": BY_GOODNESS, "symba adaptive by the head": BY_HEAD}
SCHEDULED = {name: {"schedule__name": name} for name in SCHEDULES} | {
    "streaming by batch": {"schedule__name": "streaming", "schedule__exchange": "batch"}
}


@pytest.mark.parametrize(
    ("scheduled", "kind"),
    [
        ("sequential", "classifier"),
        ("single-layer", "classifier"),
        ("single-layer", "adaptive by goodness"),
        ("all-layers", "adaptive by goodness"),
        ("all-layers", "symba adaptive by the head"),
        ("streaming", "classifier"),
        ("streaming", "adaptive by goodness"),
        ("streaming by batch", "symba adaptive by the head"),
        ("until-still", "classifier"),
        ("worst-layer", "adaptive by goodness"),
    ],
)
def test_any_number_of_workers_gives_one_digest(scheduled, kind, train, inline_digest):
    keys = SHORT | KINDS[kind] | SCHEDULED[scheduled]
    found = {
        count: train(cluster__workers=count, cluster__units=count, schedule__nodes=nodes, **keys).summary
        for count, nodes in ((1, 2), (2, 5), (4, 3))
    }
    assert {summary["weights_sha256"] for summary in found.values()} == {inline_digest(schedule__nodes=1, **keys)}
    assert [(summary["workers"], summary["nodes"]) for summary in found.values()] == [(1, 2), (2, 5), (4, 3)]


@pytest.mark.parametrize(
    ("scheduled", "kind"),
    [
        ("single-layer", "classifier"),
        ("streaming by batch", "adaptive by goodness"),
    ],
)
def test_worker_processes_give_that_digest_too(scheduled, kind, train, inline_digest):
    keys = SHORT | KINDS[kind] | SCHEDULED[scheduled]
    run = train(cluster__workers=2, cluster__units=2, cluster__processes=True, run__cut_every=1, **keys)
    assert run.summary["weights_sha256"] == inline_digest(**keys)


@pytest.mark.parametrize("scheduled", ["single-layer", "streaming by batch"])
def test_what_changes_rows_changes_them_alike_everywhere(scheduled, train, inline_digest):
    keys = SHORT | SCHEDULED[scheduled] | BY_GOODNESS | {"network__candidates": 3, "run__evaluate_every": 1}
    keys |= {"layer__dropout": 0.25, "data__overlay": "append", "data__validation": 60, "network__layers": [40, 8, 24]}
    run = train(cluster__workers=2, cluster__units=2, **keys)
    assert run.summary["weights_sha256"] == inline_digest(**keys)
    assert run.history["rows"].values.tolist() == [400, 340, 340]
    looks = run.history["validation_errors_goodness"].values
    assert looks[-1] == run.summary["validation_errors"]
    assert "test_errors_goodness" not in run.history


def test_rows_that_are_sent_and_rows_held_out_among_them(train, monkeypatch):
    """The rows that are looked at are sent as well, and are those that are held out."""
    from ffdask import cluster as cluster_module

    keys = SHORT | CLASSIFIER | {"schedule__name": "single-layer", "data__validation": 60, "run__evaluate_every": 1}
    expected = train(**keys)
    monkeypatch.setattr(cluster_module.Cluster, "on_each_worker", lambda self, *_: {s.name: None for s in self.slots})
    sent = train(cluster__workers=2, cluster__units=2, **keys)
    assert sent.summary["weights_sha256"] == expected.summary["weights_sha256"]
    for name in ("last-head", "all-heads"):
        looks = [run.history[f"validation_errors_{name}"].values.tolist() for run in (expected, sent)]
        assert looks[0] == looks[1]


@pytest.mark.slow
def test_the_schedulers_cuts_change_nothing(train):
    digests = {
        train(schedule__name=name, run__cut_every=every).summary["weights_sha256"]
        for name in ("all-layers", "sequential")
        for every in (1, 2, 100)
    }
    assert len(digests) == 1


def test_twice_in_a_row_the_same_and_another_seed_not(train):
    first, second, other = (train(training__seed=seed).summary["weights_sha256"] for seed in (5, 5, 6))
    assert first == second != other


@pytest.mark.slow
def test_workers_that_others_started(train, tmp_path, inline_digest):
    with outside_cluster(tmp_path) as address:
        for name in ("streaming", "all-layers"):
            run = train(schedule__name=name, cluster__scheduler=address, cluster__workers=2)
            assert run.summary["weights_sha256"] == inline_digest(schedule__name=name)
            assert (run.summary["workers"], run.summary["threads"]) == (2, 4)


@pytest.mark.slow
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    layers=st.lists(st.integers(3, 20), min_size=1, max_size=3),
    chunk=st.integers(60, 300),
    batch=st.integers(10, 60),
    epochs=st.integers(1, 2),
    staleness=st.integers(0, 3),
    triple=st.sampled_from([(name, *pair) for name, parts in ALLOWED.items() for pair in itertools.product(*parts)]),
    name=st.sampled_from(["sequential", "single-layer", "all-layers", "streaming"]),
    workers=st.integers(1, 3),
)
def test_small_configurations(train, layers, chunk, batch, epochs, staleness, triple, name, workers):
    objective, negatives, classifier = triple
    keys = {
        "network__layers": layers,
        "data__chunk": chunk,
        "training__batch_size": batch,
        "training__epochs": epochs,
        "schedule__chapters": epochs,
        "schedule__staleness": staleness,
        "network__objective": objective,
        "network__negatives": negatives,
        "network__classifier": classifier,
        "schedule__name": name,
    }
    digests = {
        train(**keys, cluster__workers=count, cluster__units=count).summary["weights_sha256"] for count in (1, workers)
    }
    assert len(digests) == 1
