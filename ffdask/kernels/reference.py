"""NumPy kernels: the reference, and the fallback where there is nothing faster.

Passes over large arrays go block by block, so that a block's operands stay in the processor's cache between
the passes; every element sees the same operations in the same order, whatever the block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

EPSILON = 1e-8
"""Added to a row's RMS before division: a silent row stays zero."""

BLOCK = 1 << 16
"""Elements in a block: 256 KiB of float32, so that three operands fit a second-level cache."""


def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """Return ``a @ b``, in `out` if given."""
    return np.matmul(a, b, out=out)


def overlay(product: Array, label_weights: Array, length: Array) -> Array:
    """Return ``(product + label_weights) / length[:, None]``.

    Parameters
    ----------
    product : (n, width)
        Unscaled pixels times weights.
    label_weights : (n, width) or (width,)
        What each row's label adds: its row of the weights.
    length : (n,)
        RMS + 1e-8 of each row with its label on.
    """
    z = product + label_weights
    z /= length[:, None]
    return z


def activate(z: Array, bias: Array) -> tuple[Array, Array]:
    """Turn pre-activations (n, width) into activities in place; return (y, goodness (n,)) [FF]."""
    z += bias
    np.maximum(z, 0, out=z)
    return z, np.einsum("ij,ij->i", z, z)


def normalise(y: Array, goodness: Array) -> Array:
    """Return each row of `y` (n, width) divided by its RMS + 1e-8: the next layer sees the direction only [FF]."""
    length = np.sqrt(goodness / y.shape[1])
    length += EPSILON
    return y / length[:, None]


def derivative(y: Array, scale: Array, peer: Array) -> Array:
    """Return ``y * scale[:, None] + peer``: the loss's derivative by the pre-activations (n, width).

    ReLU's own gate is in `y`, which is zero where the unit is off; the peer term (width,) is not gated.
    """
    dz = y * scale[:, None]
    dz += peer
    return dz


def derivative_below(dh: Array, h: Array, goodness: Array, peer: Array) -> Array:
    """Return the loss's derivative by the pre-activations, from that by the normalised activities.

    Parameters
    ----------
    dh : (n, width)
        Derivative by the normalised activities; used up.
    h : (n, width)
        Normalised activities: zero where ReLU is off, which gates the derivative.
    goodness : (n,)
        Sum of squares of each row's activities before they were normalised.
    peer : (width,)
        Added to every row, not gated.
    """
    length = np.sqrt(goodness / h.shape[1])
    length += EPSILON
    along = np.einsum("ij,ij->i", dh, h)
    along /= h.shape[1]
    # Whatever would only stretch a row is taken out: its length is divided away.
    dh -= h * along[:, None]
    dh /= length[:, None]
    dh *= h > 0
    dh += peer
    return dh


def momentum(
    weights: Array, moments: Sequence[Array], gradient: Array, rate: float, momentum: float, decay: float
) -> None:
    """Do ``moment <- momentum moment + (1 - momentum) gradient; weights -= rate (moment + decay weights)``.

    In place on `weights` and `moments`, of which there is one; `gradient` is used up as scratch.
    """
    (moment,) = moments
    for w, m, g in zip(_blocks(weights), _blocks(moment), _blocks(gradient), strict=True):
        m *= momentum
        g *= 1 - momentum
        m += g
        w *= 1 - rate * decay
        np.multiply(m, rate, out=g)
        w -= g


def adam(weights: Array, moments: Sequence[Array], gradient: Array, rate: float, step: int, decay: float) -> None:
    """Do one step of Adam (0.9, 0.999, 1e-8) with decoupled weight decay, `step` counted from 1.

    In place on `weights` and both `moments`; `gradient` is used up as scratch.
    """
    first, second = moments
    first_correction, second_correction = 1 - 0.9**step, 1 - 0.999**step
    for w, m, v, g in zip(_blocks(weights), _blocks(first), _blocks(second), _blocks(gradient), strict=True):
        m *= 0.9
        m += 0.1 * g
        np.multiply(g, g, out=g)
        g *= 0.001
        v *= 0.999
        v += g
        np.divide(v, second_correction, out=g)
        np.sqrt(g, out=g)
        g += 1e-8
        np.divide(m, g, out=g)
        g *= rate / first_correction
        w *= 1 - rate * decay
        w -= g


def _blocks(array: Array) -> list[Array]:
    """Return views of consecutive blocks of a contiguous array's elements."""
    flat = array.reshape(-1)
    return [flat[start : start + BLOCK] for start in range(0, flat.size, BLOCK)]
