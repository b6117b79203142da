"""Softmax cross-entropy on class scores: what a layer's own head learns by, and the layer through it [PFF, 5.5]."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]


def softmax(logits: Array) -> Array:
    """Return the softmax of each row (n, classes)."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    raised /= raised.sum(axis=1, keepdims=True)
    return raised


def classifier(logits: Array, labels: Labels) -> tuple[float, Array]:
    """Return the cross-entropy of the true classes, and its derivative by the logits.

    Parameters
    ----------
    logits : (n, classes)
    labels : (n,)
        True classes.

    Returns
    -------
    loss : float
        Mean over the rows.
    derivative : (n, classes)
        Dtype of the logits.
    """
    n, rows = len(labels), np.arange(len(labels))
    derivative = softmax(logits)
    likelihood = np.maximum(derivative[rows, labels], np.finfo(derivative.dtype).tiny)
    derivative[rows, labels] -= 1
    derivative /= n
    return -float(np.log(likelihood).sum()) / n, derivative
