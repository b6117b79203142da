"""List scheduling against timelines worked out by hand."""

from __future__ import annotations

import pytest

from ffdask.calendar import Calendar
from ffdask.schedules.all_layers import all_layers
from ffdask.schedules.ideal import ideal, makespan, speed_up_bound, units_taken
from ffdask.schedules.sequential import sequential
from ffdask.schedules.steps import Plan, static_steps
from ffdask.schedules.streaming import streaming


def steps_of(schedule, layers, nodes, chapters, by_visit=False):
    calendar = Calendar(10 * chapters, 10, 10, 1, chapters, by_visit, seed=0)
    return list(static_steps(schedule, Plan(layers, nodes, calendar, 9, False, False)))


def one(step):
    return 1.0 if step.kind == "train" else 0.0


def test_sequential_takes_the_sum():
    steps = steps_of(sequential, 3, 1, 5)
    assert makespan(ideal(steps, one, lambda node: 0, [1])) == 15


def test_all_layers_fills_its_pipeline():
    # Four layers, four nodes: the last chapter begins three slots late, and takes four.
    steps = steps_of(all_layers, 4, 4, 8)
    assert makespan(ideal(steps, one, lambda node: node, [1] * 4)) == 4 * 8 / 4 + 3


def test_streaming_keeps_every_layer_busy_but_for_the_fill():
    steps = steps_of(streaming, 3, 3, 10, by_visit=True)
    timed = ideal(steps, one, lambda node: node, [1, 1, 1])
    assert makespan(timed) == 10 + 2
    starts = {(t.step.layer, t.step.round): t.start for t in timed if t.step.kind == "train"}
    assert all(starts[layer, visit] == layer - 1 + visit for layer in (1, 2, 3) for visit in range(10))


def test_units_are_never_exceeded_and_needs_always_met():
    steps = steps_of(all_layers, 3, 3, 7)
    timed = ideal(steps, lambda step: 1.0 + 0.1 * step.layer, lambda node: node % 2, [1, 2])
    stops = {t.step.name: t.stop for t in timed}
    for t in timed:
        assert all(stops[need.step] <= t.start for need in t.step.needs.values())
    for worker, units in ((0, 1), (1, 2)):
        mine = [t for t in timed if t.step.node % 2 == worker]
        for t in mine:
            assert sum(other.start <= t.start < other.stop for other in mine) <= units


def test_nodes_of_one_worker_take_turns_at_its_units():
    # Three layer nodes of equal work on two units: no unit waits but at the ends. Bound to threads: 2 x 10.
    steps = steps_of(streaming, 3, 3, 10, by_visit=True)
    assert makespan(ideal(steps, one, lambda node: 0, [2])) == 3 * 10 / 2 + 1
    # A node alone on a worker does one step at a time, however many units the worker has.
    assert [units_taken(2, nodes) for nodes in (1, 2, 3)] == [2, 1, 1]
    assert units_taken(8, 3) == 2


def test_look_ahead_holds_rounds_back():
    steps = steps_of(streaming, 2, 2, 6, by_visit=True)

    def slow_top(step):
        return {1: 1.0, 2: 3.0}.get(step.layer, 0.0)

    for look_ahead in (1, 2, 3):
        timed = ideal(steps, slow_top, lambda node: node, [1, 1], look_ahead)
        stops = {t.step.round: t.stop for t in timed if t.step.layer == 2}
        for t in timed:
            if t.step.round >= look_ahead:
                assert t.start >= stops[t.step.round - look_ahead]


def test_bound_is_the_least_of_nodes_staleness_and_the_longest_chain():
    steps = steps_of(sequential, 4, 1, 5)
    assert speed_up_bound(steps, one, nodes=3, staleness=9, rounds=1) == 3
    assert speed_up_bound(steps, one, nodes=9, staleness=1, rounds=1) == 2
    # Three chapters an epoch: a row comes back after three, however small the staleness; or after six, past it.
    assert speed_up_bound(steps, one, nodes=9, staleness=0, rounds=3) == 3
    assert speed_up_bound(steps, one, nodes=9, staleness=3, rounds=3) == 4
    heavy = speed_up_bound(steps, lambda s: {1: 3.0}.get(s.layer, 1.0) * one(s), nodes=9, staleness=9, rounds=1)
    assert heavy == pytest.approx(2)
