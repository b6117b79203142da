"""A layer: its state, its forward pass, its goodness, and its training over minibatches [FF].

Nothing here knows of other layers: a layer sees its input, positive rows before negative ones, and its own
activity. No gradient comes from above or goes below.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass as checked

from ffdask import draws
from ffdask.kernels import Kernels
from ffdask.objectives import Objective

Array = NDArray[np.floating[Any]]


@checked(frozen=True, kw_only=True, config={"extra": "forbid", "strict": True})
class LayerRecipe:
    """The constants of a layer's training; each is a key of the graph file's ``[layer]`` table."""

    threshold: Annotated[float, Field(gt=0, allow_inf_nan=False, description="theta over the layer's width")] = 1.0
    peer: Annotated[float, Field(ge=0, allow_inf_nan=False, description="pull toward the layer's mean activity")] = 0.03
    peer_momentum: Annotated[float, Field(ge=0, lt=1, description="of the running mean activity of each unit")] = 0.9


@checked(frozen=True, kw_only=True, config={"extra": "forbid", "strict": True})
class Optimizer:
    """How weights follow their gradient; the graph file's ``[optimizer]`` table."""

    name: Annotated[
        Literal["momentum", "adam"],
        Field(description="momentum (moving average of the gradient) or adam"),
    ] = "momentum"
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False, description="before the cool-down")] = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1, description="share of the old moving average")] = 0.9
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False, description="pull to zero")] = 0.002
    cooldown: Annotated[float, Field(ge=0, le=1, description="progress at which the rate starts to fall to 0")] = 0.5


@dataclass(frozen=True, slots=True)
class LayerState:
    """What a layer is after a step: one immutable record, the only thing that nodes publish [PFF].

    Attributes
    ----------
    weights : (fan_in, width)
    bias : (width,)
    moments : tuple of arrays
        The optimiser's moments, for the weights and the bias in turn: one pair (momentum) or two (Adam).
    running_mean : (width,)
        Running mean activity of each unit on positive rows, for peer normalisation.
    steps : int
        Minibatches seen.
    """

    weights: Array
    bias: Array
    moments: tuple[Array, ...]
    running_mean: Array
    steps: int = 0

    def arrays(self) -> dict[str, Array]:
        """Return every array by name, in the order in which a store keeps them."""
        named = {"weights": self.weights, "bias": self.bias, "running_mean": self.running_mean}
        return named | {f"moment{i}": moment for i, moment in enumerate(self.moments)}


def initial_state(
    seed: int, layer: int, fan_in: int, width: int, optimizer: Optimizer, dtype: type = np.float32
) -> LayerState:
    """Return layer `layer`'s state before any step: W ~ N(0, 1/fan_in), the rest as in the recipe."""
    normal = draws.generator(seed, "init", layer).standard_normal((fan_in, width), dtype=np.float32)
    weights = (normal / np.sqrt(np.float32(fan_in))).astype(dtype)
    bias: Array = np.zeros(width, dtype)
    pairs = 2 if optimizer.name == "adam" else 1
    moments = tuple(np.zeros_like(array) for _ in range(pairs) for array in (weights, bias))
    return frozen(LayerState(weights, bias, moments, np.full(width, 0.5, dtype)))


def frozen(state: LayerState) -> LayerState:
    """Mark a state's arrays read-only: Dask may hand the same array to two tasks."""
    for array in state.arrays().values():
        array.setflags(write=False)
    return state


class Inputs(Protocol):
    """A minibatch as a layer takes it: n positive rows, then n negative ones."""

    def preactivations(self, weights: Array, kernels: Kernels) -> tuple[Array, Array | None]:
        """Return (z (2n, width) without bias, layer one's shared product or None)."""

    def gradient(self, dz: Array, out: Array, kernels: Kernels) -> Array:
        """Return the weights' gradient (fan_in, width), written into `out`."""


@dataclass(frozen=True, slots=True)
class Activities:
    """Normalised activities (2n, fan_in) of the layer below, positive rows first."""

    values: Array

    def preactivations(self, weights: Array, kernels: Kernels) -> tuple[Array, None]:
        """Return (z (2n, width) without bias, None)."""
        return kernels.matmul(self.values, weights), None

    def gradient(self, dz: Array, out: Array, kernels: Kernels) -> Array:
        """Return the weights' gradient (fan_in, width), written into `out`."""
        return kernels.matmul(self.values.T, dz, out=out)


