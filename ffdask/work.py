"""What a step does: a pure function of its inputs and of the data. No Dask here: any executor can call it.

The path of the data: uint8 rows of a chunk -> scaled, a label laid over -> through the layers below,
length-normalised -> the layer being trained, minibatch by minibatch -> a new state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffdask.augment import shifted
from ffdask.calendar import Calendar, Visit
from ffdask.kernels import KERNELS, Kernels
from ffdask.labels import Overlaid, Pixels
from ffdask.layer import Activities, Inputs, LayerRecipe, LayerState, Measured, Optimizer, Trainee, initial_state
from ffdask.negatives import NEGATIVES
from ffdask.network import (
    HeadRecipe,
    HeadState,
    HeadTrainee,
    Network,
    climb,
    climb_neutral,
    initial_head,
    layers_read,
)
from ffdask.objectives import OBJECTIVES
from ffdask.schedules.steps import Step

Array = NDArray[np.floating[Any]]
Images = NDArray[np.uint8]
Labels = NDArray[np.uint8]
Outcome = dict[str, Any]
"""A step's pieces by name, and its ``record``."""


@dataclass(frozen=True)
class Job:
    """What every step of a run takes beside its inputs: small, and the same for all of them."""

    fan_in: int
    widths: tuple[int, ...]
    classes: int
    calendar: Calendar
    layer: LayerRecipe
    optimizer: Optimizer
    head: HeadRecipe
    objective: str
    negatives: str
    shift: int = 0
    kernels: str = "numpy"

    def initial_layer(self, layer: int) -> LayerState:
        """Return layer number `layer`'s state before any step."""
        fan_in = (self.fan_in, *self.widths)[layer - 1]
        return initial_state(self.calendar.seed, layer, fan_in, self.widths[layer - 1], self.optimizer)

    def initial_head(self) -> HeadState:
        """Return the head before any step."""
        return initial_head(self.widths, self.classes)


class Data:
    """The data as a step reads it: the training rows of a chunk, in dealt order, and the test set.

    Parameters
    ----------
    chunk : callable
        ``chunk(number) -> (images (n, height, width) uint8, labels (n,) uint8)``.
    test : callable
        ``test() -> (images, labels)``.
    """

    def __init__(
        self, chunk: Callable[[int], tuple[Images, Labels]], test: Callable[[], tuple[Images, Labels]]
    ) -> None:
        self.chunk, self.test = chunk, test

    @classmethod
    def of(cls, calendar: Calendar, train: tuple[Images, Labels], test: Callable[[], tuple[Images, Labels]]) -> Data:
        """Return the data of a training set in memory, dealt by `calendar`."""
        images, labels = train

        def chunk(number: int) -> tuple[Images, Labels]:
            rows = calendar.deal()[number]
            return images[rows], labels[rows]

        return cls(chunk, test)


def perform(job: Job, step: Step, inputs: Mapping[str, Any], data: Data) -> Outcome:
    """Do one step.

    Parameters
    ----------
    job : Job
    step : Step
    inputs : mapping
        Role -> the piece that the step's need names. Never changed.
    data : Data

    Returns
    -------
    dict
        The pieces that the step gives, read-only, and ``record``: plain figures, with ``rows`` and, where rows were
        learned from, ``loss``, ``error`` and, for a layer, ``goodness_positive`` and ``goodness_negative`` (in
        units of the width).
    """
    return _KINDS[step.kind](job, step, inputs, data)


def _negatives(job: Job, step: Step, inputs: Mapping[str, Any], data: Data) -> Outcome:
    newest: dict[int, tuple[Visit, Array]] = {}
    for value in inputs.values():
        for visit, probabilities in value.items():
            if visit.chunk not in newest or visit > newest[visit.chunk][0]:
                newest[visit.chunk] = (visit, probabilities)
    draw, drawn = NEGATIVES[job.negatives], []
    for visit in step.visits:
        labels = data.chunk(visit.chunk)[1]
        before = newest.get(visit.chunk, (visit, None))[1]
        drawn.append(_read_only(draw(visit.draw(job.calendar.seed, "negatives"), labels, job.classes, before)))
    return {"labels": drawn, "record": {"rows": sum(map(len, drawn))}}


