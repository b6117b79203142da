"""A softmax head: logistic regression on normalised activities, trained by its own local gradient [FF, PFF].

One head reads all layers but the first of a network; or, with a `Scored` objective, each layer has one of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass as checked

from ffdask.kernels import Kernels
from ffdask.resident import read_only

Array = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]


@checked(frozen=True, kw_only=True, config={"extra": "forbid", "strict": True})
class HeadRecipe:
    """The constants of a softmax head; the graph file's ``[head]`` table."""

    rate: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="learning rate at 1,000 units a layer read")
    ] = 0.1
    decay: Annotated[float, Field(ge=0, allow_inf_nan=False, description="added to the gradient, times H")] = 0.003
    momentum: Annotated[float, Field(ge=0, lt=1, description="share of the old moving average")] = 0.9


@dataclass(frozen=True, slots=True)
class HeadState:
    """A softmax head: `weights` and its moving average `moment`, both (sum of the widths read, classes)."""

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
    return empty_head(sum(widths[layer - 1] for layer in layers_read(len(widths))), classes, dtype)


def empty_head(rows: int, classes: int, dtype: type = np.float32) -> HeadState:
    """Return a head of zeros over `rows` units."""
    return _frozen(HeadState(np.zeros((rows, classes), dtype), np.zeros((rows, classes), dtype)))


def _frozen(head: HeadState) -> HeadState:
    for array in head.arrays().values():
        read_only(array)
    return head


def logits(weights: Array, activities: Sequence[Array], kernels: Kernels) -> Array:
    """Return a head's logits (n, classes) of the activities (n, width) of the layers it reads, in turn."""
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
        self.weights, self.moment = kernels.here(state.weights).copy(), kernels.here(state.moment).copy()

    def logits(self, activities: Sequence[Array]) -> Array:
        """Return the logits (n, classes) of a minibatch's activities, as the head is now."""
        return logits(self.weights, activities, self.kernels)

    def learn(self, activities: Sequence[Array], derivative: Array, factor: float) -> None:
        """Update on one minibatch.

        Parameters
        ----------
        activities : sequence of (n, width)
            Normalised, of the layers read.
        derivative : (n, classes)
            Of the loss, by the logits.
        factor : float
            Of the learning rate: the cool-down, in [0, 1].
        """
        start = 0
        for x in activities:
            part = slice(start, start + x.shape[1])
            gradient, rate = self.kernels.matmul(x.T, derivative), factor * self.recipe.rate * x.shape[1] / 1000
            weights, moment = self.weights[part], self.moment[part]
            self.kernels.descend(weights, moment, gradient, rate, self.recipe.momentum, self.recipe.decay)
            start = part.stop

    def state(self) -> HeadState:
        """Return what the head is now; the trainee is done with."""
        return _frozen(HeadState(self.weights, self.moment))
