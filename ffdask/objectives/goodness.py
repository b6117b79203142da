"""The logistic loss on goodness against a threshold [FF]: p(positive) = sigmoid(goodness - theta)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


def goodness(positive: Array, negative: Array, threshold: float) -> tuple[float, Array]:
    """Return ``softplus(theta - g)`` of positive rows plus ``softplus(g - theta)`` of negative rows, over n.

    Parameters
    ----------
    positive, negative : (n,)
        Goodness (sum of squared activities) of each kind's rows.
    threshold : float
        Theta; the layer's width in the default recipe.

    Returns
    -------
    loss : float
    derivative : (2n,)
        By the positive rows' goodness, then the negative rows'; dtype of the inputs.

    Examples
    --------
    >>> loss, derivative = goodness(np.array([10.0]), np.array([10.0]), threshold=10.0)
    >>> round(loss, 4), derivative.tolist()
    (1.3863, [-0.5, 0.5])
    """
    n = positive.shape[0]
    # One signed margin for both kinds: how far a row is on the wrong side of the threshold.
    margin = np.concatenate([threshold - positive, negative - threshold])
    loss = float(np.logaddexp(0, margin).sum()) / n
    derivative = 1 / (1 + np.exp(-np.clip(margin, -60, 60)))
    derivative[:n] *= -1
    derivative /= n
    return loss, derivative.astype(positive.dtype, copy=False)
