from __future__ import annotations

import math
import re

import pytest
from conftest import make_store

from ffdask import datasets
from ffdask.config import load
from ffdask.errors import BadInput
from ffdask.plan import RUN_BYTES, Forecast, check_memory, costs_of_nodes, default_look_ahead, forecast, text
from ffdask.resolved import Resolved, resolve
from ffdask.schedules import SCHEDULES
from ffdask.schedules.costs import cost
from ffdask.schedules.ideal import makespan

KEYS = {
    "data.chunk": 100,
    "network.layers": [20, 30],
    "training.epochs": 2,
    "training.batch_size": 20,
}


@pytest.fixture(scope="module")
def resolved(tiny):
    def make(units: int = 2, path=tiny, **keys: object) -> Resolved:
        dotted = {key.replace("__", "."): value for key, value in keys.items()}
        config = load(None, KEYS | {"data.dataset": str(path)} | dotted)
        return resolve(config, datasets.describe(str(path)), units)

    return make


def ahead(resolved: Resolved, units: tuple[int, ...] = (2,)) -> Forecast:
    return forecast(resolved, [node % len(units) for node in range(resolved.plan.nodes)], units)


def test_one_unit_takes_as_long_as_all_steps_together(resolved):
    one = ahead(resolved(schedule__name="sequential"), (1,))
    assert makespan(one.timed) == pytest.approx(one.work)
    assert one.speed_up == pytest.approx(1)
    stops = [timed.stop for timed in one.timed]
    assert stops == sorted(stops), "one after the other, as the schedule says"


def test_the_makespan_of_a_small_case(resolved):
    """Two layers, no head, two visits, two nodes: T10 | T20 beside T11 | T21."""
    keys = {"network__negatives": "random", "network__classifier": "goodness", "training__epochs": 1}
    made = ahead(resolved(data__chunk=150, **keys), (1, 1))
    seconds = {one.step.name: one.stop - one.start for one in made.timed}
    assert set(seconds) == {
        *("negatives-visit000", "train_layer1-visit000", "train_layer2-visit000"),
        *("negatives-visit001", "train_layer1-visit001", "train_layer2-visit001"),
    }
    first, second = seconds["train_layer1-visit000"], seconds["train_layer2-visit000"]
    assert seconds["train_layer1-visit001"] == pytest.approx(first)
    assert makespan(made.timed) == pytest.approx(first + max(first, second) + second)
    assert made.speed_up == pytest.approx(2 * (first + second) / (first + max(first, second) + second))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("units", [(1,), (2,), (1, 1), (3, 1), (2, 2, 2)])
@pytest.mark.parametrize("nodes", [1, 2, 3, 5])
def test_speed_up_is_never_above_units(resolved, schedule, units, nodes):
    made = ahead(resolved(schedule__name=schedule, schedule__nodes=nodes, training__epochs=4), units)
    assert 1 - 1e-9 <= made.speed_up <= sum(units) + 1e-9


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("staleness", [0, 1, 3])
@pytest.mark.parametrize("nodes", [1, 2, 3, 5])
def test_speed_up_is_never_above_the_bound_with_a_unit_a_node(resolved, schedule, staleness, nodes):
    keys = {"schedule__name": schedule, "schedule__nodes": nodes, "schedule__staleness": staleness}
    made = ahead(resolved(training__epochs=4, **keys), (1,) * nodes)
    assert made.speed_up <= made.bound + 1e-9
    assert made.bound <= nodes


@pytest.mark.parametrize("schedule", ["sequential", "all-layers", "streaming", "until-still"])
def test_speed_up_is_never_above_the_bound_with_more_units_than_nodes(resolved, schedule):
    made = ahead(resolved(schedule__name=schedule, schedule__nodes=1, training__epochs=4), (2,))
    assert made.speed_up <= made.bound + 1e-9


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_no_step_runs_before_what_it_needs_nor_beyond_the_units(resolved, schedule):
    units = (2, 1)
    made = ahead(resolved(schedule__name=schedule, schedule__nodes=3), units)
    at = {one.step.name: one for one in made.timed}
    for one in made.timed:
        assert all(at[need.step].stop <= one.start for need in one.step.needs.values())
    for worker, count in enumerate(units):
        mine = [one for one in made.timed if made.worker_of[one.step.node] == worker and one.stop > one.start]
        for one in mine:
            assert sum(other.start <= one.start < other.stop for other in mine) <= count


def test_the_costs_of_the_nodes_are_all_the_work(resolved):
    made = resolved(schedule__nodes=2)
    assert len(costs_of_nodes(made)) == 2
    assert sum(costs_of_nodes(made)) == pytest.approx(ahead(made).work)
    assert all(cost(made.job, step).seconds() >= 0 for step in ahead(made).steps)


