from __future__ import annotations

import numpy as np
import pytest
from conftest import SMALL

from ffdask import datasets, load
from ffdask.answers import Answers, goodness_of
from ffdask.conduct import conduct
from ffdask.kernels import named

SCORES = np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5], [0.4, 0.4, 0.2], [0.6, 0.3, 0.1], [0.0, 1.0, 0.0]], np.float32)
TRUTH = np.array([0, 1, 1, 1, 2], np.uint8)


def test_confusion_counts_true_classes_down_and_given_ones_across():
    answers = Answers(SCORES, TRUTH)
    np.testing.assert_array_equal(answers.given, [0, 2, 0, 0, 1])
    np.testing.assert_array_equal(answers.confusion(), [[1, 0, 0], [2, 0, 1], [0, 1, 0]])


def test_hardest_are_wrong_and_farthest_from_right_first():
    answers = Answers(SCORES, TRUTH)
    np.testing.assert_array_equal(answers.hardest(10), [4, 3, 1, 2])
    np.testing.assert_array_equal(answers.hardest(2), [4, 3])
    assert not len(Answers(SCORES[:1], TRUTH[:1]).hardest(3))


def test_goodness_under_the_true_label_is_what_the_classifier_sums(finished, tiny):
    images, labels = datasets.load(str(tiny), "test")
    network, kernels = finished.network, named("numpy")
    positive, negative = goodness_of(network, images, labels, kernels, seed=0)
    assert positive.shape == negative.shape == (2, 50)
    scores = network.scores(images, "goodness", kernels)
    # By goodness the classifier reads every layer but the first.
    np.testing.assert_allclose(positive[1], scores[np.arange(50), labels], rtol=1e-5)
    wrong = np.isclose(scores, negative[1][:, None], rtol=1e-5)
    assert wrong.any(axis=1).all(), "each is the goodness of some label"
    assert not np.isclose(negative[1], positive[1], rtol=1e-6).any(), "and not of the true one"
    again = goodness_of(network, images, labels, kernels, seed=0)
    np.testing.assert_array_equal(again[1], negative)


@pytest.mark.parametrize("classifier", ["all-heads"])
def test_without_labels_there_is_no_negative_goodness(tiny, tmp_path, classifier):
    keys = {"network.objective": "classifier", "data.dataset": str(tiny), "run.out": str(tmp_path / "run")}
    network = conduct(load(None, SMALL | keys)).network
    images, labels = datasets.load(str(tiny), "test")
    positive, negative = goodness_of(network, images, labels, named("numpy"), seed=0)
    assert negative is None
    pixels = images.reshape(50, -1) / np.float32(255)
    pixels /= np.sqrt((pixels**2).mean(axis=1, keepdims=True))
    first = np.maximum(pixels @ network.states[0].weights + network.states[0].bias, 0)
    np.testing.assert_allclose(positive[0], (first**2).mean(axis=1), rtol=1e-4)
