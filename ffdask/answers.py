"""What a trained network says of rows that it did not learn from: its answers, and its layers' goodness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffdask import draws
from ffdask.kernels import Kernels
from ffdask.labels import Pixels
from ffdask.negatives import random
from ffdask.network import EVALUATION_BLOCK, Array, Labels, Network, climb

MOST_ROWS = 5000
"""Rows whose goodness is looked at: enough for a histogram."""


@dataclass(frozen=True)
class Answers:
    """A network's answers to a test set.

    Attributes
    ----------
    scores : (n, classes)
        By the classifier.
    truth : (n,)
        True labels.
    """

    scores: Array
    truth: Labels

    @property
    def given(self) -> Labels:
        """Return the labels (n,) that the network gives; ties go to the lowest class."""
        return self.scores.argmax(axis=1)

    def confusion(self) -> NDArray[np.intp]:
        """Return how many rows of each true class (down) were given each class (across), (classes, classes)."""
        classes = self.scores.shape[1]
        flat = np.bincount(self.truth.astype(np.intp) * classes + self.given, minlength=classes * classes)
        return flat.reshape(classes, classes)

    def hardest(self, most: int) -> NDArray[np.intp]:
        """Return the wrong rows in which the class given is farthest above the true one, the worst first."""
        rows = np.arange(len(self.truth))
        lead = self.scores[rows, self.given] - self.scores[rows, self.truth]
        wrong = np.flatnonzero(self.given != self.truth)
        return wrong[np.argsort(-lead[wrong], kind="stable")][:most]


def goodness_of(
    network: Network, images: NDArray[Any], labels: NDArray[np.uint8], kernels: Kernels, seed: int
) -> tuple[Array, Array | None]:
    """Return each layer's goodness over its width, of rows under their true and under a wrong label.

    Parameters
    ----------
    network : Network
    images, labels : (n, ...), (n,)
        The first `MOST_ROWS` are taken.
    kernels : Kernels
    seed : int
        Of the wrong labels, all equally likely.

    Returns
    -------
    positive : (layers, rows)
    negative : (layers, rows) or None
        None where no label lies over the rows: `positive` is then that of the rows as they are.
    """
    images, labels = images[:MOST_ROWS], labels[:MOST_ROWS]
    if network.overlay == "none":
        return _goodness(network, images, None, kernels), None
    wrong = random(draws.generator(seed, "goodness-of"), labels, network.classes, None)
    return _goodness(network, images, labels, kernels), _goodness(network, images, wrong, kernels)


def _goodness(network: Network, images: NDArray[Any], labels: Labels | None, kernels: Kernels) -> Array:
    weights = network.states[0].weights
    widths = np.array([state.weights.shape[1] for state in network.states], weights.dtype)
    found = np.empty((len(widths), len(images)), weights.dtype)
    for start in range(0, len(images), EVALUATION_BLOCK):
        block = slice(start, start + EVALUATION_BLOCK)
        pixels = Pixels.of(images[block], network.classes, weights.dtype, network.overlay, kernels=kernels)
        product = pixels.product(weights, kernels)
        z = (
            pixels.plain(product, kernels)
            if labels is None
            else pixels.labelled(product, weights, labels[block], kernels)
        )
        found[:, block] = [goodness for _, goodness in climb(network.states, z, kernels)]
    return found / widths[:, None]