@pytest.mark.parametrize(("nodes", "staleness", "rounds"), [(1, 0, 3), (4, 3, 6), (2, 5, 8), (8, 0, 10)])
def test_look_ahead(resolved, nodes, staleness, rounds):
    keys = {"schedule__nodes": nodes, "schedule__staleness": staleness}
    assert default_look_ahead(resolved(**keys).plan) == rounds
    # Negatives that read no probabilities wait for nothing, and staleness means nothing.
    random = resolved(network__negatives="random", **keys).plan
    assert default_look_ahead(random) == nodes + 2


# --- memory


@pytest.fixture(scope="module")
def wide(tmp_path_factory, resolved):
    """A forecast whose memory is mostly activities."""
    path = make_store(tmp_path_factory.mktemp("wide") / "d.zarr", rows=20_000, side=4)

    def make(chapters: int, schedule: str = "all-layers", units: tuple[int, ...] = (1, 1)) -> Forecast:
        keys = {"network__layers": [300, 300], "data__chunk": 500, "schedule__name": schedule}
        return ahead(resolved(path=path, schedule__chapters=chapters, schedule__nodes=2, **keys), units)

    return make


def test_memory_grows_with_the_chapters_rows(wide):
    needs = [wide(chapters).memory() for chapters in (2, 4, 8, 16)]
    assert needs == sorted(needs, reverse=True)
    assert needs[0] > needs[-1] + 2**20


def test_workers_of_one_process_share_it(wide):
    made = wide(2)
    assert made.memory(2) - made.memory(1) == sum(made.activities()) - max(made.activities())


def test_the_runs_own_process_is_counted_where_workers_are_its_threads(resolved):
    threads, processes, given = (
        ahead(resolved(**keys)).memory()
        for keys in ({}, {"cluster__processes": True}, {"cluster__scheduler": "tcp://host:8786"})
    )
    assert threads - RUN_BYTES == processes == given


def test_enough_memory_is_silent(wide):
    made = wide(2)
    check_memory(made, made.memory(), 1)


@pytest.mark.parametrize("in_process", [1, 2])
@pytest.mark.parametrize("share", [0.75, 0.5, 0.25])
def test_too_little_memory_names_chapters_that_fit(wide, in_process, share):
    made = wide(2)
    activities = sum(made.activities()) if in_process == 2 else max(made.activities())
    limit = int(made.memory(in_process) - (1 - share) * activities)
    with pytest.raises(BadInput, match="GiB and has") as caught:
        check_memory(made, limit, in_process)
    rows, chapters = map(int, re.search(r"about (\d+) rows: give at least (\d+) chapters", str(caught.value)).groups())
    assert "--chapters, now 2" in str(caught.value)
    assert rows < made.resolved.plan.calendar.rows_of(0)
    assert chapters > 2
    check_memory(wide(chapters), limit, in_process)


def test_too_little_memory_for_anything_says_so(wide):
    for made in (wide(2), wide(2, "streaming")):
        with pytest.raises(BadInput, match=r"give more memory, or make data.chunk \(--chunk\) or the layers smaller"):
            check_memory(made, 10, 1)


# --- the text


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_text_mentions_every_line(resolved, schedule):
    made = ahead(resolved(schedule__name=schedule, schedule__nodes=2))
    said = text(made, "in /there", 1)
    first = [line.split()[0] for line in said.splitlines()]
    heads = ["data", "network", "training", "schedule", "steps", "products", "memory", "ideal"]
    assert first[: len(heads)] == heads
    assert first[-2:] == ["node", "node"]
    assert "tiny.zarr: 300 training rows in 3 chunks of 100, 50 test rows; in /there" in said
    assert "36-20-30, objective goodness, negatives sampled, classifier softmax" in said
    assert "2 epochs, batches of 20, momentum at 0.01, seed 0" in said
    assert f"{schedule}: 4 chapters, " in said
    assert "2 nodes on 1 workers with 2 units" in said
    assert f"{len(made.steps)}" in said
    assert f"a speed-up of {made.speed_up:.2f} with 2 units; never above {made.bound:.2f}" in said
    assert ("until the schedule's first decision" in said) is (schedule == "worst-layer")
    assert all(len(line) < 160 for line in said.splitlines()[len(heads) :])


def test_a_schedule_that_decides_late_is_forecast_until_then(resolved):
    made = ahead(resolved(schedule__name="until-still", schedule__staleness=1, training__epochs=3))
    assert {step.round for step in made.steps} == {0, 1}
    assert "until the schedule's first decision" in text(made, "", 1)


def test_more_nodes_than_can_be_busy_get_a_note(resolved):
    made = ahead(resolved(schedule__nodes=7))
    assert math.ceil(made.bound) < 7
    assert f"7 nodes are more than the bound of {made.bound:.2f} can keep busy" in text(made, "", 1)
    assert "can keep busy" not in text(ahead(resolved(schedule__nodes=2)), "", 1)
