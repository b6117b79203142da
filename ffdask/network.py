"""Layers and head together: pushing rows up, the softmax head, class scores, evaluation [FF].

The head reads the normalised activities of all layers but the first (of the first if it is the only one), from
the neutral label, and is trained by its own local gradient.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass as checked

from ffdask.kernels import Kernels
from ffdask.labels import Pixels
from ffdask.layer import LayerState

Array = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]

EVALUATION_BLOCK = 1000
"""Rows in a block of evaluation: equal shapes give equal bits."""


@checked(frozen=True, kw_only=True, config={"extra": "forbid", "strict": True})
class HeadRecipe:
    """The constants of the softmax head; the graph file's ``[head]`` table."""

    rate: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="learning rate at 1,000 units a layer read")
    ] = 0.1
    decay: Annotated[float, Field(ge=0, allow_inf_nan=False, description="added to the gradient, times H")] = 0.003
    momentum: Annotated[float, Field(ge=0, lt=1, description="share of the old moving average")] = 0.9


@dataclass(frozen=True, slots=True)
class HeadState:
    """The softmax head: `weights` and its moving average `moment`, both (sum of the widths read, classes)."""

    weights: Array
    moment: Array

    def arrays(self) -> dict[str, Array]:
        """Return every array by name, in the order in which a store keeps them."""
        return {"weights": self.weights, "moment": self.moment}


def layers_read(layers: int) -> range:
    """Return the numbers (from 1) of the layers that the head and the goodness classifier read."""
    return range(min(2, layers), layers + 1)


def initial_head(widths: Sequence[int], classes: int, dtype: type = np.float32) -> HeadState:
    """Return a head of zeros over the layers of `widths` (all of the network's)."""
    rows = sum(widths[layer - 1] for layer in layers_read(len(widths)))
    return _frozen_head(HeadState(np.zeros((rows, classes), dtype), np.zeros((rows, classes), dtype)))


def _frozen_head(head: HeadState) -> HeadState:
    for array in head.arrays().values():
        array.setflags(write=False)
    return head


def softmax(logits: Array) -> Array:
    """Return the softmax of each row (n, classes)."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    raised /= raised.sum(axis=1, keepdims=True)
    return raised


def logits(weights: Array, activities: Sequence[Array], kernels: Kernels) -> Array:
    """Return the head's logits (n, classes) of the activities (n, width) of the layers it reads, in turn."""
    total, start = None, 0
    for x in activities:
        part = kernels.matmul(x, weights[start : start + x.shape[1]])
        total = part if total is None else total + part
        start += x.shape[1]
    if total is None:
        raise ValueError("a head must read at least one layer")
    return total


class HeadTrainee:
    """A private, writable copy of a head: the only place where its weights change."""

    def __init__(self, state: HeadState, recipe: HeadRecipe, kernels: Kernels) -> None:
        self.recipe, self.kernels = recipe, kernels
        self.weights, self.moment = state.weights.copy(), state.moment.copy()

    def learn(self, activities: Sequence[Array], labels: Labels, factor: float) -> tuple[Array, float]:
        """Update on one minibatch by softmax cross-entropy.

        Parameters
        ----------
        activities : sequence of (n, width)
            Neutral rows, normalised, of the layers read.
        labels : (n,)
        factor : float
            Of the learning rate: the cool-down, in [0, 1].

        Returns
        -------
        probabilities : (n, classes)
            As they were before the update.
        loss : float
            Cross-entropy, summed over the rows.
        """
        n, rows = len(labels), np.arange(len(labels))
        probabilities = softmax(logits(self.weights, activities, self.kernels))
        delta = probabilities.copy()
        delta[rows, labels] -= 1
        delta /= n
        start = 0
        for x in activities:
            part = slice(start, start + x.shape[1])
            gradient = self.kernels.matmul(x.T, delta)
            gradient += self.recipe.decay * self.weights[part]
            self.moment[part] *= self.recipe.momentum
            self.moment[part] += (1 - self.recipe.momentum) * gradient
            self.weights[part] -= factor * self.recipe.rate * x.shape[1] / 1000 * self.moment[part]
            start = part.stop
        tiny = np.finfo(probabilities.dtype).tiny
        loss = -float(np.log(np.maximum(probabilities[rows, labels], tiny)).sum())
        return probabilities, loss

    def state(self) -> HeadState:
        """Return what the head is now; the trainee is done with."""
        return _frozen_head(HeadState(self.weights, self.moment))


