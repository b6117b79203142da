"""The hot loops, behind one small interface: no Dask and no schedule here.

`reference` (NumPy) defines what every other backend must agree with, to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ffdask.kernels import reference

Array = NDArray[np.floating[Any]]


class Kernels(Protocol):
    """What a backend provides. Arrays are C-contiguous, of one floating dtype; `n` rows, `width` units."""

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """Return ``a @ b``."""

    def overlay(self, product: Array, label_weights: Array, length: Array) -> Array:
        """Return ``(product + label_weights) / length[:, None]``, new: layer one's product with a label on."""

    def activate(self, z: Array, bias: Array) -> tuple[Array, Array]:
        """Turn pre-activations into activities in place; return (y, goodness)."""

    def normalise(self, y: Array, goodness: Array) -> Array:
        """Return each row of `y` divided by its RMS + 1e-8, new."""

    def derivative(self, y: Array, scale: Array, peer: Array) -> Array:
        """Return ``y * scale[:, None] + peer``, new: the loss's derivative by the pre-activations."""

    def derivative_below(self, dh: Array, h: Array, goodness: Array, peer: Array) -> Array:
        """Return the loss's derivative by the pre-activations, from that by the normalised activities; uses `dh` up."""

    def momentum(
        self, weights: Array, moments: Sequence[Array], gradient: Array, rate: float, momentum: float, decay: float
    ) -> None:
        """Move `weights` and their one moment in place by the moving average of the gradient."""

    def adam(
        self, weights: Array, moments: Sequence[Array], gradient: Array, rate: float, step: int, decay: float
    ) -> None:
        """Move `weights` and both moments in place by Adam."""


KERNELS: dict[str, Kernels] = {"numpy": reference}
"""Backends by the name that the configuration uses."""
