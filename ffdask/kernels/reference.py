"""NumPy kernels: the reference, and the fallback where there is nothing faster.

Passes over large arrays go block by block, so that a block's operands stay in the processor's cache between
the passes; every element sees the same operations in the same order, whatever the block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ffdask.blocks import copied as copied
from ffdask.blocks import empty as empty

if TYPE_CHECKING:
    from ffdask.kernels import Turn

Array = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]

EPSILON = 1e-8
"""Added to a row's RMS before division: a silent row stays zero."""

BLOCK = 1 << 16
"""Elements in a block: 256 KiB of float32, so that three operands fit a second-level cache."""


TILE = 1 << 20
"""Elements of a gradient made and used up at a time: 4 MiB of float32, still in the cache when the update reads it."""


def working() -> AbstractContextManager[None]:
    """Return a context that does nothing: each function returns when it is done."""
    return nullcontext()


def here(value: Any) -> Any:
    """Return `value`: NumPy's arrays are here."""
    return value


def gatherer(images: NDArray[Any]) -> None:
    """Return None: rows are taken and shifted where they are."""


def rates(factors: Sequence[float], steps: int) -> Sequence[float]:
    """Return the factors themselves."""
    return factors


def repeated(turn: Turn) -> Turn:
    """Return `turn` itself."""
    return turn


def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """Return ``a @ b``, in `out` if given."""
    return np.matmul(a, b, out=out)


def matmul_bfloat16(a: NDArray[np.uint16], b: NDArray[np.uint16], out: Array | None = None) -> Array:
    """Return ``a @ b`` of bfloat16 numbers, as float32, in `out` if given: by oneDNN, which is not always there."""
    # Only who asks for bfloat16 needs the library.
    from ffdask.kernels import onednn

    out = np.empty((a.shape[0], b.shape[1]), np.float32) if out is None else out
    onednn.matmul(a, b, out)
    return out


def rounded(x: Array) -> Array:
    """Return `x` itself: products are exact to its own dtype."""
    return x


def follow(weights: Array, rows: slice = slice(None)) -> None:
    """Remember nothing: the weights themselves are what is multiplied."""


def to_bfloat16(x: Array, out: NDArray[np.uint16]) -> None:
    """Write the nearest bfloat16 numbers of float32 `x`, ties to even, into `out` as their bits."""
    bits = x.view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    nearest = (bits + (np.uint32(0x7FFF) + odd)) >> np.uint32(16)
    # Rounding up would carry a NaN's bits away: it is cut short, and stays quiet.
    cut = (bits >> np.uint32(16)) | np.uint32(0x40)
    out[...] = np.where(np.isnan(x), cut, nearest)


def scale(images: NDArray[Any], values: Array, cleared: int) -> Array:
    """Write pixels scaled to [0, 1] into `values`; return each row's sum of squares (n,).

    Parameters
    ----------
    images : (n, pixels)
        Integers up to 255, or floats, which are taken as they are.
    values : (n, inputs)
        Written: the pixels are its last columns.
    cleared : int
        The first columns that are zero: a label's place.
    """
    lead = values.shape[1] - images.shape[1]
    values[:, lead:] = images
    if images.dtype.kind != "f":
        values[:, lead:] /= 255
    values[:, :cleared] = 0
    squares: Array = np.einsum("ij,ij->i", values, values)
    return squares


