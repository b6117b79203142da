"""SymBa's pair loss: a row's positive goodness against its own negative one, with no threshold between them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

ALPHA = 4.0
"""How sharp the comparison is."""


def symba(positive: Array, negative: Array, threshold: float) -> tuple[float, Array]:
    """Return ``softplus(-alpha (g_positive - g_negative))``, averaged over the pairs.

    Parameters
    ----------
    positive, negative : (n,)
        Goodness of each row under its true label, and of the same row under a wrong one.
    threshold : float
        Not read: there is none.

    Returns
    -------
    loss : float
    derivative : (2n,)
        By the positive rows' goodness, then the negative rows'; dtype of the inputs.

    Examples
    --------
    >>> loss, derivative = symba(np.array([3.0]), np.array([3.0]), threshold=10.0)
    >>> round(loss, 4), derivative.tolist()
    (0.6931, [-2.0, 2.0])
    """
    n = positive.shape[0]
    margin = ALPHA * (negative - positive)
    loss = float(np.logaddexp(0, margin).sum()) / n
    slope = (ALPHA / n) / (1 + np.exp(-np.clip(margin, -60, 60)))
    return loss, np.concatenate([-slope, slope]).astype(positive.dtype, copy=False)