def _rows(job: Job, visit: Visit, data: Data) -> tuple[Images, Labels]:
    """Return a visit's images, shifted alike for all layers, all kinds of rows and the head, and their labels."""
    images, labels = data.chunk(visit.chunk)
    return shifted(images, job.shift, visit.draw(job.calendar.seed, "shift")), labels


def _paired_batches(job: Job, visit: Visit, negatives: Labels, data: Data) -> Iterator[tuple[slice, float, Overlaid]]:
    """Yield (where its 2n rows go, rate factor, layer one's input) of a visit's minibatches."""
    images, labels = _rows(job, visit, data)
    order = job.calendar.order(visit)
    for start, stop, factor in job.calendar.minibatches(visit):
        rows = order[start:stop]
        pixels = Pixels.of(images[rows], job.classes, np.dtype(np.float32))
        overlaid = Overlaid(pixels, np.concatenate([labels[rows], negatives[rows]]))
        yield slice(2 * start, 2 * stop), factor, overlaid


def _train(job: Job, step: Step, inputs: Mapping[str, Any], data: Data) -> Outcome:
    kernels = KERNELS[job.kernels]
    state = inputs.get("state") or job.initial_layer(step.layer)
    trainee = Trainee(state, job.layer, job.optimizer, OBJECTIVES[job.objective], kernels)
    passed: dict[str, list[Array]] = {piece: [] for piece in step.gives if piece != "state"}
    measured = Measured()
    for index, visit in enumerate(step.visits):
        rows, width = job.calendar.chunk_rows(visit.chunk), job.widths[step.layer - 1]
        for piece, copies in (("paired", 2), ("neutral", 1)):
            if piece in passed:
                passed[piece].append(np.empty((copies * rows, width), np.float32))
        for where, factor, batch in _layer_batches(job, step.layer, visit, index, inputs, data):
            y, goodness, product = trainee.forward(batch)
            if "paired" in passed:
                passed["paired"][-1][where] = kernels.normalise(y, goodness)
            if "neutral" in passed:
                half = slice(where.start // 2, where.stop // 2)
                below = inputs["neutral"][index][half] if "neutral" in inputs else None
                passed["neutral"][-1][half] = _pass_neutral(trainee, batch, product, below, kernels)
            measured += trainee.learn(batch, y, goodness, job.optimizer.learning_rate * factor)
    record = {
        "rows": measured.rows,
        "loss": measured.loss / measured.rows,
        "goodness_positive": measured.goodness_positive / measured.rows,
        "goodness_negative": measured.goodness_negative / measured.rows,
        "error": measured.wrong / (2 * measured.rows),
    }
    pieces = {piece: [_read_only(array) for array in arrays] for piece, arrays in passed.items()}
    return {"state": trainee.state(), **pieces, "record": record}


def _layer_batches(
    job: Job, layer: int, visit: Visit, index: int, inputs: Mapping[str, Any], data: Data
) -> Iterator[tuple[slice, float, Inputs]]:
    """Yield (where its 2n rows lie, rate factor, input) of a visit's minibatches, for any layer."""
    if layer == 1:
        yield from _paired_batches(job, visit, inputs["labels"][index], data)
    else:
        for start, stop, factor in job.calendar.minibatches(visit):
            where = slice(2 * start, 2 * stop)
            yield where, factor, Activities(inputs["paired"][index][where])


def _pass_neutral(
    trainee: Trainee, batch: Inputs, product: Array | None, below: Array | None, kernels: Kernels
) -> Array:
    """Return the normalised activities (n, width) of the minibatch's neutral rows, before its update."""
    weights = trainee.now.weights
    if isinstance(batch, Overlaid) and product is not None:
        z = batch.pixels.neutral(product, weights, kernels)
    else:
        assert below is not None
        z = kernels.matmul(below, weights)
    return kernels.normalise(*kernels.activate(z, trainee.now.bias))


def _push(job: Job, step: Step, inputs: Mapping[str, Any], data: Data) -> Outcome:
    kernels = KERNELS[job.kernels]
    states = [inputs[f"state{layer}"] for layer in range(1, step.layer) if f"state{layer}" in inputs]
    width, pushed = job.widths[step.layer - 2], []
    for index, visit in enumerate(step.visits):
        passed = np.empty((2 * job.calendar.chunk_rows(visit.chunk), width), np.float32)
        # From where the push before left off, or all the way from pixels: the same shapes, so the same bits.
        first = 2 if "paired" in inputs else 1
        for where, _, batch in _layer_batches(job, first, visit, index, inputs, data):
            z, _ = batch.preactivations(states[0].weights, kernels)
            passed[where] = climb(states, z, kernels)[-1][0]
        pushed.append(_read_only(passed))
    return {"paired": pushed, "record": {"rows": sum(len(array) // 2 for array in pushed)}}


def _push_head(job: Job, step: Step, inputs: Mapping[str, Any], data: Data) -> Outcome:
    kernels = KERNELS[job.kernels]
    states = [inputs[f"state{layer}"] for layer in range(1, len(job.widths) + 1)]
    pushed: dict[str, list[Array]] = {piece: [] for piece in step.gives}
    total = 0
    for visit in step.visits:
        images, _ = _rows(job, visit, data)
        order, rows = job.calendar.order(visit), len(images)
        for layer in layers_read(len(job.widths)):
            pushed[f"neutral{layer}"].append(np.empty((rows, job.widths[layer - 1]), np.float32))
        for start, stop, _ in job.calendar.minibatches(visit):
            pixels = Pixels.of(images[order[start:stop]], job.classes, np.dtype(np.float32))
            activities = climb_neutral(states, pixels, kernels)
            for layer in layers_read(len(job.widths)):
                pushed[f"neutral{layer}"][-1][start:stop] = activities[layer - 1]
        total += rows
    pieces = {piece: [_read_only(array) for array in arrays] for piece, arrays in pushed.items()}
    return {**pieces, "record": {"rows": total}}


def _head(job: Job, step: Step, inputs: Mapping[str, Any], data: Data) -> Outcome:
    trainee = HeadTrainee(inputs.get("state") or job.initial_head(), job.head, KERNELS[job.kernels])
    read = [inputs[f"neutral{layer}"] for layer in layers_read(len(job.widths))]
    recorded: dict[Visit, Array] = {}
    loss, wrong, total = 0.0, 0, 0
    for index, visit in enumerate(step.visits):
        labels, order = data.chunk(visit.chunk)[1], job.calendar.order(visit)
        kept = np.empty((len(labels), job.classes), np.float32)
        for start, stop, factor in job.calendar.minibatches(visit):
            rows = order[start:stop]
            activities = [arrays[index][start:stop] for arrays in read]
            probabilities, summed = trainee.learn(activities, labels[rows], factor)
            kept[rows] = probabilities
            loss += summed
        wrong += int((kept.argmax(axis=1) != labels).sum())
        total += len(labels)
        recorded[visit] = _read_only(kept)
    record = {"rows": total, "loss": loss / total, "error": wrong / total}
    return {"state": trainee.state(), "probabilities": recorded, "record": record}


def _evaluate(job: Job, step: Step, inputs: Mapping[str, Any], data: Data) -> Outcome:
    states = tuple(inputs[f"state{layer}"] for layer in range(1, len(job.widths) + 1))
    network = Network(states, inputs.get("head"), job.classes)
    images, labels = data.test()
    kernels = KERNELS[job.kernels]
    errors = {f"errors_{name}": network.errors(images, labels, name, kernels) for name in network.classifiers()}
    return {"record": {"rows": len(images), **errors}}


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Mark an array read-only: in one process every reader gets this very object."""
    array.setflags(write=False)
    return array


_KINDS: dict[str, Callable[[Job, Step, Mapping[str, Any], Data], Outcome]] = {
    "negatives": _negatives,
    "push": _push,
    "train": _train,
    "push_head": _push_head,
    "head": _head,
    "evaluate": _evaluate,
}
