"""CuPy kernels: products by cuBLAS, all else by the kernels in `device.cu`; inside a step nothing waits for the GPU.

Arrays are CuPy's, where NumPy's functions reach them too. Each thread has a stream of its own, and so a handle of
cuBLAS: a step's launches follow each other, and the same launches give the same bits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

# Read when cuBLAS makes its first handle: with more than one workspace, its bits may depend on timing.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import cupy
import numpy as np
from numpy.typing import DTypeLike, NDArray

from ffdask.kernels import reference
from ffdask.kernels.cublas import Product
from ffdask.kernels.launches import THREADS, by_columns, by_elements, by_rows, in_own_stream, launch
from ffdask.kernels.memory import settled
from ffdask.kernels.recorded import Repeated
from ffdask.kernels.uploaded import gathered, uploaded
from ffdask.resident import home, moved

if TYPE_CHECKING:
    from ffdask.kernels import Gather, Precision, Turn

Array = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate of which a factor is on the device, so that launches are the same whatever it is.

    Attributes
    ----------
    now : (3,) float64, on the device
        The factor, and Adam's two corrections at this step.
    times : float
        What the factor is multiplied by.
    """

    now: Array
    times: float = 1.0

    def __mul__(self, other: float) -> Rate:
        return Rate(self.now, self.times * other)

    __rmul__ = __mul__

    def __truediv__(self, other: float) -> Rate:
        return Rate(self.now, self.times / other)


def _bytes(labels: Labels) -> Labels:
    return labels.astype(np.uint8, copy=False)


