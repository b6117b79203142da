"""A data set's Zarr store, written: beside its place under another name, then renamed.

So a store is either whole or not there, whoever is killed and however many write at once.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import zarr

from ffdask.datasets.arrays import CLASSES, ORDER, Arrays, checked, whole_digest
from ffdask.datasets.dataset import Dataset
from ffdask.datasets.zarr_store import DIMENSIONS, FORMAT, verified
from ffdask.errors import BadInput

# Large enough that a store has few files, small enough that a block costs little memory.
CHUNK_BYTES = 4 * 2**20
# No conversion takes a day; what is older is a leftover, even where its process cannot be looked up.
STALE_SECONDS = 24 * 3600.0

_HOST = re.sub(r"[^A-Za-z0-9_]", "_", socket.gethostname())
_PARTIAL = re.compile(r"\..*\.ffdask-partial-(?P<host>[A-Za-z0-9_]*)-(?P<pid>\d+)-[0-9a-f]+")
_being_written: set[str] = set()


def write_store(
    path: str | os.PathLike[str],
    name: str,
    source: str,
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    classes: int = CLASSES,
) -> Dataset:
    """Write a data set as a Zarr store, all or nothing.

    Parameters
    ----------
    path
        Where the store will lie. A store of the same content there, perhaps by another process
        just now, is kept and used.
    name, source
        What the data set is called, and where its rows came from.
    train_images, train_labels, test_images, test_labels
        The four arrays, of any integer type: pixels 0 to 255, labels below `classes`.
    classes
        The number of classes.

    Returns
    -------
    Dataset
        The record of the store at `path`.

    Raises
    ------
    BadInput
        The arrays are not a data set, the place cannot be written, or something else is there.
    """
    raw = dict(zip(ORDER, (train_images, train_labels, test_images, test_labels), strict=True))
    arrays = checked({key: np.asarray(value) for key, value in raw.items()}, {key: key for key in ORDER}, classes)
    digests = arrays.digests()
    place = Path(os.path.abspath(path))
    sha256 = whole_digest(digests)
    if not os.path.lexists(place):
        attributes = {
            "name": name,
            "source": source,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "format": FORMAT,
            "classes": classes,
            "sha256": sha256,
            "sha256_arrays": digests,
        }
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            sweep(place.parent)
            _write_and_rename(place, arrays, attributes)
        except OSError as exc:
            raise BadInput(
                f"{place} cannot be written ({exc.strerror or exc}); a folder with room in it is needed: "
                "free some, or set FFDASK_CACHE to another folder"
            ) from exc
    written = verified(place)
    if written.sha256 != sha256:
        raise BadInput(
            f"{place} already holds other data (SHA-256 {written.sha256}, not {sha256}); "
            "give another path, or delete it"
        )
    return written


def remove(place: Path) -> None:
    """Remove a store; it is out of its place at once, and swept later should this be killed."""
    partial = _partial_of(place)
    _being_written.add(partial.name)
    try:
        os.rename(place, partial)
        shutil.rmtree(partial)
    except FileNotFoundError:
        # Somebody else removed it first.
        pass
    finally:
        _being_written.discard(partial.name)


def sweep(folder: Path) -> None:
    """Remove what killed conversions left in `folder`; those that still run are let be."""
    try:
        leftovers = [entry for entry in folder.iterdir() if _is_leftover(entry)]
    except OSError:
        # No such folder, or it may not be listed: nothing that could be swept.
        return
    for entry in leftovers:
        shutil.rmtree(entry, ignore_errors=True)


def _write_and_rename(place: Path, arrays: Arrays, attributes: dict[str, object]) -> None:
    partial = _partial_of(place)
    _being_written.add(partial.name)
    try:
        group = zarr.open_group(str(partial), mode="w-", zarr_format=3, attributes=attributes)  # type: ignore[arg-type]
        for name, array in arrays._asdict().items():
            rows = max(1, CHUNK_BYTES // (array[0].nbytes or 1))
            group.create_array(
                name,
                data=array,
                chunks=(min(rows, len(array)), *array.shape[1:]),
                dimension_names=DIMENSIONS[name],
            )
        try:
            os.rename(partial, place)
        except OSError:
            # A folder is not renamed over a filled one: somebody else finished first, and the
            # caller looks at what is there.
            if not os.path.lexists(place):
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        _being_written.discard(partial.name)


def _partial_of(place: Path) -> Path:
    return place.with_name(f".{place.name}.ffdask-partial-{_HOST}-{os.getpid()}-{secrets.token_hex(4)}")


def _is_leftover(entry: Path) -> bool:
    match = _PARTIAL.fullmatch(entry.name)
    if match is None:
        return False
    try:
        if time.time() - entry.stat().st_mtime > STALE_SECONDS:
            return True
    except OSError:
        return False
    # A folder may be shared by machines, and a process can be looked up only on its own.
    if match["host"] != _HOST:
        return False
    pid = int(match["pid"])
    if pid == os.getpid():
        # In containers every process may have the same number; this one knows what it writes.
        return entry.name not in _being_written
    return not _lives(pid)


def _lives(pid: int) -> bool:
    if os.name == "nt":
        # There, os.kill would end the process instead of asking after it; age has to do.
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