def overlay(product: Array, table: Array, labels: Labels, length: Array, height: Array | None = None) -> Array:
    """Return layer one's pre-activations (rows, width) with labels on: ``(product + height table[labels]) / length``.

    Parameters
    ----------
    product : (n, width)
        Unscaled pixels times weights; again and again, if there are more labels than n.
    table : (any, width)
        What each label adds: its row of the weights.
    labels : (rows,)
    length : (rows,)
        RMS + 1e-8 of each row with its label on.
    height : (rows,), optional
        Of the label in each row; 1 if left out.
    """
    added = table[labels]
    if height is not None:
        added *= height[:, None]
    z: Array = np.tile(product, (len(labels) // len(product), 1)) if len(product) else added
    z += added
    z /= length[:, None]
    return z


def activate(z: Array, bias: Array) -> tuple[Array, Array]:
    """Turn pre-activations (n, width) into activities in place; return (y, goodness (n,)) [FF]."""
    z += bias
    np.maximum(z, 0, out=z)
    return z, np.einsum("ij,ij->i", z, z)


def normalise(y: Array, goodness: Array, out: Array | None = None) -> Array:
    """Return each row of `y` (n, width) divided by its RMS + 1e-8: the next layer sees the direction only [FF]."""
    length = np.sqrt(goodness / y.shape[1])
    length += EPSILON
    return np.divide(y, length[:, None], out=out)


def running(mean: Array, positive: Array, keep: float) -> Array:
    """Return the running mean activity (width,), moved toward that of `positive` (n, width), new [FF, footnote]."""
    old = mean.dtype.type(keep)
    return old * mean + (1 - old) * positive.mean(axis=0)


def pull(running: Array, share: float) -> Array:
    """Return ``(running - mean) * share``, new: what draws units toward the layer's mean activity [FF, footnote]."""
    return (running - running.mean()) * running.dtype.type(share)


def pairs(objective: Any, goodness: Array, width: int, threshold: float, mean: bool) -> tuple[Array, Array]:
    """Judge n pairs of rows by a `Paired` objective.

    Parameters
    ----------
    objective : ffdask.objectives.Paired
    goodness : (2n,)
        Of the positive, then the negative rows.
    width : int
        Of the layer.
    threshold : float
        Theta over the layer's width.
    mean : bool
        Whether the loss sees the mean of the squares, not their sum.

    Returns
    -------
    scale : (2n,)
        Twice the loss's derivative by the sum of squares: times a row's activities, it is the derivative by them.
    seen : (4,) float64
        Loss times n, goodness of the positive and of the negative rows over the width, rows that are wrong.
    """
    n = len(goodness) // 2
    positive, negative, scale, theta = goodness[:n], goodness[n:], 1.0, threshold * width
    if mean:
        positive, negative = positive / width, negative / width
        scale, theta = 1 / width, threshold
    loss, derivative = objective.loss(positive, negative, theta)
    if objective.by_threshold:
        wrong = int((positive <= theta).sum() + (negative > theta).sum())
    else:
        wrong = 2 * int((positive <= negative).sum())
    means = [float(part.sum()) / width for part in (goodness[:n], goodness[n:])]
    return 2 * derivative if scale == 1.0 else (2 * scale) * derivative, np.array([loss * n, *means, wrong])


def classes(
    loss: Callable[..., Any], logits: Array, labels: Labels, goodness: Array | None, width: int
) -> tuple[Array, Array]:
    """Judge n rows by their class scores.

    Parameters
    ----------
    loss : callable
        Of a `Scored` objective.
    logits : (n, classes)
    labels : (n,)
    goodness : (n,) or None
        Of the layer's activities, if it is a layer's own head.
    width : int
        Of the layer.

    Returns
    -------
    derivative : (n, classes)
        Of the loss, by the logits.
    seen : (4,) float64
        As of `pairs`; all rows are positive.
    """
    mean, derivative = loss(logits, labels)
    squares = 0.0 if goodness is None else float(goodness.sum()) / width
    wrong = int((logits.argmax(axis=1) != labels).sum())
    return derivative, np.array([mean * len(logits), squares, 0.0, wrong])


def derivative(y: Array, scale: Array, peer: Array) -> tuple[Array, Array]:
    """Return ``y * scale[:, None] + peer``, in place of `y`, and its sum over the rows.

    The loss's derivative by the pre-activations (n, width), and by the bias (width,). ReLU's own gate is in `y`, which
    is zero where the unit is off; the peer term (width,) is not gated.
    """
    y *= scale[:, None]
    y += peer
    return y, y.sum(axis=0)


def derivative_below(dh: Array, h: Array, goodness: Array, peer: Array) -> tuple[Array, Array]:
    """Return the loss's derivative by the pre-activations, and its sum, from that by the normalised activities.

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
    return dh, dh.sum(axis=0)


def fold(dz: Array, length: Array, labels: Labels, classes: int, height: Array | None = None) -> tuple[Array, Array]:
    """Return what layer one's gradient needs of both kinds of rows, which share their pixels.

    Parameters
    ----------
    dz : (2n, width)
        Derivative by the pre-activations, of the positive then the negative rows.
    length : (2n,)
        RMS + 1e-8 of each row with its label on.
    labels : (2n,)
    classes : int
    height : (2n,), optional
        Of the label in each row; 1 if left out.

    Returns
    -------
    both : (n, width)
        Derivative by the shared product of pixels and weights.
    top : (classes, width)
        The gradient of each label's row of the weights.
    """
    n, scaled = len(dz) // 2, dz / length[:, None]
    one_hot = np.zeros((classes, 2 * n), dz.dtype)
    one_hot[labels, np.arange(2 * n)] = 1 if height is None else height
    return scaled[:n] + scaled[n:], one_hot @ scaled


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


def descend(weights: Array, moment: Array, gradient: Array, rate: float, momentum: float, decay: float) -> None:
    """Do ``moment <- momentum moment + (1 - momentum) (gradient + decay weights); weights -= rate moment``.

    In place on `weights` and `moment`; `gradient` is used up as scratch.
    """
    gradient += decay * weights
    moment *= momentum
    moment += (1 - momentum) * gradient
    weights -= rate * moment


def _blocks(array: Array) -> list[Array]:
    """Return views of consecutive blocks of a contiguous array's elements."""
    flat = array.reshape(-1)
    return [flat[start : start + BLOCK] for start in range(0, flat.size, BLOCK)]
