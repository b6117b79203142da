"""Checkpoints: a cut through the pipeline, from which a run goes on to the same bits; each is whole or absent.

A checkpoint holds whatever steps of later rounds may read of the rounds up to its own: layer states, heads, the
probabilities that negatives are drawn from. It is one Zarr store in a zip file, one file of records, and, written last,
a small manifest with the SHA-256 of both: what no manifest names does not exist. Nothing in it is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import ZipStore

from ffdask.calendar import Visit
from ffdask.errors import told
from ffdask.head import HeadState
from ffdask.layer import LayerState
from ffdask.schedules.steps import Need

Record = dict[str, Any]

KEPT = 2
"""Checkpoints that are kept: the newest, and the one before should it be damaged."""

LARGEST = 1 << 36
"""Bytes that an array of a checkpoint may have."""


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


def write(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint into a run's folder; older ones but the last are removed.

    Raises
    ------
    OSError
        If it cannot be written; the older ones are then untouched.
    """
    folder.mkdir(exist_ok=True)
    name = f"round{checkpoint.round:07d}"
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
    manifest = {
        "round": checkpoint.round,
        "pieces": described,
        "files": {path.name: _digest(path) for path in (arrays, records)},
    }
    for path in (arrays, records):
        _to_disk(path)
    draft = folder / f"{name}.json.tmp"
    draft.write_text(json.dumps(manifest))
    _to_disk(draft)
    draft.replace(folder / f"{name}.json")
    _to_disk(folder)
    _forget_old(folder)


class Writer:
    """Writes a run's checkpoints on a thread of its own, so that no step waits for a disk.

    While one is being written the newest of those that came since waits; the others are left out. What cannot be
    written is said, and the checkpoint before stays: what is computed is not lost by it.

    Parameters
    ----------
    folder : Path
    say : callable
        Takes a line for the user.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self.say = folder, say
        self._thread = ThreadPoolExecutor(1, "ffdask-checkpoints")
        self._newest: deque[Checkpoint] = deque(maxlen=1)

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
            write(self.folder, self._newest.pop())
        except Exception as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else told(error)
            self.say(f"a checkpoint could not be written ({reason}); the run goes on without")


def read(folder: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """Return a run's newest whole checkpoint, None if there is none; a damaged one is named and passed over."""
    for manifest in sorted(folder.glob("round*.json"), reverse=True):
        try:
            return _read(manifest)
        except Exception as error:
            # Whatever is wrong with its bytes, the one before may still be whole.
            say(f"checkpoint {manifest.stem} is damaged ({error or type(error).__name__}); looking for the one before")
    return None


def _read(manifest: Path) -> Checkpoint:
    given = json.loads(manifest.read_text())
    name, folder = manifest.stem, manifest.parent
    arrays, records = folder / f"{name}.zarr.zip", folder / f"{name}.jsonl"
    for path in (arrays, records):
        if _digest(path) != given["files"][path.name]:
            raise ValueError(f"{path.name} is not as it was written")
    pieces: dict[Need, Any] = {}
    with warnings.catch_warnings(), ZipStore(arrays, mode="r") as store:
        warnings.simplefilter("ignore")
        group = zarr.open_group(store, mode="r")
        for index, described in enumerate(given["pieces"]):
            named = {key: _array(array) for key, array in group[str(index)].arrays()}  # type: ignore[union-attr]
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
    visits = [Visit(*map(int, visit)) for visit in described["visits"]]
    return {visit: (named[f"rows{i}"], named[f"probabilities{i}"]) for i, visit in enumerate(visits)}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _to_disk(path: Path) -> None:
    """Return when a file, or a folder's list of files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _forget_old(folder: Path) -> None:
    """Remove all checkpoints but the newest few, manifests first, and what no manifest names."""
    manifests = sorted(folder.glob("round*.json"), reverse=True)
    for manifest in manifests[KEPT:]:
        manifest.unlink()
    kept = {manifest.stem for manifest in manifests[:KEPT]}
    for path in folder.glob("round*"):
        if path.name.partition(".")[0] not in kept:
            path.unlink()
