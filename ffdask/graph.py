"""A schedule turned into futures: keys, resources, priorities, and what travels between workers.

A step is one task, pinned to its node's worker by units of that worker's resource. Its outcome is a dict of pieces. A
reader on the same worker takes the outcome whole, by reference; a reader on another worker takes one piece, picked on
the worker that holds the outcome, so that nothing travels that is not read. Helpers take no unit, and go first.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dask.utils import key_split
from distributed import Client, Future, fire_and_forget

from ffdask.beside import fetch, keep, sweep
from ffdask.blocks import plain
from ffdask.errors import RunFailed
from ffdask.job import Job
from ffdask.lost import Watch
from ffdask.on_worker import figures, given, pick, run_step
from ffdask.pieces import Beside
from ffdask.resolved import Resolved
from ffdask.schedules.ideal import units_taken
from ffdask.schedules.ledger import Ledger
from ffdask.schedules.steps import Need, Step
from ffdask.shards import ShardedCalendar
from ffdask.slots import Placement, Slot
from ffdask.stay import recall
from ffdask.told import Listener
from ffdask.work import Outcome

HELPERS_FIRST = 1_000_000_000
"""Added to a helper's priority: whoever waits for it waits less."""


class NotKept(Exception):
    """What a checkpoint needs could not be kept."""


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
        In every key, so that two runs on one cluster are never mixed: the run's id, a point, and what else there is to
        tell this beginning of it from others.
    resolved : Resolved
    placement : Placement
        Each node's slot, and which workers are sent rows.
    cut_every : int
        Rounds between cuts of the graph.
    """

    def __init__(
        self,
        client: Client,
        run: str,
        resolved: Resolved,
        placement: Placement,
        cut_every: int,
    ) -> None:
        self.client, self.run, self.cut_every = client, run, cut_every
        self.job, self.plan, self.dataset = resolved.job, resolved.plan, resolved.dataset
        self.slots, self.chunks, self.readers = placement.slots, placement.rows, placement.readers
        self.ledger: Ledger[Placed] = Ledger(self.plan)
        self.listener = Listener(client, run)
        self.watch = Watch(client, self.slots, _own_rows(self.job))
        nodes = Counter(slot.name for slot in self.slots)
        self.taken = {slot.name: units_taken(slot.units, nodes[slot.name]) for slot in self.slots}
        self._sent: dict[int, Future] = {}
        # Where probabilities that stay on their node are kept for a checkpoint.
        self._beside: dict[Need, tuple[Step, Beside]] = {}
        self._trained: dict[int, tuple[int, int]] = {}
        self._sweeps = itertools.count()

    def gather(self, futures: list[Future]) -> list[Outcome]:
        """Return the outcomes of futures.

        Raises
        ------
        Lost, StepFailed, RunFailed
            As `Watch.gather`.
        """
        outcomes: list[Outcome] = self.watch.gather(futures)
        return outcomes

    def close(self, flying: Iterable[Future]) -> None:
        """Let go of every future, and so of whatever is still to do: nothing of this run stays on the cluster."""
        placed = self.ledger.clear()
        futures = [*flying, *self._sent.values(), *(one.outcome for one in placed)]
        futures += [picked for one in placed for picked in one.picked.values()]
        self._sent.clear()
        # A cluster that is gone has nothing left of it.
        with contextlib.suppress(Exception):
            self.listener.end()
            let_go(futures)

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

    def missing(self, step: Step) -> Need | None:
        """Return the first input of a step that cannot be named yet, None if all can.

        A piece behind which the graph is cut is there for later rounds only once it has been cut.
        """
        for need in step.needs.values():
            placed = self.ledger.get(need)
            if placed is None:
                return need
            if step.round > placed.step.round and not placed.cut and need.piece in placed.cuts:
                return need
        return None

    def submit(self, step: Step, order: int) -> Future:
        """Submit a step; return its outcome's future. The lower its `order`, the earlier it runs.

        Raises
        ------
        RunFailed
            If it reads what stays on another node.
        """
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
            self.run,
            key=f"{step.name}-{self.run}",
            resources={slot.resource: self.taken[slot.name]},
            priority=-order,
            pure=False,
        )
        self.ledger.put(step, Placed(step, slot, outcome, self._cuts(step)))
        return outcome

    def record(self, step: Step, outcome: Future) -> dict[str, Any]:
        """Return the record of a step that has ended: as its worker told it, or out of its outcome.

        Raises
        ------
        Lost, StepFailed, RunFailed
            As `Watch.gather`, where it was not told.
        """
        told = self.listener.take(step.name)
        if told is None:
            slot = self.slots[step.node]
            (told,) = self.gather([self._helper(figures, outcome, slot=slot, key=f"record-{step.name}")])
        return told

    def _input(self, placed: Placed, need: Need, slot: Slot) -> Future:
        """Return the future that a reader takes: the outcome itself on its worker, else the one piece."""
        if placed.slot == slot:
            return placed.outcome
        if self.plan.sharded and need.piece != "state":
            # Its name alone would be sent, and the step fail there.
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
        """Return pieces themselves, gathered here; of what stays on its node, the file that it is kept in there.

        Raises
        ------
        NotKept
            If a node cannot write such a file.
        Lost, StepFailed, RunFailed
            As `Watch.gather`.
        """
        staying = [need for need in placed if self.plan.sharded and need.piece != "state"]
        come = {need: one for need, one in placed.items() if need not in staying}
        outcomes = self.gather([self.picked(one, need.piece) for need, one in come.items()])
        values = {need: plain(outcome[need.piece]) for need, outcome in zip(come, outcomes, strict=True)}
        fresh = {need: self._keep(need, placed[need]) for need in staying if need not in self._beside}
        for (need, _), kept in zip(fresh.items(), self.gather(list(fresh.values())), strict=True):
            if not isinstance(kept, Beside):
                raise NotKept(f"{need.piece} of {need.step} cannot be written beside its shard ({kept})")
            self._beside[need] = (placed[need].step, kept)
        return values | {need: self._beside[need][1] for need in staying}

    def _keep(self, need: Need, placed: Placed) -> Future:
        """Return the future of the file in which a piece is kept beside its node's shard."""
        name, node = f"{self.run}-{need.step}", placed.step.node
        args = (self.job, self.dataset, node, placed.outcome, need.piece, name)
        return self._helper(keep, *args, slot=placed.slot, key=f"keep_{need.piece}-{need.step}")

    def sweep(self, round_: float) -> None:
        """Have nodes remove the files that only checkpoints of rounds before `round_` name."""
        gone: dict[int, list[str]] = {}
        for need, (step, kept) in list(self._beside.items()):
            if step.round + self.plan.reach(need.piece) < round_:
                gone.setdefault(step.node, []).append(kept.name)
                del self._beside[need]
        for node, names in gone.items():
            fire_and_forget(self._sweep(node, names))

    def sweep_all(self) -> None:
        """Have nodes remove all such files of the run, also those that an earlier beginning has left; wait for it.

        Raises
        ------
        Lost, StepFailed, RunFailed
            As `Watch.gather`.
        """
        if self.plan.sharded and self.plan.reads_probabilities:
            names = {
                node: [kept.name for step, kept in self._beside.values() if step.node == node] for node in self._nodes
            }
            self.gather([self._sweep(node, [*names[node], f"{self.run.partition('.')[0]}.*"]) for node in self._nodes])

    def _sweep(self, node: int, names: list[str]) -> Future:
        key = f"sweep-node{node}-{next(self._sweeps)}"
        return self._helper(sweep, self.job, self.dataset, node, names, slot=self.slots[node], key=key)

    @property
    def _nodes(self) -> range:
        return range(self.plan.nodes)

    def restore(self, step: Step, piece: str, value: Any) -> None:
        """Hand out a piece of a step that an earlier run of the schedule did, as if the graph were cut behind it."""
        slot, key = self.slots[step.node], f"load_{piece}-{step.name}"
        if isinstance(value, Beside):
            self._beside[Need(step.name, piece)] = (step, value)
            args = (self.job, self.dataset, step.node, piece, value, f"{piece} of {step.name}")
            future = self._helper(fetch, *args, slot=slot, key=key)
        else:
            future = self._helper(given, {piece: value}, slot=slot, key=key)
        self.ledger.put(step, Placed(step, slot, future, cut=True), [piece])

    def cut(self, step: Step) -> None:
        """Cut the graph behind a finished step, where it is to be cut.

        A scheduler keeps every ancestor of a live result, for ever, and runs the whole chain again when one is lost.
        So a task without ancestors takes the piece out of its worker's own store, where it stays: later steps' ancestry
        begins there. Nothing comes here, and nothing is copied.
        """
        kept = [(need, self.ledger.get(need)) for need in (Need(step.name, piece) for piece in step.gives)]
        found = [(need, placed) for need, placed in kept if placed is not None and need.piece in placed.cuts]
        for need, placed in found:
            key = f"load_{need.piece}-{step.name}"
            future = self._helper(recall, placed.outcome.key, need.piece, slot=placed.slot, key=key)
            self._hold(placed.outcome, future)
            loaded = Placed(step, placed.slot, future, placed.cuts, cut=True)
            self.ledger.replace(need, step.layer if need.piece == "state" else None, loaded)
        if not found:
            return
        # Dask remembers a hundred thousand keys, each of which is seen by then for the last time.
        key_split.cache_clear()

    def _hold(self, outcome: Future, until: Future) -> None:
        """Hold an outcome until another task, which does not depend on it for Dask, has ended."""
        until.add_done_callback(lambda _: outcome)

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


def let_go(futures: Iterable[Future]) -> None:
    """Have a scheduler forget tasks, whatever their state.

    `Client.cancel` would break the connection if a task that nobody holds any more, though others wait for it, depends
    on one of them: the scheduler's handler fails then.
    """
    for future in futures:
        future.release()


def _own_rows(job: Job) -> list[str]:
    """Return where each federated node's rows are, if each has a store of its own."""
    calendar = job.calendar
    if not isinstance(calendar, ShardedCalendar) or not calendar.origin.held:
        return []
    return [calendar.origin.path(node) for node in range(calendar.origin.nodes)]
