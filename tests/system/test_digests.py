"""The number of workers changes the time, never the result: one digest, wherever the steps run."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ffdask import machine
from ffdask.config import load
from ffdask.datasets import load as load_rows
from ffdask.inline import train_inline
from ffdask.schedules import SCHEDULES
from ffdask.work import Data
from tests.system.conftest import outside_cluster

LAYOUTS = {
    "one worker, one unit": {"cluster__units": 1},
    "one worker, two units": {"cluster__units": 2},
    "two workers in threads": {"cluster__workers": 2, "cluster__units": 2},
    "four nodes on two workers": {"cluster__workers": 2, "cluster__units": 2, "schedule__nodes": 4},
    "two workers in processes": {"cluster__workers": 2, "cluster__units": 2, "cluster__processes": True},
}


@pytest.fixture(scope="module")
def inline_digest(tiny):
    """The digest of a schedule run in this thread, one step after another."""

    def digest(name, **keys):
        config = load(
            None,
            {
                "data.dataset": tiny.path,
                "data.chunk": 100,
                "network.layers": [24, 32, 16],
                "training.epochs": 3,
                "training.batch_size": 20,
                "schedule.chapters": 6,
                "schedule.name": name,
            }
            | keys,
        )
        resolved = config.resolve(tiny, 2)
        calendar = resolved.plan.calendar
        data = Data.of(calendar, load_rows(tiny.path, "train"), lambda: load_rows(tiny.path, "test"))
        machine.hold_one_thread()
        try:
            return train_inline(resolved.job, resolved.plan, SCHEDULES[name].steps, data)[0].sha256()
        finally:
            machine.let_go()

    return digest


@pytest.mark.parametrize("name", ["sequential", "all-layers", "streaming", "until-still", "worst-layer"])
def test_every_layout_gives_the_digest_of_a_run_in_one_thread(name, train, inline_digest):
    layouts = LAYOUTS if name in ("all-layers", "streaming") else dict(list(LAYOUTS.items())[1:3])
    digests = {layout: train(schedule__name=name, **keys).summary["weights_sha256"] for layout, keys in layouts.items()}
    assert set(digests.values()) == {inline_digest(name)}


def test_sequential_and_all_layers_are_one_computation(train):
    one = train(schedule__name="sequential")
    other = train(schedule__name="all-layers", schedule__nodes=3)
    assert one.summary["weights_sha256"] == other.summary["weights_sha256"]
    assert (one.summary["nodes"], other.summary["nodes"]) == (1, 3)


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


def test_workers_that_others_started(train, tmp_path, inline_digest):
    with outside_cluster(tmp_path) as address:
        for name in ("streaming", "all-layers"):
            run = train(schedule__name=name, cluster__scheduler=address, cluster__workers=2)
            assert run.summary["weights_sha256"] == inline_digest(name)
            assert (run.summary["workers"], run.summary["threads"]) == (2, 4)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    layers=st.lists(st.integers(3, 20), min_size=1, max_size=3),
    chunk=st.integers(60, 300),
    batch=st.integers(10, 60),
    epochs=st.integers(1, 2),
    staleness=st.integers(0, 3),
    negatives=st.sampled_from(["random", "sampled"]),
    name=st.sampled_from(["sequential", "all-layers", "streaming"]),
    workers=st.integers(1, 3),
)
def test_small_configurations(train, layers, chunk, batch, epochs, staleness, negatives, name, workers):
    keys = {
        "network__layers": layers,
        "data__chunk": chunk,
        "training__batch_size": batch,
        "training__epochs": epochs,
        "schedule__chapters": epochs,
        "schedule__staleness": staleness,
        "network__negatives": negatives,
        "schedule__name": name,
    }
    digests = {
        train(**keys, cluster__workers=count, cluster__units=count).summary["weights_sha256"] for count in (1, workers)
    }
    assert len(digests) == 1
