"""A cost model of steps: products, the optimiser's memory traffic, and the memory that activities take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ffdask.network import layers_read
from ffdask.schedules.steps import Step
from ffdask.work import Job

FLOPS = 1e11
"""Products a second of one compute thread, nominally; ratios do not depend on it."""

BANDWIDTH = 1.5e10
"""Bytes a second that the optimiser's passes reach, nominally."""


@dataclass(frozen=True)
class Cost:
    """What a step costs: `flops` of products, `traffic` in bytes of the optimiser, `seconds` at nominal rates."""

    flops: float
    traffic: float

    @property
    def seconds(self) -> float:
        """Return nominal seconds on one compute thread."""
        return self.flops / FLOPS + self.traffic / BANDWIDTH


def cost(job: Job, step: Step) -> Cost:
    """Return the cost of one step.

    Layer one's product is shared by positive, negative and neutral rows, and so is the product of its gradients.
    """
    rows = sum(job.calendar.chunk_rows(visit.chunk) for visit in step.visits)
    sizes = [a * b for a, b in zip((job.fan_in, *job.widths), job.widths, strict=False)]
    read = sum(job.widths[layer - 1] for layer in layers_read(len(job.widths))) * job.classes
    if step.kind == "train":
        size, forward = sizes[step.layer - 1], 2 + ("neutral" in step.gives)
        products = size * (2 if step.layer == 1 else forward + 2)
        batches = sum(-(-job.calendar.chunk_rows(visit.chunk) // job.calendar.batch) for visit in step.visits)
        # Weights and moments are read and written, the gradient is read.
        return Cost(2.0 * rows * products, batches * size * 4.0 * 5)
    if step.kind == "push":
        lower = range(step.layer - 1, step.layer) if "paired" in step.needs else range(1, step.layer)
        return Cost(2.0 * rows * sum(sizes[layer - 1] * (1 if layer == 1 else 2) for layer in lower), 0)
    if step.kind == "push_head":
        return Cost(2.0 * rows * sum(sizes), 0)
    if step.kind == "head":
        return Cost(2.0 * rows * read * 2, 0)
    return Cost(0, 0)


def activity_bytes(job: Job, step: Step) -> int:
    """Return the bytes of activities that a step leaves for its readers."""
    rows = sum(job.calendar.chunk_rows(visit.chunk) for visit in step.visits)
    width = job.widths[step.layer - 1] if step.kind == "train" else job.widths[max(step.layer - 2, 0)]
    total = 0
    for piece in step.gives:
        if piece == "paired":
            total += 2 * 4 * rows * width
        elif piece == "neutral":
            total += 4 * rows * width
        elif piece.startswith("neutral"):
            total += 4 * rows * job.widths[int(piece.removeprefix("neutral")) - 1]
    return total


def state_bytes(job: Job) -> int:
    """Return the bytes of all layers' states and the head's."""
    moments = 2 if job.optimizer.name == "adam" else 1
    sizes = (a * b + b for a, b in zip((job.fan_in, *job.widths), job.widths, strict=False))
    read = sum(job.widths[layer - 1] for layer in layers_read(len(job.widths)))
    return 4 * (sum(sizes) * (1 + moments) + sum(job.widths) + 2 * read * job.classes)


def node_costs(job: Job, steps: Iterable[Step], nodes: int) -> list[float]:
    """Return each node's nominal seconds over the given steps."""
    totals = [0.0] * nodes
    for step in steps:
        totals[step.node] += cost(job, step).seconds
    return totals
