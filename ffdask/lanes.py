"""A timeline of steps as plain text: a lane a node, a letter a moment."""

from __future__ import annotations

from collections.abc import Sequence

from ffdask.schedules.ideal import Timed
from ffdask.schedules.steps import Step

KEY = "digit: a layer trains, p: pushes, h: the head, -: later ones"
"""What the marks mean."""


def lanes(timed: Sequence[Timed], nodes: int, width: int, later: Sequence[Timed] = ()) -> list[str]:
    """Return one line a node, `width` characters from the start to the last stop; nothing if no step takes time.

    A step's place is rounded to whole characters; one that takes no time has none. Steps that come `later` are dashes,
    so that a node that goes on with them does not look idle.
    """
    span = max((one.stop for one in timed), default=0.0)
    if not span:
        return []
    rows = [["."] * width for _ in range(nodes)]
    marked = [*((one, "-") for one in later), *((one, mark(one.step)) for one in timed)]
    for one, character in marked:
        if one.step.node < nodes:
            begin, end = int(one.start / span * width), min(int(one.stop / span * width), width)
            rows[one.step.node][begin:end] = character * (end - begin)
    return [f"node {node:<5} {''.join(row)}" for node, row in enumerate(rows)]


def mark(step: Step) -> str:
    """Return the one character that stands for a step."""
    return str(step.layer % 10) if step.kind == "train" else step.kind[0]
