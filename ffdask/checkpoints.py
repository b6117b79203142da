"""Checkpoints: a cut through the pipeline, from which a run goes on to the same bits; each is whole or absent.

A checkpoint holds whatever steps of later rounds may read of the rounds up to its own: layer states, heads, the
probabilities that negatives are drawn from. It is one Zarr store in a zip file, one file of records, and, written last,
a small manifest with the SHA-256 of both: what no manifest names does not exist. Nothing in it is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import ZipStore

from ffdask.calendar import Visit
from ffdask.errors import BadInput, told
from ffdask.head import HeadState
from ffdask.layer import LayerState
from ffdask.places import Place, place_at
from ffdask.schedules.steps import Need

Record = dict[str, Any]

KEPT = 2
"""Checkpoints that are kept: the newest, and the one before should it be damaged."""

LARGEST = 1 << 36
"""Bytes that an array of a checkpoint may have."""

LARGEST_MANIFEST = 1 << 26
"""Bytes that a manifest may have."""


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


@dataclass(frozen=True)
class Checkpoint:
    """A run after all steps of the rounds up to `round`.

    Attributes
    ----------
    round : int
    pieces : mapping of Need to value
        What later steps may read.
    records : mapping of str to dict
        Of every step of those rounds, by its name.
    """

    round: int
    pieces: Mapping[Need, Any]
    records: Mapping[str, Record]


def write(where: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint to a folder or a URL; older ones but the last are removed.

    Raises
    ------
    OSError
        If it cannot be written; the older ones are then untouched.
    """
    place = place_at(where)
    with place.making() as folder:
        manifest = _made(folder, checkpoint)
        for name in manifest["files"]:
            place.put(folder / name, name)
        draft = folder / f"{_name(checkpoint.round)}.json.tmp"
        draft.write_text(json.dumps(manifest))
        place.put(draft, draft.stem)
    _forget_old(place)


def _name(round_: int) -> str:
    return f"round{round_:07d}"


def _made(folder: Path, checkpoint: Checkpoint) -> dict[str, Any]:
    """Make a checkpoint's files; return its manifest."""
    name = _name(checkpoint.round)
    arrays, records = folder / f"{name}.zarr.zip", folder / f"{name}.jsonl"
    described = []
    with ZipStore(arrays, mode="w") as store:
        group = zarr.create_group(store)
        for index, (need, value) in enumerate(checkpoint.pieces.items()):
            kind, named, more = _taken_apart(value)
            for key, array in named.items():
                # Weights do not compress, and time counts.
                group.create_array(f"{index}/{key}", data=np.ascontiguousarray(array), compressors=None)
            described.append({"step": need.step, "piece": need.piece, "kind": kind, **more})
    with records.open("w") as file:
        file.writelines(json.dumps(record) + "\n" for record in checkpoint.records.values())
    return {
        "round": checkpoint.round,
        "pieces": described,
        "files": {path.name: _digest(path) for path in (arrays, records)},
    }


class Writer:
    """Writes a run's checkpoints on a thread of its own, so that no step waits for a disk.

    While one is being written the newest of those that came since waits; the others are left out. What cannot be
    written is said, and the checkpoint before stays: what is computed is not lost by it.

    Parameters
    ----------
    where : path or URL
    say : callable
        Takes a line for the user.
    """

    def __init__(self, where: str | Path, say: Callable[[str], None]) -> None:
        self.where, self.say = where, say
        self._thread = ThreadPoolExecutor(1, "ffdask-checkpoints")
        self._newest: deque[Checkpoint] = deque(maxlen=1)
        self._written: deque[int] = deque(maxlen=KEPT)

    @property
    def oldest(self) -> int:
        """Round of the oldest checkpoint that is kept, as far as this wrote them; -1 until then."""
        return self._written[0] if len(self._written) == KEPT else -1

    def write(self, checkpoint: Checkpoint) -> None:
        """Have a checkpoint written, in the place of one that still waits."""
        # Not with the call: a call that is left out would hold on to its checkpoint until its turn comes.
        self._newest.append(checkpoint)
        self._thread.submit(self._write_newest)

    def close(self) -> None:
        """Return when the last checkpoint has been written."""
        self._thread.shutdown()

    def _write_newest(self) -> None:
        if not self._newest:
            # The call before took it.
            return
        try:
            newest = self._newest.pop()
            write(self.where, newest)
            self._written.append(newest.round)
        except Exception as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else told(error)
            self.say(f"a checkpoint could not be written ({reason}); the run goes on without")


