"""Numba kernels: one pass over memory where NumPy takes several; one thread each, without the interpreter's lock.

Compiled at first use for each dtype, and kept on disk from then on. Sums along a row are taken in another order than
`reference` takes them, so the two agree to rounding.

The same input must give the same bits wherever it lies in memory. A loop that writes may be compiled twice, in vector
registers and for arrays that might overlap, so it does nothing in which the two could differ: no sum along a row, no
multiplication fused with an addition. The sums are loops of their own, which write nothing; their row is in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, wraps
from inspect import signature
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ffdask.kernels.reference import (
    EPSILON,
    classes,
    copied,
    descend,
    empty,
    follow,
    here,
    matmul,
    matmul_bfloat16,
    pairs,
    pull,
    rates,
    repeated,
    rounded,
    working,
)

__all__ = [
    "TILE",
    "activate",
    "adam",
    "classes",
    "copied",
    "derivative",
    "derivative_below",
    "descend",
    "empty",
    "fold",
    "follow",
    "gatherer",
    "here",
    "matmul",
    "matmul_bfloat16",
    "momentum",
    "normalise",
    "overlay",
    "pairs",
    "pull",
    "rates",
    "repeated",
    "rounded",
    "running",
    "scale",
    "to_bfloat16",
    "working",
]

if TYPE_CHECKING:
    from ffdask.kernels import Gather

Array = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]
F = TypeVar("F", bound=Callable[..., Any])

TILE = 1 << 20
"""Elements of a gradient made and used up at a time: 4 MiB of float32, still in the cache when the update reads it."""


_sum: Any = njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "nsz", "contract"})
"""Compiles a sum along a row: reordered, so that it runs in vector registers; NaN and infinity stay what they are."""


def _compiled(*written: str) -> Callable[[F], F]:
    """Compile a function that writes to the arrays named, and only reads the others."""

    def compiled(function: F) -> F:
        decorate: Any = njit(nogil=True, cache=True, error_model="numpy")
        fast, reads = decorate(function), [name not in written for name in signature(function).parameters]

        @wraps(function)
        def call(*given: Any) -> None:
            # Numba compiles anew for arrays that may be written to: one kind is enough.
            fast(*(_read_only(one) if only else one for one, only in zip(given, reads, strict=True)))

        return cast(F, call)

    return compiled


def _read_only(given: Any) -> Any:
    if isinstance(given, np.ndarray):
        given = np.ascontiguousarray(given).view()
        given.setflags(write=False)
    return given


@_compiled("out")
def _to_bfloat16(x: NDArray[np.uint32], out: NDArray[np.uint16]) -> None:
    for i in range(x.size):
        bits = x[i]
        high = bits >> np.uint32(16)
        nearest = (bits + (np.uint32(0x7FFF) + (high & np.uint32(1)))) >> np.uint32(16)
        not_a_number = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
        out[i] = np.uint16(high | np.uint32(0x40) if not_a_number else nearest)


def to_bfloat16(x: Array, out: NDArray[np.uint16]) -> None:
    """Write the nearest bfloat16 numbers into `out`, as their bits; see `reference.to_bfloat16`."""
    _to_bfloat16(x.reshape(-1).view(np.uint32), out.reshape(-1))


def gatherer(images: NDArray[Any]) -> Gather | None:
    """Return what takes and shifts rows of images that are in memory; None of those on the disk."""
    whole = isinstance(images, np.ndarray) and images.flags.c_contiguous
    return partial(_gathered, images) if whole else None


def _gathered(images: NDArray[Any], rows: NDArray[np.integer[Any]], shifts: NDArray[np.integer[Any]]) -> NDArray[Any]:
    shape = images.shape[1:]
    # Vectors are images of one line; the channels of a pixel move together.
    height, width, channels = {1: (1, *shape, 1), 2: (*shape, 1)}.get(len(shape), shape)
    every, out = images.reshape(-1, height, width * channels), np.empty((len(rows), *shape), images.dtype)
    down, right = shifts.astype(np.int64, copy=False)
    _gather(every, rows.astype(np.int64), down, right * channels, out.reshape(-1, height, width * channels))
    return out


@_compiled("out")
def _gather(
    images: NDArray[Any], rows: NDArray[np.int64], down: NDArray[np.int64], right: NDArray[np.int64], out: NDArray[Any]
) -> None:
    height, width = out.shape[1:]
    for i in range(out.shape[0]):
        first, last = min(width, max(0, -right[i])), max(0, min(width, width - right[i]))
        for y in range(height):
            above = y + down[i]
            if not 0 <= above < height:
                out[i, y] = 0
                continue
            line, into = images[rows[i], above, first + right[i] : last + right[i]], out[i, y, first:last]
            for x in range(into.size):
                into[x] = line[x]
            for x in range(first):
                out[i, y, x] = 0
            for x in range(last, width):
                out[i, y, x] = 0


def scale(images: NDArray[Any], values: Array, cleared: int) -> Array:
    """Write pixels scaled to [0, 1] into `values`; see `reference.scale`."""
    squares = np.empty(len(values), values.dtype)
    _scale(images, values, cleared, images.dtype.kind != "f", squares)
    return squares


@_sum
def _square(rows: Array, i: int) -> Any:
    """Return the sum of squares of row `i`."""
    total = rows.dtype.type(0)
    for j in range(rows.shape[1]):
        total += rows[i, j] * rows[i, j]
    return total


@_sum
def _product(rows: Array, others: Array, i: int) -> Any:
    """Return the sum of products of row `i` of two arrays."""
    total = rows.dtype.type(0)
    for j in range(rows.shape[1]):
        total += rows[i, j] * others[i, j]
    return total


@_compiled("values", "squares")
def _scale(images: NDArray[Any], values: Array, cleared: int, integers: bool, squares: Array) -> None:
    zero, top = values.dtype.type(0), values.dtype.type(255 if integers else 1)
    lead = values.shape[1] - images.shape[1]
    for i in range(values.shape[0]):
        for j in range(cleared):
            values[i, j] = zero
        for j in range(max(cleared, lead), values.shape[1]):
            values[i, j] = values.dtype.type(images[i, j - lead]) / top
        squares[i] = _square(values, i)


def overlay(product: Array, table: Array, labels: Labels, length: Array, height: Array | None = None) -> Array:
    """Return layer one's pre-activations with labels on; see `reference.overlay`."""
    z = np.empty((len(labels), product.shape[1]), product.dtype)
    _overlay(product, table, labels, length, np.ones(0, product.dtype) if height is None else height, z)
    return z


