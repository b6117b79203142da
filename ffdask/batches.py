"""A visit's minibatches, as layers take them: scale, shift, overlay, normalise, drop out; alike in every schedule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffdask.augment import drawn, shifted
from ffdask.calendar import Visit
from ffdask.job import Data, Images, Job, Labels
from ffdask.kernels import named
from ffdask.labels import Bare, Overlaid, Pixels
from ffdask.layer import Activities, Inputs
from ffdask.schedules.steps import Step

Array = NDArray[np.floating[Any]]


def spans(job: Job, step: Step, visit: Visit) -> list[tuple[int, int, float]]:
    """Return (start, stop, rate factor) of the minibatches of a visit that a step works through, within its order."""
    every = list(job.calendar.minibatches(visit))
    return every if step.part is None else [every[step.part]]


def rows_of(job: Job, visit: Visit, data: Data) -> tuple[Images, Labels]:
    """Return a visit's images, shifted alike for all layers, all kinds of rows and the head, and their labels."""
    kernels, draw = named(job.kernels), visit.draw(job.calendar.seed, "shift")
    if data.origin:
        every, labels, rows = data.origin(visit.chunk)
        gather = kernels.gatherer(every)
        if gather is not None:
            return gather(rows, drawn(len(rows), job.shift, draw)), kernels.here(labels[rows])
    images = shifted(data.images(visit.chunk), job.shift, draw)
    return kernels.here(images), kernels.here(data.labels(visit.chunk))


def order_of(job: Job, visit: Visit) -> NDArray[np.intp]:
    """Return the order of a visit's rows, where they are."""
    order: NDArray[np.intp] = named(job.kernels).here(job.calendar.order(visit))
    return order


def pixels_of(job: Job, images: Images) -> Pixels:
    """Return a minibatch of images as layer one takes it."""
    return Pixels.of(images, job.classes, np.dtype(np.float32), job.overlay, kernels=named(job.kernels))


@dataclass(frozen=True, slots=True)
class Taken:
    """What a minibatch takes of a visit's arrays: views of them, nothing is computed yet.

    Attributes
    ----------
    rows : (n,)
        Their numbers among the visit's images and labels.
    activities : (rows, fan_in) or None
        Of the layer below; None for layer one.
    neutral : (n, fan_in) or None
        Of the layer below too, if this layer hands on such rows and is not the first.
    """

    rows: NDArray[np.intp]
    activities: Array | None
    neutral: Array | None


@dataclass(frozen=True, slots=True)
class Source:
    """A visit's arrays, of which a layer's minibatches are made.

    Attributes
    ----------
    job : Job
    order : (n,)
        Of the visit's rows.
    images, truth : (n, ...), (n,) or None
        As layer one takes them, and true labels, where the objective reads them.
    wrong : (n,) or None
        Negative labels.
    activities, neutral : (rows of the step, fan_in) or None
        Of the layer below; None for layer one.
    """

    job: Job
    order: NDArray[np.intp]
    images: Images | None
    truth: Labels | None
    wrong: Labels | None
    activities: Array | None
    neutral: Array | None

    @classmethod
    def of(cls, job: Job, layer: int, visit: Visit, index: int, inputs: Mapping[str, Any], data: Data) -> Source:
        """Return the source of a step's visit number `index`, for any layer."""
        images, truth = rows_of(job, visit, data) if layer == 1 else (None, None)
        if truth is None and job.copies == 1:
            truth = named(job.kernels).here(data.labels(visit.chunk))
        wrong = inputs["labels"][index] if layer == 1 and job.copies == 2 else None
        activities = inputs["activities"][index] if layer > 1 else None
        neutral = inputs["neutral"][index] if "neutral" in inputs else None
        return cls(job, order_of(job, visit), images, truth, wrong, activities, neutral)

    def take(self, where: slice, rows: slice) -> Taken:
        """Return what a minibatch takes; `where` and `rows` are as `places` says."""
        half = slice(where.start // 2, where.stop // 2)
        return Taken(
            self.order[rows],
            None if self.activities is None else self.activities[where],
            None if self.neutral is None else self.neutral[half],
        )

    def batch(self, taken: Taken) -> tuple[Inputs, Labels | None]:
        """Return a minibatch as the layer takes it, and its true labels (n,), where the objective reads them."""
        rows, alone = taken.rows, self.job.copies == 1
        truth = self.truth[rows] if self.truth is not None else None
        if taken.activities is not None:
            return Activities(taken.activities, taken.neutral), truth if alone else None
        assert self.images is not None
        pixels = pixels_of(self.job, self.images[rows])
        if alone:
            return Bare(pixels), truth
        assert truth is not None
        assert self.wrong is not None
        return Overlaid(pixels, np.concatenate([truth, self.wrong[rows]])), None


def places(job: Job, step: Step, visit: Visit) -> Iterator[tuple[slice, slice]]:
    """Yield where each minibatch's rows lie: in arrays of this step's rows, `Job.copies` a sample; in the order."""
    within, copies = spans(job, step, visit), job.copies
    first = within[0][0]
    for start, stop, _ in within:
        yield slice(copies * (start - first), copies * (stop - first)), slice(start, stop)


def masks_of(job: Job, layer: int, step: Step, visit: Visit) -> Array | None:
    """Return dropout's mask (rows of the step, width) on a layer's normalised output in training; None without dropout.

    Drawn for the whole visit, so that it is the same when a layer trains on it and when it is pushed through.
    """
    share = job.layer.dropout
    if not share:
        return None
    n, width = job.calendar.chunk_rows(visit.chunk), job.widths[layer - 1]
    drawn = visit.draw(job.calendar.seed, "dropout", layer).random((job.copies * n, width), np.float32)
    within = spans(job, step, visit)
    part = drawn[job.copies * within[0][0] : job.copies * within[-1][1]]
    # What is left weighs more, so that evaluation, which drops nothing, sees sums of the same size.
    mask: Array = named(job.kernels).here((part >= share) * np.float32(1 / (1 - share)))
    return mask
