"""The mathematics written for the eye: rows built pixel by pixel, float64, one row at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def normalised(row: Array) -> Array:
    return row / (math.sqrt(sum(value * value for value in row) / len(row)) + 1e-8)


def row(image: Array, label: int | None, classes: int, overlay: str = "replace") -> Array:
    """One input of layer one: pixels, the label (None: an equal share of each) in the first of them, normalised.

    Appended, the label stands before the pixels, its square an 88th of the sum of theirs; with overlay none there is no
    label.
    """
    values = [int(pixel) / 255 for pixel in image.ravel()]
    one_hot = [1 / classes if label is None else float(place == label) for place in range(classes)]
    if overlay == "replace":
        values[:classes] = one_hot
    elif overlay == "append":
        height = math.sqrt(sum(value * value for value in values) / 88)
        values = [height * value for value in one_hot] + values
    return normalised(np.array(values))


def rows(images: Array, labels: Sequence[int] | Array | None, classes: int, overlay: str = "replace") -> Array:
    chosen = [None] * len(images) if labels is None else [int(label) for label in labels]
    return np.array([row(image, label, classes, overlay) for image, label in zip(images, chosen, strict=True)])


def gradient(inputs: Any, dz: Array, kernels: Any) -> Array:
    """The weights' gradient from the factors that a layer's inputs give."""
    left, right, top = inputs.factors(dz, kernels)
    found = left.T @ right
    if top is not None:
        np.testing.assert_array_equal(found[: len(top)], 0)
        found[: len(top)] = top
    return found


def relu(z: Array) -> Array:
    return np.where(z > 0, z, 0.0)


def climb(x: Array, states: Sequence[Any]) -> Iterator[tuple[Array, float]]:
    """The normalised activity and the goodness of each layer, for one row that layer one takes."""
    for state in states:
        y = relu(x @ state.weights + state.bias)
        x = normalised(y)
        yield x, sum(value * value for value in y)


def softplus(value: float) -> float:
    return max(value, 0.0) + math.log1p(math.exp(-abs(value)))


def softmax(logits: Array) -> Array:
    powers = [math.exp(logit - max(logits)) for logit in logits]
    return np.array([power / sum(powers) for power in powers])


def slopes(function: Callable[[Array], float], at: Array, step: float = 1e-6) -> Array:
    """Central finite differences of `function` by every element of `at`."""
    found = np.empty(at.shape)
    for index in np.ndindex(at.shape):
        up, down = at.copy(), at.copy()
        up[index] += step
        down[index] -= step
        found[index] = (function(up) - function(down)) / (2 * step)
    return found


def images(generator: np.random.Generator, n: int, side: int = 4) -> Array:
    """Random uint8 images, a third of their pixels black as in digits."""
    pixels = generator.integers(0, 256, (n, side, side), dtype=np.uint8)
    pixels[generator.random(pixels.shape) < 1 / 3] = 0
    return pixels
