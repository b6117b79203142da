"""The hot loops, behind one small interface: no Dask and no schedule here.

`reference` (NumPy) defines what every other backend must agree with, to rounding; `fused` (Numba) takes one pass over
memory where it takes several; `device` (CuPy) computes on a GPU, where its arrays are.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, Literal, Protocol, cast, get_args

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]

Factor = NDArray[Any]
"""What a product takes: an `Array`, or bfloat16 numbers by their bits, uint16, since NumPy has no such dtype."""

Gather = Callable[[NDArray[np.integer[Any]], NDArray[np.integer[Any]]], NDArray[Any]]
"""Returns rows (n, ...) of images, by their numbers (n,) and shifts (2, n) as `ffdask.augment.drawn` has them."""

Turn = Callable[[Any, Any], None]
"""Works on what it is given, and writes into what is out: values with arrays in them, as `ffdask.resident.moved` knows.

All else that it reads or writes are the same arrays each time, and it does the same with them, whatever is in them.
"""

ALL = slice(None)

Backend = Literal["numba", "numpy"]
"""Backends of processors by the name that the configuration uses, the default first; `DEVICE` is the GPU's."""

DEVICE = "cupy"

Precision = Literal["float32", "tf32", "bfloat16"]
"""What the large products multiply; their sums, and all else, are float32."""

BACKENDS: tuple[Backend, ...] = get_args(Backend)

_MODULES = {"numba": "fused", "numpy": "reference", DEVICE: "device"}


class Kernels(Protocol):
    """What a backend provides. Arrays are C-contiguous, of one floating dtype; `n` rows, `width` units.

    They are where the backend computes: NumPy's, or on a device, where NumPy's functions reach them too.
    """

    def working(self) -> AbstractContextManager[None]:
        """Return the context in which a step is worked on; at its end all of it is done."""

    def here(self, value: Any) -> Any:
        """Return a value, whatever its arrays are part of, with them where this backend computes."""

    def gatherer(self, images: NDArray[Any]) -> Gather | None:
        """Return what takes and shifts rows of all these images, a data set's; None if NumPy is to do it."""

    def empty(self, *wanted: tuple[Sequence[int], DTypeLike]) -> list[Array]:
        """Return new arrays, of shapes and dtypes, that a step hands on."""

    def copied(self, *arrays: Array) -> list[Array]:
        """Return writable copies of arrays, which a step hands on."""

    def rates(self, factors: Sequence[float], steps: int) -> Sequence[Any]:
        """Return the rate's factor of each minibatch as optimisers take it; `steps` came before them."""

    def repeated(self, turn: Turn) -> Turn:
        """Return `turn` as it is called again and again: a device records what it launches, and replays that."""

    @property
    def TILE(self) -> int:
        """Elements of a gradient made and used up at a time."""

    def matmul(self, a: Factor, b: Factor, out: Array | None = None) -> Array:
        """Return ``a @ b``."""

    def matmul_bfloat16(self, a: Factor, b: Factor, out: Array | None = None) -> Array:
        """Return ``a @ b`` of bfloat16 numbers, as float32."""

    def rounded(self, x: Array) -> Factor:
        """Return `x` as `matmul` takes it: who multiplies by it several times has it rounded once."""

    def follow(self, weights: Array, rows: slice = ALL) -> None:
        """Take note of what `weights`, or these rows of them, are now: `matmul` meets them again and again."""

    def to_bfloat16(self, x: Array, out: Factor) -> None:
        """Write the nearest bfloat16 numbers (ties to even) into `out`, as their bits."""

    def scale(self, images: NDArray[Any], values: Array, cleared: int) -> Array:
        """Write pixels scaled to [0, 1] into `values`, its first `cleared` columns zero; return each row's squares."""

    def overlay(
        self, product: Array, table: Array, labels: Labels, length: Array, height: Array | None = None
    ) -> Array:
        """Return ``(product + height table[labels]) / length``, new: layer one's product with labels on."""

    def activate(self, z: Array, bias: Array) -> tuple[Array, Array]:
        """Turn pre-activations into activities in place; return (y, goodness)."""

    def normalise(self, y: Array, goodness: Array, out: Array | None = None) -> Array:
        """Return each row of `y` divided by its RMS + 1e-8, in `out` or new."""

    def running(self, mean: Array, positive: Array, keep: float) -> Array:
        """Return the running mean activity of each unit, moved toward that of the positive rows, new."""

    def pull(self, running: Array, share: float) -> Array:
        """Return ``(running - mean) * share``, new: what draws each unit toward the layer's mean activity."""

    def pairs(self, objective: Any, goodness: Array, width: int, threshold: float, mean: bool) -> tuple[Array, Array]:
        """Return (what scales each row's activities in the derivative (2n,), what was seen (4,)) of n pairs of rows."""

    def classes(
        self, loss: Callable[..., Any], logits: Array, labels: Labels, goodness: Array | None, width: int
    ) -> Any:
        """Return (the loss's derivative by the logits, what was seen (4,)) of n rows with class scores."""

    def derivative(self, y: Array, scale: Array, peer: Array) -> tuple[Array, Array]:
        """Return ``y * scale[:, None] + peer`` and its sum over rows: by pre-activations, by bias; uses `y` up."""

    def derivative_below(self, dh: Array, h: Array, goodness: Array, peer: Array) -> tuple[Array, Array]:
        """Return the same from the loss's derivative by the normalised activities; uses `dh` up."""

    def fold(
        self, dz: Array, length: Array, labels: Labels, classes: int, height: Array | None = None
    ) -> tuple[Array, Array]:
        """Return the derivative by layer one's shared product (n, width), and the labels' gradient (classes, width)."""

    def momentum(
        self, weights: Array, moments: Sequence[Array], gradient: Array, rate: float, momentum: float, decay: float
    ) -> None:
        """Move `weights` and their one moment in place by the moving average of the gradient."""

    def adam(
        self, weights: Array, moments: Sequence[Array], gradient: Array, rate: float, step: int, decay: float
    ) -> None:
        """Move `weights` and both moments in place by Adam."""

    def descend(
        self, weights: Array, moment: Array, gradient: Array, rate: float, momentum: float, decay: float
    ) -> None:
        """Move a head's `weights` and their moment in place, the decay being part of the gradient."""


def named(name: str, precision: Precision = "float32") -> Kernels:
    """Return a backend by its name; its library is imported now, and not before.

    With bfloat16 products it remembers the weights that it follows: ask for one a step.
    """
    exact = _backend(name, "tf32" if precision == "tf32" else "float32")
    if precision != "bfloat16":
        return exact
    return cast(Kernels, importlib.import_module(f"{__name__}.bfloat16").BFloat16(exact))


@cache
def _backend(name: str, precision: Precision) -> Kernels:
    module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    return cast(Kernels, module.Device(precision) if name == DEVICE else module)


def memory_on_device() -> str:
    """Return whose memory this process's arrays on a GPU lie in."""
    return cast(str, importlib.import_module(f"{__name__}.memory").settled())


def without_bfloat16() -> str:
    """Return why this machine has no bfloat16 products, in words that end a sentence; empty if it has them."""
    return cast(str, importlib.import_module(f"{__name__}.onednn").unavailable())
