"""Values whose arrays may lie on a device: moved as a whole, and brought to the host.

An array on a device is known by `__cuda_array_interface__`: which library made it is the kernels' affair.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np


def on_device(value: Any) -> bool:
    """Return whether a value is an array on a device."""
    return hasattr(value, "__cuda_array_interface__")


def moved(value: Any, move: Callable[[Any], Any]) -> Any:
    """Return a value with `move` of each array in it: in dicts, lists, tuples and dataclasses, however deep."""
    if isinstance(value, np.ndarray) or on_device(value):
        return move(value)
    if isinstance(value, dict):
        return {key: moved(part, move) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(moved(part, move) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: moved(getattr(value, field.name), move) for field in fields(value)})
    return value


def home(value: Any) -> Any:
    """Return a value with its arrays on the host; those that came from a device are read-only."""
    return moved(value, lambda array: read_only(array.get()) if on_device(array) else array)


def read_only(array: Any) -> Any:
    """Mark an array read-only: in one process every reader gets this very object. On a device nothing can be marked."""
    if isinstance(array, np.ndarray):
        array.setflags(write=False)
    return array
