"""Outcomes whose arrays are on a device, and how they leave their process.

Where Dask's connection takes a device's memory (UCX), arrays go from GPU to GPU, and the reader hands them on in the
same way; over any other they are the host's. A message names the type, and so this module: whoever is sent one has
imported how it is read.
"""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
from distributed.protocol import deserialize, serialize
from distributed.protocol.cuda import cuda_deserialize, cuda_serialize

from ffdask.blocks import Published
from ffdask.resident import home, moved

FAMILIES = ("cuda", "dask", "pickle")
"""Dask's ways to write an array down, of which the first that can is taken: the second is NumPy's."""


class Resident(Published):
    """A value with arrays on this process's device: its readers here get it by reference, all others a copy."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, tuple[Any]]:
        return _same, (home(self.value),)

    def plain(self) -> Any:
        """Return the value on the host."""
        return home(self.value)


def _same(value: Any) -> Any:
    return value


@cuda_serialize.register(Resident)
def _to_devices(resident: Resident) -> tuple[dict[str, Any], list[Any]]:
    """Return what is left of a value without its arrays, as plain data, and their memory, wherever it is."""
    headers: list[dict[str, Any]] = []
    frames: list[Any] = []

    def taken(array: Any) -> Any:
        header, parts = serialize(array, serializers=FAMILIES, on_error="raise")
        headers.append({"header": header, "parts": len(parts)})
        frames.extend(parts)
        return _HOLE

    hollow = moved(resident.value, taken)
    return {"hollow": pickle.dumps(hollow), "arrays": headers}, frames


@cuda_deserialize.register(Resident)
def _from_devices(header: dict[str, Any], frames: list[Any]) -> Resident:
    arrays, start = [], 0
    for one in header["arrays"]:
        stop = start + one["parts"]
        arrays.append(deserialize(one["header"], frames[start:stop]))
        start = stop
    left = iter(arrays)
    return Resident(moved(pickle.loads(header["hollow"]), lambda _: next(left)))


_HOLE = np.empty(0)
"""Where an array was."""