@_compiled("z")
def _overlay(product: Array, table: Array, labels: Labels, length: Array, height: Array, z: Array) -> None:
    one = product.dtype.type(1)
    for i in range(z.shape[0]):
        row, label = i % product.shape[0], labels[i]
        high = height[i] if len(height) else one
        for j in range(z.shape[1]):
            z[i, j] = (product[row, j] + high * table[label, j]) / length[i]


@_compiled("z", "goodness")
def _activate(z: Array, bias: Array, goodness: Array) -> None:
    zero = z.dtype.type(0)
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            value = z[i, j] + bias[j]
            # Written so that NaN stays NaN.
            z[i, j] = zero if value < zero else value
        goodness[i] = _square(z, i)


def activate(z: Array, bias: Array) -> tuple[Array, Array]:
    """Turn pre-activations (n, width) into activities in place; return (y, goodness (n,)) [FF]."""
    goodness = np.empty(len(z), z.dtype)
    _activate(z, bias, goodness)
    return z, goodness


@_compiled("out")
def _normalise(y: Array, goodness: Array, out: Array) -> None:
    width, epsilon = y.dtype.type(y.shape[1]), y.dtype.type(EPSILON)
    for i in range(y.shape[0]):
        length = np.sqrt(goodness[i] / width) + epsilon
        for j in range(y.shape[1]):
            out[i, j] = y[i, j] / length


def normalise(y: Array, goodness: Array, out: Array | None = None) -> Array:
    """Return each row of `y` (n, width) divided by its RMS + 1e-8, in `out` if given [FF]."""
    out = np.empty_like(y) if out is None else out
    _normalise(y, goodness, out)
    return out


@_compiled("found")
def _running(mean: Array, positive: Array, keep: float, found: Array) -> None:
    old, n = mean.dtype.type(keep), mean.dtype.type(positive.shape[0])
    new = mean.dtype.type(1) - old
    found[:] = 0
    for i in range(positive.shape[0]):
        for j in range(positive.shape[1]):
            found[j] += positive[i, j]
    for j in range(found.shape[0]):
        found[j] = old * mean[j] + new * (found[j] / n)


def running(mean: Array, positive: Array, keep: float) -> Array:
    """Return the running mean activity (width,), moved toward that of `positive` (n, width), new [FF, footnote]."""
    found = np.empty_like(mean)
    _running(mean, positive, keep, found)
    return found


