"""A step's task, as its worker does it: its inputs and rows found, the step done, its outcome and record handed on."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from ffdask import blocks, datasets, machine
from ffdask.blocks import Published
from ffdask.carried import Resident
from ffdask.datasets import Dataset
from ffdask.errors import BadInput, StepFailed, told
from ffdask.job import Data, Images, Job, Labels
from ffdask.kernels import DEVICE
from ffdask.schedules.steps import Step
from ffdask.shards import ShardedCalendar
from ffdask.stay import Away, Kept
from ffdask.told import tell
from ffdask.work import Outcome, perform

LARGE = ("state", "activities", "neutral")
"""Pieces whose arrays may be in memory that other processes map."""

_log = logging.getLogger(__name__)


def run_step(
    job: Job,
    step: Step,
    dataset: Dataset,
    outcomes: Mapping[str, Outcome],
    pieces: Mapping[str, str],
    chunks: Mapping[int, tuple[Images, Labels]] | None,
    worker: str,
    run: str,
) -> Outcome:
    """Do one step on the worker where this is called; the task behind every step.

    Parameters
    ----------
    job, step : Job, Step
    dataset : Dataset
        Where the rows are, if this worker reads them itself.
    outcomes : mapping
        Role -> an outcome that has the piece.
    pieces : mapping
        Role -> which piece of it.
    chunks : mapping or None
        Chunk number (-1: those that are looked at) -> rows, where they were sent; None where the worker reads them.
    worker : str
        For the record.
    run : str
        The run's id: whoever listens to the run is told the record.

    Raises
    ------
    StepFailed
        With the step's name, if it fails; or if BLAS uses more than one thread here, so that the bits would depend on
        this worker.
    """
    threads = machine.blas_threads()
    if threads != 1:
        raise _failed(step, f"step {step.name}: BLAS has {threads} threads on worker {worker}; something set them anew")
    inputs = {role: outcomes[role][piece] for role, piece in pieces.items()}
    inputs = {
        role: value.value if isinstance(value, Kept | Away | Published) else value for role, value in inputs.items()
    }
    data = _sent(chunks) if chunks is not None else _read(job, dataset, step.node)
    sharded = isinstance(job.calendar, ShardedCalendar)
    started, clock = time.time(), time.perf_counter()
    failure = ""
    try:
        # A loss that is no longer finite is noticed in the record, and ends the run with a message.
        with np.errstate(all="ignore"):
            outcome = perform(job, step, inputs, data)
    except Exception as error:
        # Named here: the steps that wait for this one fail with the same exception, and may be heard of first.
        failure = f"step {step.name} failed on worker {worker}: "
        if not sharded:
            raise _failed(step, failure + told(error)) from error
        # A message may quote rows: it stays here, as they do.
        failure += f"{type(error).__name__}; its message stays on the node: see the worker's log"
        _log.exception("step %s failed", step.name)
    if failure:
        # Outside the handler, where the exception that came first would go along.
        raise _failed(step, failure)
    if sharded:
        outcome = {piece: _stays(step, piece, value) for piece, value in outcome.items()}
    if job.on(step.node).kernels == DEVICE:
        outcome = {piece: _resident(piece, value) for piece, value in outcome.items()}
    if blocks.shared():
        outcome = {piece: _published(piece, value) for piece, value in outcome.items()}
    outcome["record"] = {
        "name": step.name,
        "kind": step.kind,
        "round": step.round,
        "layer": step.layer,
        "again": step.again,
        "last": step.last,
        "node": step.node,
        "worker": worker,
        "start": started,
        "stop": started + time.perf_counter() - clock,
        **outcome["record"],
    }
    tell(run, outcome["record"])
    return outcome


def _failed(step: Step, message: str) -> StepFailed:
    failed = StepFailed(message)
    failed.step = step.name
    return failed


def _stays(step: Step, piece: str, value: Any) -> Any:
    """Return a federated step's piece as it may be handed on: states and figures as they are, the rest kept."""
    return value if piece in ("state", "record") else Kept(value, f"{piece} of {step.name}")


def _published(piece: str, value: Any) -> Any:
    """Return a piece as it may be mapped by other processes, if it is large and may leave its node."""
    return Published(value) if piece.startswith(LARGE) and not isinstance(value, Kept | Published) else value


def _resident(piece: str, value: Any) -> Any:
    """Return a piece whose arrays are on this process's device as it may be handed on: to others, the host's."""
    return value if piece == "record" or isinstance(value, Kept) else Resident(value)


def _read(job: Job, dataset: Dataset, node: int) -> Data:
    """Return the data as this worker reads it: its own copy of the same store, once per process."""
    calendar = job.calendar
    if isinstance(calendar, ShardedCalendar) and calendar.origin.held:
        path = _obtained(calendar.origin.path(node), calendar.sha256[node])
        held = Data.held(calendar, datasets.load(path, "train"), lambda: datasets.load(_located(dataset), "test"))
        return Data.of_node(calendar, node, held)
    path = _located(dataset)
    data = Data.of(calendar, datasets.load(path, "train"), lambda: datasets.load(path, "test"))
    return Data.of_node(calendar, node, data) if isinstance(calendar, ShardedCalendar) else data


@lru_cache(maxsize=64)
def _obtained(path: str, sha256: str) -> str:
    try:
        found = datasets.obtain(path)
    except BadInput as error:
        raise StepFailed(f"shard {path}: this worker could read it when the run began, and now cannot") from error
    if found.sha256 != sha256 or datasets.locate(found) is None:
        raise StepFailed(f"shard {path}: it held other rows when the run began; put them back")
    return found.path


@lru_cache(maxsize=8)
def _located(dataset: Dataset) -> str:
    path = datasets.locate(dataset)
    if path is None:
        raise StepFailed(f"data set {dataset.name}: this worker could read it when the run began, and now cannot")
    return path


def _sent(chunks: Mapping[int, tuple[Images, Labels]]) -> Data:
    return Data(lambda number: chunks[number][0], lambda number: chunks[number][1], lambda: chunks[-1])


def pick(outcome: Outcome, piece: str) -> Outcome:
    """Return an outcome's one piece, as an outcome: what a reader elsewhere needs."""
    return {piece: outcome[piece]}


def figures(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome's record."""
    record: dict[str, Any] = outcome["record"]
    return record


def given(value: Any) -> Any:
    """Return a value that the client sends inside the task: a task without ancestors, done again at will."""
    return value
