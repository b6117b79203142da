"""A classifier's parameters as a training graph's keys: each checked where graph files are, in the same words."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ffdask.config import Config, load
from ffdask.errors import BadInput

PARAMETERS = {
    "layers": "network.layers",
    "epochs": "training.epochs",
    "objective": "network.objective",
    "negatives": "network.negatives",
    "classifier": "network.classifier",
    "schedule": "schedule.name",
    "batch_size": "training.batch_size",
    "learning_rate": "optimizer.learning_rate",
    "random_state": "training.seed",
    "out": "run.out",
}
"""Parameter -> the key that it stands for."""

USUAL = {"data.overlay": "append", "training.shift": 0}
"""What any kind of sample can bear, where `keys` do not say otherwise."""


def configuration(
    parameters: Mapping[str, Any], more: Mapping[str, Any] | None, rows: int, instead: Mapping[str, Any]
) -> Config:
    """Return the configuration that parameters mean.

    Parameters
    ----------
    parameters : mapping
        Parameter -> value; None is left out.
    more : mapping or None
        ``table.key`` -> value, of what is no parameter.
    rows : int
        To train on.
    instead : mapping
        ``table.key`` -> value, in place of what is given.

    Raises
    ------
    BadInput
        As `ffdask.config.load`, and if `more` has the key of a parameter.
    """
    more = {} if more is None else more
    if not isinstance(more, Mapping):
        raise BadInput(f"keys: given {more!r}; must be a dict of table.key -> value")
    for name, key in (PARAMETERS | {"X": "data.dataset"}).items():
        if key in more:
            raise BadInput(f"keys: given {key!r}, which is what {name} is for; give it there")
    given = {PARAMETERS[name]: value for name, value in parameters.items()} | dict(more)
    asked = {key: value for key, value in given.items() if value is not None}
    keys = USUAL | {"training.batch_size": usual_batch(rows)} | asked | dict(instead)
    return load(keys={key: plain(value) for key, value in keys.items()})


def usual_batch(rows: int) -> int:
    """Return the rows of a minibatch where nobody says: a tenth of all, but 10 at least and 100 at most."""
    return min(max(rows // 10, 10), 100, rows)


def plain(value: Any) -> Any:
    """Return a value as a graph file has it: grids are made of NumPy's numbers."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value
