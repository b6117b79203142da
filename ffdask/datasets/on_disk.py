"""Images that memory is too small for: rows read from the disk as they are asked for.

A Zarr store is compressed, in chunks of neighbouring rows; a chunk of training rows is dealt from all of them. So the
images of a large store are unpacked once, chunk by chunk, into a file of fixed rows, which has no name: it is gone with
the process, however that ends.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ffdask.errors import BadInput

DEFAULT_GIB = 2.0


def most_in_memory() -> int:
    """Return how many bytes of one array of images a process keeps in memory: FFDASK_IMAGES_GIB, 2 if it is not set.

    Raises
    ------
    BadInput
        If it is no positive number.
    """
    given = os.environ.get("FFDASK_IMAGES_GIB", "")
    try:
        gib = float(given) if given else DEFAULT_GIB
    except ValueError:
        gib = 0.0
    if not 0 < gib < math.inf:
        raise BadInput(f"FFDASK_IMAGES_GIB: given {given!r}; it takes a number of GiB above 0, such as 4")
    return int(gib * 2**30)


class DiskRows:
    """The rows of an array, on the disk; what is asked for by slice or by row numbers is read, and new memory.

    Parameters
    ----------
    shape : tuple of int
        (rows, ...).
    dtype : dtype
    blocks : iterable of arrays
        All rows in their order, some at a time.
    folder : Path
        Where there is to be room for them.

    Raises
    ------
    BadInput
        If there is no room.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, blocks: Iterable[np.ndarray], folder: Path) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._row = math.prod(shape[1:]) * self.dtype.itemsize
        folder.mkdir(parents=True, exist_ok=True)
        size, free = shape[0] * self._row, shutil.disk_usage(folder).free
        if size > free:
            raise BadInput(
                f"{size / 2**30:.1f} GiB of images are more than memory is to hold ({most_in_memory() / 2**30:g} GiB: "
                f"FFDASK_IMAGES_GIB), and {folder} has {free / 2**30:.1f} GiB left to unpack them: make room, set "
                "FFDASK_CACHE to another folder, or FFDASK_IMAGES_GIB to more"
            )
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  (as long as the rows live)
        weakref.finalize(self, self._file.close)
        for block in blocks:
            view = memoryview(np.ascontiguousarray(block, self.dtype).data).cast("B")
            while view:
                view = view[self._file.write(view) :]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        wanted = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else np.asarray(rows, np.int64)
        found = np.empty((len(wanted), *self.shape[1:]), self.dtype)
        into = memoryview(found.data).cast("B") if found.size else memoryview(b"")
        for start, stop, first in _runs(wanted):
            part, at = into[start * self._row : stop * self._row], first * self._row
            while part:
                # By place, not by position: threads share the file.
                got = os.preadv(self._file.fileno(), [part], at)
                if not got:
                    raise OSError(f"row {first} of {len(self)} is not in the file: fewer were written")
                part, at = part[got:], at + got
        return found


def _runs(rows: np.ndarray) -> Iterable[tuple[int, int, int]]:
    """Yield (start, stop, first row) of each stretch of rows that lie one behind the other."""
    if len(rows):
        starts = np.flatnonzero(np.diff(rows, prepend=rows[0] - 2) != 1)
        for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
            yield int(start), int(stop), int(rows[start])
