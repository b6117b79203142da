"""The kinds of negatives: which wrong label lies over a row [FF, PFF].

Drawn per visit, in the chunk's own row order, from (seed, "negatives", epoch, chunk).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.uint8]
Array = NDArray[np.floating[Any]]


def random(generator: np.random.Generator, labels: Labels, classes: int, probabilities: Array | None) -> Labels:
    """Return a wrong label for each row, all wrong ones equally likely [PFF, RandomNEG].

    Parameters
    ----------
    generator : numpy.random.Generator
    labels : (n,) uint8
        True labels.
    classes : int
    probabilities : (n, classes) or None
        Not read.
    """
    shift = generator.integers(1, classes, len(labels))
    return ((labels + shift) % classes).astype(np.uint8)


def sampled(generator: np.random.Generator, labels: Labels, classes: int, probabilities: Array | None) -> Labels:
    """Return a wrong label for each row, in proportion to the head's probabilities, true class out [FF].

    Uniform where there are no probabilities yet, or where they leave nothing for the wrong classes.

    Parameters
    ----------
    generator : numpy.random.Generator
    labels : (n,) uint8
        True labels.
    classes : int
    probabilities : (n, classes) or None
        The head's, from an earlier visit of the same rows, in the same order.
    """
    if probabilities is None:
        return random(generator, labels, classes, None)
    weights = probabilities.astype(np.float64)
    weights[np.arange(len(labels)), labels] = 0
    nothing = ~(weights.sum(axis=1) > 0)
    weights[nothing] = 1
    weights[nothing, labels[nothing]] = 0
    edges = weights.cumsum(axis=1)
    # A point in (0, total]: the first edge that reaches it belongs to a class of non-zero weight.
    points = (1 - generator.random(len(labels))) * edges[:, -1]
    return (edges < points[:, None]).sum(axis=1).astype(np.uint8)


NEGATIVES: dict[str, Callable[[np.random.Generator, Labels, int, Array | None], Labels]] = {
    "random": random,
    "sampled": sampled,
}
"""Kinds of negatives by the name that the configuration uses."""

FROM_PROBABILITIES = frozenset({"sampled"})
"""Those that read the head's probabilities, so that the head must be trained."""
