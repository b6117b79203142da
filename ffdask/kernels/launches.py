"""How a GPU's kernels are compiled and launched: the text of `device.cu`, a thread's own stream, blocks and threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import Any

import cupy
import numpy as np
from numpy.typing import DTypeLike

THREADS = 256
"""Of a block."""

COLUMNS = 32
"""Columns that a block of `LANES` threads a column sums up."""

LANES = 32

REALS = {"float32": "float", "float64": "double"}
"""What the kernels are compiled for, in their own language."""

MOST_BLOCKS = 4096
"""Of an elementwise kernel: each thread takes several elements of a larger array."""


class _Here(threading.local):
    """What a thread has of its own."""

    def __init__(self) -> None:
        self.stream = cupy.cuda.Stream(non_blocking=True)


@cache
def _here() -> _Here:
    return _Here()


@contextmanager
def in_own_stream() -> Iterator[None]:
    """Have this thread's stream take all launches, and wait for them at the end."""
    stream = _here().stream
    with stream:
        yield
        stream.synchronize()


@cache
def _module(dtype: np.dtype[Any]) -> Any:
    """Return the kernels for float32 or float64, compiled for this GPU; CuPy keeps them on disk."""
    return cupy.RawModule(code=source(), options=options(dtype))


def source() -> str:
    """Return the kernels' text."""
    return (files(__package__) / "device.cu").read_text()


def options(dtype: DTypeLike) -> tuple[str, ...]:
    """Return what the compiler is told."""
    return "--std=c++17", f"-DREAL={REALS[np.dtype(dtype).name]}"


def launch(name: str, dtype: np.dtype[Any], blocks: int, threads: int, *given: Any) -> None:
    """Launch a kernel: int stands for a C int, float for a double, None for a null pointer.

    Raises
    ------
    ValueError
        If an array does not lie row by row: a kernel is given its address alone.
    """
    if not blocks:
        return
    arguments: list[Any] = []
    for one in given:
        if isinstance(one, int):
            arguments.append(np.int32(one))
        elif one is None:
            arguments.append(np.uint64(0))
        elif isinstance(one, float | np.generic):
            arguments.append(one)
        else:
            if not one.flags.c_contiguous:
                raise ValueError(f"{name}: an array of {one.shape} does not lie row by row")
            arguments.append(one)
    _module(dtype).get_function(name)((blocks,), (threads,), tuple(arguments))


def by_rows(name: str, rows: int, dtype: np.dtype[Any], *given: Any) -> None:
    """Launch a kernel with a block a row."""
    launch(name, dtype, rows, THREADS, *given)


def by_columns(name: str, width: int, dtype: np.dtype[Any], *given: Any) -> None:
    """Launch a kernel with a block for every `COLUMNS` columns."""
    launch(name, dtype, -(-width // COLUMNS), COLUMNS * LANES, *given)


def by_elements(name: str, size: int, dtype: np.dtype[Any], *given: Any) -> None:
    """Launch a kernel with a thread an element, or for several."""
    launch(name, dtype, min(-(-size // THREADS), MOST_BLOCKS), THREADS, *given)
