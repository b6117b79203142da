"""A backend whose large products multiply bfloat16 numbers and add up in float32; all else is the backend's own.

Weights, moments and activities stay float32: each factor is rounded for its product. Weights are large, and a layer
multiplies by them once a minibatch, so they are rounded where they are moved, a tile at a time, still in the cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffdask.kernels import ALL, Factor, Kernels

Array = NDArray[np.floating[Any]]

THIN = 32
"""Products with a side below this stay in float32: they are the classifier's, and there is nothing to gain."""


class BFloat16:
    """The kernels of one step.

    Parameters
    ----------
    exact : Kernels
        The backend that does all else.
    """

    def __init__(self, exact: Kernels) -> None:
        self._exact = exact
        # By id, each with the weights themselves: nothing else has their id while they are here.
        self._followed: dict[int, tuple[Array, Factor]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._exact, name)

    def matmul(self, a: Factor, b: Factor, out: Array | None = None) -> Array:
        """Return ``a @ b``: of bfloat16 factors, unless one is float64 or the product is thin."""
        if np.float64 in (a.dtype, b.dtype) or min(*a.shape, b.shape[1]) < THIN:
            return self._exact.matmul(_widened(a), _widened(b), out)
        return self._exact.matmul_bfloat16(self.rounded(a), self.rounded(b), out)

    def rounded(self, x: Factor) -> Factor:
        """Return the nearest bfloat16 numbers: what is known of weights that are followed, else new."""
        if x.dtype != np.float32:
            return x
        weights, kept = self._followed.get(id(x), (None, None))
        if weights is x and kept is not None:
            return kept
        # A transpose of rows, like rows, is rounded in the order in which it lies in memory.
        turned = not x.flags.c_contiguous and x.T.flags.c_contiguous
        rows = x.T if turned else (x if x.flags.c_contiguous else x.copy())
        found = np.empty_like(rows, np.uint16)
        self._exact.to_bfloat16(rows, found)
        return found.T if turned else found

    def follow(self, weights: Array, rows: slice = ALL) -> None:
        """Round `weights`, or these rows of them, as they are now."""
        if weights.dtype != np.float32:
            return
        if id(weights) not in self._followed:
            self._followed[id(weights)] = weights, np.empty_like(weights, np.uint16)
        self._exact.to_bfloat16(weights[rows], self._followed[id(weights)][1][rows])


def _widened(x: Factor) -> Array:
    """Return rounded numbers as float32, exactly; others as they are."""
    if x.dtype != np.uint16:
        return x
    wide: Array = (x.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return wide
