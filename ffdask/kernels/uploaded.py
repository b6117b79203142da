"""Data sets on the device: each is brought there once, and its rows are taken there."""

from __future__ import annotations

import threading
from typing import Any

import cupy
import numpy as np
from numpy.typing import NDArray

from ffdask.kernels.launches import by_rows
from ffdask.kernels.recorded import still

MOST_SETS = 2
"""Data sets that stay on the device."""


def uploaded(images: NDArray[Any]) -> Any:
    """Return a data set's images on the device, brought there once; None if they would fill half of it."""
    with _one_upload:
        key = id(images)
        if key not in _sets:
            free, _ = cupy.cuda.runtime.memGetInfo()
            if images.dtype not in (np.uint8, np.float32) or 2 * images.nbytes > free:
                return None
            while len(_sets) >= MOST_SETS:
                # Somebody's launches may still read the one that goes.
                with still:
                    cupy.cuda.Device().synchronize()
                del _sets[next(iter(_sets))]
            _sets[key] = images, cupy.asarray(images)
            # Other threads' streams read it.
            cupy.cuda.get_current_stream().synchronize()
        return _sets[key][1]


_one_upload = threading.Lock()
_sets: dict[int, tuple[NDArray[Any], Any]] = {}
"""By id, each with the host's images themselves: nothing else has their id while they are here."""


def gathered(every: Any, rows: NDArray[np.integer[Any]], shifts: NDArray[np.integer[Any]]) -> Any:
    """Return rows (n, ...) of images on the device, by their numbers (n,) and shifts (2, n)."""
    n, shape = len(rows), every.shape[1:]
    height, width, channels = {1: (1, *shape, 1), 2: (*shape, 1)}.get(len(shape), shape)
    out, where = cupy.empty((n, *shape), every.dtype), cupy.asarray(rows.astype(np.int64))
    down, right = cupy.asarray(shifts.astype(np.int32))
    name = "gather_reals" if every.dtype.kind == "f" else "gather_bytes"
    by_rows(name, n, np.dtype(np.float32), every, where, down, right, out, n, height, width, channels)
    return out
