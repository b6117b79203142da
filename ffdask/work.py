"""What a step does: a pure function of its inputs and of the data. No Dask here: any executor can call it.

The path of the data: rows of a chunk -> scaled, a label laid over -> through the layers below, length-normalised -> the
layer being trained, minibatch by minibatch -> a new state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffdask.batches import Source, masks_of, order_of, pixels_of, places, rows_of
from ffdask.calendar import Visit
from ffdask.candidates import Candidates, enter, rise, score_table
from ffdask.head import layers_read
from ffdask.job import Data, Images, Job
from ffdask.kernels import Kernels, named
from ffdask.layer import LayerState
from ffdask.learning import Outcome as Outcome
from ffdask.learning import learn_head, train
from ffdask.network import Network, climb, climb_neutral
from ffdask.resident import home, read_only
from ffdask.schedules.steps import Step

Array = NDArray[np.floating[Any]]


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
        The pieces that the step gives, read-only (large ones on the device, if the kernels are), and ``record``: plain
        figures, with ``rows`` and, where rows were learned from, ``loss``, ``error`` and, for a layer,
        ``goodness_positive`` and ``goodness_negative`` (in units of the width).
    """
    own = job.on(step.node)
    kernels = named(own.kernels)
    # On a GPU's worker a processor's node is handed the very arrays that a GPU's node has left on the device.
    here = home if job.gpu_nodes and own is job else kernels.here
    with kernels.working():
        # What is drawn from is read on the host.
        taken = {role: given if role.startswith("prob") else here(given) for role, given in inputs.items()}
        return _KINDS[step.kind](own.at(step.round), step, taken, data)


def _negatives(job: Job, step: Step, inputs: Mapping[str, Any], data: Data) -> Outcome:
    kind, drawn = job.kind_of_negatives, []
    for index, visit in enumerate(step.visits):
        labels = data.labels(visit.chunk)
        scores = _scores(job, step, index, inputs, data)
        # A label that is drawn once is drawn as on the chunk's first visit.
        named = Visit(0, visit.chunk) if kind.once else visit
        wrong = kind.draw(named.draw(job.calendar.seed, "negatives"), labels, job.classes, scores)
        drawn.append(read_only(wrong))
    return {"labels": drawn, "record": {"rows": sum(map(len, drawn))}}


def _scores(job: Job, step: Step, index: int, inputs: Mapping[str, Any], data: Data) -> Array | None:
    """Return what a visit's negatives are drawn by (n, classes), in the chunk's own row order; None if nothing yet."""
    visit = step.visits[index]
    if "state1" in inputs:
        return _goodness_of(job, visit, index, _tried(job, step, inputs, data, index), data)
    if "candidates" in inputs:
        return _goodness_of(job, visit, index, inputs["candidates"][index], data)
    newest: Visit | None = None
    parts: list[tuple[Array, Array]] = []
    for recorded in (value for role, value in inputs.items() if role.startswith("probabilities")):
        for seen, part in recorded.items():
            if seen.chunk != visit.chunk:
                continue
            if newest is None or seen > newest:
                newest, parts = seen, []
            if seen == newest:
                parts.append(part)
    if not parts:
        return None
    table = np.empty((job.calendar.chunk_rows(visit.chunk), job.classes), np.float32)
    for rows, probabilities in parts:
        table[rows] = probabilities
    return table


def _goodness_of(job: Job, visit: Visit, index: int, tried: Sequence[Candidates], data: Data) -> Array:
    """Return each label's goodness (n, classes), in the chunk's own row order, of a visit's minibatches."""
    order, table = job.calendar.order(visit), np.empty((job.calendar.chunk_rows(visit.chunk), job.classes), np.float32)
    for (start, stop, _), candidates in zip(job.calendar.minibatches(visit), tried, strict=True):
        table[order[start:stop]] = score_table(home(candidates), job.classes)
    return table


def _tried(job: Job, step: Step, inputs: Mapping[str, Any], data: Data, index: int) -> list[Candidates]:
    """Return a visit's minibatches under the labels tried, behind the layers whose states are among the inputs."""
    kernels, visit = named(job.kernels, job.precision), step.visits[index]
    layers = sorted(int(role.removeprefix("state")) for role in inputs if role.startswith("state"))
    _follow([inputs[f"state{layer}"] for layer in layers], kernels)
    if "candidates" in inputs:
        passed: list[Candidates] = inputs["candidates"][index]
    else:
        (images, truth), order = rows_of(job, visit, data), order_of(job, visit)
        first, passed = inputs["state1"], []
        for start, stop, _ in job.calendar.minibatches(visit):
            rows = order[start:stop]
            pixels = pixels_of(job, images[rows])
            candidates = enter(first, pixels, truth[rows], job.tried, len(job.widths), kernels)
            # Upwards minibatch by minibatch: all labels of a whole chapter at once would not fit.
            for layer in layers[1:]:
                candidates = rise(candidates, inputs[f"state{layer}"], kernels)
            passed.append(candidates)
        return passed
    return [rise(candidates, inputs[f"state{layers[0]}"], kernels) for candidates in passed]


