"""What each kind of step reads and gives: the table that tells a step that cannot work, before anything runs."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from operator import index
from typing import TYPE_CHECKING

from ffdask.errors import nearest
from ffdask.head import layers_read

if TYPE_CHECKING:
    from ffdask.schedules.steps import Plan, Step


@dataclass(frozen=True)
class Roles:
    """A kind's roles and pieces; ``#`` stands for a number.

    Attributes
    ----------
    reads : tuple of str
        Roles that it may have.
    gives : tuple of str
        Pieces that it gives.
    may_give : tuple of str
        Pieces that it gives if asked for.
    first : int or None
        The lowest layer that it may be of; None: it is no layer's.
    """

    reads: tuple[str, ...]
    gives: tuple[str, ...] = ()
    may_give: tuple[str, ...] = ()
    first: int | None = None


KINDS: dict[str, Roles] = {
    "negatives": Roles(("candidates", "state#", "probabilities#"), ("labels",)),
    "candidates": Roles(("candidates", "state#"), ("candidates",), first=1),
    "push": Roles(("labels", "activities", "state#"), ("activities",), first=2),
    "train": Roles(("labels", "activities", "neutral", "state"), ("state",), ("activities", "neutral"), first=1),
    "push_head": Roles(("state#",), may_give=("neutral#",)),
    "head": Roles(("state", "neutral#"), ("state", "probabilities")),
    "evaluate": Roles(("state#", "head")),
}
"""Kinds of steps by name."""


def wrong_with(step: Step, plan: Plan, sources: Mapping[str, Step], trained: Collection[int]) -> str | None:
    """Return what is wrong with a step by itself, and what to do; None if it can work.

    Parameters
    ----------
    step : Step
    plan : Plan
    sources : mapping
        Role -> the step that is read.
    trained : collection of int
        Layers that have been trained so far; the others are as they began, and their states are not named.
    """
    if step.kind not in KINDS:
        return f"is of kind {step.kind!r}; kinds are {', '.join(KINDS)}{nearest(step.kind, KINDS)}"
    return (
        _layer(step, plan)
        or _pieces(step, plan)
        or _sources(step, sources)
        or _rows(step, plan, sources)
        or _inputs(step, plan, sources)
        or _states(step, plan, trained)
    )


def whole_numbers(step: Step) -> str | None:
    """Return what is wrong with a step's numbers; None if nothing is."""
    for name in ("round", "node", "layer", "again"):
        value = getattr(step, name)
        try:
            low = index(value) < 0
        except TypeError:
            low = True
        if low:
            return f"has the {name} {value!r}; give a whole number from 0"
    return None


def _layer(step: Step, plan: Plan) -> str | None:
    first = KINDS[step.kind].first
    if first is None:
        return f"is of layer {step.layer}; a {step.kind} step is no layer's: leave `layer` out" if step.layer else None
    if step.layer < first:
        return f"is of layer {step.layer}; a {step.kind} step is of a layer from {first} to {plan.layers}"
    return None


def _pieces(step: Step, plan: Plan) -> str | None:
    roles = KINDS[step.kind]
    for role in step.needs:
        if _general(role) not in roles.reads:
            return f"reads {role!r}; a {step.kind} step reads {', '.join(roles.reads)}"
    wanted = roles.gives
    if step.kind == "push_head":
        wanted = tuple(f"neutral{layer}" for layer in layers_read(plan.layers))
    missing = [piece for piece in wanted if piece not in step.gives]
    if missing:
        return f"does not give {missing[0]!r}; a {step.kind} step takes gives=({', '.join(map(repr, wanted))},)"
    for piece in step.gives:
        if piece not in wanted and piece not in roles.may_give:
            return f"gives {piece!r}; a {step.kind} step gives {', '.join((*wanted, *roles.may_give)) or 'nothing'}"
    return None


