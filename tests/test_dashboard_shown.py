"""What is shown of a run: filled by records, and bounded."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import SMALL

from ffdask.colours import COLOURS
from ffdask.dashboard.shown import MOST_BOXES, MOST_COLUMNS, RECENT_SECONDS, Shown

ABOUT = {
    "dataset": "tiny",
    "widths": [20, 30],
    "layers": 2,
    "head": True,
    "schedule": "streaming",
    "nodes": 2,
    "rounds": 12,
    "chapters": 4,
}


def record(kind="train", round_=0, layer=1, node=0, start=0.0, stop=1.0, **more):
    figures = {"rows": 10, "error": 0.25, "goodness_positive": 2.0, "goodness_negative": 0.5}
    where = {"name": f"{kind}_layer{layer}-visit{round_:03d}", "round": round_, "layer": layer, "node": node}
    times = {"worker": "w", "start": 100.0 + start, "stop": 100.0 + stop, "last": True, "again": 0}
    return {"kind": kind, **where, **times, **figures, **more}


def parts(one, in_work=None, state="done"):
    return [part[:4] for part in one.schedule(in_work or {}) if part[4] == state]


def test_curves_are_the_history_s(finished):
    lines = (finished.path / "records.jsonl").read_text().splitlines()
    layers, chapters = len(SMALL["network.layers"]), finished.history.sizes["chapter"]
    rounds = 1 + max(json.loads(line)["round"] for line in lines)
    one = Shown("abc", ABOUT | {"layers": layers, "nodes": layers, "rounds": rounds, "chapters": chapters})
    for line in lines:
        one.add(json.loads(line))
    for name in ("goodness_positive", "goodness_negative", "error"):
        for layer in range(1, layers + 1):
            at, values = one.curve(name, layer)
            assert at == list(range(1, chapters + 1))
            np.testing.assert_allclose(values, finished.history[name].sel(layer=layer))
    (name,) = one.accuracies
    assert name == "training, head"
    np.testing.assert_allclose(one.accuracies[name][1], 1 - finished.history["train_error"])
    assert one.heard == len(one.boxes) == len(lines)


def test_looks_at_held_out_rows_are_accuracies():
    one = Shown("abc", ABOUT | {"head": False})
    one.add(record(layer=2, error=0.5))
    one.add(record("evaluate", round_=5, layer=0, rows=200, validation_errors_goodness=50, test_errors_softmax=20))
    assert one.accuracies == {
        "training, layer 2": ([1], [0.5]),
        "test, softmax": ([2], [0.9]),
        "validation, goodness": ([2], [0.75]),
    }


def test_the_schedule_fills_chapter_by_chapter():
    one = Shown("abc", ABOUT)
    assert parts(one) == []
    assert parts(one, state="to come") == [
        (lane, colour, chapter, chapter + 1)
        for lane, colour in (("layer 1", COLOURS[0]), ("layer 2", COLOURS[1]), ("head", "#222222"))
        for chapter in range(4)
    ]
    for round_ in range(4):
        one.add(record(round_=round_))
    # A chapter is three visits.
    assert parts(one) == [("layer 1", COLOURS[0], 0, 1), ("layer 1", COLOURS[0], 1, pytest.approx(4 / 3))]
    assert parts(one, {1: 2}, "in work") == [("layer 1", COLOURS[0], pytest.approx(4 / 3), pytest.approx(2))]
    assert parts(one, {1: 99}, "in work") == [("layer 1", COLOURS[0], pytest.approx(4 / 3), pytest.approx(4))]
    one.end("ended")
    assert parts(one, {1: 2}, "in work") == []


def test_what_is_done_again_or_not_last_of_its_round_fills_nothing():
    one = Shown("abc", ABOUT)
    one.add(record(last=False))
    assert parts(one) == []
    for again in (0, 0, 1):
        one.add(record(again=again))
    assert parts(one) == [("layer 1", COLOURS[0], 0, pytest.approx(1 / 3))]
    assert one.heard == 4


def test_memory_is_bounded_however_long_a_run_is():
    one = Shown("abc", ABOUT | {"rounds": 40_000, "chapters": 10_000})
    for round_ in range(0, 40_000, 5):
        one.add(record(round_=round_, start=round_, stop=round_ + 1))
    one.add(record(round_=40_007, start=50_000, stop=50_001))
    assert one.heard == 8_001
    assert len(one.boxes) == MOST_BOXES
    assert one.boxes[0].start > 100.0
    assert one.columns <= MOST_COLUMNS
    assert {len(sums) for sums in one._sums.values()} == {one.columns}
    assert len(one._sums) == 3
    assert one.curve("error", 1)[0][-1] == 10_000
    assert len(one.schedule({})) <= 2 * 3 * MOST_COLUMNS


def test_utilisation_of_each_node_all_the_time_and_now():
    one = Shown("abc", ABOUT)
    assert one.utilisation() == [("node 0", 0, 0), ("node 1", 0, 0)]
    for start in range(0, 100, 2):
        one.add(record(start=start, stop=start + 1))
    one.add(record(layer=2, node=1, start=85, stop=100))
    assert one.utilisation() == [
        ("node 0 · w", pytest.approx(0.5), pytest.approx(0.5)),
        ("node 1 · w", pytest.approx(0.15), pytest.approx(15 / RECENT_SECONDS)),
    ]


def test_what_was_not_announced_is_refused():
    one = Shown("abc", ABOUT)
    for wrong in (record(layer=3), record(node=2)):
        with pytest.raises(ValueError, match=r"announced no layer \d, or no node \d"):
            one.add(wrong)
    assert one.heard == 0
