"""Probabilities that a federated node keeps for a checkpoint: in files beside its shard, which they never leave.

The checkpoint has a file's name and SHA-256 only. A worker that takes the node over must be able to read both the shard
and what is beside it: where shards are dealt, from rows that each worker may have in a cache of its own, not all do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ffdask import datasets
from ffdask.datasets import Dataset
from ffdask.errors import StepFailed, reason
from ffdask.job import Job
from ffdask.pieces import Beside, put_together, taken_apart
from ffdask.places import Folder, sha256_of
from ffdask.shards import ShardedCalendar
from ffdask.stay import Kept

LARGEST = 1 << 34
"""Bytes that such a file may have."""


def folder_of(job: Job, dataset: Dataset, node: int) -> Path:
    """Return the folder beside a node's shard; of shards that are dealt, beside the rows they are dealt from."""
    calendar = job.calendar
    held = isinstance(calendar, ShardedCalendar) and calendar.origin.held
    path = calendar.origin.path(node) if isinstance(calendar, ShardedCalendar) and held else datasets.locate(dataset)
    return Path(f"{path}.ffdask")


def keep(job: Job, dataset: Dataset, node: int, outcome: dict[str, Any], piece: str, name: str) -> Beside | str:
    """Write a piece of an outcome beside the node's shard; return what a checkpoint names, or why it could not be."""
    value = outcome[piece]
    _, arrays, more = taken_apart(value.value if isinstance(value, Kept) else value)
    visits = np.array(more["visits"], np.int64).reshape(-1, 3)
    try:
        with Folder(folder_of(job, dataset, node)).making(f"{name}.npz") as path:
            with path.open("wb") as file:
                np.savez(file, allow_pickle=False, visits=visits, **arrays)
            return Beside(f"{name}.npz", sha256_of(path))
    except OSError as error:
        return f"{error.filename}: {reason(error)}" if error.filename else reason(error)


def lacking(job: Job, dataset: Dataset, kept: Mapping[int, Sequence[str]]) -> dict[int, str]:
    """Return the nodes of which a file that was kept is not here, each with such a file's path.

    Parameters
    ----------
    job, dataset : Job, Dataset
    kept : mapping of int to sequence of str
        Node -> the names of its files.
    """
    paths = {node: [folder_of(job, dataset, node) / Path(name).name for name in names] for node, names in kept.items()}
    gone = {node: next((path for path in here if not path.is_file()), None) for node, here in paths.items()}
    return {node: str(path) for node, path in gone.items() if path is not None}


def fetch(job: Job, dataset: Dataset, node: int, piece: str, kept: Beside, what: str) -> dict[str, Any]:
    """Return what was kept, as an outcome: a task without ancestors.

    Raises
    ------
    StepFailed
        If the file is not beside the node's shard on this worker, or is not as it was written.
    """
    path = folder_of(job, dataset, node) / Path(kept.name).name
    try:
        if path.stat().st_size > LARGEST or sha256_of(path) != kept.sha256:
            raise StepFailed(f"{what}: {path} is not as the checkpoint knows it; put it back, or start again")
        with np.load(path, allow_pickle=False) as arrays:
            seen = put_together({"kind": "probabilities", "visits": arrays["visits"]}, arrays)
    except (OSError, ValueError, KeyError) as error:
        raise StepFailed(
            f"{what}: {path} cannot be read ({reason(error)}); the checkpoint needs it beside the shard of "
            f"node {node}: put it there, or start again"
        ) from None
    for rows, probabilities in seen.values():
        rows.setflags(write=False)
        probabilities.setflags(write=False)
    return {piece: Kept(seen, what)}


def sweep(job: Job, dataset: Dataset, node: int, names: Sequence[str]) -> None:
    """Remove files beside a node's shard that no checkpoint names any more, by their names or patterns."""
    folder = folder_of(job, dataset, node)
    for path in [path for name in names for path in folder.glob(name)]:
        path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
