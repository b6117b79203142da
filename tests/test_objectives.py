from __future__ import annotations

import math

import numpy as np
import plain
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffdask.objectives import OBJECTIVES, Paired, Scored
from ffdask.objectives.classifier import classifier
from ffdask.objectives.goodness import goodness
from ffdask.objectives.symba import ALPHA, symba

quick = settings(deadline=None, max_examples=60)
PAIRED = {name: objective for name, objective in OBJECTIVES.items() if isinstance(objective, Paired)}
SCORED = {name: objective for name, objective in OBJECTIVES.items() if isinstance(objective, Scored)}
pairs = pytest.mark.parametrize("objective", PAIRED.values(), ids=PAIRED)
scores = pytest.mark.parametrize("objective", SCORED.values(), ids=SCORED)


@st.composite
def rows(draw):
    n, seed = draw(st.integers(1, 6)), draw(st.integers(0, 10**6))
    positive, negative = np.random.default_rng([seed, n]).uniform(0, 12, (2, n))
    return positive, negative, draw(st.floats(0.5, 10))


@st.composite
def scored_rows(draw):
    n, classes, seed = draw(st.integers(1, 6)), draw(st.integers(2, 7)), draw(st.integers(0, 10**6))
    rng = np.random.default_rng([seed, n, classes])
    return draw(st.sampled_from([0.1, 1.0, 8.0])) * rng.standard_normal((n, classes)), rng.integers(0, classes, n)


def test_every_objective_is_of_one_kind():
    assert {"goodness", "symba"} <= set(PAIRED)
    assert "classifier" in SCORED
    assert set(PAIRED) | set(SCORED) == set(OBJECTIVES)


# --- on pairs of goodness


@pairs
@quick
@given(rows())
def test_the_derivative_is_the_losss_slope(objective, case):
    positive, negative, threshold = case
    n = len(positive)
    _, derivative = objective.loss(positive, negative, threshold)

    def loss(both: np.ndarray) -> float:
        return objective.loss(both[:n], both[n:], threshold)[0]

    assert derivative.shape == (2 * n,)
    slopes = plain.slopes(loss, np.concatenate([positive, negative]), 1e-5)
    np.testing.assert_allclose(derivative, slopes, rtol=1e-5, atol=1e-8)


@pairs
def test_goodness_of_positive_rows_is_wanted_and_of_negative_rows_is_not(objective):
    _, derivative = objective.loss(np.array([1.0, 5.0]), np.array([5.0, 1.0]), 3.0)
    assert (derivative[:2] < 0).all()
    assert (derivative[2:] > 0).all()
    assert abs(derivative[0]) > abs(derivative[1])
    assert abs(derivative[2]) > abs(derivative[3])


@pairs
def test_inputs_are_left_alone_and_the_dtype_is_kept(objective):
    positive, negative = np.array([1, 5], np.float32), np.array([2, 4], np.float32)
    for array in (positive, negative):
        array.setflags(write=False)
    loss, derivative = objective.loss(positive, negative, 3.0)
    assert isinstance(loss, float)
    assert derivative.dtype == np.float32


@pairs
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_from_undecided_nothing_overflows_nor_vanishes(objective, dtype):
    positive, negative = np.array([0, 1e6], dtype), np.array([1e6, 0], dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        loss, derivative = objective.loss(positive, negative, 5e5)
    assert np.isfinite(loss)
    assert derivative[0] < 0 < derivative[2]
    assert abs(derivative[1]) < abs(derivative[0])


@quick
@given(rows())
def test_goodness_is_the_logistic_loss_over_the_positive_rows(case):
    positive, negative, threshold = case
    expected = sum(plain.softplus(threshold - g) for g in positive) + sum(
        plain.softplus(g - threshold) for g in negative
    )
    assert goodness(positive, negative, threshold)[0] == pytest.approx(expected / len(positive), rel=1e-12)


def test_goodness_at_the_threshold_is_undecided():
    loss, derivative = goodness(np.full(4, 7.0), np.full(4, 7.0), 7.0)
    assert loss == pytest.approx(2 * np.log(2))
    np.testing.assert_allclose(derivative, [-1 / 8] * 4 + [1 / 8] * 4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_goodness_far_from_the_threshold_neither_overflows_nor_vanishes(dtype):
    positive, negative = np.array([0, 1e6], dtype), np.array([1e6, 0], dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        loss, derivative = goodness(positive, negative, 5e5)
    assert loss == pytest.approx(5e5, rel=1e-6)
    np.testing.assert_allclose(derivative, [-0.5, 0, 0.5, 0], atol=1e-20)


@quick
@given(rows())
def test_symba_is_the_logistic_loss_of_each_rows_own_pair(case):
    positive, negative, threshold = case
    each = [plain.softplus(-ALPHA * (p - n)) for p, n in zip(positive, negative, strict=True)]
    assert symba(positive, negative, threshold)[0] == pytest.approx(sum(each) / len(each), rel=1e-12)


def test_symba_compares_with_the_partner_and_not_with_the_threshold():
    positive, negative = np.array([3.0, 1.0, 8.0]), np.array([2.0, 4.0, 8.0])
    loss, derivative = symba(positive, negative, 1.0)
    raised, same = symba(positive + 5, negative + 5, 1.0)
    assert raised == pytest.approx(loss)
    np.testing.assert_allclose(same, derivative)
    # What one row of a pair is pulled up, the other is pushed down; another pair does not matter.
    np.testing.assert_allclose(derivative[:3], -derivative[3:])
    assert derivative[2] == pytest.approx(-ALPHA / 2 / 3)
    alone = symba(positive[:1], negative[:1], 1.0)[1]
    np.testing.assert_allclose(alone / 3, derivative[[0, 3]])


# --- on the scores of the layer's own head


@scores
@quick
@given(scored_rows())
def test_the_derivative_by_the_scores_is_the_losss_slope(objective, case):
    logits, labels = case
    for array in (logits, labels):
        array.setflags(write=False)
    loss, derivative = objective.loss(logits, labels)
    assert isinstance(loss, float)
    slopes = plain.slopes(lambda each: objective.loss(each, labels)[0], logits, 1e-5)
    np.testing.assert_allclose(derivative, slopes, rtol=1e-5, atol=1e-8)


@quick
@given(scored_rows())
def test_classifier_is_the_mean_cross_entropy(case):
    logits, labels = case
    each = [-math.log(plain.softmax(row)[label]) for row, label in zip(logits, labels, strict=True)]
    assert classifier(logits, labels)[0] == pytest.approx(sum(each) / len(each), rel=1e-9, abs=1e-12)


def test_classifier_stays_finite_where_it_is_wrong_and_certain():
    logits = np.array([[1e4, 0.0], [0.0, 1e4]], np.float32)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        loss, derivative = classifier(logits, np.array([1, 1]))
    assert 40 < loss < np.inf
    assert derivative.dtype == np.float32
    np.testing.assert_allclose(derivative, [[0.5, -0.5], [0, 0]])
