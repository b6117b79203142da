"""A data set's Zarr store, written: beside its place under another name, then renamed.

So a store is either whole or not there, whoever is killed and however many write at once.
"""

from __future__ import annotations

import math
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ffdask.datasets.arrays import ORDER, Arrays, checked, digest, whole_digest
from ffdask.datasets.cache import cache_folder, place_of
from ffdask.datasets.dataset import Dataset
from ffdask.datasets.rows import Rows, blocks_of
from ffdask.datasets.zarr_store import FORMAT, dimensions, verified
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
    train_images: Any,
    train_labels: Any,
    test_images: Any,
    test_labels: Any,
    classes: int | None = None,
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
        The four arrays, as `ffdask.datasets.arrays.checked` takes them.
    classes
        The number of classes; left out: one more than the largest label.

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
    arrays = checked({key: as_array(value) for key, value in raw.items()}, {key: key for key in ORDER}, classes)
    place = Path(os.path.abspath(path))
    if os.path.lexists(place):
        sha256 = whole_digest(arrays.digests())
    else:
        place, sha256 = _write(place.parent, lambda _: place, arrays, name, source, classes)
    written = verified(place)
    if written.sha256 != sha256:
        raise BadInput(
            f"{place} already holds other data (SHA-256 {written.sha256}, not {sha256}); "
            "give another path, or delete it"
        )
    return written


def write_once(name: str, source: str, arrays: Arrays) -> Dataset:
    """Write a data set into the cache, under its digest, which is known when every row was read, and read once."""
    place, _ = _write(cache_folder(), place_of, arrays, name, source, None)
    return verified(place)


def as_array(given: Any) -> Any:
    """Return what has a shape and a type as it is, and anything else as NumPy's."""
    return given if hasattr(given, "shape") and hasattr(given, "dtype") else np.asarray(given)


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


def _write(
    folder: Path,
    place_of: Callable[[str], Path],
    arrays: Arrays,
    name: str,
    source: str,
    classes: int | None,
) -> tuple[Path, str]:
    """Write a store in `folder`; return its place, which may follow from its digest, and the digest."""
    partial = _partial_of(folder / "data")
    _being_written.add(partial.name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        group = zarr.open_group(str(partial), mode="w-", zarr_format=3)
        digests = {key: _write_array(group, key, array) for key, array in arrays._asdict().items()}
        sha256 = whole_digest(digests)
        attributes: dict[str, Any] = {
            "name": name,
            "source": source,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "format": FORMAT,
            "classes": classes or arrays.classes,
            "sha256": sha256,
            "sha256_arrays": digests,
        }
        group.attrs.update(attributes)
        place = place_of(sha256)
        try:
            os.rename(partial, place)
        except OSError:
            # A folder is not renamed over a filled one: somebody else finished first, and the
            # caller looks at what is there.
            if not os.path.lexists(place):
                raise
    except OSError as exc:
        raise BadInput(
            f"a store cannot be written in {folder} ({exc.strerror or exc}); a folder with room in it is needed: "
            "free some, or set FFDASK_CACHE to another folder"
        ) from exc
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        _being_written.discard(partial.name)
    return place, sha256


def _write_array(group: zarr.Group, name: str, rows: np.ndarray | Rows) -> str:
    """Write one array block by block; return the digest of what passed."""
    shape, dtype = rows.shape, rows.dtype
    step = min(shape[0], max(1, CHUNK_BYTES // (math.prod(shape[1:]) * dtype.itemsize)))
    array = group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=(step, *shape[1:]),
        dimension_names=dimensions(name, shape),
    )
    written = 0

    def passing() -> Iterator[np.ndarray]:
        nonlocal written
        for block in blocks_of(rows):
            array[written : written + len(block)] = block
            written += len(block)
            yield block

    return digest(shape, passing(), dtype)


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
