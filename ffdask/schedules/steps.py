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
from ffdask.errors import BadInput


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
        ``negatives`` | ``push`` | ``train`` | ``push_head`` | ``head`` | ``evaluate``.
    round : int
        Chapter (streaming: visit), from 0.
    node : int
        From 0.
    layer : int
        From 1; 0 where the step is no layer's.
    needs : mapping of role to Need
        Roles: ``state`` (the one it trains), ``state1``... (those it pushes through), ``paired`` and ``neutral``
        (the input's activities), ``neutral1``... (those a head reads), ``labels``, ``probabilities<round>``.
    gives : tuple of str
        Pieces of its outcome beside the record: ``state``, ``paired``, ``neutral``, ``neutral1``..., ``labels``,
        ``probabilities``.
    visits : tuple of Visit
        The rows it works through.
    again : int
        Count of a repetition that a dynamic schedule adds.
    word : str
        What a round is called in names.
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

    @property
    def name(self) -> str:
        """Return the step's name, ``train_layer2-chapter007``: up to the dash, its colour on Dask's dashboard."""
        layer = f"_layer{self.layer}" if self.layer else ""
        again = f"again{self.again}" if self.again else ""
        return f"{self.kind}{layer}-{self.word}{self.round:03d}{again}"


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
    """

    layers: int
    nodes: int
    calendar: Calendar
    staleness: int
    trains_head: bool
    reads_probabilities: bool

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

    def negatives(self, round_: int, node: int, again: int = 0) -> Step:
        """Return the step that draws a round's negative labels, with the probabilities that it may read."""
        needs: dict[str, Need] = {}
        if self.reads_probabilities:
            for visit in self.calendar.visits_of(round_, again):
                source = self.calendar.source(visit, round_, self.staleness)
                if source:
                    head = Step("head", source[0], 0, word=self.word).name
                    needs[f"probabilities{source[0]}"] = Need(head, "probabilities")
        return self.step("negatives", round_, node, again=again, needs=needs, gives=("labels",))

    def reach(self, piece: str) -> int:
        """Return how many rounds back a step may still read a piece: what bounds what a run keeps alive."""
        if piece == "state":
            return 1
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
        self._gives: dict[str, tuple[int, tuple[str, ...]]] = {}
        self._newest: dict[int, str] = {}

    def see(self, step: Step) -> None:
        """Check one step against those before it."""
        if not 0 <= step.node < self.plan.nodes:
            raise self._bad(step, f"is on node {step.node}; the run has nodes 0 to {self.plan.nodes - 1}")
        if not 0 <= step.layer <= self.plan.layers:
            raise self._bad(step, f"is of layer {step.layer}; the network has layers 1 to {self.plan.layers}")
        if step.name in self._gives:
            raise self._bad(step, "was yielded before; a repetition takes `again`")
        if step.round < self.round:
            raise self._bad(step, f"comes after round {self.round} began; yield rounds in order")
        if step.round > self.round:
            self._forget()
        self.round = step.round
        for role, need in step.needs.items():
            self._check_need(step, role, need)
        if "state" in step.gives:
            before = step.needs["state"].step if "state" in step.needs else None
            if before != self._newest.get(step.layer):
                expected = self._newest.get(step.layer) or "the initial state (no `state` need)"
                raise self._bad(step, f"trains {before or 'the initial state'}; the layer's newest state is {expected}")
            self._newest[step.layer] = step.name
        self._gives[step.name] = (step.round, step.gives)

    def _forget(self) -> None:
        """Forget what is too old to be read: a run may have millions of steps."""
        horizon = self.round - max(self.plan.reach(piece) for piece in ("state", "probabilities")) - 1
        newest = set(self._newest.values())
        self._gives = {name: seen for name, seen in self._gives.items() if seen[0] >= horizon or name in newest}

    def _check_need(self, step: Step, role: str, need: Need) -> None:
        if need.step not in self._gives:
            raise self._bad(step, f"needs {need.step} ({role}), which no earlier step is: a misspelling or a cycle")
        round_, gives = self._gives[need.step]
        if need.piece not in gives:
            raise self._bad(step, f"needs {need.piece!r} of {need.step}, which gives {', '.join(gives)}")
        newest = need.piece == "state" and need.step in self._newest.values()
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
    """Yield a schedule's steps, checked, up to its end or, if it is dynamic, to its first decision."""
    checker = Checker(plan)
    for step in schedule(plan):
        if isinstance(step, Await):
            return
        checker.see(step)
        yield step
