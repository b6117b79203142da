"""Label overlay [FF]: the first inputs hold a label, one-of-ten; positive, negative and neutral rows.

The pixels of a row are the same whichever label lies over them, so layer one multiplies them with its weights
once, unscaled; the label adds a row of the weights and the length-normalisation divides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffdask.kernels import Kernels
from ffdask.kernels.reference import EPSILON

Array = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class Pixels:
    """A minibatch of images, as layer one takes it.

    Attributes
    ----------
    values : (n, inputs)
        Pixels in [0, 1]; the first `classes` are zero: the label's place.
    squares : (n,)
        Sum of each row's squares.
    classes : int
    """

    values: Array
    squares: Array
    classes: int

    @classmethod
    def of(cls, images: NDArray[np.uint8], classes: int, dtype: np.dtype[Any]) -> Pixels:
        """Scale uint8 images (n, height, width) or (n, inputs) to [0, 1] and clear the label's place."""
        values = images.reshape(len(images), -1).astype(dtype)
        values /= 255
        values[:, :classes] = 0
        return cls(values, np.einsum("ij,ij->i", values, values), classes)

    def product(self, weights: Array, kernels: Kernels) -> Array:
        """Return pixels times weights (n, width), the same for every label."""
        return kernels.matmul(self.values, weights)

    def length(self, label_squares: float) -> Array:
        """Return RMS + 1e-8 (n,) of the rows with a label on whose squares sum to `label_squares`."""
        length = np.sqrt((self.squares + label_squares) / self.values.shape[1])
        return (length + EPSILON).astype(self.values.dtype, copy=False)

    def labelled(self, product: Array, weights: Array, labels: Labels, kernels: Kernels) -> Array:
        """Return pre-activations (n, width), without bias, of the rows with `labels` (n,) laid over."""
        return kernels.overlay(product, weights[labels], self.length(1.0))

    def neutral(self, product: Array, weights: Array, kernels: Kernels) -> Array:
        """Return pre-activations (n, width), without bias, of the rows with an equal share of every label."""
        share = 1 / self.classes
        label_weights = weights[: self.classes].sum(axis=0) * weights.dtype.type(share)
        return kernels.overlay(product, label_weights, self.length(share))


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
        return kernels.overlay(twice, weights[self.labels], length), product

    def gradient(self, dz: Array, out: Array, kernels: Kernels) -> Array:
        """Return the weights' gradient (inputs, width): one product for the pixels that both kinds share."""
        n = len(self.pixels.values)
        scaled = dz / np.tile(self.pixels.length(1.0), 2)[:, None]
        gradient = kernels.matmul(self.pixels.values.T, scaled[:n] + scaled[n:], out=out)
        one_hot = np.zeros((self.pixels.classes, 2 * n), dtype=dz.dtype)
        one_hot[self.labels, np.arange(2 * n)] = 1
        # The label's place is zero in the pixels: the product left zeros there.
        gradient[: self.pixels.classes] = kernels.matmul(one_hot, scaled)
        return gradient
