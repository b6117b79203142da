"""A layer: its state, its forward pass, its goodness, and its training over minibatches [FF].

Nothing here knows of other layers: a layer sees its input, positive rows before negative ones (or one row a sample, if
its objective needs no negatives), and its own activity. No gradient comes from above or goes below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass as checked

from ffdask import draws
from ffdask.head import HeadRecipe, HeadState, HeadTrainee, empty_head
from ffdask.kernels import Kernels, Turn
from ffdask.objectives import Objective, Paired, Scored
from ffdask.resident import home, read_only

Array = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]


@checked(frozen=True, kw_only=True, config={"extra": "forbid", "strict": True})
class LayerRecipe:
    """The constants of a layer's training; each is a key of the graph file's ``[layer]`` table."""

    threshold: Annotated[float, Field(gt=0, allow_inf_nan=False, description="theta over the layer's width")] = 1.0
    goodness: Annotated[
        Literal["sum", "mean"],
        Field(description="of the squares that the loss sees: sum (sharp) or mean; theta is scaled alike"),
    ] = "sum"
    dropout: Annotated[
        float, Field(ge=0, lt=1, description="share of a layer's normalised outputs that training drops")
    ] = 0.0
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
    head : HeadState or None
        The layer's own softmax head (width, classes), if its objective has one.
    """

    weights: Array
    bias: Array
    moments: tuple[Array, ...]
    running_mean: Array
    steps: int = 0
    head: HeadState | None = None

    def arrays(self) -> dict[str, Array]:
        """Return every array by name, in the order in which a store keeps them."""
        named = {"weights": self.weights, "bias": self.bias, "running_mean": self.running_mean}
        named |= {f"moment{i}": moment for i, moment in enumerate(self.moments)}
        return named | ({"head": self.head.weights, "head_moment": self.head.moment} if self.head else {})

    @classmethod
    def of(cls, arrays: Mapping[str, Array], steps: int) -> LayerState:
        """Return the state whose `arrays` these are, by the same names."""
        moments = tuple(arrays[f"moment{i}"] for i in range(sum(name.startswith("moment") for name in arrays)))
        head = HeadState(arrays["head"], arrays["head_moment"]) if "head" in arrays else None
        return cls(arrays["weights"], arrays["bias"], moments, arrays["running_mean"], steps, head)


def initial_state(
    seed: int, layer: int, fan_in: int, width: int, optimizer: Optimizer, dtype: type = np.float32, classes: int = 0
) -> LayerState:
    """Return layer `layer`'s state before any step: W ~ N(0, 1/fan_in), the rest as in the recipe.

    With `classes` above 0 the layer has a head of its own.
    """
    normal = draws.generator(seed, "init", layer).standard_normal((fan_in, width), dtype=np.float32)
    weights = (normal / np.sqrt(np.float32(fan_in))).astype(dtype)
    bias: Array = np.zeros(width, dtype)
    pairs = 2 if optimizer.name == "adam" else 1
    moments = tuple(np.zeros_like(array) for _ in range(pairs) for array in (weights, bias))
    head = empty_head(width, classes, dtype) if classes else None
    return frozen(LayerState(weights, bias, moments, np.full(width, 0.5, dtype), head=head))


def frozen(state: LayerState) -> LayerState:
    """Mark a state's arrays read-only: Dask may hand the same array to two tasks."""
    for array in state.arrays().values():
        read_only(array)
    return state


class Inputs(Protocol):
    """A minibatch as a layer takes it: n positive rows, then n negative ones; or n rows without negatives."""

    def preactivations(self, weights: Array, kernels: Kernels) -> tuple[Array, Array | None]:
        """Return (z (rows, width) without bias, and of what the neutral rows' follows).

        That is layer one's shared product (n, width), above it their own z (n, width), None without such rows.
        """

    def factors(self, dz: Array, kernels: Kernels) -> tuple[Array, Array, Array | None]:
        """Return the weights' gradient (fan_in, width) as (left, right, top): ``left.T @ right``, its first rows `top`.

        dz : (rows, width)
            The loss's derivative by the pre-activations.
        """


