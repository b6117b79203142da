"""Labels tried by goodness: scores against a plain loop over labels, in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import plain
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffdask.candidates import enter, rise, score_table
from ffdask.kernels import reference
from ffdask.labels import Pixels
from ffdask.layer import Optimizer, initial_state
from ffdask.negatives import adaptive

quick = settings(deadline=None, max_examples=25)
CLASSES = 10


class Case:
    """A minibatch and a network, in float64."""

    def __init__(self, seed: int, n: int, widths: list[int], overlay: str) -> None:
        rng = np.random.default_rng([seed, n, *widths])
        self.images, self.labels, self.overlay = plain.images(rng, n), rng.integers(0, CLASSES, n), overlay
        self.states, fan_in = [], 16 + CLASSES * (overlay == "append")
        for number, width in enumerate(widths, start=1):
            state = initial_state(seed, number, fan_in, width, Optimizer(), np.float64)
            self.states.append(replace(state, bias=0.2 * rng.standard_normal(width)))
            fan_in = width

    def tried(self, count: int):
        pixels = Pixels.of(self.images, CLASSES, np.dtype(np.float64), self.overlay, kernels=reference)
        layers = len(self.states)
        candidates = enter(self.states[0], pixels, self.labels, count, layers, reference)
        for state in self.states[1:]:
            candidates = rise(candidates, state, reference)
        return candidates

    def plain(self, image: np.ndarray, label: int) -> tuple[float, float]:
        """Layer one's goodness, and the sum over the layers read of goodness over the width."""
        passed = list(plain.climb(plain.row(image, label, CLASSES, self.overlay), self.states))
        read = passed if len(passed) == 1 else passed[1:]
        return passed[0][1], sum(goodness / len(activity) for activity, goodness in read)


cases = st.builds(
    Case,
    st.integers(0, 10**6),
    st.integers(1, 4),
    st.lists(st.integers(2, 6), min_size=1, max_size=3),
    st.sampled_from(["replace", "append"]),
)


@quick
@given(cases, st.integers(1, 9))
def test_candidates_are_the_likeliest_wrong_labels_with_their_scores(case, count):
    candidates = case.tried(count)
    table = score_table(candidates, CLASSES)
    assert candidates.labels.shape == (count, len(case.labels))
    for i, (image, truth) in enumerate(zip(case.images, case.labels, strict=True)):
        wrong = [label for label in range(CLASSES) if label != truth]
        first, scores = zip(*(case.plain(image, label) for label in range(CLASSES)), strict=True)
        chosen = candidates.labels[:, i].tolist()
        assert len(set(chosen)) == count
        assert truth not in chosen
        # No label left out was likelier to layer one; rounding may turn equal ones.
        left_out = [first[label] for label in wrong if label not in chosen]
        assert min(first[label] for label in chosen) >= max(left_out, default=0) - 1e-9
        for label in range(CLASSES):
            if label in chosen:
                assert table[i, label] == pytest.approx(scores[label], rel=1e-8, abs=1e-12)
            else:
                assert table[i, label] == -np.inf


@quick
@given(cases)
def test_all_candidates_give_the_plain_argmax(case):
    found = adaptive(np.random.default_rng(0), case.labels, CLASSES, score_table(case.tried(9), CLASSES))
    for image, truth, chosen in zip(case.images, case.labels, found, strict=True):
        scores = [case.plain(image, label)[1] for label in range(CLASSES)]
        best = max(score for label, score in enumerate(scores) if label != truth)
        assert chosen != truth
        assert scores[chosen] == pytest.approx(best, rel=1e-9)


def test_candidates_that_are_equally_likely_are_the_lowest_labels():
    case = Case(0, 3, [4, 3], "replace")
    blind = np.zeros_like(case.states[0].weights)
    case.states[0] = replace(case.states[0], weights=blind, bias=np.ones(4))
    case.labels = np.array([0, 1, 9])
    assert case.tried(3).labels.T.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 2]]


def test_the_states_and_the_pixels_are_left_alone_and_float32_stays():
    images, labels = plain.images(np.random.default_rng(1), 4), np.array([1, 2, 3, 4], np.uint8)
    pixels = Pixels.of(images, CLASSES, np.dtype(np.float32), kernels=reference)
    pixels.values.setflags(write=False)
    states = [initial_state(0, number, fan_in, 5, Optimizer()) for number, fan_in in ((1, 16), (2, 5))]
    entered = enter(states[0], pixels, labels, 4, 2, reference)
    for array in (entered.labels, entered.scores, entered.activities):
        array.setflags(write=False)
    assert not entered.scores.any(), "layer one is not read where there are others"
    risen = rise(entered, states[1], reference)
    assert risen.activities.shape == (16, 5)
    assert {risen.scores.dtype, risen.activities.dtype, score_table(risen, CLASSES).dtype} == {np.dtype(np.float32)}
