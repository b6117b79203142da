"""Wrong labels weighed by goodness: what adaptive negatives by goodness choose from [PFF, AdaptiveNEG-Goodness].

A row is pushed up once for each label that is tried. Layer one's product with the pixels is the same for all of them,
so its goodness for every label costs no product: where few labels are to be tried, it says which are the likeliest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffdask.head import layers_read
from ffdask.kernels import Kernels
from ffdask.labels import Pixels
from ffdask.layer import LayerState

Array = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class Candidates:
    """A minibatch under several wrong labels, as far up as it has come.

    Attributes
    ----------
    labels : (k, n)
        Each row's k labels.
    scores : (k, n)
        Goodness over the width, summed over the layers read so far.
    activities : (k * n, width)
        Normalised activities of the last layer passed, label after label.
    """

    labels: Labels
    scores: Array
    activities: Array


def enter(state: LayerState, pixels: Pixels, truth: Labels, count: int, layers: int, kernels: Kernels) -> Candidates:
    """Return a minibatch's candidates behind layer one.

    Parameters
    ----------
    state : LayerState
        Layer one's.
    pixels : Pixels
        n rows.
    truth : (n,)
        True labels: never a candidate.
    count : int
        Labels tried a row: all wrong ones, or the likeliest few by layer one's goodness (ties to the lowest class).
    layers : int
        Of the network.
    kernels : Kernels
    """
    product, n, weights = pixels.product(state.weights, kernels), len(truth), state.weights
    goodness = np.empty_like(product, shape=(pixels.classes, n))
    for label in range(pixels.classes):
        z = pixels.labelled(product, weights, np.full_like(truth, label), kernels)
        goodness[label] = kernels.activate(z, state.bias)[1]
        goodness[label][truth == label] = -np.inf
    chosen = np.argsort(-goodness, axis=0, kind="stable")[:count]
    width = weights.shape[1]
    activities, scores = np.empty_like(product, shape=(len(chosen) * n, width)), np.zeros_like(goodness[: len(chosen)])
    for index, labels in enumerate(chosen):
        y, squares = kernels.activate(pixels.labelled(product, weights, labels, kernels), state.bias)
        activities[index * n : (index + 1) * n] = kernels.normalise(y, squares)
        if 1 in layers_read(layers):
            scores[index] = squares / width
    return Candidates(chosen, scores, activities)


def rise(candidates: Candidates, state: LayerState, kernels: Kernels) -> Candidates:
    """Return the candidates behind one more layer, all labels in one product."""
    y, squares = kernels.activate(kernels.matmul(candidates.activities, state.weights), state.bias)
    scores = candidates.scores + (squares / y.shape[1]).reshape(candidates.scores.shape)
    return Candidates(candidates.labels, scores, kernels.normalise(y, squares))


def score_table(candidates: Candidates, classes: int) -> Array:
    """Return the scores (n, classes) of every label; -inf for those not tried."""
    k, n = candidates.labels.shape
    table = np.full((n, classes), -np.inf, candidates.scores.dtype)
    table[np.tile(np.arange(n), k), candidates.labels.reshape(-1)] = candidates.scores.reshape(-1)
    return table
