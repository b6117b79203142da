"""The run: draws steps from the schedule as it goes, submits them, listens, cuts the graph, gathers the end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distributed import Future, KilledWorker, as_completed

from ffdask import divergence
from ffdask.blocks import plain
from ffdask.changes import Change
from ffdask.checkpoints import Checkpoint
from ffdask.controls import Controls
from ffdask.errors import Lost, RunFailed, StepFailed
from ffdask.graph import Graph, NotKept, Placed
from ffdask.job import Job
from ffdask.network import Network
from ffdask.parked import Parked
from ffdask.records import Record, Records
from ffdask.schedules.ledger import Ledger
from ffdask.schedules.steps import Await, Checker, Need, Schedule, Step


class Misplaced(Exception):
    """Workers have joined that would be given nodes, if nodes were placed now."""


@dataclass
class Cut:
    """What steps beyond a round may read of the rounds up to it: what a checkpoint holds.

    Attributes
    ----------
    held : dict of Need to Placed
    waiting : set of str
        Steps of those rounds that are not submitted yet: what they give belongs to it too.
    """

    held: dict[Need, Placed]
    waiting: set[str]

    def add(self, step: Step, ledger: Ledger[Placed]) -> None:
        """Hold what a step gives that was waited for."""
        if step.name in self.waiting:
            self.waiting.discard(step.name)
            needs = [Need(step.name, piece) for piece in step.gives if ledger.plan.reach(piece)]
            self.held |= {need: one for need in needs if (one := ledger.get(need)) is not None}


@dataclass
class Training:
    """One run of a schedule through a graph.

    Attributes
    ----------
    graph : Graph
    steps : Schedule
        The schedule's generator.
    look_ahead : int
        Rounds, from the oldest unfinished one, whose steps may be submitted: deep enough that no worker waits for
        the client, bounded so that memory is.
    on_record : callable
        Called with each step's record as it comes.
    checkpoint_every : int
        Rounds between checkpoints; 0: none.
    checkpoint_seconds : float
        After which one is due as well, behind the round in work.
    checkpoint_rest : float
        How many times as long as the checkpoint before took must have passed, for one to be due by its round.
    writing : callable
        Returns the seconds that the checkpoint before took to write, or has taken so far.
    on_checkpoint : callable
        Called with each checkpoint.
    resume : Checkpoint or None
        From which to go on: the schedule is drawn anew, and what the checkpoint has seen is not done again.
    session : int
        How often the run was resumed: in each record.
    say : callable
        Takes a line for the user.
    oldest : callable
        Returns the round of the oldest checkpoint that is kept.
    stopping : callable
        Called now and then; returns whether the run is to end behind the rounds in work, with a checkpoint. It raises
        KeyboardInterrupt if the run is to end at once.
    misplaced : callable
        Called behind each checkpoint; returns whether nodes would be placed otherwise now, because workers have joined.
    controls : Controls
        By which the run is paused and changed.
    changing : callable or None
        Called with a change that was asked for: checks and records it, and returns the job with it.
    before : iterable of Record
        What `on_record` is told first: of an earlier session.
    """

    graph: Graph
    steps: Schedule
    look_ahead: int
    on_record: Callable[[Record], None]
    checkpoint_every: int = 0
    checkpoint_seconds: float = math.inf
    checkpoint_rest: float = 0
    writing: Callable[[], float] = lambda: 0.0
    on_checkpoint: Callable[[Checkpoint], None] = lambda checkpoint: None
    resume: Checkpoint | None = None
    session: int = 0
    say: Callable[[str], None] = lambda line: None
    oldest: Callable[[], int] = lambda: -1
    stopping: Callable[[], bool] = lambda: False
    misplaced: Callable[[], bool] = lambda: False
    controls: Controls = field(default_factory=Controls)
    changing: Callable[[Change], Job] | None = None
    before: Iterable[Record] = ()
    records: Records = field(default_factory=Records)
    _parked: Parked = field(default_factory=Parked)
    _unfinished: dict[int, int] = field(default_factory=dict)
    _flying: dict[Future, Step] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._checker = Checker(self.graph.plan)
        self._answer: dict[str, Record] | None = None
        self._drawn: Step | Await | None = None
        self._exhausted = False
        self._order = 0
        self._forgotten: tuple[int, int] | None = None
        # Round -> what steps beyond it may read, as long as its checkpoint is to be written.
        self._cuts: dict[int, Cut] = {}
        self._round = self._done = self.resume.round if self.resume else -1
        self._stopping = False
        self._marked = time.monotonic()
        self._gathering = 0.0
        self.newest = self.resume
        if self.resume:
            self.records = self.resume.records.copy()

    def run(self) -> Network:
        """Run the schedule to its end; return the trained network.

        Raises
        ------
        Diverged
            When a step's figures say that training leads nowhere.
        StepFailed
            When a step fails: the message names it and says why.
        Lost
            When a worker is gone: a run can go on from `newest`.
        Misplaced
            When workers have joined: a run can go on from `newest`, faster.
        RunFailed
            When the scheduler is gone, or the schedule waits for what will not come.
        BadInput
            When the schedule yields a step that it must not.
        KeyboardInterrupt
            When the run is to stop: behind a checkpoint, if there was time for one.
        """
        # Without results: what the client needs of a step is its record, which its worker has told.
        finished: Any = as_completed(loop=self.graph.client.loop)
        self.graph.listener.begin()
        self.controls.serve(self)
        for record in self.before:
            self.on_record(record)
        try:
            self._pump(finished)
            while self._flying or self._pausing():
                if not self._flying:
                    time.sleep(0.05)
                    self._look()
                    self._pump(finished)
                    continue
                future = self._next(finished)
                step = self._flying.pop(future)
                result = self._finish(step, future)
                # The loop variable would keep this outcome alive through the next wait.
                del future
                # Behind a cut, what it gave can be named in later rounds. Before all else: a worker may wait for it.
                self._submit_or_park(self._woken(step), finished)
                self.on_record(result)
                self._checkpoint()
                self._pump(finished)
            if self._stopping and not self._exhausted:
                self._checkpoint()
                raise KeyboardInterrupt
            if self._parked or not self._exhausted:
                waiting = next((step.name for step in self._parked.steps), "the schedule")
                raise RunFailed(f"{waiting} waits for what no step in work will give")
            return self._network()
        except Lost as lost:
            lost.at_work = {worker: self._at_work(worker) for worker in lost.workers}
            raise
        finally:
            # Whoever else uses the cluster finds nothing of ours on it, however the run ended.
            self._cuts.clear()
            self.graph.close(self._flying)

    def _next(self, finished: Any) -> Future:
        """Return the next future that has finished; look for lost workers meanwhile."""
        self._look()
        while finished.queue.empty():
            with finished.thread_condition:
                finished.thread_condition.wait(0.1)
            self._look()
        following: Future = next(finished)
        return following

    def _look(self) -> None:
        self.graph.watch.look()
        # Asked each time: a second request is to be honoured, wherever it was raised first.
        if self.stopping():
            self._stopping = True
        self.controls.answer()

    def _pausing(self) -> bool:
        return self.controls.paused and not self._stopping and not self._exhausted

    def change(self, values: Mapping[str, Any]) -> int:
        """Change something from the first chapter on that is not in work; return its number.

        Raises
        ------
        BadInput
            If it cannot change so, or every chapter is in work.
        OSError
            If it cannot be written down.
        """
        assert self.changing is not None
        job = self.graph.job
        first = job.calendar.chapter_of(self._round) + 1 if self._round >= 0 else 0
        # What is asked for last is what holds in the end, also where a lost worker has set the run back since.
        chapter = max([first, *(change.chapter for change in job.changes)])
        if self._exhausted:
            chapter = job.calendar.chapters
        self.graph.job = self.changing(Change(chapter=chapter, **values))
        return chapter

    def _at_work(self, worker: str) -> tuple[str, ...]:
        """Return the steps that a worker may have been doing: the first of those that had all their inputs."""
        ready = [
            step.name
            for step in self._flying.values()
            if self.graph.slots[step.node].name == worker
            and all(need.step in self.records for need in step.needs.values())
        ]
        units = next(slot.units for slot in self.graph.slots if slot.name == worker)
        return tuple(ready[:units])

    def _pump(self, finished: Any) -> None:
        """Draw from the schedule as far as the look-ahead allows; submit every step whose inputs can be named."""
        while (step := self._draw()) is not None:
            self._mark_cut(step)
            self._forget(step)
            if self.resume and step.round <= self.resume.round:
                self._restore(step, self.resume)
                continue
            self._unfinished[step.round] = self._unfinished.get(step.round, 0) + 1
            self._order += 1
            self._submit_or_park([(self._order, step)], finished)
        if self._exhausted and not self._parked:
            # Every reader that will ever be is on the cluster, which lets go of a piece after its last one. Held here,
            # the last chapters' activities would all stay until the end. What a cut takes stays: it is small, and what
            # is submitted must not depend on the moment.
            self.graph.ledger.close(keep=lambda need, placed: need.piece in placed.cuts)

    def _forget(self, drawn: Step) -> None:
        """Forget what no step from the one just drawn on reads, nor one that still has its inputs to name."""
        here, behind = (drawn.round, drawn.part or 0), self._parked.oldest()
        oldest = here if behind is None else min(here, behind)
        # This looks at all that is kept: once a round (or minibatch), not once a step.
        if oldest != self._forgotten:
            self._forgotten = oldest
            self.graph.ledger.open(*oldest, keep=self._parked.named)

    def _submit_or_park(self, waiting: list[tuple[int, Step]], finished: Any) -> None:
        """Submit steps whose inputs can be named, and whichever these wake; the others wait."""
        while waiting:
            order, step = waiting.pop(0)
            missing = self.graph.missing(step)
            if missing is not None:
                self._parked.park(order, step, missing)
                continue
            future = self.graph.submit(step, order)
            self._flying[future] = step
            finished.add(future)
            for cut in self._cuts.values():
                cut.add(step, self.graph.ledger)
            waiting += self._woken(step)

    def _woken(self, step: Step) -> list[tuple[int, Step]]:
        """Return the steps that wait for something that `step` gives."""
        return self._parked.wake(Need(step.name, piece) for piece in step.gives)

    def _draw(self) -> Step | None:
        """Return the schedule's next step, or None if it has ended, awaits records, or is beyond the look-ahead."""
        while not self._exhausted:
            if self._drawn is None:
                try:
                    # A generator's first value takes None, which is what there is before any answer.
                    self._drawn = self.steps.send(self._answer)  # type: ignore[arg-type]
                except StopIteration:
                    self._exhausted = True
                    break
                self._answer = None
            drawn = self._drawn
            if isinstance(drawn, Step):
                if self.graph.job.calendar.chapter_of(drawn.round) >= self.graph.job.ends:
                    self._exhausted = True
                    break
                if self._stopping and drawn.round > self._round:
                    # All of the rounds that were begun is drawn: this is where the run can go on.
                    self._cut_behind(self._round)
                    break
                if self._pausing():
                    break
                if drawn.round >= min(self._unfinished, default=drawn.round) + self.look_ahead:
                    break
                self._drawn = None
                self._checker.see(drawn)
                return drawn
            if not all(name in self.records for name in drawn.steps):
                break
            self._answer = {name: self.records[name] for name in drawn.steps}
            self._drawn = None
        return None

    def _finish(self, step: Step, future: Future) -> Record:
        """Look at what a step has done, keep its record, and cut the graph behind it; return the record."""
        # If it is neither, its worker may have died since, and it is being done again: it has ended once.
        if future.status in ("error", "cancelled"):
            raise self._failure(step, future)
        result = self.graph.record(step, future)
        divergence.check(step, result, self.graph.job.at(step.round).optimizer.learning_rate)
        self.records[step.name] = result | {"session": self.session}
        self._unfinished[step.round] -= 1
        if not self._unfinished[step.round]:
            del self._unfinished[step.round]
        self.graph.cut(step)
        return result

    def _restore(self, step: Step, checkpoint: Checkpoint) -> None:
        """Take from the checkpoint what a step gave, instead of doing it."""
        if step.name not in self.records:
            raise RunFailed(
                f"the checkpoint knows no step {step.name}, which the schedule yields: the run was another one"
            )
        for piece in step.gives:
            need = Need(step.name, piece)
            if need in checkpoint.pieces:
                self.graph.restore(step, piece, checkpoint.pieces[need])

    def _mark_cut(self, step: Step) -> None:
        """Where a step is the first of a round, hold what it and later ones may read, if a checkpoint is due there."""
        before, self._round = self._round, max(self._round, step.round)
        if self.checkpoint_every and step.round > before:
            waited = time.monotonic() - self._marked
            took = self._gathering + self.writing()
            # What one takes that is still to be gathered is not known.
            paid = not self.checkpoint_rest or (not self._cuts and waited >= self.checkpoint_rest * took)
            if waited >= self.checkpoint_seconds or (paid and (before + 1) % self.checkpoint_every == 0):
                self._cut_behind(before)

    def _cut_behind(self, round_: int) -> None:
        """Hold what steps beyond a round, none of which is drawn yet, may read."""
        if self.checkpoint_every and round_ > self._done:
            reach = self.graph.plan.reach
            held = {need: one for need, one in self.graph.ledger.kept().items() if reach(need.piece)}
            waiting = {parked.name for parked in self._parked.steps}
            self._cuts.setdefault(round_, Cut(held, waiting))
            self._marked = time.monotonic()

    def _checkpoint(self) -> None:
        """Hand on the checkpoint of each marked round whose steps are all done."""
        for round_ in [round_ for round_ in self._cuts if min(self._unfinished, default=round_ + 1) > round_]:
            held = self._cuts.pop(round_).held
            self._done, begun = round_, time.monotonic()
            try:
                self.newest = Checkpoint(round_, self.graph.values(held), self.records.up_to(round_))
            except NotKept as why:
                self.say(f"no checkpoint of round {round_}: {why}; the run goes on without")
                continue
            self._gathering = time.monotonic() - begun
            self.on_checkpoint(self.newest)
            self.graph.sweep(self.oldest())
            if not self._stopping and self.misplaced():
                raise Misplaced

    def _failure(self, step: Step, future: Future) -> RunFailed:
        if future.status == "cancelled":
            return Lost(f"step {step.name} was cancelled: its inputs were lost, or somebody cancelled it")
        error = future.exception()
        if isinstance(error, RunFailed):
            return error
        if isinstance(error, KilledWorker):
            return Lost(f"step {step.name} was lost with every worker that it was given to")
        failure = StepFailed(f"step {step.name} failed: {type(error).__name__}: {error}")
        if isinstance(error, BaseException):
            failure.__cause__ = error
        failure.step = step.name
        return failure

    def snapshot(self) -> Network:
        """Return the network at the newest checkpoint, all layers after the same round; before it, as it began."""
        job, plan = self.graph.job, self.graph.plan
        found: dict[int, tuple[int, Any]] = {}
        for need, value in (self.newest.pieces if self.newest else {}).items():
            if need.piece == "state":
                record = self.records[need.step]
                found[record["layer"]] = max(
                    found.get(record["layer"], (-1, None)), (record["round"], value), key=_first
                )
        layers = range(1, plan.layers + 1)
        states = tuple(found[layer][1] if layer in found else job.initial_layer(layer) for layer in layers)
        head = (found[0][1] if 0 in found else job.initial_head()) if plan.trains_head else None
        return Network(states, head, job.classes, job.overlay)

    def _network(self) -> Network:
        newest, plan = self.graph.ledger.newest, self.graph.plan
        layers = [*range(1, plan.layers + 1), *([0] if plan.trains_head else [])]
        missing = [layer for layer in layers if layer not in newest]
        if missing:
            raise RunFailed(f"the schedule ended without training {_named(missing)}")
        outcomes = self.graph.gather([self.graph.picked(newest[layer], "state") for layer in layers])
        states = [plain(outcome["state"]) for outcome in outcomes]
        head = states[plan.layers] if plan.trains_head else None
        return Network(tuple(states[: plan.layers]), head, self.graph.job.classes, self.graph.job.overlay)


def _first(pair: tuple[int, Any]) -> int:
    return pair[0]


def _named(layers: Sequence[int]) -> str:
    return ", ".join(f"layer {layer}" if layer else "the head" for layer in layers)
