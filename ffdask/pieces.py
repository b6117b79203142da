"""What a checkpoint holds, as arrays and a few figures: layer states, heads, the probabilities of rows' labels.

Many pieces are one Zarr store in a zip file; of each, JSON says what it is. Nothing in it is ever unpickled.
"""

from __future__ import annotations

import warnings
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
    with ZipStore(path, mode="w") as store:
        group = zarr.create_group(store)
        for index, (need, value) in enumerate(pieces.items()):
            kind, named, more = taken_apart(value)
            for key, array in named.items():
                # Weights do not compress, and time counts.
                group.create_array(f"{index}/{key}", data=np.ascontiguousarray(array), compressors=None)
            described.append({"step": need.step, "piece": need.piece, "kind": kind, **more})
    return described


def read(path: Path, described: Sequence[Mapping[str, Any]]) -> dict[Need, Any]:
    """Return the pieces in a file; their arrays are read-only. Whatever is wrong with it raises some exception."""
    pieces: dict[Need, Any] = {}
    with warnings.catch_warnings(), ZipStore(path, mode="r") as store:
        warnings.simplefilter("ignore")
        group = zarr.open_group(store, mode="r")
        for index, one in enumerate(described):
            # Of what stays beside a shard there is no array here.
            part: Any = group.get(str(index), None)
            named = {key: _array(array) for key, array in part.arrays()} if part is not None else {}
            pieces[Need(one["step"], one["piece"])] = put_together(one, named)
    return pieces


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