@dataclass(frozen=True, slots=True)
class Measured:
    """What a layer saw on a minibatch, before its update: sums over rows, so that minibatches add up.

    `goodness_positive` and `goodness_negative` are in units of the layer's width; `wrong` counts the rows on
    the wrong side of the threshold, of 2n.
    """

    rows: int = 0
    loss: float = 0.0
    goodness_positive: float = 0.0
    goodness_negative: float = 0.0
    wrong: int = 0

    def __add__(self, other: Measured) -> Measured:
        return Measured(*(getattr(self, f) + getattr(other, f) for f in self.__slots__))


class Trainee:
    """A private, writable copy of a layer state: the only place where weights change.

    Parameters
    ----------
    state : LayerState
        Never changed.
    recipe : LayerRecipe
    optimizer : Optimizer
    objective : Objective
    kernels : Kernels
    """

    def __init__(
        self,
        state: LayerState,
        recipe: LayerRecipe,
        optimizer: Optimizer,
        objective: Objective,
        kernels: Kernels,
    ) -> None:
        self.recipe, self.optimizer, self.objective, self.kernels = recipe, optimizer, objective, kernels
        self.now = replace(
            state,
            weights=state.weights.copy(),
            bias=state.bias.copy(),
            moments=tuple(moment.copy() for moment in state.moments),
        )
        self._gradient = np.empty_like(self.now.weights)

    def forward(self, inputs: Inputs) -> tuple[Array, Array, Array | None]:
        """Return (y (2n, width), goodness (2n,), layer one's shared product or None) of a minibatch."""
        z, product = inputs.preactivations(self.now.weights, self.kernels)
        return *self.kernels.activate(z, self.now.bias), product

    def learn(self, inputs: Inputs, y: Array, goodness: Array, rate: float) -> Measured:
        """Update on one minibatch, after `forward` on the same weights; return what it saw before.

        Parameters
        ----------
        inputs : Inputs
        y, goodness : (2n, width), (2n,)
            As `forward` returned them.
        rate : float
            Learning rate of this minibatch.
        """
        n, width = len(y) // 2, y.shape[1]
        threshold = self.recipe.threshold * width
        loss, derivative = self.objective(goodness[:n], goodness[n:], threshold)
        running, peer = self._peer(y[:n])
        dz = self.kernels.derivative(y, 2 * derivative, peer)
        bias_gradient = dz.sum(axis=0)
        gradient = inputs.gradient(dz, self._gradient, self.kernels)
        steps = self.now.steps + 1
        self._update(self.now.weights, self.now.moments[0::2], gradient, rate, self.optimizer.weight_decay, steps)
        self._update(self.now.bias, self.now.moments[1::2], bias_gradient, rate, 0.0, steps)
        self.now = replace(self.now, running_mean=running, steps=steps)
        wrong = int((goodness[:n] <= threshold).sum() + (goodness[n:] > threshold).sum())
        positive, negative = (float(part.sum()) / width for part in (goodness[:n], goodness[n:]))
        return Measured(n, loss * n, positive, negative, wrong)

    def state(self) -> LayerState:
        """Return what the layer is now; the trainee is done with."""
        return frozen(self.now)

    def _peer(self, positive: Array) -> tuple[Array, Array]:
        """Return the new running mean (width,) and the pull on every row's derivative [FF, footnote]."""
        keep = self.now.running_mean.dtype.type(self.recipe.peer_momentum)
        running = keep * self.now.running_mean + (1 - keep) * positive.mean(axis=0)
        pull = running - running.mean()
        return running, pull * running.dtype.type(self.recipe.peer / len(positive))

    def _update(
        self,
        weights: Array,
        moments: tuple[Array, ...],
        gradient: Array,
        rate: float,
        decay: float,
        step: int,
    ) -> None:
        if self.optimizer.name == "adam":
            self.kernels.adam(weights, moments, gradient, rate, step, decay)
        else:
            self.kernels.momentum(weights, moments, gradient, rate, self.optimizer.momentum, decay)
