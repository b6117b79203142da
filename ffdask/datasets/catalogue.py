"""Finding a data set: by its name or path on the client, by its digest on a worker."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ffdask.datasets.arrays import whole_digest
from ffdask.datasets.cache import cache_folder, place_of, place_of_known
from ffdask.datasets.dataset import KNOWN, Dataset
from ffdask.datasets.files import KINDS, read_path
from ffdask.datasets.sources import gather
from ffdask.datasets.zarr_store import is_ours, is_store, open_store, verified
from ffdask.datasets.zarr_write import remove, sweep, write_once, write_store
from ffdask.errors import BadInput, nearest

_log = logging.getLogger(__name__)
# Threads of one process that ask at once must not fetch twice.
_obtain_lock = threading.RLock()


def _quiet(message: str) -> None:
    """Say nothing."""


def obtain(dataset: str, say: Callable[[str], None] = _quiet) -> Dataset:
    """Get a data set onto this machine as a checked Zarr store.

    Parameters
    ----------
    dataset
        A known name; or the path of a folder with four IDX files, of CIFAR-10 in a folder or an archive, of an
        ``.npz``, of a Zarr store of ours, or of a Zarr group of others with the arrays of a data set.
    say
        Is told each slow step, one line each.

    Returns
    -------
    Dataset
        Its store; files at a path are converted into the cache, once.

    Raises
    ------
    BadInput
        There is no such data set, no source has it, or its files are bad.
    """
    with _obtain_lock:
        sweep(cache_folder())
        if dataset in KNOWN:
            return _obtain_known(dataset, say)
        path = _existing(dataset)
        if is_store(path) and is_ours(path):
            return replace(verified(path), name=dataset)
        arrays, source = read_path(path, say)
        sha256 = whole_digest(arrays.digests())
        place = place_of(sha256)
        if os.path.lexists(place):
            _remove_if_damaged(place, sha256, say)
        if not os.path.lexists(place):
            say(f"converting {dataset} into {place}")
            write_once(dataset, source, arrays)
        return replace(verified(place), name=dataset, source=source)


def describe(dataset: str) -> Dataset | None:
    """Return a data set as far as it is on this machine; nothing is downloaded or written.

    Parameters
    ----------
    dataset
        As for `obtain`.

    Returns
    -------
    Dataset or None
        None for a known name that is not here yet. For files at a path, `Dataset.path` is where
        `obtain` puts their store, whether or not it is there already.

    Raises
    ------
    BadInput
        There is no such data set, or its files are bad.
    """
    if dataset in KNOWN:
        try:
            found = open_store(place_of_known(dataset))
        except BadInput:
            # Not there, or damaged, and then `obtain` fetches it again.
            return None
        return found if KNOWN[dataset].fits(found) else None
    path = _existing(dataset)
    if is_store(path) and is_ours(path):
        return replace(open_store(path), name=dataset)
    arrays, source = read_path(path)
    sha256 = whole_digest(arrays.digests())
    return Dataset(
        name=dataset,
        path=str(place_of(sha256)),
        sha256=sha256,
        train_rows=len(arrays.train_labels),
        test_rows=len(arrays.test_labels),
        shape=arrays.train_images.shape[1:],
        classes=arrays.classes,
        source=source,
        dtype=str(arrays.train_images.dtype),
    )


def locate(dataset: Dataset, fetch: bool = True) -> str | None:
    """Find the same data on this machine, which may have another working folder and cache.

    Parameters
    ----------
    dataset
        What `obtain` returned, perhaps on another machine.
    fetch
        Whether a known name that is not here is obtained.

    Returns
    -------
    str or None
        The path of a store whose rows really have the digest of `dataset`: at its own path, in
        this machine's cache, or, for a known name, obtained here. None when there is none.
    """
    places = [Path(dataset.path), place_of(dataset.sha256), *map(place_of_known, KNOWN)]
    for place in places:
        if _holds(place, dataset.sha256):
            return str(place)
    if fetch and dataset.name in KNOWN:
        try:
            found = obtain(dataset.name, _log.info)
        except BadInput as exc:
            _log.info("%s", exc)
            return None
        if found.sha256 == dataset.sha256:
            return found.path
    return None


def kept() -> list[Dataset]:
    """Return what this machine's cache records of the data sets in it, by name; no row is read."""
    found = []
    for place in sorted(cache_folder().glob("*.zarr")):
        with contextlib.suppress(BadInput):
            found.append(open_store(place))
    return sorted(found, key=lambda dataset: dataset.name)


def _obtain_known(name: str, say: Callable[[str], None]) -> Dataset:
    place = place_of_known(name)
    if os.path.lexists(place):
        _remove_if_damaged(place, KNOWN[name].sha256 or _recorded(name), say)
    if not os.path.lexists(place):
        say(f"{name} is not in the cache ({place})")
        _check_writable(place.parent)
        arrays, source = gather(name, say)
        say(f"writing {place}")
        return write_store(place, name, source, *arrays, classes=KNOWN[name].classes)
    return open_store(place)


def _recorded(name: str) -> str:
    """Return the digest that a store records of a known data set of which none is published; empty for another."""
    try:
        found = open_store(place_of_known(name))
    except BadInput:
        return ""
    return found.sha256 if KNOWN[name].fits(found) else ""


def _check_writable(folder: Path) -> None:
    """Refuse a cache that cannot be written before anything is downloaded for it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise BadInput(
            f"the cache {folder} cannot be made ({exc.strerror or exc}); set FFDASK_CACHE to a folder "
            "that can be written"
        ) from exc
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BadInput(f"the cache {folder} cannot be written; set FFDASK_CACHE to a folder that can be written")


def _remove_if_damaged(place: Path, sha256: str, say: Callable[[str], None]) -> None:
    """Clear a place in the cache whose store does not hold what its name says."""
    if _holds(place, sha256):
        return
    say(f"{place} is damaged; it is made anew")
    try:
        remove(place)
    except OSError as exc:
        raise BadInput(f"{place} is damaged and cannot be removed ({exc.strerror or exc}); delete it by hand") from exc


def _holds(place: Path, sha256: str) -> bool:
    try:
        # The record first: rows are hashed only where they could be the right ones.
        return open_store(place).sha256 == sha256 and verified(place).sha256 == sha256
    except (BadInput, OSError):
        return False


def _existing(dataset: str) -> Path:
    # A name too long for the system, or the home of nobody, is no path that exists either.
    with contextlib.suppress(OSError, RuntimeError):
        path = Path(dataset).expanduser()
        if dataset and path.exists():
            return path
    raise BadInput(
        f"data set {dataset!r} is neither a known name nor a path that exists{nearest(dataset, KNOWN)}; "
        f"known: {', '.join(sorted(KNOWN))}. Give one of these, or the path of {KINDS}"
    )
