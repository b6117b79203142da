"""Label overlay [FF]: the first inputs hold a label, one-of-ten; positive, negative and neutral rows.

Where images have a black border, the label takes the place of the first pixels (``replace``); where they have none, it
gets inputs of its own before them (``append``), and weighs in each row what it weighs in MNIST.

The pixels of a row are the same whichever label lies over them, so layer one multiplies them with its weights
once, unscaled; the label adds a row of the weights and the length-normalisation divides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ffdask.kernels import Kernels
from ffdask.kernels.reference import EPSILON

Array = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]

Overlay = Literal["replace", "append", "none"]
"""Where a row's label goes; ``none`` for objectives that lay no label over."""

LABEL_SHARE = 1 / 88
"""The label's square over the sum of the image's squares, where labels have inputs of their own: MNIST's mean."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """A minibatch of images, as layer one takes it.

    Attributes
    ----------
    values : (n, inputs)
        Pixels in [0, 1], or floats as given; the first `classes` are zero if labels are laid over: the label's place.
    squares : (n,)
        Sum of each row's squares.
    classes : int
    label_square : (n,) or None
        What a label's square is in each row; None where it is 1.
    """

    values: Array
    squares: Array
    classes: int
    label_square: Array | None = None

    @classmethod
    def of(
        cls,
        images: NDArray[Any],
        classes: int,
        dtype: np.dtype[Any],
        overlay: Overlay = "replace",
        *,
        kernels: Kernels,
    ) -> Pixels:
        """Scale uint8 images (n, ...) to [0, 1], take floats as they are; make the label's place, as `overlay` says."""
        flat = images.reshape(len(images), -1)
        shape = (len(flat), flat.shape[1] + classes * (overlay == "append"))
        # Where the images are: NumPy's functions reach a device's arrays too.
        values = np.empty_like(flat, dtype, "C", shape=shape)
        squares = kernels.scale(flat, values, classes if overlay != "none" else 0)
        return cls(values, squares, classes, squares * dtype.type(LABEL_SHARE) if overlay == "append" else None)

    def product(self, weights: Array, kernels: Kernels) -> Array:
        """Return pixels times weights (n, width), the same for every label."""
        return kernels.matmul(self.values, weights)

    def length(self, label_squares: float) -> Array:
        """Return RMS + 1e-8 (n,) of the rows with a label on whose squares sum to `label_squares` (1: a true label)."""
        label = label_squares if self.label_square is None else label_squares * self.label_square
        length = np.sqrt((self.squares + label) / self.values.shape[1])
        return (length + EPSILON).astype(self.values.dtype, copy=False)

    def height(self) -> Array | None:
        """Return the label's height (n,) in each row; None where it is 1."""
        return None if self.label_square is None else np.sqrt(self.label_square)

    def labelled(self, product: Array, weights: Array, labels: Labels, kernels: Kernels) -> Array:
        """Return pre-activations (n, width), without bias, of the rows with `labels` (n,) laid over."""
        return kernels.overlay(product, weights[: self.classes], labels, self.length(1.0), self.height())

    def neutral(self, product: Array, weights: Array, kernels: Kernels) -> Array:
        """Return pre-activations (n, width), without bias, of the rows with an equal share of every label."""
        share = 1 / self.classes
        table = weights[: self.classes].sum(axis=0, keepdims=True) * weights.dtype.type(share)
        return kernels.overlay(product, table, self._one_label(), self.length(share), self.height())

    def plain(self, product: Array, kernels: Kernels) -> Array:
        """Return pre-activations (n, width), without bias, of the rows as they are, with no label."""
        table = np.zeros_like(product, shape=(1, product.shape[1]))
        return kernels.overlay(product, table, self._one_label(), self.length(0.0))

    def _one_label(self) -> Labels:
        """Return the number (n,) of the only row of a table, for every row."""
        return np.zeros_like(self.squares, np.uint8)


@dataclass(frozen=True, slots=True)
class Bare:
    """Layer one's input for a minibatch without labels: one row a sample.

    Attributes
    ----------
    pixels : Pixels
    """

    pixels: Pixels

    def preactivations(self, weights: Array, kernels: Kernels) -> tuple[Array, Array]:
        """Return (z (n, width), the product (n, width))."""
        product = self.pixels.product(weights, kernels)
        return self.pixels.plain(product, kernels), product

    def factors(self, dz: Array, kernels: Kernels) -> tuple[Array, Array, None]:
        """Return (pixels (n, inputs), `dz` over the rows' length, None): the gradient is their product."""
        return self.pixels.values, dz / self.pixels.length(0.0)[:, None], None


@dataclass(frozen=True, slots=True)
class Overlaid:
    """Layer one's input for a minibatch: the same pixels under the true and under a wrong label.

    Attributes
    ----------
    pixels : Pixels
    labels : (2n,)
        The true labels, then the negative ones.
    """

    pixels: Pixels
    labels: Labels

    def preactivations(self, weights: Array, kernels: Kernels) -> tuple[Array, Array]:
        """Return (z of the positive then the negative rows (2n, width), the shared product (n, width))."""
        product = self.pixels.product(weights, kernels)
        table = weights[: self.pixels.classes]
        return kernels.overlay(product, table, self.labels, *self._twice()), product

    def factors(self, dz: Array, kernels: Kernels) -> tuple[Array, Array, Array]:
        """Return (pixels (n, inputs), what both kinds' rows say of them (n, width), the labels' gradient)."""
        length, height = self._twice()
        return self.pixels.values, *kernels.fold(dz, length, self.labels, self.pixels.classes, height)

    def _twice(self) -> tuple[Array, Array | None]:
        """Return the length and the label's height of each of the 2n rows."""
        height = self.pixels.height()
        return np.tile(self.pixels.length(1.0), 2), None if height is None else np.tile(height, 2)
