from __future__ import annotations

import numpy as np
import plain
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffdask.objectives import OBJECTIVES
from ffdask.objectives.goodness import goodness

quick = settings(deadline=None, max_examples=60)
everyone = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)


@st.composite
def rows(draw):
    n, seed = draw(st.integers(1, 6)), draw(st.integers(0, 10**6))
    positive, negative = np.random.default_rng([seed, n]).uniform(0, 12, (2, n))
    return positive, negative, draw(st.floats(0.5, 10))


@everyone
@quick
@given(rows())
def test_the_derivative_is_the_losss_slope(objective, case):
    positive, negative, threshold = case
    n = len(positive)
    _, derivative = objective(positive, negative, threshold)

    def loss(both: np.ndarray) -> float:
        return objective(both[:n], both[n:], threshold)[0]

    assert derivative.shape == (2 * n,)
    slopes = plain.slopes(loss, np.concatenate([positive, negative]), 1e-5)
    np.testing.assert_allclose(derivative, slopes, rtol=1e-5, atol=1e-8)


@everyone
def test_goodness_of_positive_rows_is_wanted_and_of_negative_rows_is_not(objective):
    _, derivative = objective(np.array([1.0, 5.0]), np.array([5.0, 1.0]), 3.0)
    assert (derivative[:2] < 0).all()
    assert (derivative[2:] > 0).all()
    assert abs(derivative[0]) > abs(derivative[1])
    assert abs(derivative[2]) > abs(derivative[3])


@everyone
def test_inputs_are_left_alone_and_the_dtype_is_kept(objective):
    positive, negative = np.array([1, 5], np.float32), np.array([2, 4], np.float32)
    for array in (positive, negative):
        array.setflags(write=False)
    loss, derivative = objective(positive, negative, 3.0)
    assert isinstance(loss, float)
    assert derivative.dtype == np.float32


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