class Device:
    """The kernels of a GPU.

    Parameters
    ----------
    precision : str
        Of float32 products: float32, or tf32, which rounds their factors to 10 bits of mantissa.
    """

    TILE = 1 << 62

    def __init__(self, precision: Precision = "float32") -> None:
        settled()
        self._product = Product(tf32=precision == "tf32")

    def working(self) -> AbstractContextManager[None]:
        """Have this thread's stream take all launches, and wait for them at the end."""
        return in_own_stream()

    def here(self, value: Any) -> Any:
        """Return a value with its arrays on the device; what is there stays."""
        return moved(value, cupy.asarray)

    def empty(self, *wanted: tuple[Sequence[int], DTypeLike]) -> list[Array]:
        """Return new arrays."""
        return [cupy.empty(tuple(shape), dtype) for shape, dtype in wanted]

    def copied(self, *arrays: Array) -> list[Array]:
        """Return copies."""
        return [array.copy() for array in arrays]

    def rates(self, factors: Sequence[float], steps: int) -> Sequence[Rate]:
        """Return each minibatch's rate, all of them brought to the device at once."""
        table = [_row(factor, steps + index) for index, factor in enumerate(factors, start=1)]
        return [Rate(now) for now in cupy.asarray(np.array(table))]

    def repeated(self, turn: Turn) -> Turn:
        """Return `turn` as it is called again and again: recorded as a CUDA graph, and replayed."""
        return Repeated(turn)

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """Return ``a @ b``, in `out` if given."""
        return self._product(a, b, out)

    def matmul_bfloat16(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """Return ``a @ b`` of bfloat16 numbers, as float32, in `out` if given."""
        return self._product(a, b, out)

    def rounded(self, x: Array) -> Array:
        """Return `x` itself: cuBLAS rounds what it multiplies."""
        return x

    def follow(self, weights: Array, rows: slice = slice(None)) -> None:
        """Remember nothing."""

    def to_bfloat16(self, x: Array, out: NDArray[np.uint16]) -> None:
        """Write the nearest bfloat16 numbers into `out`, as their bits; see `reference.to_bfloat16`."""
        by_elements("to_bfloat16", x.size, x.dtype, x, out, np.int64(x.size))

    def gatherer(self, images: NDArray[Any]) -> Gather | None:
        """Return what takes rows of a data set's images; None if the data set is too large to stay on the device.

        Parameters
        ----------
        images : (any, features), (any, height, width) or (any, height, width, channels)
            All of them, uint8 or float32.
        """
        every = uploaded(images)
        return None if every is None else partial(gathered, every)

    def scale(self, images: NDArray[Any], values: Array, cleared: int) -> Array:
        """Write pixels scaled to [0, 1] into `values`; see `reference.scale`."""
        (n, inputs), squares = values.shape, cupy.empty(len(values), values.dtype)
        whole = images.dtype.kind != "f"
        images = images.astype(np.uint8 if whole else values.dtype, copy=False)
        name = "scale_bytes" if whole else "scale_reals"
        by_rows(name, n, values.dtype, images, values, squares, n, inputs, images.shape[1], int(cleared))
        return squares

    def overlay(
        self, product: Array, table: Array, labels: Labels, length: Array, height: Array | None = None
    ) -> Array:
        """Return layer one's pre-activations with labels on; see `reference.overlay`."""
        (n, width), rows = product.shape, len(labels)
        z = cupy.empty((rows, width), product.dtype)
        by_rows("overlay", rows, z.dtype, product, table, _bytes(labels), length, height, z, rows, n, width)
        return z

    def activate(self, z: Array, bias: Array) -> tuple[Array, Array]:
        """Turn pre-activations into activities in place; return (y, goodness)."""
        goodness = cupy.empty(len(z), z.dtype)
        by_rows("activate", len(z), z.dtype, z, bias, goodness, *z.shape)
        return z, goodness

    def normalise(self, y: Array, goodness: Array, out: Array | None = None) -> Array:
        """Return each row of `y` divided by its RMS + 1e-8, in `out` or new."""
        out = cupy.empty(y.shape, y.dtype) if out is None else out
        by_rows("normalise", len(y), y.dtype, y, goodness, out, *y.shape)
        return out

    def running(self, mean: Array, positive: Array, keep: float) -> Array:
        """Return the running mean activity of each unit, new; see `reference.running`."""
        found, (rows, width) = cupy.empty(mean.shape, mean.dtype), positive.shape
        by_columns("running", width, mean.dtype, mean, positive, found, rows, width, mean.dtype.type(keep))
        return found

    def pull(self, running: Array, share: float) -> Array:
        """Return ``(running - mean) * share``, new."""
        found, dtype = cupy.empty(running.shape, running.dtype), running.dtype
        launch("pull", dtype, 1, THREADS, running, found, len(running), dtype.type(share))
        return found

    def pairs(self, objective: Any, goodness: Array, width: int, threshold: float, mean: bool) -> tuple[Array, Array]:
        """Judge n pairs of rows; see `reference.pairs`. One's own objective is asked on the host: that waits."""
        if not objective.device:
            scale, seen = reference.pairs(objective, home(goodness), width, threshold, mean)
            return cupy.asarray(scale), cupy.asarray(seen)
        dtype, slope, seen = goodness.dtype, cupy.empty(goodness.shape, goodness.dtype), cupy.empty(4, np.float64)
        theta, over = dtype.type(threshold * (1 if mean else width)), dtype.type(width if mean else 1)
        launch(objective.device, dtype, 1, THREADS, goodness, slope, seen, len(goodness) // 2, width, theta, over)
        return slope, seen

    def classes(
        self, loss: Callable[..., Any], logits: Array, labels: Labels, goodness: Array | None, width: int
    ) -> tuple[Array, Array]:
        """Judge n rows by their class scores, by softmax cross-entropy; see `reference.classes`."""
        dtype, slope, seen = logits.dtype, cupy.empty(logits.shape, logits.dtype), cupy.empty(4, np.float64)
        given = logits, _bytes(labels), goodness, slope, seen, *logits.shape, width, np.finfo(dtype).tiny
        launch("classes", dtype, 1, THREADS, *given)
        return slope, seen

    def derivative(self, y: Array, scale: Array, peer: Array) -> tuple[Array, Array]:
        """Return the loss's derivative by the pre-activations, in place of `y`, and its sum over the rows."""
        total, (rows, width) = cupy.empty(peer.shape, y.dtype), y.shape
        by_columns("derivative", width, y.dtype, y, scale, peer, total, rows, width)
        return y, total

    def derivative_below(self, dh: Array, h: Array, goodness: Array, peer: Array) -> tuple[Array, Array]:
        """Return the same from that by the normalised activities; see `reference.derivative_below`."""
        total, along, (rows, width) = cupy.empty(peer.shape, h.dtype), cupy.empty(len(h), h.dtype), h.shape
        by_rows("along", rows, h.dtype, dh, h, along, rows, width)
        by_columns("derivative_below", width, h.dtype, dh, h, goodness, along, peer, total, rows, width)
        return dh, total

    def fold(
        self, dz: Array, length: Array, labels: Labels, classes: int, height: Array | None = None
    ) -> tuple[Array, Array]:
        """Return what layer one's gradient needs of both kinds of rows; see `reference.fold`."""
        n, width = len(dz) // 2, dz.shape[1]
        both, top = cupy.empty((n, width), dz.dtype), cupy.empty((classes, width), dz.dtype)
        size = max(both.size, top.size)
        by_elements("fold", size, dz.dtype, dz, length, _bytes(labels), height, both, top, n, width, int(classes))
        return both, top

    def momentum(
        self, weights: Array, moments: Sequence[Array], gradient: Array, rate: Any, momentum: float, decay: float
    ) -> None:
        """Move `weights` and their one moment in place by the moving average of the gradient."""
        (moment,), now, size = moments, _now(rate), np.int64(weights.size)
        given = weights, moment, gradient, now.now, size, now.times, float(momentum), float(decay)
        by_elements("momentum", weights.size, weights.dtype, *given)

    def adam(
        self, weights: Array, moments: Sequence[Array], gradient: Array, rate: Any, step: int, decay: float
    ) -> None:
        """Move `weights` and both moments in place by Adam; a `Rate` knows the number of the step itself."""
        (first, second), now, size = moments, _now(rate, step), np.int64(weights.size)
        given = weights, first, second, gradient, now.now, size, now.times, float(decay)
        by_elements("adam", weights.size, weights.dtype, *given)

    def descend(self, weights: Array, moment: Array, gradient: Array, rate: Any, momentum: float, decay: float) -> None:
        """Move a head's `weights` and their moment in place."""
        now, size = _now(rate), np.int64(weights.size)
        given = weights, moment, gradient, now.now, size, now.times, float(momentum), float(decay)
        by_elements("descend", weights.size, weights.dtype, *given)


def _now(rate: Any, step: int = 1) -> Rate:
    """Return a rate as kernels take it."""
    return rate if isinstance(rate, Rate) else Rate(cupy.asarray(np.array(_row(1.0, step)))) * float(rate)


def _row(factor: float, step: int) -> tuple[float, float, float]:
    return factor, 1 - 0.9**step, 1 - 0.999**step
