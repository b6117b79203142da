"""What is different from a chapter on: changes made while a run goes, which its configuration keeps.

So a change is as reproducible as all else: a run that is resumed, or done again from its configuration, makes it at the
same chapter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass as checked

PLACES: dict[str, str | None] = {
    "learning_rate": "optimizer",
    "momentum": "optimizer",
    "weight_decay": "optimizer",
    "head_rate": "head",
    "dropout": "layer",
    "threshold": "layer",
    "shift": "",
    "negatives": "",
    "ends": None,
}
"""What may change -> the part of a job that has it; the run's end is nowhere in a job."""


@checked(frozen=True, kw_only=True, config={"extra": "forbid", "strict": True})
class Change:
    """One of the graph file's ``[[training.changes]]``: what is left out stays as it was.

    Examples
    --------
    >>> change = Change(chapter=10, dropout=0.2, negatives="random")
    >>> change.table()
    {'chapter': 10, 'dropout': 0.2, 'negatives': 'random'}
    >>> print(change)
    dropout 0.2, negatives random
    """

    chapter: Annotated[int, Field(ge=0, lt=2**31, description="the first that it is for, counted from 0")]
    learning_rate: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    momentum: Annotated[float | None, Field(ge=0, lt=1)] = None
    weight_decay: Annotated[float | None, Field(ge=0, allow_inf_nan=False)] = None
    head_rate: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    dropout: Annotated[float | None, Field(ge=0, lt=1)] = None
    threshold: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    shift: Annotated[int | None, Field(ge=0, le=16)] = None
    negatives: Literal["sampled", "random", "fixed", "adaptive"] | None = None
    ends: Literal[True] | None = None

    def values(self) -> dict[str, Any]:
        """Return what changes, by name."""
        return {name: value for name in PLACES if (value := getattr(self, name)) is not None}

    def table(self) -> dict[str, Any]:
        """Return the change as a graph file would hold it."""
        return {"chapter": self.chapter} | self.values()

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.values().items())


def changed(job: Any, values: Mapping[str, Any]) -> Any:
    """Return a copy of a job (any dataclass with such parts) in which `values` are as given."""
    parts: dict[str, Any] = {}
    for name, value in values.items():
        part = PLACES[name]
        if part is None:
            continue
        if part:
            parts[part] = dataclasses.replace(
                parts.get(part, getattr(job, part)), **{name.removeprefix("head_"): value}
            )
        else:
            parts[name] = value
    return dataclasses.replace(job, **parts)
