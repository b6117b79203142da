"""The kinds of negatives: which wrong label lies over a row [FF, PFF].

Drawn per visit (`fixed`: per chunk, once), in the chunk's own row order, from (seed, "negatives", epoch, chunk).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.uint8]
Array = NDArray[np.floating[Any]]
Draw = Callable[[np.random.Generator, Labels, int, Array | None], Labels]


@dataclass(frozen=True)
class Kind:
    """A kind of negatives.

    Attributes
    ----------
    draw : callable
        ``draw(generator, labels, classes, scores) -> labels``.
    reads : str
        What its `scores` are: ``nothing``, the head's ``probabilities``, or the run's ``classifier``'s scores (the
        head's probabilities, or each label's goodness).
    once : bool
        Whether a row keeps the label that it was first given.
    """

    draw: Draw
    reads: str = "nothing"
    once: bool = False


def random(generator: np.random.Generator, labels: Labels, classes: int, scores: Array | None) -> Labels:
    """Return a wrong label for each row, all wrong ones equally likely [PFF, RandomNEG].

    Parameters
    ----------
    generator : numpy.random.Generator
    labels : (n,) uint8
        True labels.
    classes : int
    scores : (n, classes) or None
        Not read.

    Examples
    --------
    >>> labels = np.array([0, 1, 2], np.uint8)
    >>> bool((random(np.random.default_rng(0), labels, 3, None) != labels).all())
    True
    """
    shift = generator.integers(1, classes, len(labels))
    return ((labels + shift) % classes).astype(np.uint8)


def sampled(generator: np.random.Generator, labels: Labels, classes: int, scores: Array | None) -> Labels:
    """Return a wrong label for each row, in proportion to the head's probabilities, true class out [FF].

    Uniform where there are no probabilities yet, or where they leave nothing for the wrong classes.

    Parameters
    ----------
    generator : numpy.random.Generator
    labels : (n,) uint8
        True labels.
    classes : int
    scores : (n, classes) or None
        The head's probabilities, from an earlier visit of the same rows, in the same order.
    """
    if scores is None:
        return random(generator, labels, classes, None)
    weights = scores.astype(np.float64)
    weights[np.arange(len(labels)), labels] = 0
    nothing = ~(weights.sum(axis=1) > 0)
    weights[nothing] = 1
    weights[nothing, labels[nothing]] = 0
    edges = weights.cumsum(axis=1)
    # A point in (0, total]: the first edge that reaches it belongs to a class of non-zero weight.
    points = (1 - generator.random(len(labels))) * edges[:, -1]
    return (edges < points[:, None]).sum(axis=1).astype(np.uint8)


def adaptive(generator: np.random.Generator, labels: Labels, classes: int, scores: Array | None) -> Labels:
    """Return the most probable wrong label for each row; ties to the lowest class [PFF, AdaptiveNEG].

    Uniform where there are no scores yet.

    Parameters
    ----------
    generator : numpy.random.Generator
    labels : (n,) uint8
        True labels.
    classes : int
    scores : (n, classes) or None
        The classifier's, from earlier states of the network; -inf for a label that was not tried.

    Examples
    --------
    >>> scores = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.1, 0.3, 0.6]])
    >>> adaptive(np.random.default_rng(0), np.array([0, 1, 1], np.uint8), 3, scores).tolist()
    [1, 0, 2]
    """
    if scores is None:
        return random(generator, labels, classes, None)
    wrong = scores.copy()
    wrong[np.arange(len(labels)), labels] = -np.inf
    best = wrong.argmax(axis=1)
    # A row whose every score is -inf or NaN gives no best one.
    lost = best == labels
    best[lost] = (labels[lost] + 1) % classes
    return best.astype(np.uint8)


NEGATIVES: dict[str, Kind] = {
    "fixed": Kind(random, once=True),
    "random": Kind(random),
    "sampled": Kind(sampled, reads="probabilities"),
    "adaptive": Kind(adaptive, reads="classifier"),
}
"""Kinds of negatives by the name that the configuration uses."""
