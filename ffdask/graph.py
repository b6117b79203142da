"""A schedule turned into futures: keys, resources, priorities, and what travels between workers.

A step is one task, pinned to its node's worker by units of that worker's resource. Its outcome is a dict of pieces. A
reader on the same worker takes the outcome whole, by reference; a reader on another worker takes one piece, picked on
the worker that holds the outcome, so that nothing travels that is not read. Helpers take no unit, and go first.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from distributed import Client, Future, KilledWorker

from ffdask import datasets, machine
from ffdask.cluster import Slot
from ffdask.datasets import Dataset
from ffdask.errors import RunFailed, told
from ffdask.job import Data, Images, Job, Labels
from ffdask.schedules.ledger import Ledger
from ffdask.schedules.steps import Need, Plan, Step
from ffdask.shards import ShardedCalendar
from ffdask.stay import Kept, drop, recall, stow
from ffdask.work import Outcome, perform

HELPERS_FIRST = 1_000_000_000
"""Added to a helper's priority: whoever waits for it waits less."""


def run_step(
    job: Job,
    step: Step,
    dataset: Dataset,
    outcomes: Mapping[str, Outcome],
    pieces: Mapping[str, str],
    chunks: Mapping[int, tuple[Images, Labels]] | None,
    worker: str,
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

    Raises
    ------
    RunFailed
        With the step's name, if it fails; or if BLAS uses more than one thread here, so that the bits would depend on
        this worker.
    """
    threads = machine.blas_threads()
    if threads != 1:
        raise RunFailed(f"step {step.name}: BLAS has {threads} threads on worker {worker}; something set them anew")
    inputs = {role: outcomes[role][piece] for role, piece in pieces.items()}
    inputs = {role: value.value if isinstance(value, Kept) else value for role, value in inputs.items()}
    data = _sent(chunks) if chunks is not None else _read(job, dataset, step.node)
    started, clock = time.time(), time.perf_counter()
    try:
        # A loss that is no longer finite is noticed in the record, and ends the run with a message.
        with np.errstate(all="ignore"):
            outcome = perform(job, step, inputs, data)
    except Exception as error:
        # Named here: the steps that wait for this one fail with the same exception, and may be heard of first.
        raise RunFailed(f"step {step.name} failed on worker {worker}: {told(error)}") from error
    if isinstance(job.calendar, ShardedCalendar):
        outcome = {piece: _stays(step, piece, value) for piece, value in outcome.items()}
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
    return outcome


def _stays(step: Step, piece: str, value: Any) -> Any:
    """Return a federated step's piece as it may be handed on: states and figures as they are, the rest kept."""
    return value if piece in ("state", "record") else Kept(value, f"{piece} of {step.name}")


def _read(job: Job, dataset: Dataset, node: int) -> Data:
    """Return the data as this worker reads it: its own copy of the same store, once per process."""
    calendar = job.calendar
    if isinstance(calendar, ShardedCalendar) and calendar.origin.held:
        path = _obtained(calendar.origin.path(node))
        held = Data.held(calendar, datasets.load(path, "train"), lambda: datasets.load(_located(dataset), "test"))
        return Data.of_node(calendar, node, held)
    path = _located(dataset)
    data = Data.of(calendar, datasets.load(path, "train"), lambda: datasets.load(path, "test"))
    return Data.of_node(calendar, node, data) if isinstance(calendar, ShardedCalendar) else data


@lru_cache(maxsize=64)
def _obtained(path: str) -> str:
    return datasets.obtain(path).path


@lru_cache(maxsize=8)
def _located(dataset: Dataset) -> str:
    path = datasets.locate(dataset)
    if path is None:
        raise RunFailed(f"data set {dataset.name}: this worker could read it when the run began, and now cannot")
    return path


def _sent(chunks: Mapping[int, tuple[Images, Labels]]) -> Data:
    return Data(lambda number: chunks[number], lambda: chunks[-1])


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


@dataclass
class Placed:
    """A step's outcome on a worker, the pieces picked from it, and those behind which the graph is cut."""

    step: Step
    slot: Slot
    outcome: Future
    cuts: tuple[str, ...] = ()
    picked: dict[str, Future] = field(default_factory=dict)
    cut: bool = False


class Graph:
    """Submits steps; keeps what later steps may read.

    Parameters
    ----------
    client : distributed.Client
    run : str
        The run's id, in every key: two runs on one cluster are never mixed.
    job, plan : Job, Plan
    dataset : Dataset
    slots : sequence of Slot
        Of each node.
    chunks : mapping
        Rows to send to workers that cannot read them: chunk number (-1: those that are looked at) -> (images, labels).
    readers : frozenset of str
        Names of the workers that read the rows themselves.
    cut_every : int
        Rounds between cuts of the graph.
    """

    def __init__(
        self,
        client: Client,
        run: str,
        job: Job,
        plan: Plan,
        dataset: Dataset,
        slots: Sequence[Slot],
        chunks: Mapping[int, tuple[Images, Labels]],
        readers: frozenset[str],
        cut_every: int,
    ) -> None:
        self.client, self.run, self.job, self.plan, self.dataset = client, run, job, plan, dataset
        self.slots, self.chunks, self.readers, self.cut_every = slots, chunks, readers, cut_every
        self.ledger: Ledger[Placed] = Ledger(plan)
        # A node does one step at a time: alone on a worker of several units, its steps take them all. Where units do
        # not divide among a worker's nodes, two steps of a node may meet; the bits do not care.
        nodes = Counter(slot.name for slot in slots)
        self.shares = {slot.name: max(1, slot.units // nodes[slot.name]) for slot in slots}
        self._sent: dict[int, Future] = {}
        self._trained: dict[int, tuple[int, int]] = {}

    def lost_workers(self) -> list[str]:
        """Return the names of workers of ours whose resource nobody offers now: their steps wait for ever."""
        known = self.client.scheduler_info(n_workers=-1)["workers"].values()
        offered = {name for info in known for name in info["resources"]}
        return sorted({slot.name for slot in self.slots if slot.resource not in offered})

    def gather(self, futures: list[Future]) -> list[Outcome]:
        """Return the outcomes of futures; raises RunFailed if one was lost."""
        try:
            outcomes: list[Outcome] = self.client.gather(futures)
        except (KilledWorker, CancelledError, OSError) as error:
            raise RunFailed(f"a result was lost before it was read: {type(error).__name__}: {error}") from error
        return outcomes

    def close(self, records: Iterable[Future]) -> None:
        """Cancel whatever is still to do and let go of every future: nothing of this run stays on the cluster."""
        placed = self.ledger.clear()
        futures = [*records, *self._sent.values(), *(one.outcome for one in placed)]
        futures += [picked for one in placed for picked in one.picked.values()]
        self._sent.clear()
        # A cluster that is gone has nothing left to cancel.
        with contextlib.suppress(Exception):
            self.client.cancel(futures, force=True)
            if self.plan.sharded:
                self.client.run(drop, f"{self.run}-", workers=[slot.address for slot in self.slots], on_error="ignore")

    def _cuts(self, step: Step) -> tuple[str, ...]:
        """Return the pieces of a step, the next to be submitted, behind which the graph is cut.

        States at every `cut_every`-th round, or where a layer was not trained then, the next time it is; probabilities
        always: what is drawn from them would otherwise tie each chapter to those an epoch before, past any cut of the
        states.
        """
        pieces: tuple[str, ...] = ()
        if "state" in step.gives and step.last:
            newest, before = self._trained.get(step.layer, (-1, -1))
            before = newest if step.round > newest else before
            self._trained[step.layer] = (step.round, before)
            if (step.round + 1) // self.cut_every > (before + 1) // self.cut_every:
                pieces = ("state",)
        if "probabilities" in step.gives and self.plan.reads_probabilities:
            pieces = (*pieces, "probabilities")
        return pieces

    def ready(self, step: Step) -> bool:
        """Return whether every input of a step is there to be named.

        A piece behind which the graph is cut is there for later rounds only once it has been cut.
        """
        for need in step.needs.values():
            placed = self.ledger.get(need)
            if placed is None:
                return False
            if step.round > placed.step.round and not placed.cut and need.piece in placed.cuts:
                return False
        return True

    def submit(self, step: Step, order: int) -> Future:
        """Submit a step; return the future of its record. The lower its `order`, the earlier it runs."""
        slot = self.slots[step.node]
        futures, pieces = {}, {}
        for role, need in step.needs.items():
            placed = self.ledger.get(need)
            assert placed is not None, need
            futures[role] = self._input(placed, need, slot)
            pieces[role] = need.piece
        outcome = self.client.submit(
            run_step,
            self.job,
            step,
            self.dataset,
            futures,
            pieces,
            self._rows(step, slot),
            slot.name,
            key=f"{step.name}-{self.run}",
            resources={slot.resource: self.shares[slot.name]},
            priority=-order,
            pure=False,
        )
        self.ledger.put(step, Placed(step, slot, outcome, self._cuts(step)))
        return self._helper(figures, outcome, slot=slot, key=f"record-{step.name}")

    def _input(self, placed: Placed, need: Need, slot: Slot) -> Future:
        """Return the future that a reader takes: the outcome itself on its worker, else the one piece."""
        if placed.slot == slot:
            return placed.outcome
        if self.plan.sharded and need.piece != "state":
            # What is kept could not be sent either, but Dask would try again for ever.
            raise RunFailed(f"{need.piece} of {need.step} stays on its node, and a step on {slot.name} needs it")
        return self.picked(placed, need.piece)

    def picked(self, placed: Placed, piece: str) -> Future:
        """Return the future of one piece of an outcome, picked on the worker that holds it.

        The outcome itself where there is nothing else in it.
        """
        if placed.cut or len(placed.step.gives) == 1:
            return placed.outcome
        if piece not in placed.picked:
            key = f"{piece}-{placed.step.name}"
            placed.picked[piece] = self._helper(pick, placed.outcome, piece, slot=placed.slot, key=key)
        return placed.picked[piece]

    def values(self, placed: Mapping[Need, Placed]) -> dict[Need, Any]:
        """Return pieces themselves, gathered here."""
        outcomes = self.gather([self.picked(one, need.piece) for need, one in placed.items()])
        return {need: outcome[need.piece] for need, outcome in zip(placed, outcomes, strict=True)}

    def restore(self, step: Step, piece: str, value: Any) -> None:
        """Hand out a piece of a step that an earlier run of the schedule did, as if the graph were cut behind it."""
        slot, key = self.slots[step.node], f"load_{piece}-{step.name}"
        future = self._helper(given, {piece: value}, slot=slot, key=key)
        self.ledger.put(step, Placed(step, slot, future, cut=True), [piece])

    def cut(self, step: Step) -> None:
        """Cut the graph behind a finished step, where it is to be cut.

        A scheduler keeps every ancestor of a live result, for ever, and runs the whole chain again when one is lost.
        So the pieces come here, and tasks without ancestors hand them out again: later steps' ancestry begins there.
        """
        kept = [(need, self.ledger.get(need)) for need in (Need(step.name, piece) for piece in step.gives)]
        found = [(need, placed) for need, placed in kept if placed is not None and need.piece in placed.cuts]
        if self.plan.sharded:
            for need, placed in found:
                if need.piece != "state":
                    self._cut_there(need, placed)
            found = [(need, placed) for need, placed in found if need.piece == "state"]
        if not found:
            return
        # A head's outcome is small: it comes whole, with no task to pick from it.
        values = self.gather(
            [
                placed.outcome if step.kind == "head" and not self.plan.sharded else self.picked(placed, need.piece)
                for need, placed in found
            ]
        )
        for (need, placed), value in zip(found, values, strict=True):
            key = f"load_{need.piece}-{step.name}"
            future = self._helper(given, pick(value, need.piece), slot=placed.slot, key=key)
            loaded = Placed(step, placed.slot, future, placed.cuts, cut=True)
            self.ledger.replace(need, step.layer if need.piece == "state" else None, loaded)

    def _cut_there(self, need: Need, placed: Placed) -> None:
        """Cut behind what must not come here: it is laid aside on its worker, and taken up by a task of its own."""
        name = f"{self.run}-{need.step}-{need.piece}"
        stowed = self._helper(
            stow, placed.outcome, need.piece, name, slot=placed.slot, key=f"stow_{need.piece}-{need.step}"
        )
        self.gather([stowed])
        future = self._helper(recall, need.piece, name, slot=placed.slot, key=f"load_{need.piece}-{need.step}")
        self.ledger.replace(need, None, Placed(placed.step, placed.slot, future, placed.cuts, cut=True))

    def _rows(self, step: Step, slot: Slot) -> dict[int, Future] | None:
        """Return the futures of the rows that a step reads, where they are sent; each is sent once."""
        if slot.name in self.readers or (self.plan.sharded and step.kind != "evaluate"):
            return None
        if "activities" in step.needs and self.job.copies > 1:
            return {}
        numbers = {-1} if step.kind == "evaluate" else {visit.chunk for visit in step.visits}
        for number in numbers - self._sent.keys():
            self._sent[number] = self._helper(given, self.chunks[number], slot=slot, key=f"rows-{number + 1}")
        return {number: self._sent[number] for number in numbers}

    def _helper(self, function: Any, *args: Any, slot: Slot, key: str) -> Future:
        # A request for no units pins a task to the worker that knows the resource, and takes nothing from it.
        return self.client.submit(
            function, *args, key=f"{key}-{self.run}", resources={slot.resource: 0}, priority=HELPERS_FIRST, pure=False
        )