@dataclass(frozen=True, slots=True)
class Activities:
    """Normalised activities (rows, fan_in) of the layer below, positive rows first.

    Attributes
    ----------
    values : (rows, fan_in)
    neutral : (n, fan_in) or None
        Of the same samples' neutral rows, from which the layer does not learn.
    """

    values: Array
    neutral: Array | None = None

    def preactivations(self, weights: Array, kernels: Kernels) -> tuple[Array, Array | None]:
        """Return (z (rows, width) without bias, that of the neutral rows or None)."""
        if self.neutral is None:
            return kernels.matmul(self.values, weights), None
        # One product: BLAS brings the weights into its own order each time.
        z = kernels.matmul(np.concatenate([self.values, self.neutral]), weights)
        return z[: len(self.values)], z[len(self.values) :]

    def factors(self, dz: Array, kernels: Kernels) -> tuple[Array, Array, None]:
        """Return (activities, `dz`, None): the weights' gradient is their product."""
        return self.values, dz, None


@dataclass(frozen=True, slots=True)
class Measured:
    """What a layer saw on a minibatch, before its update: sums over rows, so that minibatches add up.

    Attributes
    ----------
    rows : int
    judged : int
        Rows of which it was asked whether they are on the wrong side: of the threshold, of their partner, or of the
        layer's own head.
    seen : (4,) float64
        Loss; goodness of the positive and of the negative rows, in units of the layer's width; rows that are wrong.
        Where the kernels compute: reading a figure waits for a device.
    """

    rows: int
    judged: int
    seen: Array

    def __add__(self, other: Measured) -> Measured:
        return Measured(self.rows + other.rows, self.judged + other.judged, self.seen + other.seen)

    def record(self) -> dict[str, Any]:
        """Return the figures of a step's record: means over the rows."""
        loss, positive, negative, wrong = home(self.seen).tolist()
        means = {"loss": loss, "goodness_positive": positive, "goodness_negative": negative}
        means = {name: total / self.rows for name, total in means.items()}
        return {"rows": self.rows, **means, "error": wrong / self.judged}


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
    head : HeadRecipe
        Of the layer's own head, if its state has one.
    """

    def __init__(
        self,
        state: LayerState,
        recipe: LayerRecipe,
        optimizer: Optimizer,
        objective: Objective,
        kernels: Kernels,
        head: HeadRecipe | None = None,
    ) -> None:
        self.recipe, self.optimizer, self.objective, self.kernels = recipe, optimizer, objective, kernels
        state = kernels.here(state)
        copies = kernels.copied(state.weights, state.bias, state.running_mean, *state.moments)
        weights, bias, running, *moments = copies
        self.now = replace(state, weights=weights, bias=bias, running_mean=running, moments=tuple(moments))
        self.head = HeadTrainee(state.head, head or HeadRecipe(), kernels) if state.head else None
        kernels.follow(self.now.weights)
        fan_in, width = self.now.weights.shape
        self._gradient = np.empty_like(self.now.weights, shape=(min(fan_in, max(1, kernels.TILE // width)), width))

    def forward(self, inputs: Inputs) -> tuple[Array, Array, Array | None]:
        """Return (y (rows, width), goodness (rows,), of what the neutral rows' z follows) of a minibatch."""
        z, beside = inputs.preactivations(self.now.weights, self.kernels)
        return *self.kernels.activate(z, self.now.bias), beside

    def learn(
        self,
        inputs: Inputs,
        y: Array,
        goodness: Array,
        factor: float,
        labels: Labels | None = None,
        mask: Array | None = None,
    ) -> Measured:
        """Update on one minibatch, after `forward` on the same weights; return what it saw before.

        Parameters
        ----------
        inputs : Inputs
        y, goodness : (rows, width), (rows,)
            As `forward` returned them; `y` is used up.
        factor : float
            Of the learning rate: the cool-down, in [0, 1].
        labels : (n,), optional
            True classes, for the layer's own head.
        mask : (rows, width), optional
            Dropout's, of the normalised activities that the layer's own head reads.
        """
        if isinstance(self.objective, Scored):
            assert labels is not None
            running, dz, by_bias, measured = self._by_class(y, goodness, factor, labels, mask)
        else:
            running, dz, by_bias, measured = self._by_pair(y, goodness)
        steps, rate = self.now.steps + 1, self.optimizer.learning_rate * factor
        self._descend(*inputs.factors(dz, self.kernels), rate, steps)
        self._update(self.now.bias, self.now.moments[1::2], by_bias, rate, 0.0, steps)
        self.now.running_mean[...] = running
        self.now = replace(self.now, steps=steps)
        return measured

    def repeated(self, turn: Turn) -> Turn:
        """Return `turn`, which learns from one minibatch, as it is called for each: see `Kernels.repeated`."""
        # An objective that is asked on the host leaves nothing to record.
        asked = isinstance(self.objective, Paired) and not self.objective.device
        again = turn if asked else self.kernels.repeated(turn)

        def counted(given: Any, out: Any) -> None:
            steps = self.now.steps + 1
            again(given, out)
            # What is replayed counts nothing.
            self.now = replace(self.now, steps=steps)

        return counted

    def state(self) -> LayerState:
        """Return what the layer is now; the trainee is done with."""
        return frozen(replace(self.now, head=self.head.state() if self.head else None))

    def _by_pair(self, y: Array, goodness: Array) -> tuple[Array, Array, Array, Measured]:
        """Return (new running mean, derivative by pre-activations and by bias, what was seen) of n pairs of rows."""
        assert not isinstance(self.objective, Scored)
        n, recipe = len(y) // 2, self.recipe
        scale, seen = self.kernels.pairs(
            self.objective, goodness, y.shape[1], recipe.threshold, recipe.goodness == "mean"
        )
        running, peer = self._peer(y[:n])
        return running, *self.kernels.derivative(y, scale, peer), Measured(n, 2 * n, seen)

    def _by_class(
        self, y: Array, goodness: Array, factor: float, labels: Labels, mask: Array | None
    ) -> tuple[Array, Array, Array, Measured]:
        """Return (new running mean, derivative by pre-activations and by bias, what was seen) of n rows.

        Moves the head.
        """
        assert isinstance(self.objective, Scored)
        assert self.head is not None
        n, h = len(y), self.kernels.normalise(y, goodness)
        read = h if mask is None else h * mask
        logits = self.head.logits([read])
        derivative, seen = self.kernels.classes(self.objective.loss, logits, labels, goodness, y.shape[1])
        dh = self.kernels.matmul(derivative, self.head.weights.T)
        if mask is not None:
            dh *= mask
        self.head.learn([read], derivative, factor)
        running, peer = self._peer(y)
        return running, *self.kernels.derivative_below(dh, h, goodness, peer), Measured(n, n, seen)

    def _peer(self, positive: Array) -> tuple[Array, Array]:
        """Return the new running mean (width,) and the pull on every row's derivative [FF, footnote]."""
        running = self.kernels.running(self.now.running_mean, positive, self.recipe.peer_momentum)
        return running, self.kernels.pull(running, self.recipe.peer / len(positive))

    def _descend(self, left: Array, right: Array, top: Array | None, rate: float, steps: int) -> None:
        """Move the weights by their gradient, some rows of it at a time: it is used while it is in the cache."""
        left, right = self.kernels.rounded(left), self.kernels.rounded(right)
        for start in range(0, len(self.now.weights), len(self._gradient)):
            rows = slice(start, min(start + len(self._gradient), len(self.now.weights)))
            gradient = self._gradient[: rows.stop - start]
            self.kernels.matmul(left[:, rows].T, right, out=gradient)
            if top is not None and start < len(top):
                gradient[: len(top) - start] = top[rows]
            moments = tuple(moment[rows] for moment in self.now.moments[0::2])
            self._update(self.now.weights[rows], moments, gradient, rate, self.optimizer.weight_decay, steps)
            self.kernels.follow(self.now.weights, rows)

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
