"""What a checkpoint holds, as arrays and a few figures: layer states, heads, the probabilities of rows' labels.

Many pieces are one Zarr store in a zip file; of each, JSON says what it is. Nothing in it is ever unpickled. A small
array is part of a longer one: Zarr takes milliseconds for each, whatever its size, and a hundred layers have hundreds.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import ZipStore

from ffdask.calendar import Visit
from ffdask.head import HeadState
from ffdask.layer import LayerState
from ffdask.schedules.steps import Need

LARGEST = 1 << 36
"""Bytes that an array may have."""

SMALL = 1 << 20
"""Bytes below which an array is put together with others of its dtype."""

TOGETHER = "together"
"""Where those are, by dtype."""


@dataclass(frozen=True)
class Beside:
    """A file that stays beside a federated node's shard: all that a checkpoint has of it.

    Attributes
    ----------
    name : str
    sha256 : str
    """

    name: str
    sha256: str


def write(path: Path, pieces: Mapping[Need, Any]) -> list[dict[str, Any]]:
    """Write pieces into a file; return what `read` has to know of each, as JSON would have it.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    described = []
    together: dict[str, list[np.ndarray]] = {}
    ends: Counter[str] = Counter()
    with ZipStore(path, mode="w") as store:
        group = zarr.create_group(store)
        for index, (need, value) in enumerate(pieces.items()):
            kind, named, more = taken_apart(value)
            parts = {}
            for key, array in named.items():
                if array.nbytes >= SMALL:
                    _put(group, f"{index}/{key}", array)
                    continue
                dtype = array.dtype.name
                parts[key] = {"dtype": dtype, "start": ends[dtype], "shape": list(array.shape)}
                together.setdefault(dtype, []).append(array.reshape(-1))
                ends[dtype] += array.size
            described.append({"step": need.step, "piece": need.piece, "kind": kind, "parts": parts, **more})
        for dtype, arrays in together.items():
            _put(group, f"{TOGETHER}/{dtype}", np.concatenate(arrays))
    return described


def _put(group: zarr.Group, name: str, array: np.ndarray) -> None:
    # Weights do not compress, and time counts.
    group.create_array(name, data=np.ascontiguousarray(array), compressors=None)


def read(path: Path, described: Sequence[Mapping[str, Any]]) -> dict[Need, Any]:
    """Return the pieces in a file; their arrays are read-only. Whatever is wrong with it raises some exception."""
    pieces: dict[Need, Any] = {}
    with warnings.catch_warnings(), ZipStore(path, mode="r") as store:
        warnings.simplefilter("ignore")
        group = zarr.open_group(store, mode="r")
        joined = _arrays(group, TOGETHER)
        for index, one in enumerate(described):
            # Of what stays beside a shard there is no array here.
            named = _arrays(group, str(index))
            for key, part in one.get("parts", {}).items():
                named[key] = _part(joined[part["dtype"]], int(part["start"]), tuple(map(int, part["shape"])))
            pieces[Need(one["step"], one["piece"])] = put_together(one, named)
    return pieces


def _arrays(group: zarr.Group, name: str) -> dict[str, np.ndarray]:
    """Return the arrays of a group in a group; none if there is no such group."""
    here: Any = group.get(name, None)
    return {key: _array(array) for key, array in here.arrays()} if here is not None else {}


def _part(joined: np.ndarray, start: int, shape: tuple[int, ...]) -> np.ndarray:
    size = math.prod(shape)
    if min(start, *shape, 0) < 0 or start + size > joined.size:
        raise ValueError(f"{size} values from {start} on of {joined.size}")
    # A copy: a view would keep all the others with it.
    values = joined[start : start + size].reshape(shape).copy()
    values.setflags(write=False)
    return values


def _array(array: Any) -> np.ndarray:
    if array.nbytes > LARGEST or array.dtype.kind not in "fiu":
        raise ValueError(f"an array of {array.dtype}, {array.nbytes} bytes")
    values = np.asarray(array[...])
    values.setflags(write=False)
    return values


def taken_apart(value: Any) -> tuple[str, dict[str, np.ndarray], dict[str, Any]]:
    """Return a piece as (kind, arrays by name, what else there is to know)."""
    if isinstance(value, LayerState):
        return "layer", value.arrays(), {"steps": value.steps}
    if isinstance(value, HeadState):
        return "head", value.arrays(), {}
    if isinstance(value, Beside):
        return "beside", {}, {"name": value.name, "sha256": value.sha256}
    named: dict[str, np.ndarray] = {}
    for index, (rows, probabilities) in enumerate(value.values()):
        named |= {f"rows{index}": rows, f"probabilities{index}": probabilities}
    return "probabilities", named, {"visits": [[visit.epoch, visit.chunk, visit.again] for visit in value]}


def put_together(described: Mapping[str, Any], named: Mapping[str, np.ndarray]) -> Any:
    """Return the piece that `taken_apart` took apart."""
    if described["kind"] == "head":
        return HeadState(named["weights"], named["moment"])
    if described["kind"] == "layer":
        return LayerState.of(dict(named), int(described["steps"]))
    if described["kind"] == "beside":
        return Beside(str(described["name"]), str(described["sha256"]))
    visits = [Visit(*map(int, visit)) for visit in described["visits"]]
    return {visit: (named[f"rows{i}"], named[f"probabilities{i}"]) for i, visit in enumerate(visits)}
