"""CuPy kernels: products by cuBLAS, all else by the kernels in `device.cu`; inside a step nothing waits for the GPU.

Arrays are CuPy's, where NumPy's functions reach them too. Each thread has a stream of its own, and so a handle of
cuBLAS: a step's launches follow each other, and the same launches give the same bits.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any

# Read when cuBLAS makes its first handle: with more than one workspace, its bits may depend on timing.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import cupy
import numpy as np
from numpy.typing import DTypeLike, NDArray

from ffdask.kernels import reference
from ffdask.kernels.cublas import Product
from ffdask.resident import home, moved

if TYPE_CHECKING:
    from ffdask.kernels import Gather, Precision

Array = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]

THREADS = 256
"""Of a block."""

COLUMNS = 32
"""Columns that a block of `LANES` threads a column sums up."""

LANES = 32

REALS = {"float32": "float", "float64": "double"}
"""What the kernels are compiled for, in their own language."""

MOST_SETS = 2
"""Data sets that stay on the device."""

MOST_BLOCKS = 4096
"""Of an elementwise kernel: each thread takes several elements of a larger array."""


class Rate:
    """A rate of which a factor is on the device, so that launches are the same whatever it is.

    Parameters
    ----------
    now : (3,) float64, on the device
        The factor, and Adam's two corrections at this step.
    times : float
        What the factor is multiplied by.
    """

    __slots__ = ("now", "times")

    def __init__(self, now: Array, times: float = 1.0) -> None:
        self.now, self.times = now, times

    def __mul__(self, other: float) -> Rate:
        return Rate(self.now, self.times * other)

    __rmul__ = __mul__

    def __truediv__(self, other: float) -> Rate:
        return Rate(self.now, self.times / other)


class _Here(threading.local):
    """What a thread has of its own."""

    def __init__(self) -> None:
        self.stream = cupy.cuda.Stream(non_blocking=True)


@cache
def _here() -> _Here:
    return _Here()


@cache
def _module(dtype: np.dtype[Any]) -> Any:
    """Return the kernels for float32 or float64, compiled for this GPU; CuPy keeps them on disk."""
    return cupy.RawModule(code=source(), options=options(dtype))


def source() -> str:
    """Return the kernels' text."""
    return (files(__package__) / "device.cu").read_text()


def options(dtype: DTypeLike) -> tuple[str, ...]:
    """Return what the compiler is told."""
    return "--std=c++17", f"-DREAL={REALS[np.dtype(dtype).name]}"


def _launch(name: str, dtype: np.dtype[Any], blocks: int, threads: int, *given: Any) -> None:
    """Launch a kernel: int stands for a C int, float for a double, None for a null pointer."""
    if not blocks:
        return
    arguments: list[Any] = []
    for one in given:
        if isinstance(one, int):
            arguments.append(np.int32(one))
        elif one is None:
            arguments.append(np.uint64(0))
        elif isinstance(one, float | np.generic):
            arguments.append(one)
        else:
            if not one.flags.c_contiguous:
                raise ValueError(f"{name}: an array of {one.shape} does not lie row by row")
            arguments.append(one)
    _module(dtype).get_function(name)((blocks,), (threads,), tuple(arguments))


def _by_rows(name: str, rows: int, dtype: np.dtype[Any], *given: Any) -> None:
    _launch(name, dtype, rows, THREADS, *given)


