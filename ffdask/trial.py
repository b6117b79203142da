"""A function of the user's own, tried on a few rows before the run: what it returns is what training needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ffdask.errors import BadInput, told
from ffdask.negatives import Kind
from ffdask.objectives import Objective, Paired

ROWS = 6
CLASSES = 10


def try_objective(objective: Objective, name: str) -> None:
    """Raise BadInput unless the loss of a few rows is a finite number, with a derivative of the right shape."""
    random = np.random.default_rng(0)
    if isinstance(objective, Paired):
        given: tuple[Any, ...] = (*random.random((2, ROWS), np.float32), 0.5)
        shape: tuple[int, ...] = (2 * ROWS,)
    else:
        shape = (ROWS, CLASSES)
        given = (random.random(shape, np.float32), np.arange(ROWS) % CLASSES)
    found = _tried(objective.loss, given, name)
    must = f"must return (loss, derivative {shape}) for {ROWS} rows"
    if not isinstance(found, tuple) or len(found) != 2:
        raise BadInput(f"{name} {must}; it returned a {type(found).__name__}")
    loss, derivative = found
    if not isinstance(loss, float | np.floating) or not np.isfinite(loss):
        raise BadInput(f"{name} {must}; its loss was {loss!r}, which is no finite float")
    # Float32: training computes in it, and a wider derivative would make every product behind it wider.
    if not isinstance(derivative, np.ndarray) or derivative.shape != shape or derivative.dtype != np.float32:
        what = (derivative.shape, str(derivative.dtype)) if isinstance(derivative, np.ndarray) else type(derivative)
        raise BadInput(f"{name} {must}, of the inputs' dtype float32; its derivative was {what}")
    if not np.isfinite(derivative).all():
        raise BadInput(f"{name} {must}; its derivative was not finite everywhere")


def try_negatives(kind: Kind, name: str) -> None:
    """Raise BadInput unless the labels drawn for a few rows are uint8, one a row, and all of them wrong."""
    labels = (np.arange(ROWS) % CLASSES).astype(np.uint8)
    even = np.full((ROWS, CLASSES), 1 / CLASSES, np.float32)
    must = f"must return {ROWS} wrong labels, uint8, for {ROWS} rows"
    for scores in (None, *([] if kind.reads == "nothing" else [even])):
        found = _tried(kind.draw, (np.random.default_rng(0), labels, CLASSES, scores), name)
        if not isinstance(found, np.ndarray) or found.shape != labels.shape or found.dtype != np.uint8:
            what = (found.shape, str(found.dtype)) if isinstance(found, np.ndarray) else type(found).__name__
            raise BadInput(f"{name} {must}; it returned {what}")
        if (found == labels).any() or (found >= CLASSES).any():
            raise BadInput(f"{name} {must}; it returned {found.tolist()} for the labels {labels.tolist()}")


def _tried(function: Callable[..., Any], given: tuple[Any, ...], name: str) -> Any:
    for array in given:
        if isinstance(array, np.ndarray):
            array.setflags(write=False)
    try:
        with np.errstate(all="ignore"):
            return function(*given)
    except Exception as error:
        raise BadInput(f"{name}, tried on {ROWS} rows, raised {told(error)}") from None
