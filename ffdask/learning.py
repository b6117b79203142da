"""The steps that learn: a layer's training, and the head's, minibatch by minibatch.

What a minibatch does is a turn (`ffdask.kernels.Turn`): a device records the launches of one, and replays them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffdask.batches import Source, Taken, masks_of, places, spans
from ffdask.calendar import Visit
from ffdask.head import HeadTrainee, layers_read
from ffdask.job import Data, Job, Labels
from ffdask.kernels import named
from ffdask.labels import Overlaid
from ffdask.layer import Inputs, Measured, Trainee
from ffdask.objectives.classifier import classifier, softmax
from ffdask.resident import home, read_only
from ffdask.schedules.steps import Step

Array = NDArray[np.floating[Any]]
Outcome = dict[str, Any]
"""A step's pieces by name, and its ``record``."""


@dataclass(frozen=True, slots=True)
class _Minibatch:
    """What differs between the minibatches that a layer learns from; the rest is the same arrays each time.

    Attributes
    ----------
    rate : float, or what the kernels have for it
    taken : Taken
    mask : (rows, width) or None
        Dropout's.
    """

    rate: Any
    taken: Taken
    mask: Array | None


def train(job: Job, step: Step, inputs: Mapping[str, Any], data: Data) -> Outcome:
    """Train a layer on a step's visits; return its state, what it hands on, and its record."""
    kernels = named(job.kernels, job.precision)
    state = inputs.get("state") or job.initial_layer(step.layer)
    trainee = Trainee(state, job.layer, job.optimizer, job.objective_of, kernels, job.head)
    passed: dict[str, list[Array]] = {piece: [] for piece in step.gives if piece != "state"}
    seen, total = np.zeros_like(trainee.now.bias, np.float64, shape=4), 0
    for index, visit in enumerate(step.visits):
        within, width = spans(job, step, visit), job.widths[step.layer - 1]
        rows = within[-1][1] - within[0][0]
        for piece, copies in (("activities", job.copies), ("neutral", 1)):
            if piece in passed:
                passed[piece] += kernels.empty(((copies * rows, width), np.float32))
        mask = masks_of(job, step.layer, step, visit) if "activities" in passed or trainee.head else None
        rates = kernels.rates([factor for _, _, factor in within], trainee.now.steps)
        source = Source.of(job, step.layer, visit, index, inputs, data)
        learn = trainee.repeated(partial(_learn, trainee, source, seen))
        for rate, (where, numbers) in zip(rates, places(job, step, visit), strict=True):
            half = slice(where.start // 2, where.stop // 2)
            out = {piece: arrays[-1][half if piece == "neutral" else where] for piece, arrays in passed.items()}
            kept = None if mask is None else mask[where]
            learn(_Minibatch(rate, source.take(where, numbers), kept), out)
        total += rows
    pieces = {piece: [read_only(array) for array in arrays] for piece, arrays in passed.items()}
    return {"state": trainee.state(), **pieces, "record": Measured(total, job.copies * total, seen).record()}


def _learn(trainee: Trainee, source: Source, seen: Array, given: _Minibatch, out: Mapping[str, Array]) -> None:
    """Learn from a minibatch: write the activities that are handed on into `out`, add what was seen to `seen`."""
    kernels, (batch, labels) = trainee.kernels, source.batch(given.taken)
    y, goodness, beside = trainee.forward(batch)
    if "activities" in out:
        normalised = kernels.normalise(y, goodness, out["activities"])
        if given.mask is not None:
            normalised *= given.mask
    if "neutral" in out:
        assert beside is not None
        _pass_neutral(trainee, batch, beside, out["neutral"])
    learned = trainee.learn(batch, y, goodness, given.rate, labels, given.mask)
    np.add(seen, learned.seen, out=seen)


def _pass_neutral(trainee: Trainee, batch: Inputs, beside: Array, out: Array) -> None:
    """Write the normalised activities (n, width) of the minibatch's neutral rows, before its update, into `out`."""
    kernels, weights = trainee.kernels, trainee.now.weights
    z = batch.pixels.neutral(beside, weights, kernels) if isinstance(batch, Overlaid) else beside
    kernels.normalise(*kernels.activate(z, trainee.now.bias), out)


def learn_head(job: Job, step: Step, inputs: Mapping[str, Any], data: Data) -> Outcome:
    """Train the head on a step's visits; return its state, its probabilities by visit, and its record."""
    kernels = named(job.kernels)
    trainee = HeadTrainee(inputs.get("state") or job.initial_head(), job.head, kernels)
    read = [inputs[f"neutral{layer}"] for layer in layers_read(len(job.widths))]
    recorded: dict[Visit, tuple[Labels, Array]] = {}
    seen, wrong, total = np.zeros_like(trainee.weights, np.float64, shape=4), 0, 0
    for index, visit in enumerate(step.visits):
        labels, within = data.labels(visit.chunk), spans(job, step, visit)
        first, last = within[0][0], within[-1][1]
        # New and in few bytes: they are kept for as long as their probabilities may be read.
        rows = job.calendar.order(visit)[first:last].astype(np.uint32)
        truth = kernels.here(labels[rows])
        found = np.empty_like(trainee.weights, shape=(len(rows), job.classes))
        rates = kernels.rates([factor for _, _, factor in within], 0)
        learn = kernels.repeated(partial(_learn_head, trainee, seen))
        for rate, (start, stop, _) in zip(rates, within, strict=True):
            where = slice(start - first, stop - first)
            learn((rate, truth[where], [arrays[index][where] for arrays in read]), found[where])
        kept = home(found)
        wrong += int((kept.argmax(axis=1) != labels[rows]).sum())
        total += len(rows)
        recorded[visit] = (read_only(rows), read_only(kept))
    record = {"rows": total, "loss": home(seen).tolist()[0] / total, "error": wrong / total}
    return {"state": trainee.state(), "probabilities": recorded, "record": record}


def _learn_head(trainee: HeadTrainee, seen: Array, given: Any, out: Array) -> None:
    """Learn from a minibatch: write its probabilities (n, classes) into `out`, add what was seen to `seen`.

    `given` is its rate, its labels (n,), and the activities (n, width) of each layer read.
    """
    rate, truth, activities = given
    logits = trainee.logits(activities)
    derivative, sums = trainee.kernels.classes(classifier, logits, truth, None, 1)
    trainee.learn(activities, derivative, rate)
    out[...] = softmax(logits)
    np.add(seen, sums, out=seen)
