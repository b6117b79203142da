from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffdask.negatives import NEGATIVES, adaptive, random, sampled

quick = settings(deadline=None, max_examples=60)
kinds = pytest.mark.parametrize("kind", NEGATIVES.values(), ids=NEGATIVES)


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@st.composite
def rows(draw):
    classes, n, seed = draw(st.integers(2, 10)), draw(st.integers(1, 40)), draw(st.integers(0, 10**6))
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(classes, draw(st.sampled_from([0.01, 0.3, 5.0]))), n).astype(np.float32)
    return rng.integers(0, classes, n).astype(np.uint8), classes, probabilities, seed


@kinds
@quick
@given(rows(), st.booleans())
def test_a_negative_is_another_class_of_those_there_are(kind, case, first):
    labels, classes, probabilities, seed = case
    for array in (labels, probabilities):
        array.setflags(write=False)
    found = kind.draw(generator(seed), labels, classes, None if first else probabilities)
    assert found.dtype == np.uint8
    assert found.shape == labels.shape
    assert (found != labels).all()
    assert (found < classes).all()


@kinds
@quick
@given(rows())
def test_equal_draws_give_equal_negatives(kind, case):
    labels, classes, probabilities, seed = case
    one, other = (kind.draw(generator(seed), labels, classes, probabilities) for _ in range(2))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", [random, sampled, adaptive])
@pytest.mark.parametrize("label", [0, 4, 9])
def test_without_probabilities_the_nine_others_are_equally_likely(kind, label):
    found = kind(generator(), np.full(9000, label, np.uint8), 10, None)
    counts = np.delete(np.bincount(found, minlength=10), label)
    # Eight degrees of freedom: above 40 once in 300,000 times.
    assert chi_square(counts, np.full(9, 1000)) < 40


def test_rows_are_drawn_apart():
    labels = np.zeros(4000, np.uint8)
    for kind in (random, sampled, adaptive):
        found = kind(generator(), labels, 10, None)
        pairs = np.bincount(found[::2] * 10 + found[1::2], minlength=100).reshape(10, 10)[1:, 1:]
        assert chi_square(pairs.ravel(), np.full(81, 2000 / 81)) < 160
        assert not np.array_equal(kind(generator(1), labels, 10, None), found)


def test_sampled_follows_the_probabilities_with_the_true_class_out():
    probabilities = np.array([0.5, 0.0, 0.02, 0.08, 0.1, 0.1, 0.0, 0.15, 0.03, 0.02], np.float32)
    label, n = 4, 20_000
    found = sampled(generator(), np.full(n, label, np.uint8), 10, np.tile(probabilities, (n, 1)))
    counts = np.bincount(found, minlength=10)
    wanted = probabilities.astype(float)
    wanted[label] = 0
    assert not counts[wanted == 0].any()
    assert chi_square(counts[wanted > 0], n * wanted[wanted > 0] / wanted.sum()) < 40


def test_sampled_reads_each_rows_own_probabilities():
    # Row i is sure of class i + 1: that is what it gets, be it the first class or the last.
    labels = np.arange(10, dtype=np.uint8)
    probabilities = np.roll(np.eye(10, dtype=np.float32), 1, axis=1)
    for seed in range(20):
        assert sampled(generator(seed), labels, 10, probabilities).tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]


@pytest.mark.parametrize(
    "nothing", [np.eye(10)[3], np.zeros(10), np.full(10, np.nan)], ids=["sure of the true class", "zeros", "nan"]
)
def test_sampled_is_uniform_where_nothing_is_left_for_the_others(nothing):
    n = 9000
    probabilities = np.tile(nothing.astype(np.float32), (n, 1))
    probabilities[::2] = np.eye(10)[7]
    found = sampled(generator(), np.full(n, 3, np.uint8), 10, probabilities)
    assert set(found[::2]) == {7}
    counts = np.delete(np.bincount(found[1::2], minlength=10), 3)
    assert chi_square(counts, np.full(9, 500)) < 40


