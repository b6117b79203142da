"""Rows of a data set, read a block at a time from whatever array holds them, checked as they pass.

NumPy, Zarr, dask.array and xarray are told apart by what they can do, not by their types: slices of each give rows,
`compute` makes a lazy slice real, and `chunks` says which slices are cheap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ffdask.errors import BadInput

BLOCK_BYTES = 4 * 2**20
"""Rows are read together until they have this many bytes; a chunk that has more is cut."""


@dataclass(frozen=True)
class Rows:
    """Images of one split, in an array that may be larger than memory.

    Attributes
    ----------
    array
        With `shape`, `dtype` and slices of rows.
    where
        What to call it in a message.
    kept
        Which of its rows belong to the split, bool (rows,); None for all.
    """

    array: Any
    where: str
    kept: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The rows that are kept, and the shape of each."""
        count = len_of(self.array) if self.kept is None else int(self.kept.sum())
        return (count, *(int(size) for size in self.array.shape[1:]))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type in which they are stored: uint8 or float32."""
        return stored_type(self.array.dtype)

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all rows in turn, checked and in the stored type, a few at a time."""
        for start, stop in _spans(self.array):
            block = taken(read(self.array, start, stop, self.where), self.where, "pixel", start)
            if self.kept is not None:
                block = block[self.kept[start:stop]]
            if len(block):
                yield block


def blocks_of(array: np.ndarray | Rows) -> Iterator[np.ndarray]:
    """Yield the rows of an array that is in memory, or is not."""
    return array.blocks() if isinstance(array, Rows) else iter([array])


def len_of(array: Any) -> int:
    """Return the number of rows; unlike `len`, also where it is no Python integer."""
    return int(array.shape[0])


def read(array: Any, start: int, stop: int, where: str) -> np.ndarray:
    """Return rows as NumPy's, whatever holds them.

    Raises
    ------
    BadInput
        They cannot be read or computed, or are not as many as asked for.
    """
    try:
        rows = array[start:stop]
        block = np.asarray(rows.compute() if hasattr(rows, "compute") else rows)
    except Exception as exc:
        # Each codec, and each task of a lazy array, has errors of its own.
        raise BadInput(
            f"{where} cannot be read at row {start} ({type(exc).__name__}: {exc}); repair or replace it"
        ) from exc
    if block.shape != (stop - start, *array.shape[1:]):
        raise BadInput(
            f"{where} promised rows {start} to {stop} of shape {tuple(array.shape[1:])} and gave {block.shape}; "
            "correct its declared shape"
        )
    return block


def stored_type(dtype: Any) -> np.dtype[Any]:
    """Return the type in which images of `dtype` are stored: floats as float32, integers as bytes."""
    return np.dtype(np.float32 if np.dtype(dtype).kind == "f" else np.uint8)


def taken(block: np.ndarray, where: str, what: str, start: int = 0, most: int = 255) -> np.ndarray:
    """Return a block in the stored type, after a check of every value.

    Parameters
    ----------
    block
        Integers or floats.
    where, what
        What to call the array, and one value of it, in a message.
    start
        The number of its first row.
    most
        The largest integer that is allowed.

    Raises
    ------
    BadInput
        An integer outside 0 to `most`, or a float that is not finite as float32.
    """
    if block.dtype.kind == "f":
        with np.errstate(over="ignore"):
            floats = np.ascontiguousarray(block, dtype=np.float32)
        bad = ~np.isfinite(floats)
        if bad.any():
            place = np.argwhere(bad)[0]
            raise BadInput(
                f"{where}: the value in row {start + int(place[0])} is {block[tuple(place)]}; finite float32 numbers "
                "are allowed: correct or convert the data"
            )
        return floats
    if block.size and (int(block.min()) < 0 or int(block.max()) > most):
        place = np.argwhere((block < 0) | (block > most))[0]
        raise BadInput(
            f"{where}: the {what} in row {start + int(place[0])} is {int(block[tuple(place)])}; 0 to {most} are "
            "allowed: correct or convert the file"
        )
    return np.ascontiguousarray(block, dtype=np.uint8)


def _spans(array: Any) -> Iterator[tuple[int, int]]:
    """Yield slices of rows that together are all of them: whole chunks, as many as fit a block."""
    count = len_of(array)
    row_bytes = max(1, int(np.prod(array.shape[1:], dtype=np.int64)) * np.dtype(array.dtype).itemsize)
    step = max(1, BLOCK_BYTES // row_bytes)
    sizes = _chunk_rows(array, step)
    start = stop = 0
    for size in sizes:
        if stop > start and stop + size - start > step:
            yield start, stop
            start = stop
        stop = min(stop + size, count)
    if stop > start:
        yield start, stop


def _chunk_rows(array: Any, step: int) -> Iterator[int]:
    """Yield the rows of each chunk: dask says them all, Zarr the size of one, NumPy has none."""
    chunks = getattr(array, "chunks", None)
    first = chunks[0] if chunks else step
    if isinstance(first, tuple):
        yield from (int(size) for size in first)
        return
    for _ in range(0, len_of(array), int(first)):
        yield int(first)