def _by_columns(name: str, width: int, dtype: np.dtype[Any], *given: Any) -> None:
    _launch(name, dtype, -(-width // COLUMNS), COLUMNS * LANES, *given)


def _by_elements(name: str, size: int, dtype: np.dtype[Any], *given: Any) -> None:
    _launch(name, dtype, min(-(-size // THREADS), MOST_BLOCKS), THREADS, *given)


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
        self._product = Product(tf32=precision == "tf32")

    @contextmanager
    def working(self) -> Iterator[None]:
        """Have this thread's stream take all launches, and wait for them at the end."""
        stream = _here().stream
        with stream:
            yield
            stream.synchronize()

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
        _by_elements("to_bfloat16", x.size, x.dtype, x, out, np.int64(x.size))

    def gatherer(self, images: NDArray[Any]) -> Gather | None:
        """Return what takes rows of a data set's images; None if the data set is too large to stay on the device.

        Parameters
        ----------
        images : (any, features), (any, height, width) or (any, height, width, channels)
            All of them, uint8 or float32.
        """
        every = _resident(images)
        return None if every is None else partial(self._gather, every)

    def _gather(self, every: Any, rows: NDArray[np.integer[Any]], shifts: NDArray[np.integer[Any]]) -> NDArray[Any]:
        n, shape = len(rows), every.shape[1:]
        height, width, channels = {1: (1, *shape, 1), 2: (*shape, 1)}.get(len(shape), shape)
        out, where = cupy.empty((n, *shape), every.dtype), cupy.asarray(rows.astype(np.int64))
        down, right = cupy.asarray(shifts.astype(np.int32))
        name = "gather_reals" if every.dtype.kind == "f" else "gather_bytes"
        _by_rows(name, n, np.dtype(np.float32), every, where, down, right, out, n, height, width, channels)
        return out

    def scale(self, images: NDArray[Any], values: Array, cleared: int) -> Array:
        """Write pixels scaled to [0, 1] into `values`; see `reference.scale`."""
        (n, inputs), squares = values.shape, cupy.empty(len(values), values.dtype)
        whole = images.dtype.kind != "f"
        images = images.astype(np.uint8 if whole else values.dtype, copy=False)
        name = "scale_bytes" if whole else "scale_reals"
        _by_rows(name, n, values.dtype, images, values, squares, n, inputs, images.shape[1], int(cleared))
        return squares

    def overlay(
        self, product: Array, table: Array, labels: Labels, length: Array, height: Array | None = None
    ) -> Array:
        """Return layer one's pre-activations with labels on; see `reference.overlay`."""
        (n, width), rows = product.shape, len(labels)
        z = cupy.empty((rows, width), product.dtype)
        _by_rows("overlay", rows, z.dtype, product, table, _bytes(labels), length, height, z, rows, n, width)
        return z

    def activate(self, z: Array, bias: Array) -> tuple[Array, Array]:
        """Turn pre-activations into activities in place; return (y, goodness)."""
        goodness = cupy.empty(len(z), z.dtype)
        _by_rows("activate", len(z), z.dtype, z, bias, goodness, *z.shape)
        return z, goodness

    def normalise(self, y: Array, goodness: Array, out: Array | None = None) -> Array:
        """Return each row of `y` divided by its RMS + 1e-8, in `out` or new."""
        out = cupy.empty(y.shape, y.dtype) if out is None else out
        _by_rows("normalise", len(y), y.dtype, y, goodness, out, *y.shape)
        return out

    def running(self, mean: Array, positive: Array, keep: float) -> Array:
        """Return the running mean activity of each unit, new; see `reference.running`."""
        found, (rows, width) = cupy.empty(mean.shape, mean.dtype), positive.shape
        _by_columns("running", width, mean.dtype, mean, positive, found, rows, width, mean.dtype.type(keep))
        return found

    def pull(self, running: Array, share: float) -> Array:
        """Return ``(running - mean) * share``, new."""
        found, dtype = cupy.empty(running.shape, running.dtype), running.dtype
        _launch("pull", dtype, 1, THREADS, running, found, len(running), dtype.type(share))
        return found

    def pairs(self, objective: Any, goodness: Array, width: int, threshold: float, mean: bool) -> tuple[Array, Array]:
        """Judge n pairs of rows; see `reference.pairs`. One's own objective is asked on the host: that waits."""
        if not objective.device:
            scale, seen = reference.pairs(objective, home(goodness), width, threshold, mean)
            return cupy.asarray(scale), cupy.asarray(seen)
        dtype, slope, seen = goodness.dtype, cupy.empty(goodness.shape, goodness.dtype), cupy.empty(4, np.float64)
        theta, over = dtype.type(threshold * (1 if mean else width)), dtype.type(width if mean else 1)
        _launch(objective.device, dtype, 1, THREADS, goodness, slope, seen, len(goodness) // 2, width, theta, over)
        return slope, seen

    def classes(
        self, loss: Callable[..., Any], logits: Array, labels: Labels, goodness: Array | None, width: int
    ) -> tuple[Array, Array]:
        """Judge n rows by their class scores, by softmax cross-entropy; see `reference.classes`."""
        dtype, slope, seen = logits.dtype, cupy.empty(logits.shape, logits.dtype), cupy.empty(4, np.float64)
        given = logits, _bytes(labels), goodness, slope, seen, *logits.shape, width, np.finfo(dtype).tiny
        _launch("classes", dtype, 1, THREADS, *given)
        return slope, seen

    def derivative(self, y: Array, scale: Array, peer: Array) -> tuple[Array, Array]:
        """Return the loss's derivative by the pre-activations, in place of `y`, and its sum over the rows."""
        total, (rows, width) = cupy.empty(peer.shape, y.dtype), y.shape
        _by_columns("derivative", width, y.dtype, y, scale, peer, total, rows, width)
        return y, total

    def derivative_below(self, dh: Array, h: Array, goodness: Array, peer: Array) -> tuple[Array, Array]:
        """Return the same from that by the normalised activities; see `reference.derivative_below`."""
        total, along, (rows, width) = cupy.empty(peer.shape, h.dtype), cupy.empty(len(h), h.dtype), h.shape
        _by_rows("along", rows, h.dtype, dh, h, along, rows, width)
        _by_columns("derivative_below", width, h.dtype, dh, h, goodness, along, peer, total, rows, width)
        return dh, total

    def fold(
        self, dz: Array, length: Array, labels: Labels, classes: int, height: Array | None = None
    ) -> tuple[Array, Array]:
        """Return what layer one's gradient needs of both kinds of rows; see `reference.fold`."""
        n, width = len(dz) // 2, dz.shape[1]
        both, top = cupy.empty((n, width), dz.dtype), cupy.empty((classes, width), dz.dtype)
        size = max(both.size, top.size)
        _by_elements("fold", size, dz.dtype, dz, length, _bytes(labels), height, both, top, n, width, int(classes))
        return both, top

    def momentum(
        self, weights: Array, moments: Sequence[Array], gradient: Array, rate: Any, momentum: float, decay: float
    ) -> None:
        """Move `weights` and their one moment in place by the moving average of the gradient."""
        (moment,), now, size = moments, _now(rate), np.int64(weights.size)
        given = weights, moment, gradient, now.now, size, now.times, float(momentum), float(decay)
        _by_elements("momentum", weights.size, weights.dtype, *given)

    def adam(
        self, weights: Array, moments: Sequence[Array], gradient: Array, rate: Any, step: int, decay: float
    ) -> None:
        """Move `weights` and both moments in place by Adam; a `Rate` knows the number of the step itself."""
        (first, second), now, size = moments, _now(rate, step), np.int64(weights.size)
        given = weights, first, second, gradient, now.now, size, now.times, float(decay)
        _by_elements("adam", weights.size, weights.dtype, *given)

    def descend(self, weights: Array, moment: Array, gradient: Array, rate: Any, momentum: float, decay: float) -> None:
        """Move a head's `weights` and their moment in place."""
        now, size = _now(rate), np.int64(weights.size)
        given = weights, moment, gradient, now.now, size, now.times, float(momentum), float(decay)
        _by_elements("descend", weights.size, weights.dtype, *given)


def _resident(images: NDArray[Any]) -> Any:
    """Return a data set's images on the device, brought there once; None if they would fill half of it."""
    with _one_upload:
        key = id(images)
        if key not in _sets:
            free, _ = cupy.cuda.runtime.memGetInfo()
            if images.dtype not in (np.uint8, np.float32) or 2 * images.nbytes > free:
                return None
            while len(_sets) >= MOST_SETS:
                # Somebody's launches may still read the one that goes.
                cupy.cuda.Device().synchronize()
                del _sets[next(iter(_sets))]
            _sets[key] = images, cupy.asarray(images)
            # Other threads' streams read it.
            cupy.cuda.get_current_stream().synchronize()
        return _sets[key][1]


_one_upload = threading.Lock()
_sets: dict[int, tuple[NDArray[Any], Any]] = {}
"""By id, each with the host's images themselves: nothing else has their id while they are here."""


def _now(rate: Any, step: int = 1) -> Rate:
    """Return a rate as kernels take it."""
    return rate if isinstance(rate, Rate) else Rate(cupy.asarray(np.array(_row(1.0, step)))) * float(rate)


def _row(factor: float, step: int) -> tuple[float, float, float]:
    return factor, 1 - 0.9**step, 1 - 0.999**step
