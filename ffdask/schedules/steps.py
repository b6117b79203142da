"""A schedule as plain data: steps, what each needs, and the checks that a list of them is one.

A schedule is a generator of `Step`s in the order in which they should run, round after round (a round is a chapter,
or in streaming a visit). It may yield `Await` instead, and is then sent the named steps' records: so it can decide on
results. No Dask here.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ffdask.calendar import Calendar, Visit
from ffdask.errors import BadInput, nearest
from ffdask.schedules.roles import whole_numbers, wrong_with
from ffdask.shards import ShardedCalendar


@dataclass(frozen=True, slots=True)
class Need:
    """One piece of an earlier step's outcome, by that step's name."""

    step: str
    piece: str


@dataclass(frozen=True)
class Step:
    """One task: what it does, what it needs, on which node.

    Attributes
    ----------
    kind : str
        ``negatives`` | ``candidates`` | ``push`` | ``train`` | ``push_head`` | ``head`` | ``evaluate``.
    round : int
        Chapter (streaming: visit), from 0.
    node : int
        From 0.
    layer : int
        From 1; 0 where the step is no layer's.
    needs : mapping of role to Need
        Roles: ``state`` (the one it trains), ``state1``... (those it pushes through), ``activities`` and ``neutral``
        (its input), ``neutral1``... (those a head reads), ``labels``, ``candidates``, ``probabilities<round>``.
    gives : tuple of str
        Pieces of its outcome beside the record: ``state``, ``activities``, ``neutral``, ``neutral1``..., ``labels``,
        ``candidates``, ``probabilities``.
    visits : tuple of Visit
        The rows it works through.
    again : int
        Count of a repetition that a dynamic schedule adds.
    word : str
        What a round is called in names.
    part : int or None
        Which minibatch of its visit it works through; None: all of them.
    last : bool
        Whether no later step of its round trains the same layer.
    """

    kind: str
    round: int
    node: int
    layer: int = 0
    needs: Mapping[str, Need] = field(default_factory=dict)
    gives: tuple[str, ...] = ()
    visits: tuple[Visit, ...] = ()
    again: int = 0
    word: str = "chapter"
    part: int | None = None
    last: bool = True

    @property
    def name(self) -> str:
        """Return the step's name, ``train_layer2-chapter007``: up to the dash, its colour on Dask's dashboard."""
        layer = f"_layer{self.layer}" if self.layer else ""
        again = f"again{self.again}" if self.again else ""
        part = f"batch{self.part:03d}" if self.part is not None else ""
        return f"{self.kind}{layer}-{self.word}{self.round:03d}{part}{again}"


@dataclass(frozen=True, slots=True)
class Await:
    """Yielded by a dynamic schedule: wait for these steps, and send their records (name -> record)."""

    steps: tuple[str, ...]


Records = Mapping[str, Mapping[str, Any]]
Schedule = Generator[Step | Await, Records, None]
"""What a schedule function returns: ``schedule(plan) -> Schedule``."""


@dataclass(frozen=True)
class Plan:
    """All that a schedule may know of a run.

    Attributes
    ----------
    layers, nodes : int
    calendar : Calendar
    staleness : int
    trains_head : bool
    reads_probabilities : bool
        Whether the negatives are drawn from the head's probabilities.
    reads_goodness : bool
        Whether they are chosen by the goodness that earlier states of the layers give them.
    paired : bool
        Whether there are negatives at all.
    sharded : bool
        Whether nothing but states may be read by another node.
    by_batch : bool
        Whether a visit's minibatches travel one by one (streaming), rather than together.
    """

    layers: int
    nodes: int
    calendar: Calendar
    staleness: int
    trains_head: bool
    reads_probabilities: bool
    reads_goodness: bool = False
    paired: bool = True
    sharded: bool = False
    by_batch: bool = False

    @property
    def rounds(self) -> int:
        """Number of rounds that the epochs have."""
        return self.calendar.rounds

    @property
    def word(self) -> str:
        """What a round is called."""
        return "visit" if self.calendar.by_visit else "chapter"

    def step(self, kind: str, round_: int, node: int, layer: int = 0, again: int = 0, **parts: Any) -> Step:
        """Return a step over a round's visits, with this plan's word for a round."""
        visits = self.calendar.visits_of(round_, again)
        return Step(kind, round_, node, layer, visits=visits, again=again, word=self.word, **parts)

    def parts(self, round_: int) -> tuple[int | None, ...]:
        """Return in which parts a round's rows travel: minibatch by minibatch, or (None) all together."""
        if not self.by_batch:
            return (None,)
        (visit,) = self.calendar.visits_of(round_)
        return tuple(range(self.calendar.minibatches_in(visit.chunk)))

    def sources(self, round_: int, again: int = 0) -> dict[str, Need]:
        """Return the probabilities that a round's negatives may read, by role."""
        needs: dict[str, Need] = {}
        for visit in self.calendar.visits_of(round_, again):
            source = self.calendar.source(visit, round_, self.staleness)
            for part in self.parts(source[0]) if source else ():
                assert source
                head = Step("head", source[0], 0, word=self.word, part=part)
                needs[head.name.replace("head-", "probabilities-")] = Need(head.name, "probabilities")
        return needs

    def reach(self, piece: str) -> int:
        """Return how many rounds back a step may still read a piece: what bounds what a run keeps alive."""
        if piece == "state":
            return self.staleness + 1 if self.reads_goodness else 1
        if piece == "probabilities" and self.reads_probabilities:
            # The chunk's visit before, or the one before that where staleness forbids it.
            rounds = (
                self.calendar.chunks if self.calendar.by_visit else -(-self.calendar.chapters // self.calendar.epochs)
            )
            return 2 * (rounds + self.staleness + 1)
        return 0


class Checker:
    """Checks a schedule step by step as it is drawn; `see` raises BadInput that names the first bad step."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.round = 0
        self._seen: dict[str, Step] = {}
        self._newest: dict[int, str] = {}

    def see(self, step: Step) -> None:
        """Check one step against those before it."""
        wrong = whole_numbers(step)
        if wrong:
            raise BadInput(f"schedule: a {step.kind} step {wrong}")
        if not 0 <= step.node < self.plan.nodes:
            raise self._bad(step, f"is on node {step.node}; the run has nodes 0 to {self.plan.nodes - 1}")
        if not 0 <= step.layer <= self.plan.layers:
            raise self._bad(step, f"is of layer {step.layer}; the network has layers 1 to {self.plan.layers}")
        if step.name in self._seen:
            raise self._bad(step, "was yielded before; a repetition takes `again`")
        if step.round < self.round:
            raise self._bad(step, f"comes after round {self.round} began; yield rounds in order")
        if step.round > self.round + 1:
            raise self._bad(step, f"comes right after round {self.round}; leave no round out")
        if step.round > self.round:
            self._forget()
        self.round = step.round
        for role, need in step.needs.items():
            self._check_need(step, role, need)
        self._check_shard(step)
        if "state" in step.gives:
            before = step.needs["state"].step if "state" in step.needs else None
            if before != self._newest.get(step.layer):
                expected = self._newest.get(step.layer) or "the initial state (no `state` need)"
                raise self._bad(step, f"trains {before or 'the initial state'}; the layer's newest state is {expected}")
        sources = {role: self._seen[need.step] for role, need in step.needs.items()}
        wrong = wrong_with(step, self.plan, sources, self._newest)
        if wrong:
            raise self._bad(step, wrong)
        if "state" in step.gives:
            self._newest[step.layer] = step.name
        self._seen[step.name] = step

    def _check_shard(self, step: Step) -> None:
        calendar = self.plan.calendar
        if not self.plan.sharded or not isinstance(calendar, ShardedCalendar):
            return
        if step.kind != "evaluate":
            for visit in step.visits:
                shard = calendar.shard_of(visit.chunk)
                if shard != step.node:
                    raise self._bad(step, f"is on node {step.node} and visits node {shard}'s shard, which stays there")
        for need in step.needs.values():
            if need.piece != "state" and self._seen[need.step].node != step.node:
                raise self._bad(
                    step, f"needs {need.piece!r} of {need.step}, which stays on node {self._seen[need.step].node}"
                )

    def end(self) -> None:
        """Check, when no step follows, that every layer was trained, and the head if the run has one."""
        layers = [*range(1, self.plan.layers + 1), *([0] if self.plan.trains_head else [])]
        missing = [f"layer {layer}" if layer else "the head" for layer in layers if layer not in self._newest]
        if not self._newest:
            raise BadInput("schedule: it yields no train step; yield at least one for each layer")
        if missing:
            hint = " (or give a classifier and negatives that need none)" if missing[-1] == "the head" else ""
            raise BadInput(f"schedule: it ended without training {', '.join(missing)}; yield steps for it{hint}")

    def _forget(self) -> None:
        """Forget what is too old to be read: a run may have millions of steps."""
        horizon = self.round - max(self.plan.reach(piece) for piece in ("state", "probabilities")) - 1
        newest = set(self._newest.values())
        self._seen = {name: seen for name, seen in self._seen.items() if seen.round >= horizon or name in newest}

    def _check_need(self, step: Step, role: str, need: Need) -> None:
        if need.step not in self._seen:
            hint = nearest(need.step, self._seen)
            raise self._bad(
                step, f"needs {need.step} ({role}), which no earlier step is: a misspelling or a cycle{hint}"
            )
        round_, gives = self._seen[need.step].round, self._seen[need.step].gives
        if need.piece not in gives:
            raise self._bad(step, f"needs {need.piece!r} of {need.step}, which gives {', '.join(gives) or 'nothing'}")
        # The state that a step trains must be the newest, however old: `see` says so.
        newest = role == "state" or (need.piece == "state" and need.step in self._newest.values())
        if step.round - round_ > self.plan.reach(need.piece) and not newest:
            raise self._bad(
                step,
                f"needs {need.piece!r} of {need.step}, {step.round - round_} rounds back; "
                f"it is kept for {self.plan.reach(need.piece)}",
            )

    @staticmethod
    def _bad(step: Step, what: str) -> BadInput:
        return BadInput(f"schedule: step {step.name} {what}")


def static_steps(schedule: Callable[[Plan], Schedule], plan: Plan) -> Iterator[Step]:
    """Yield a schedule's steps, checked, up to its end or, if it is dynamic, to its first decision.

    Raises
    ------
    BadInput
        That names the first bad step, or what the schedule never trained.

    Examples
    --------
    >>> from ffdask.calendar import Calendar
    >>> from ffdask.schedules import SCHEDULES
    >>> calendar = Calendar(rows=100, chunk=100, batch=10, epochs=2, chapters=2, by_visit=False, seed=0)
    >>> plan = Plan(layers=2, nodes=2, calendar=calendar, staleness=3, trains_head=False, reads_probabilities=False)
    >>> for step in static_steps(SCHEDULES["all-layers"].steps, plan):
    ...     print(step.node, step.name, *(need.step for need in step.needs.values()))
    0 negatives-chapter000
    0 train_layer1-chapter000 negatives-chapter000
    0 push_layer2-chapter000 train_layer1-chapter000 negatives-chapter000
    0 train_layer2-chapter000 push_layer2-chapter000
    1 negatives-chapter001
    1 train_layer1-chapter001 train_layer1-chapter000 negatives-chapter001
    1 push_layer2-chapter001 train_layer1-chapter001 negatives-chapter001
    1 train_layer2-chapter001 train_layer2-chapter000 push_layer2-chapter001
    """
    checker = Checker(plan)
    for step in schedule(plan):
        if isinstance(step, Await):
            return
        checker.see(step)
        yield step
    checker.end()
