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
    def of(cls, images: NDArray[Any], classes: int, dtype: np.dtype[Any], overlay: Overlay = "replace") -> Pixels:
        """Scale uint8 images (n, ...) to [0, 1], take floats as they are; make the label's place, as `overlay` says."""
        values = images.reshape(len(images), -1).astype(dtype)
        if images.dtype.kind != "f":
            values /= 255
        if overlay == "replace":
            values[:, :classes] = 0
        elif overlay == "append":
            values = np.pad(values, ((0, 0), (classes, 0)))
        squares = np.einsum("ij,ij->i", values, values)
        return cls(values, squares, classes, squares * dtype.type(LABEL_SHARE) if overlay == "append" else None)

    def product(self, weights: Array, kernels: Kernels) -> Array:
        """Return pixels times weights (n, width), the same for every label."""
        return kernels.matmul(self.values, weights)

    def length(self, label_squares: float) -> Array:
        """Return RMS + 1e-8 (n,) of the rows with a label on whose squares sum to `label_squares` (1: a true label)."""
        label = label_squares if self.label_square is None else label_squares * self.label_square
        length = np.sqrt((self.squares + label) / self.values.shape[1])
        return (length + EPSILON).astype(self.values.dtype, copy=False)

    def scaled(self, label_weights: Array) -> Array:
        """Return what a label adds to each row's product: its `label_weights` (n, width) times the label's height."""
        return label_weights if self.label_square is None else label_weights * np.sqrt(self.label_square)[:, None]

    def labelled(self, product: Array, weights: Array, labels: Labels, kernels: Kernels) -> Array:
        """Return pre-activations (n, width), without bias, of the rows with `labels` (n,) laid over."""
        return kernels.overlay(product, self.scaled(weights[labels]), self.length(1.0))

    def neutral(self, product: Array, weights: Array, kernels: Kernels) -> Array:
        """Return pre-activations (n, width), without bias, of the rows with an equal share of every label."""
        share = 1 / self.classes
        label_weights = weights[: self.classes].sum(axis=0) * weights.dtype.type(share)
        if self.label_square is not None:
            label_weights = self.scaled(np.broadcast_to(label_weights, product.shape))
        return kernels.overlay(product, label_weights, self.length(share))

    def plain(self, product: Array, kernels: Kernels) -> Array:
        """Return pre-activations (n, width), without bias, of the rows as they are, with no label."""
        return kernels.overlay(product, np.zeros(1, product.dtype), self.length(0.0))


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

    def gradient(self, dz: Array, out: Array, kernels: Kernels) -> Array:
        """Return the weights' gradient (inputs, width)."""
        return kernels.matmul(self.pixels.values.T, dz / self.pixels.length(0.0)[:, None], out=out)


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
        twice = np.concatenate([product, product])
        length = np.tile(self.pixels.length(1.0), 2)
        label_weights = weights[self.labels]
        if self.pixels.label_square is not None:
            label_weights *= self._height()[:, None]
        return kernels.overlay(twice, label_weights, length), product

    def gradient(self, dz: Array, out: Array, kernels: Kernels) -> Array:
        """Return the weights' gradient (inputs, width): one product for the pixels that both kinds share."""
        n = len(self.pixels.values)
        scaled = dz / np.tile(self.pixels.length(1.0), 2)[:, None]
        gradient = kernels.matmul(self.pixels.values.T, scaled[:n] + scaled[n:], out=out)
        one_hot = np.zeros((self.pixels.classes, 2 * n), dtype=dz.dtype)
        one_hot[self.labels, np.arange(2 * n)] = 1 if self.pixels.label_square is None else self._height()
        # The label's place is zero in the pixels: the product left zeros there.
        gradient[: self.pixels.classes] = kernels.matmul(one_hot, scaled)
        return gradient

    def _height(self) -> Array:
        """Return the label's height in each of the 2n rows."""
        assert self.pixels.label_square is not None
        return np.tile(np.sqrt(self.pixels.label_square), 2)
