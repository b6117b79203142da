"""A cost model of steps: products, bytes moved, minibatches; and the memory that activities take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ffdask.head import layers_read
from ffdask.job import Job
from ffdask.kernels import Precision
from ffdask.schedules.steps import Step


@dataclass(frozen=True)
class Rates:
    """How fast one compute thread is; the defaults are nominal, since ratios hardly depend on them.

    Attributes
    ----------
    flops : float
        Products a second.
    traffic : float
        Bytes a second of the optimiser's passes.
    activity : float
        Bytes a second of passes over activities and pixels.
    call : float
        Seconds a minibatch takes in a layer however small it is.
    """

    flops: float = 1e11
    traffic: float = 1.5e10
    activity: float = 2e10
    call: float = 1e-4


NOMINAL = Rates()


def nominal(precision: Precision) -> Rates:
    """Return the nominal rates of large products in a precision: bfloat16 doubles what AVX-512 multiplies at once."""
    return replace(NOMINAL, flops=2 * NOMINAL.flops) if precision == "bfloat16" else NOMINAL


@dataclass(frozen=True)
class Cost:
    """What a step costs.

    Attributes
    ----------
    flops : float
        Of products.
    traffic : float
        Bytes that the optimiser reads and writes.
    activity : float
        Bytes of activities and pixels that the passes between the products read and write.
    calls : int
        Minibatches times layers.
    """

    flops: float = 0.0
    traffic: float = 0.0
    activity: float = 0.0
    calls: int = 0

    def seconds(self, rates: Rates = NOMINAL) -> float:
        """Return the seconds on one compute thread."""
        moved = self.traffic / rates.traffic + self.activity / rates.activity
        return self.flops / rates.flops + moved + self.calls * rates.call


def fitted(costs: Sequence[Cost], seconds: Sequence[float]) -> Rates:
    """Return the rates that explain the measured `seconds` of steps best, by least squares.

    A part of the cost that would have to be negative is taken to be free.
    """
    parts = np.array([[cost.flops, cost.traffic, cost.activity, cost.calls] for cost in costs], dtype=float)
    scale = np.maximum(parts.max(axis=0), 1e-300)
    free: list[int] = []
    while True:
        used = [i for i in range(4) if i not in free]
        found = np.linalg.lstsq(parts[:, used] / scale[used], np.asarray(seconds), rcond=None)[0]
        if (found > 0).all():
            break
        free.append(used[int(found.argmin())])
    each = np.zeros(4)
    each[used] = found / scale[used]
    flops, traffic, activity, call = each
    return Rates(1 / max(flops, 1e-300), 1 / max(traffic, 1e-300), 1 / max(activity, 1e-300), float(call))


FORWARD, BACKWARD = 5, 6
"""Passes over a layer's activities: bias, ReLU, goodness and length forward; derivative, peer and sums backward."""


def cost(job: Job, step: Step) -> Cost:
    """Return the cost of one step.

    Layer one's product is shared by positive, negative and neutral rows, and so is the product of its gradients.
    """
    rows, sizes, batches = rows_in(job, step), _sizes(job), _minibatches(job, step)
    read = sum(job.widths[layer - 1] for layer in layers_read(len(job.widths))) * job.classes

    def passes(layer: int, copies: int, each: int) -> float:
        # Layer one's pixels are gathered, scaled and squared beside.
        return 4.0 * rows * (copies * each * job.widths[layer - 1] + (3 * job.fan_in if layer == 1 else 0))

    if step.kind == "train":
        layer, neutral = step.layer, "neutral" in step.gives
        products = sizes[layer - 1] * (2 if layer == 1 else 2 * job.copies + neutral)
        if job.copies == 1:
            products += 3 * job.widths[layer - 1] * job.classes
        moved = passes(layer, job.copies, FORWARD + BACKWARD) + neutral * passes(layer, 1, FORWARD)
        # Weights and moments are read and written, the gradient is read.
        return Cost(2.0 * rows * products, batches * sizes[layer - 1] * 4.0 * 5, moved, batches)
    if step.kind == "push":
        lower = range(step.layer - 1, step.layer) if "activities" in step.needs else range(1, step.layer)
        flops = 2.0 * rows * sum(sizes[layer - 1] * (1 if layer == 1 else job.copies) for layer in lower)
        moved = sum(passes(layer, job.copies, FORWARD) for layer in lower)
        return Cost(flops, 0, moved, batches * len(lower))
    if step.kind == "push_head":
        every = range(1, len(job.widths) + 1)
        return Cost(2.0 * rows * sum(sizes), 0, sum(passes(layer, 1, FORWARD) for layer in every), batches * len(every))
    if step.kind == "head":
        return Cost(2.0 * rows * read * 2, batches * read * 4.0 * 5, 4.0 * rows * read / job.classes, batches)
    if step.kind in ("negatives", "candidates"):
        passed = [int(role.removeprefix("state")) for role in step.needs if role.startswith("state")]
        flops = 2.0 * rows * sum(sizes[layer - 1] * (1 if layer == 1 else job.tried) for layer in passed)
        moved = sum(passes(layer, job.classes + job.tried if layer == 1 else job.tried, FORWARD) for layer in passed)
        return Cost(flops, 0, moved, batches * len(passed))
    return Cost()


def rows_in(job: Job, step: Step) -> int:
    """Return how many samples a step works through."""
    if step.part is None:
        return sum(job.calendar.chunk_rows(visit.chunk) for visit in step.visits)
    rows = job.calendar.chunk_rows(step.visits[0].chunk)
    return min(job.calendar.batch, rows - step.part * job.calendar.batch)


def _minibatches(job: Job, step: Step) -> int:
    return 1 if step.part is not None else sum(job.calendar.minibatches_in(visit.chunk) for visit in step.visits)


def _sizes(job: Job) -> list[int]:
    """Return the number of weights of each layer."""
    return [a * b for a, b in zip((job.fan_in, *job.widths), job.widths, strict=False)]


def activity_bytes(job: Job, step: Step) -> int:
    """Return the bytes of activities that a step leaves for its readers."""
    rows, total = rows_in(job, step), 0
    for piece in step.gives:
        if piece == "activities":
            # A push leaves the layer's input, a training step its output.
            layer = step.layer if step.kind == "train" else step.layer - 1
            total += job.copies * 4 * rows * job.widths[layer - 1]
        elif piece == "candidates":
            total += job.tried * 4 * rows * job.widths[step.layer - 1]
        elif piece == "neutral":
            total += 4 * rows * job.widths[step.layer - 1]
        elif piece.startswith("neutral"):
            total += 4 * rows * job.widths[int(piece.removeprefix("neutral")) - 1]
    return total


def state_bytes(job: Job) -> int:
    """Return the bytes of all layers' states and the head's."""
    moments, width = 2 if job.optimizer.name == "adam" else 1, sum(job.widths)
    read = width if job.copies == 1 else sum(job.widths[layer - 1] for layer in layers_read(len(job.widths)))
    return 4 * ((sum(_sizes(job)) + width) * (1 + moments) + width + 2 * read * job.classes)


def node_costs(job: Job, steps: Iterable[Step], nodes: int) -> list[float]:
    """Return each node's nominal seconds over the given steps."""
    totals = [0.0] * nodes
    for step in steps:
        totals[step.node] += cost(job, step).seconds()
    return totals
