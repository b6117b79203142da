"""Layers and heads together: pushing rows up, class scores, evaluation [FF, PFF].

The network's head reads the normalised activities of all layers but the first (of the first if it is the only one),
from the neutral label. Layers with heads of their own need no label at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffdask.head import HeadState, layers_read, logits
from ffdask.kernels import Kernels
from ffdask.labels import Overlay, Pixels
from ffdask.layer import LayerState
from ffdask.objectives.classifier import softmax
from ffdask.resident import home

Array = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]

EVALUATION_BLOCK = 1000
"""Rows in a block of evaluation: equal shapes give equal bits."""


def climb(
    states: Sequence[LayerState], z: Array, kernels: Kernels, masks: Sequence[Array | None] = ()
) -> list[tuple[Array, Array]]:
    """Push the first layer's pre-activations `z` (n, width) up through `states`.

    `masks` are dropout's, one a layer, of shape (n, width); none in evaluation.

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
        h, mask = kernels.normalise(y, goodness), masks[index] if index < len(masks) else None
        passed.append((h if mask is None else h * mask, goodness))
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
        That reads several layers; layers' own heads are in their states.
    classes : int
    overlay : str
        Where labels go, as in training.
    """

    states: tuple[LayerState, ...]
    head: HeadState | None
    classes: int
    overlay: Overlay = "replace"

    @property
    def pixels(self) -> int:
        """Return how many pixels an image has: layer one's inputs without those that a label has of its own."""
        return self.states[0].weights.shape[0] - (self.classes if self.overlay == "append" else 0)

    def classifiers(self) -> dict[str, Callable[[Pixels, Kernels], Array]]:
        """Return the class scores' functions that this network has, by the classifier's name."""
        if self.states[-1].head is not None:
            return {"last-head": self.last_head_scores, "all-heads": self.all_heads_scores}
        by_goodness: dict[str, Callable[[Pixels, Kernels], Array]] = {"goodness": self.goodness_scores}
        return by_goodness | ({"softmax": self.softmax_scores} if self.head else {})

    def last_head_scores(self, pixels: Pixels, kernels: Kernels) -> Array:
        """Return the probabilities (n, classes) by the last layer's own head, from one pass without a label."""
        return self._head_scores(pixels, kernels)[-1]

    def all_heads_scores(self, pixels: Pixels, kernels: Kernels) -> Array:
        """Return the mean of the probabilities (n, classes) by every layer's own head [PFF]."""
        each = self._head_scores(pixels, kernels)
        mean: Array = np.mean(np.stack(each), axis=0)
        return mean

    def _head_scores(self, pixels: Pixels, kernels: Kernels) -> list[Array]:
        z = pixels.plain(pixels.product(self.states[0].weights, kernels), kernels)
        passed = climb(self.states, z, kernels)
        heads = [state.head for state in self.states if state.head is not None]
        return [softmax(logits(head.weights, [h], kernels)) for head, (h, _) in zip(heads, passed, strict=True)]

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
        scores = np.empty_like(product, shape=(len(product), self.classes))
        for label in range(self.classes):
            labels = np.full_like(product, label, np.uint8, shape=(len(product),))
            passed = climb(self.states, pixels.labelled(product, weights, labels, kernels), kernels)
            goodness = [passed[layer - 1][1] / passed[layer - 1][0].shape[1] for layer in layers_read(len(passed))]
            scores[:, label] = sum(goodness)
        return scores

    def scores(self, images: NDArray[Any], classifier: str, kernels: Kernels, threads: int = 1) -> Array:
        """Return class scores (n, classes) of images (n, ...) uint8 or float32, in blocks of 1,000 rows.

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

    def _block_scores(self, score: Callable[[Pixels, Kernels], Array], kernels: Kernels, images: NDArray[Any]) -> Array:
        images, dtype = kernels.here(images), self.states[0].weights.dtype
        scores: Array = home(score(Pixels.of(images, self.classes, dtype, self.overlay, kernels=kernels), kernels))
        return scores

    def errors(
        self,
        images: NDArray[Any],
        labels: Labels,
        classifier: str,
        kernels: Kernels,
        threads: int = 1,
    ) -> int:
        """Return how many of the images are put in a wrong class; ties go to the lowest class."""
        return int((self.scores(images, classifier, kernels, threads).argmax(axis=1) != labels).sum())

    def sha256(self) -> str:
        """Return the digest of weights, biases and heads: name, dtype, shape and bytes, in sorted name order."""
        arrays = {
            f"layer{i}/{name}": array
            for i, state in enumerate(self.states, start=1)
            for name, array in (("weights", state.weights), ("bias", state.bias))
        }
        arrays |= {f"layer{i}/head": s.head.weights for i, s in enumerate(self.states, start=1) if s.head}
        if self.head:
            arrays["head/weights"] = self.head.weights
        digest = hashlib.sha256()
        for name in sorted(arrays):
            array = arrays[name].astype(arrays[name].dtype.newbyteorder("<"), copy=False)
            digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()
