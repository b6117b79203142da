from __future__ import annotations

import pytest

from ffdask import datasets
from ffdask.config import load
from ffdask.lanes import lanes, mark
from ffdask.resolved import resolve
from ffdask.schedules.ideal import Timed, ideal
from ffdask.schedules.steps import Step, static_steps

SECONDS = {"train": 2.0, "push": 1.0}
"""Of a step: two characters for a layer that trains, one for a push."""


def drawn(tiny, schedule: str, nodes: int, width: int, rounds: int | None = None) -> str:
    """Three rounds of two layers and no head, each node on a worker of its own."""
    keys = {"schedule.name": schedule, "schedule.nodes": nodes, "schedule.chapters": 3, "training.epochs": 1}
    keys |= {"network.negatives": "random", "network.classifier": "goodness", "network.layers": [20, 20]}
    config = load(None, keys | {"data.dataset": str(tiny), "data.chunk": 100})
    resolved = resolve(config, datasets.describe(str(tiny)), nodes)
    steps = list(static_steps(resolved.entry.steps, resolved.plan))
    timed = ideal(steps, lambda step: SECONDS.get(step.kind, 0.0), lambda node: node, (1,) * nodes)
    first = [one for one in timed if rounds is None or one.step.round < rounds]
    return "\n".join(lanes(first, nodes, width, [one for one in timed if one not in first]))


def test_streaming_is_a_pipeline_of_layers(tiny):
    assert (
        drawn(tiny, "streaming", 2, 8)
        == """\
node 0     111111..
node 1     ..222222"""
    )


def test_all_layers_is_a_ring_of_chapters(tiny):
    assert (
        drawn(tiny, "all-layers", 2, 10)
        == """\
node 0     11p2211p22
node 1     ..11p22..."""
    )


def test_sequential_is_one_lane(tiny):
    assert drawn(tiny, "sequential", 1, 15) == "node 0     11p2211p2211p22"


def test_steps_that_come_later_are_dashes(tiny):
    assert (
        drawn(tiny, "all-layers", 2, 7, rounds=2)
        == """\
node 0     11p22--
node 1     ..11p22"""
    )


def test_nothing_that_takes_time_is_nothing():
    assert lanes([], 2, 10) == []
    assert lanes([Timed(Step("negatives", 0, 0), 0.0, 0.0)], 2, 10) == []


@pytest.mark.parametrize(
    ("step", "character"),
    [
        (Step("train", 0, 0, layer=3), "3"),
        (Step("train", 0, 0, layer=12), "2"),
        (Step("push", 0, 0, layer=3), "p"),
        (Step("push_head", 0, 0), "p"),
        (Step("head", 0, 0), "h"),
        (Step("evaluate", 0, 0), "e"),
        (Step("unheard-of", 0, 0), "u"),
    ],
)
def test_a_steps_mark(step, character):
    assert mark(step) == character