@_compiled("y", "total")
def _derivative(y: Array, scale: Array, peer: Array, total: Array) -> None:
    total[:] = 0
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            value = y[i, j] * scale[i] + peer[j]
            y[i, j] = value
            total[j] += value


def derivative(y: Array, scale: Array, peer: Array) -> tuple[Array, Array]:
    """Return the loss's derivative by the pre-activations, and its sum over the rows; see `reference.derivative`."""
    total = np.empty_like(peer)
    _derivative(y, scale, peer, total)
    return y, total


@_compiled("dh", "total")
def _derivative_below(dh: Array, h: Array, goodness: Array, peer: Array, total: Array) -> None:
    zero, width, epsilon = h.dtype.type(0), h.dtype.type(h.shape[1]), h.dtype.type(EPSILON)
    total[:] = 0
    for i in range(h.shape[0]):
        length, along = np.sqrt(goodness[i] / width) + epsilon, _product(dh, h, i) / width
        for j in range(h.shape[1]):
            value = (dh[i, j] - h[i, j] * along) / length
            # Written so that NaN stays NaN.
            value = (zero * value if h[i, j] <= zero else value) + peer[j]
            dh[i, j] = value
            total[j] += value


def derivative_below(dh: Array, h: Array, goodness: Array, peer: Array) -> tuple[Array, Array]:
    """Return the loss's derivative by the pre-activations, and its sum; see `reference.derivative_below`."""
    total = np.empty_like(peer)
    _derivative_below(dh, h, goodness, peer, total)
    return dh, total


@_compiled("both", "top")
def _fold(dz: Array, length: Array, labels: Labels, height: Array, both: Array, top: Array) -> None:
    n, one = both.shape[0], dz.dtype.type(1)
    top[:] = 0
    for i in range(dz.shape[0]):
        high = height[i] if len(height) else one
        for j in range(dz.shape[1]):
            value = dz[i, j] / length[i]
            top[labels[i], j] += high * value
            if i < n:
                both[i, j] = value
            else:
                both[i - n, j] += value


def fold(dz: Array, length: Array, labels: Labels, classes: int, height: Array | None = None) -> tuple[Array, Array]:
    """Return what the pixels' gradient needs of both kinds of rows, and the labels' gradient; see `reference.fold`."""
    both = np.empty((len(dz) // 2, dz.shape[1]), dz.dtype)
    top = np.empty((classes, dz.shape[1]), dz.dtype)
    _fold(dz, length, labels, np.ones(0, dz.dtype) if height is None else height, both, top)
    return both, top


@_compiled("weights", "moment")
def _momentum(weights: Array, moment: Array, gradient: Array, rate: float, momentum: float, decay: float) -> None:
    kind = weights.dtype.type
    step, keep, take, hold = kind(rate), kind(momentum), kind(1 - momentum), kind(1 - rate * decay)
    for i in range(weights.size):
        moved = keep * moment[i] + take * gradient[i]
        moment[i] = moved
        weights[i] = hold * weights[i] - step * moved


def momentum(
    weights: Array, moments: Sequence[Array], gradient: Array, rate: float, momentum: float, decay: float
) -> None:
    """Move `weights` and their one moment in place by the moving average of the gradient."""
    _momentum(weights.reshape(-1), moments[0].reshape(-1), gradient.reshape(-1), rate, momentum, decay)


@_compiled("weights", "first", "second")
def _adam(weights: Array, first: Array, second: Array, gradient: Array, rate: float, step: int, decay: float) -> None:
    kind = weights.dtype.type
    size, hold, epsilon = kind(rate / (1 - 0.9**step)), kind(1 - rate * decay), kind(1e-8)
    correction = kind(1 - 0.999**step)
    a, b, c, d = kind(0.9), kind(0.1), kind(0.999), kind(0.001)
    for i in range(weights.size):
        slope = gradient[i]
        m, v = a * first[i] + b * slope, c * second[i] + d * slope * slope
        first[i], second[i] = m, v
        weights[i] = hold * weights[i] - size * m / (np.sqrt(v / correction) + epsilon)


def adam(weights: Array, moments: Sequence[Array], gradient: Array, rate: float, step: int, decay: float) -> None:
    """Move `weights` and both moments in place by Adam; see `reference.adam`."""
    first, second = (moment.reshape(-1) for moment in moments)
    _adam(weights.reshape(-1), first, second, gradient.reshape(-1), rate, step, decay)