def test_faint_probabilities_still_count():
    # The head is all but sure of the true class; what is left is in proportion all the same.
    probabilities = np.zeros((8000, 10), np.float32)
    probabilities[:, 0], probabilities[:, 5], probabilities[:, 6] = 1, 1e-30, 3e-30
    counts = np.bincount(sampled(generator(), np.zeros(8000, np.uint8), 10, probabilities), minlength=10)
    assert counts[5] + counts[6] == 8000
    assert 1800 < counts[5] < 2200


@pytest.mark.parametrize(("point", "expected"), [(0.0, 6), (1 - 2**-53, 1), (0.25, 6), (0.75, 1)])
def test_sampled_keeps_to_possible_classes_at_the_ends_of_the_draw(point, expected):
    class Stuck:
        def random(self, n: int) -> np.ndarray:
            return np.full(n, point)

    probabilities = np.array([[0.0, 0.5, 0, 0, 0, 0, 0.5, 0, 0, 0]])
    found = sampled(Stuck(), np.array([9], np.uint8), 10, probabilities)  # type: ignore[arg-type]
    assert found.tolist() == [expected]


def test_a_kind_reads_the_scores_that_it_says_it_reads():
    assert {kind.reads for kind in NEGATIVES.values()} == {"nothing", "probabilities", "classifier"}
    labels, probabilities = np.zeros(50, np.uint8), np.tile(np.eye(10)[5], (50, 1))
    for kind in NEGATIVES.values():
        without, given_ = (kind.draw(generator(), labels, 10, each) for each in (None, probabilities))
        assert np.array_equal(without, given_) == (kind.reads == "nothing")


# --- adaptive


def plain_adaptive(label: int, scores: np.ndarray) -> int:
    """The wrong label of the largest score, tried from the lowest on."""
    best = None
    for candidate, score in enumerate(scores):
        if candidate != label and (best is None or score > scores[best]):
            best = candidate
    return best


@quick
@given(rows(), st.sampled_from(["probabilities", "goodness", "few candidates", "ties"]))
def test_adaptive_is_the_largest_score_of_the_wrong_labels_ties_to_the_lowest(case, like):
    labels, classes, scores, seed = case
    if like == "goodness":
        scores = 1e3 * scores - 50
    elif like == "few candidates":
        untried = np.random.default_rng(seed).random(scores.shape) < 0.5
        scores = np.where(untried, np.float32(-np.inf), scores)
    elif like == "ties":
        scores = np.random.default_rng(seed).integers(0, 3, scores.shape).astype(np.float32)
    scores.setflags(write=False)
    found = adaptive(generator(seed), labels, classes, scores)
    assert found.dtype == np.uint8
    assert (found != labels).all()
    for label, row, chosen in zip(labels, scores, found, strict=True):
        if np.isfinite(np.delete(row, label)).any():
            assert chosen == plain_adaptive(label, row)


def test_adaptive_does_not_look_at_the_true_class():
    labels = np.arange(10, dtype=np.uint8)
    scores = np.full((10, 10), 0.01, np.float32)
    scores[np.arange(10), labels] = 0.9
    scores[np.arange(10), (labels + 3) % 10] = 0.02
    np.testing.assert_array_equal(adaptive(generator(), labels, 10, scores), (labels + 3) % 10)


@quick
@given(rows(), st.sampled_from([np.nan, -np.inf, np.inf]))
def test_adaptive_never_gives_the_true_class_whatever_the_scores(case, odd):
    labels, classes, scores, seed = case
    odd_ones = np.random.default_rng(seed).random(scores.shape) < 0.7
    for each in (np.where(odd_ones, np.float32(odd), scores), np.full_like(scores, odd)):
        found = adaptive(generator(seed), labels, classes, each)
        assert (found != labels).all()
        assert (found < classes).all()


# --- kinds in time


def test_only_fixed_is_drawn_once():
    assert [name for name, kind in NEGATIVES.items() if kind.once] == ["fixed"]
    labels = np.zeros(40, np.uint8)
    fixed, drawn = (NEGATIVES[name].draw(generator(5), labels, 10, None) for name in ("fixed", "random"))
    np.testing.assert_array_equal(fixed, drawn)