def _candidates(job: Job, step: Step, inputs: Mapping[str, Any], data: Data) -> Outcome:
    passed = [_tried(job, step, inputs, data, index) for index in range(len(step.visits))]
    for candidates in (one for visit in passed for one in visit):
        for array in (candidates.labels, candidates.scores, candidates.activities):
            read_only(array)
    return {"candidates": passed, "record": {"rows": sum(job.calendar.chunk_rows(v.chunk) for v in step.visits)}}


def _state(job: Job, inputs: Mapping[str, Any], layer: int) -> LayerState:
    """Return a layer's state among the inputs; the initial one of a layer that was never trained."""
    state: LayerState = inputs.get(f"state{layer}") or named(job.kernels).here(job.initial_layer(layer))
    return state


def _follow(states: Sequence[LayerState], kernels: Kernels) -> None:
    for state in states:
        kernels.follow(state.weights)


def _push(job: Job, step: Step, inputs: Mapping[str, Any], data: Data) -> Outcome:
    kernels = named(job.kernels, job.precision)
    # From where the push before left off, or all the way from pixels: the same shapes, so the same bits.
    first = step.layer - 1 if "activities" in inputs else 1
    states = [_state(job, inputs, layer) for layer in range(first, step.layer)]
    _follow(states, kernels)
    width, pushed = job.widths[step.layer - 2], []
    for index, visit in enumerate(step.visits):
        (passed,) = kernels.empty(((job.copies * job.calendar.chunk_rows(visit.chunk), width), np.float32))
        masks = [masks_of(job, layer, step, visit) for layer in range(first, step.layer)]
        source = Source.of(job, first, visit, index, inputs, data)
        push = kernels.repeated(partial(_climbed, states, source, kernels))
        for where, rows in places(job, step, visit):
            push((source.take(where, rows), [None if mask is None else mask[where] for mask in masks]), passed[where])
        pushed.append(read_only(passed))
    return {"activities": pushed, "record": {"rows": sum(len(array) for array in pushed) // job.copies}}


def _climbed(states: Sequence[LayerState], source: Source, kernels: Kernels, given: Any, out: Array) -> None:
    """Write a minibatch's activities behind the layers into `out`; `given` is what it takes, and its masks."""
    taken, masks = given
    batch, _ = source.batch(taken)
    z, _ = batch.preactivations(states[0].weights, kernels)
    out[...] = climb(states, z, kernels, masks)[-1][0]


def _push_head(job: Job, step: Step, inputs: Mapping[str, Any], data: Data) -> Outcome:
    kernels = named(job.kernels, job.precision)
    states = [_state(job, inputs, layer) for layer in range(1, len(job.widths) + 1)]
    _follow(states, kernels)
    pushed: dict[str, list[Array]] = {piece: [] for piece in step.gives}
    total = 0
    for visit in step.visits:
        images, _ = rows_of(job, visit, data)
        order, rows = order_of(job, visit), len(images)
        for layer in layers_read(len(job.widths)):
            pushed[f"neutral{layer}"] += kernels.empty(((rows, job.widths[layer - 1]), np.float32))
        push = kernels.repeated(partial(_climbed_neutral, job, states, images, kernels))
        for start, stop, _ in job.calendar.minibatches(visit):
            push(order[start:stop], {piece: arrays[-1][start:stop] for piece, arrays in pushed.items()})
        total += rows
    pieces = {piece: [read_only(array) for array in arrays] for piece, arrays in pushed.items()}
    return {**pieces, "record": {"rows": total}}


def _climbed_neutral(
    job: Job, states: Sequence[LayerState], images: Images, kernels: Kernels, rows: Array, out: Mapping[str, Array]
) -> None:
    """Write a minibatch's neutral activities (n, width) of the layers that the head reads into `out`."""
    activities = climb_neutral(states, pixels_of(job, images[rows]), kernels)
    for layer in layers_read(len(job.widths)):
        out[f"neutral{layer}"][...] = activities[layer - 1]


def _evaluate(job: Job, step: Step, inputs: Mapping[str, Any], data: Data) -> Outcome:
    states = tuple(_state(job, inputs, layer) for layer in range(1, len(job.widths) + 1))
    network = Network(states, inputs.get("head"), job.classes, job.overlay)
    images, labels = data.held_out()
    kernels = named(job.kernels)
    of = "validation" if job.calendar.validation else "test"
    errors = {f"{of}_errors_{name}": network.errors(images, labels, name, kernels) for name in network.classifiers()}
    return {"record": {"rows": len(images), **errors}}


_KINDS: dict[str, Callable[[Job, Step, Mapping[str, Any], Data], Outcome]] = {
    "negatives": _negatives,
    "candidates": _candidates,
    "push": _push,
    "train": train,
    "push_head": _push_head,
    "head": learn_head,
    "evaluate": _evaluate,
}