def climb(states: Sequence[LayerState], z: Array, kernels: Kernels) -> list[tuple[Array, Array]]:
    """Push layer one's pre-activations `z` (n, width) up through `states`.

    Returns
    -------
    list of (activities, goodness)
        Of each layer: normalised activities (n, width) and goodness (n,). `z` is used up.
    """
    passed: list[tuple[Array, Array]] = []
    for index, state in enumerate(states):
        if index:
            z = kernels.matmul(passed[-1][0], state.weights)
        y, goodness = kernels.activate(z, state.bias)
        passed.append((kernels.normalise(y, goodness), goodness))
    return passed


def climb_neutral(states: Sequence[LayerState], pixels: Pixels, kernels: Kernels) -> list[Array]:
    """Return the normalised activities (n, width) of each layer, from pixels under the neutral label."""
    weights = states[0].weights
    z = pixels.neutral(pixels.product(weights, kernels), weights, kernels)
    return [activities for activities, _ in climb(states, z, kernels)]


@dataclass(frozen=True)
class Network:
    """A trained network: its layers' weights and biases, its head if it has one.

    Attributes
    ----------
    states : tuple of LayerState
        From the first layer to the last.
    head : HeadState or None
    classes : int
    """

    states: tuple[LayerState, ...]
    head: HeadState | None
    classes: int

    def classifiers(self) -> dict[str, Callable[[Pixels, Kernels], Array]]:
        """Return the class scores' functions that this network has, by the classifier's name."""
        both: dict[str, Callable[[Pixels, Kernels], Array]] = {
            "goodness": self.goodness_scores,
            "softmax": self.softmax_scores,
        }
        return both if self.head else {"goodness": self.goodness_scores}

    def softmax_scores(self, pixels: Pixels, kernels: Kernels) -> Array:
        """Return the head's probabilities (n, classes) from one pass under the neutral label."""
        if self.head is None:
            raise ValueError("this network has no softmax head")
        activities = climb_neutral(self.states, pixels, kernels)
        read = [activities[layer - 1] for layer in layers_read(len(self.states))]
        return softmax(logits(self.head.weights, read, kernels))

    def goodness_scores(self, pixels: Pixels, kernels: Kernels) -> Array:
        """Return each label's goodness over the width, summed over the layers read (n, classes)."""
        weights = self.states[0].weights
        product = pixels.product(weights, kernels)
        scores = np.empty((len(product), self.classes), product.dtype)
        for label in range(self.classes):
            labels = np.full(len(product), label)
            passed = climb(self.states, pixels.labelled(product, weights, labels, kernels), kernels)
            goodness = [passed[layer - 1][1] / passed[layer - 1][0].shape[1] for layer in layers_read(len(passed))]
            scores[:, label] = sum(goodness)
        return scores

    def scores(self, images: NDArray[np.uint8], classifier: str, kernels: Kernels, threads: int = 1) -> Array:
        """Return class scores (n, classes) of uint8 images (n, height, width), in blocks of 1,000 rows.

        `threads` blocks are worked on at once; the bits do not depend on it.
        """
        score = partial(self._block_scores, self.classifiers()[classifier], kernels)
        if not len(images):
            return np.empty((0, self.classes), self.states[0].weights.dtype)
        blocks = [images[i : i + EVALUATION_BLOCK] for i in range(0, len(images), EVALUATION_BLOCK)]
        if threads == 1:
            return np.concatenate([score(block) for block in blocks])
        with ThreadPoolExecutor(threads) as pool:
            return np.concatenate(list(pool.map(score, blocks)))

    def _block_scores(
        self, score: Callable[[Pixels, Kernels], Array], kernels: Kernels, images: NDArray[np.uint8]
    ) -> Array:
        return score(Pixels.of(images, self.classes, self.states[0].weights.dtype), kernels)

    def errors(
        self,
        images: NDArray[np.uint8],
        labels: Labels,
        classifier: str,
        kernels: Kernels,
        threads: int = 1,
    ) -> int:
        """Return how many of the images are put in a wrong class; ties go to the lowest class."""
        return int((self.scores(images, classifier, kernels, threads).argmax(axis=1) != labels).sum())

    def sha256(self) -> str:
        """Return the digest of weights, biases and head: name, dtype, shape and bytes, in sorted name order."""
        arrays = {
            f"layer{i}/{name}": array
            for i, state in enumerate(self.states, start=1)
            for name, array in (("weights", state.weights), ("bias", state.bias))
        }
        if self.head:
            arrays["head/weights"] = self.head.weights
        digest = hashlib.sha256()
        for name in sorted(arrays):
            array = arrays[name].astype(arrays[name].dtype.newbyteorder("<"), copy=False)
            digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()
