from __future__ import annotations

import numpy as np
import pytest

from ffdask.calendar import Calendar
from ffdask.history import LAYER_FIGURES, history


def calendar(by_visit: bool = False) -> Calendar:
    """Two chunks, three epochs: six visits in three chapters."""
    return Calendar(rows=20, chunk=10, batch=5, epochs=3, chapters=3, by_visit=by_visit, seed=0)


def train(round_: int, layer: int, rows: int, value: float, seconds: float = 1.0, start: float = 100.0):
    figures = {name: value + place for place, name in enumerate(LAYER_FIGURES)}
    times = {"start": start, "stop": start + seconds}
    return {"kind": "train", "round": round_, "layer": layer, "rows": rows, **times, **figures}


def step(kind: str, round_: int, layer: int = 0, seconds: float = 1.0, **more: object):
    return {"kind": kind, "round": round_, "layer": layer, "rows": 20, "start": 5.0, "stop": 5.0 + seconds, **more}


def test_figures_are_means_by_rows():
    # 30 rows at 1 and 10 rows at 5 are 40 rows at 2.
    found = history([train(0, 1, 30, 1.0), train(0, 1, 10, 5.0), train(0, 2, 20, 7.0)], calendar(), 2)
    for place, name in enumerate(LAYER_FIGURES):
        np.testing.assert_allclose(found[name].sel(chapter=0), [2 + place, 7 + place])
    assert found.rows.values.tolist() == [40]


def test_coordinates_are_chapters_from_0_and_layers_from_1():
    found = history([train(2, 1, 20, 1.0)], calendar(), 3)
    assert found.chapter.values.tolist() == [0, 1, 2]
    assert found.layer.values.tolist() == [1, 2, 3]
    assert found.loss.dims == ("chapter", "layer")
    assert found.rows.dims == ("chapter",)


def test_streaming_rounds_are_folded_into_chapters():
    # Visits 0 and 1 are chapter 0, 2 and 3 are chapter 1.
    records = [train(0, 1, 10, 1.0), train(1, 1, 30, 5.0), train(3, 1, 10, 8.0), step("head", 2, loss=3.0, error=0.5)]
    found = history(records, calendar(by_visit=True), 1)
    np.testing.assert_allclose(found.loss.sel(layer=1), [4.0, 8.0])
    assert found.rows.values.tolist() == [40, 10]
    np.testing.assert_allclose(found.head_loss, [np.nan, 3.0])


def test_nothing_is_nan():
    found = history([train(1, 2, 20, 1.0)], calendar(), 2)
    for name in LAYER_FIGURES:
        np.testing.assert_array_equal(np.isnan(found[name]), [[True, True], [True, False]])
    assert np.isnan(found.head_loss).all()
    assert np.isnan(found.train_error).all()
    assert found.rows.values.tolist() == [0, 20]
    assert not found.seconds.isnull().any()


def test_no_records_give_no_chapters():
    found = history([], calendar(), 2)
    assert found.sizes["chapter"] == 0
    assert found.sizes["layer"] == 2


def test_seconds_are_those_of_train_and_push():
    records = [
        train(0, 1, 20, 1.0, seconds=2.0),
        train(0, 2, 20, 1.0, seconds=3.0),
        step("push", 0, layer=2, seconds=0.5),
        step("negatives", 0, seconds=50.0),
        step("evaluate", 0, seconds=70.0, test_errors_softmax=3),
        step("push_head", 0, seconds=0.25),
        step("head", 0, seconds=1.5, loss=1.0, error=0.5),
    ]
    found = history(records, calendar(), 2)
    assert found.seconds.values.tolist() == [[2.0, 3.5]]
    assert found.head_seconds.values.tolist() == [1.75]


def test_the_heads_figures_are_means_by_rows():
    records = [step("head", 0, loss=1.0, error=0.5) | {"rows": 30}, step("head", 0, loss=5.0, error=0.1) | {"rows": 10}]
    found = history(records, calendar(), 1)
    np.testing.assert_allclose(found.head_loss, [2.0])
    np.testing.assert_allclose(found.train_error, [0.4])


def test_looks_at_the_test_set_are_of_their_chapter():
    records = [train(c, 1, 20, 1.0) for c in range(3)]
    assert not [name for name in history(records, calendar(), 1) if "_errors_" in name]
    records.append(step("evaluate", 1, test_errors_softmax=12, test_errors_goodness=15))
    found = history(records, calendar(), 1)
    np.testing.assert_array_equal(found.test_errors_softmax, [np.nan, 12, np.nan])
    np.testing.assert_array_equal(found.test_errors_goodness, [np.nan, 15, np.nan])


def test_looks_at_held_out_rows_keep_their_own_name():
    records = [train(0, 1, 20, 1.0), step("evaluate", 0, **{"validation_errors_last-head": 4})]
    found = history(records, calendar(), 1)
    assert [name for name in found if "_errors_" in name] == ["validation_errors_last-head"]
    np.testing.assert_array_equal(found["validation_errors_last-head"], [4])


@pytest.mark.parametrize("by_visit", [False, True])
def test_the_order_of_records_does_not_matter(by_visit):
    records = [train(round_, layer, 10, round_ + layer) for round_ in range(3) for layer in (1, 2)]
    records.append(step("head", 1, loss=1.0, error=0.25))
    one, other = (history(each, calendar(by_visit), 2) for each in (records, iter(records[::-1])))
    assert one.equals(other)
