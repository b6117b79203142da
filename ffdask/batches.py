"""A visit's minibatches, as layers take them: scale, shift, overlay, normalise, drop out; alike in every schedule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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


def inputs_of(
    job: Job, layer: int, step: Step, visit: Visit, index: int, inputs: Mapping[str, Any], data: Data
) -> Iterator[tuple[slice, Inputs, Labels | None]]:
    """Yield the minibatches of a visit that a step works through, for any layer.

    Yields
    ------
    where : slice
        Where its rows lie in arrays of this step's rows: `Job.copies` for each sample.
    input : Inputs
    labels : (n,) or None
        True labels, where the objective reads them.
    """
    within, copies = spans(job, step, visit), job.copies
    first, order = within[0][0], order_of(job, visit)
    images, truth = rows_of(job, visit, data) if layer == 1 else (None, None)
    if truth is None and copies == 1:
        truth = named(job.kernels).here(data.labels(visit.chunk))
    for start, stop, _ in within:
        where, rows = slice(copies * (start - first), copies * (stop - first)), order[start:stop]
        if layer > 1:
            batch: Inputs = Activities(inputs["activities"][index][where])
        else:
            assert images is not None
            assert truth is not None
            pixels = pixels_of(job, images[rows])
            if copies == 1:
                batch = Bare(pixels)
            else:
                batch = Overlaid(pixels, np.concatenate([truth[rows], inputs["labels"][index][rows]]))
        yield where, batch, truth[rows] if truth is not None and copies == 1 else None


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