def read(where: str | Path, say: Callable[[str], None]) -> Checkpoint | None:
    """Return a run's newest whole checkpoint, None if there is none; a damaged one is named and passed over.

    Raises
    ------
    BadInput
        If a URL cannot be read.
    """
    place = place_at(where)
    try:
        names = place.names()
    except Exception as error:
        raise BadInput(f"checkpoints: {where} cannot be read: {told(error)}") from None
    for name in sorted(_manifests(names), reverse=True):
        try:
            return _read(place, name)
        except Exception as error:
            # Whatever is wrong with its bytes, the one before may still be whole.
            say(f"checkpoint {name} is damaged ({error or type(error).__name__}); looking for the one before")
    return None


def _manifests(names: Sequence[str]) -> list[str]:
    """Return whose manifests are among some files' names."""
    return [name.removesuffix(".json") for name in names if re.fullmatch(r"round\d{7,}\.json", name)]


def _read(place: Place, name: str) -> Checkpoint:
    with place.got(f"{name}.json") as path:
        given = _json(path)
    with place.got(f"{name}.zarr.zip") as arrays, place.got(f"{name}.jsonl") as records:
        for path in (arrays, records):
            if _digest(path) != given["files"][path.name]:
                raise ValueError(f"{path.name} is not as it was written")
        return _understood(given, arrays, records)


def _understood(given: Mapping[str, Any], arrays: Path, records: Path) -> Checkpoint:
    pieces: dict[Need, Any] = {}
    with warnings.catch_warnings(), ZipStore(arrays, mode="r") as store:
        warnings.simplefilter("ignore")
        group = zarr.open_group(store, mode="r")
        for index, described in enumerate(given["pieces"]):
            # Of what stays beside a shard there is no array here.
            part: Any = group.get(str(index), None)
            named = {key: _array(array) for key, array in part.arrays()} if part is not None else {}
            pieces[Need(described["step"], described["piece"])] = _put_together(described, named)
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    return Checkpoint(int(given["round"]), pieces, {record["name"]: record for record in lines})


def _array(array: Any) -> np.ndarray:
    if array.nbytes > LARGEST or array.dtype.kind not in "fiu":
        raise ValueError(f"an array of {array.dtype}, {array.nbytes} bytes")
    values = np.asarray(array[...])
    values.setflags(write=False)
    return values


def _taken_apart(value: Any) -> tuple[str, dict[str, np.ndarray], dict[str, Any]]:
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


def _put_together(described: Mapping[str, Any], named: dict[str, np.ndarray]) -> Any:
    """Return the piece that `_taken_apart` took apart."""
    if described["kind"] == "head":
        return HeadState(named["weights"], named["moment"])
    if described["kind"] == "layer":
        return LayerState.of(named, int(described["steps"]))
    if described["kind"] == "beside":
        return Beside(str(described["name"]), str(described["sha256"]))
    visits = [Visit(*map(int, visit)) for visit in described["visits"]]
    return {visit: (named[f"rows{i}"], named[f"probabilities{i}"]) for i, visit in enumerate(visits)}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json(path: Path) -> Any:
    if path.stat().st_size > LARGEST_MANIFEST:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes")
    return json.loads(path.read_text())


def _forget_old(place: Place) -> None:
    """Remove all checkpoints but the newest few, manifests first, and what no manifest names."""
    names = place.names()
    manifests = sorted(_manifests(names), reverse=True)
    for manifest in manifests[KEPT:]:
        place.remove(f"{manifest}.json")
    gone = {f"{manifest}.json" for manifest in manifests[KEPT:]}
    for name in names:
        if name.startswith("round") and name not in gone and name.partition(".")[0] not in manifests[:KEPT]:
            place.remove(name)