def _sources(step: Step, sources: Mapping[str, Step]) -> str | None:
    """Check that each role is filled by a piece of its kind, from the right layer."""
    for role, source in sources.items():
        general, number, piece = _general(role), _number(role), step.needs[role].piece
        pieces = {"state#": ("state",), "head": ("state",), "neutral#": ("neutral", role)}
        allowed = pieces.get(general, (general.removesuffix("#"),))
        if piece not in allowed:
            return f"takes {piece!r} of {source.name} as {role!r}; that role takes {allowed[0]!r}"
        if general == "state#" and (source.kind, source.layer) != ("train", number):
            return f"takes the state of {source.name} as {role!r}; name the step that trained layer {number}"
        if role == "head" and source.kind != "head":
            return f"takes the state of {source.name} as 'head'; name the step that trained the head"
        if general == "neutral#" and piece == "neutral" and source.layer != number:
            return f"takes layer {source.layer}'s neutral rows as {role!r}; name layer {number}'s"
    return None


def _rows(step: Step, plan: Plan, sources: Mapping[str, Step]) -> str | None:
    """Check that a step works through rows, and that what it reads was made for the same ones."""
    if step.kind == "evaluate":
        return None
    if not step.visits:
        return "works through no rows; make it by plan.step(...), or give `visits`"
    if any(not 0 <= visit.chunk < plan.calendar.chunks or visit.epoch < 0 for visit in step.visits):
        return f"visits a chunk that is none; chunks are 0 to {plan.calendar.chunks - 1}"
    for role in ("labels", "activities", "neutral", "candidates", *(r for r in sources if r.startswith("neutral"))):
        source = sources.get(role)
        if source and (source.visits != step.visits or (role != "labels" and source.part != step.part)):
            return f"takes {role!r} of {source.name}, which worked through other rows; make both of the same visits"
    return None


def _inputs(step: Step, plan: Plan, sources: Mapping[str, Step]) -> str | None:
    """Check that a step has the rows that it works on: labels at the bottom, activities above, neutral for a head."""
    if step.kind == "negatives" and not plan.paired:
        return "draws negatives, but the run's objective has none; yield it only if plan.paired"
    if step.kind in ("train", "push"):
        # What a push step reads, the layer below its own takes.
        layer = step.layer if step.kind == "train" else step.layer - 1
        source = sources.get("activities")
        if source:
            made = source.layer if source.kind == "push" else source.layer + 1
            if made != layer:
                return f"takes the input of layer {made} ({source.name}) for that of layer {layer}; push once more"
        elif step.kind == "train" and step.layer > 1:
            return f"has no `activities`; give it those of a push step of layer {step.layer}, yielded before it"
        elif plan.paired and "labels" not in sources:
            return "has no `labels`; give it those of the round's negatives step, yielded before it"
        if "neutral" in step.gives and step.layer > 1 and "neutral" not in sources:
            return "gives 'neutral' and has none; give it the `neutral` of the layer below"
    if step.kind == "head":
        missing = [layer for layer in layers_read(plan.layers) if f"neutral{layer}" not in sources]
        if missing:
            return f"has no `neutral{missing[0]}`; give it those of the round's push_head step, yielded before it"
    if step.kind == "candidates" and step.layer > 1:
        below = sources.get("candidates")
        if below is None or below.layer != step.layer - 1:
            return f"has no `candidates` of layer {step.layer - 1}; yield that step before it"
    return None


def _states(step: Step, plan: Plan, trained: Collection[int]) -> str | None:
    """Check that a step names the states through which its rows pass."""
    if step.kind == "negatives" and any(_general(role) == "state#" for role in step.needs):
        # By goodness: all the layers have a say, or (too early) none.
        through = list(range(1, plan.layers + 1)) if "candidates" not in step.needs else [plan.layers]
        missing = [layer for layer in through if f"state{layer}" not in step.needs]
        return f"reads some layers' states and no `state{missing[0]}`; name all or none" if missing else None
    if step.kind == "push":
        through = [step.layer - 1] if "activities" in step.needs else list(range(1, step.layer))
    elif step.kind == "push_head":
        through = list(range(1, plan.layers + 1))
    else:
        through = [step.layer] if step.kind == "candidates" else []
    missing = [layer for layer in through if layer in trained and f"state{layer}" not in step.needs]
    if missing:
        return f"passes layer {missing[0]} and has no `state{missing[0]}`; name the step that trained it"
    return None


def _general(role: str) -> str:
    """Return a role with ``#`` for its number."""
    return "probabilities#" if role.startswith("probabilities") else re.sub(r"\d+$", "#", role)


def _number(role: str) -> int:
    found = re.search(r"\d+$", role)
    return int(found.group()) if found else 0
