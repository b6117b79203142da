"""A data set's Zarr store, read: what it records, whether that is true, and its arrays.

A store is a Zarr v3 group of four arrays with named dimensions, so that
``xarray.open_zarr(path, consolidated=False)`` reads it too. The group's attributes say where the
rows came from and carry the digests.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal, cast

import numpy as np
import zarr

from ffdask.datasets import idx
from ffdask.datasets.arrays import MOST_CLASSES, MOST_ON_DISK, ORDER, digest, whole_digest
from ffdask.datasets.cache import cache_folder
from ffdask.datasets.dataset import Dataset
from ffdask.datasets.on_disk import DiskRows, most_in_memory
from ffdask.errors import BadInput

FORMAT = 1

MOST_PACKED = 1000
"""Times that images of a large store may be smaller there than unpacked."""
_AXES = {1: ("feature",), 2: ("row", "column"), 3: ("row", "column", "channel")}

_load_lock = threading.Lock()
_hash_lock = threading.Lock()
_hashed: dict[tuple[str, int, int], str] = {}


def dimensions(name: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    """Return the names of the dimensions of an array of `shape`."""
    split = name.partition("_")[0]
    return (f"{split}_sample", *(_AXES[len(shape) - 1] if len(shape) > 1 else ()))


def is_store(path: str | os.PathLike[str]) -> bool:
    """Return whether `path` is a Zarr group of any version, ours or not."""
    return any(os.path.isfile(os.path.join(path, name)) for name in ("zarr.json", ".zgroup"))


def is_ours(path: str | os.PathLike[str]) -> bool:
    """Return whether a Zarr group says that ffdask wrote it, however damaged the rest may be."""
    try:
        attributes = zarr.open_group(os.path.abspath(path), mode="r", zarr_format=3, use_consolidated=False).attrs
        return "sha256_arrays" in attributes
    except Exception:
        # Zarr has many errors for metadata that it cannot read; who opens it next tells them.
        return False


def open_store(path: str | os.PathLike[str]) -> Dataset:
    """Return what the store at `path` records, after a check of its form; no row is read.

    Raises
    ------
    BadInput
        There is no store of ours.
    """
    return _open(path)[0]


def verified(path: str | os.PathLike[str]) -> Dataset:
    """Return what the store records, after its rows were really hashed, once in a process.

    Raises
    ------
    BadInput
        There is no store of ours, or its rows are not those that were written.
    """
    dataset, arrays = _open(path)
    about = os.stat(os.path.join(dataset.path, "zarr.json"))
    # The file's number and time: a store that was replaced by another one is hashed again.
    key = (dataset.path, about.st_ino, about.st_mtime_ns)
    with _hash_lock:
        if key not in _hashed:
            _hashed[key] = whole_digest(
                {name: digest(a.shape, _blocks(dataset.path, a), a.dtype) for name, a in arrays.items()}
            )
        real = _hashed[key]
    if real != dataset.sha256:
        raise BadInput(
            f"{dataset.path} was changed or damaged: its rows have SHA-256 {real}, its attributes say "
            f"{dataset.sha256}; delete it, and obtain the data set again"
        )
    return dataset


def load(path: str, split: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
    """Return images (rows, ...) and labels (rows,) of one split, read once in a process.

    Parameters
    ----------
    path
        The store, as in `Dataset.path`.
    split
        ``"train"`` or ``"test"``.

    Returns
    -------
    tuple of numpy.ndarray
        Images uint8 or float32, labels uint8; read-only, since everybody in the process shares them. Images of more
        bytes than `most_in_memory` are `DiskRows` instead, which have a shape, a dtype, and rows by slice or number.
    """
    if split not in ("train", "test"):
        raise BadInput(f"split is {split!r}; 'train' and 'test' are allowed")
    # A cache alone would let two threads that ask at once read twice.
    with _load_lock:
        return _load(os.path.abspath(path), split)


def forget() -> None:
    """Drop every array and digest that this process has kept."""
    with _load_lock:
        _load.cache_clear()
    with _hash_lock:
        _hashed.clear()


@lru_cache(maxsize=8)
def _load(path: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    dataset, arrays = _open(path)
    images, labels = _images(path, arrays[f"{split}_images"]), _whole(path, arrays[f"{split}_labels"])
    if int(labels.max()) >= dataset.classes:
        raise BadInput(
            f"{path} holds the {split} label {int(labels.max())}; 0 to {dataset.classes - 1} are allowed: "
            "delete it, and obtain the data set again"
        )
    labels.setflags(write=False)
    return images, labels


def _images(path: str, array: zarr.Array) -> Any:
    """Return images, in memory if that is to hold so many, else on the disk."""
    if array.nbytes > most_in_memory():
        return DiskRows(array.shape, array.dtype, _finite(path, array), cache_folder())
    images = np.empty(array.shape, dtype=array.dtype)
    start = 0
    for block in _finite(path, array):
        images[start : start + len(block)] = block
        start += len(block)
    images.setflags(write=False)
    return images


def _finite(path: str, array: zarr.Array) -> Iterator[np.ndarray]:
    for block in _blocks(path, array):
        if array.dtype.kind == "f" and not np.isfinite(block).all():
            raise BadInput(f"{path}: {array.basename} holds what is not a finite number; obtain the data set again")
        yield block


def _whole(path: str, array: zarr.Array) -> np.ndarray:
    return np.concatenate(list(_blocks(path, array)))


def _blocks(path: str, array: zarr.Array) -> Iterator[np.ndarray]:
    """Yield the rows of an array a chunk at a time."""
    step = array.chunks[0]
    for start in range(0, array.shape[0], step):
        try:
            yield np.asarray(array[start : start + step])
        except Exception as exc:
            # Each codec has its own errors for bytes that it cannot decode.
            raise BadInput(
                f"{path}: {array.basename} cannot be read at row {start} ({exc}); delete the store, and "
                "obtain the data set again"
            ) from exc


def _open(path: str | os.PathLike[str]) -> tuple[Dataset, dict[str, zarr.Array]]:
    path = os.path.abspath(path)
    remedy = "give a store that ffdask wrote, or the original files"
    try:
        group = zarr.open_group(path, mode="r", zarr_format=3, use_consolidated=False)
        members = {name: group[name] for name in ORDER if name in group}
    except Exception as exc:
        # Zarr has many errors for metadata that it cannot read.
        raise BadInput(f"{path} is not a Zarr v3 group ({str(exc) or type(exc).__name__}); {remedy}") from exc
    arrays = {name: member for name, member in members.items() if isinstance(member, zarr.Array)}
    missing = [name for name in ORDER if name not in arrays]
    if missing:
        raise BadInput(f"{path} is a Zarr store without the array {', '.join(missing)}; {remedy}")
    for name, array in arrays.items():
        _check_form(path, name, array, remedy)
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"].shape[0], arrays[f"{split}_labels"].shape[0]
        if images != labels:
            raise BadInput(f"{path} holds {images} {split} images but {labels} labels; {remedy}")
    train, test = arrays["train_images"].shape, arrays["test_images"].shape
    if train[1:] != test[1:]:
        raise BadInput(f"{path} holds train images of {train[1:]} but test images of {test[1:]}; {remedy}")
    if arrays["train_images"].dtype != arrays["test_images"].dtype:
        raise BadInput(f"{path} holds train and test images of different types; {remedy}")
    attributes = _attributes(path, dict(group.attrs), remedy)
    dataset = Dataset(
        name=attributes["name"],
        path=path,
        sha256=attributes["sha256"],
        train_rows=train[0],
        test_rows=test[0],
        shape=train[1:],
        classes=attributes["classes"],
        source=attributes["source"],
        dtype=str(arrays["train_images"].dtype),
    )
    return dataset, arrays


def _check_form(path: str, name: str, array: zarr.Array, remedy: str) -> None:
    images = name.endswith("images")
    types, ndims = (("uint8", "float32"), (2, 3, 4)) if images else (("uint8",), (1,))
    if str(array.dtype) not in types:
        raise BadInput(f"{path}: {name} has type {array.dtype}; {' or '.join(types)} is needed: {remedy}")
    if array.ndim not in ndims:
        needed = "2 to 4" if images else "1"
        raise BadInput(f"{path}: {name} has {array.ndim} dimensions; {needed} are needed: {remedy}")
    if array.size == 0:
        raise BadInput(f"{path}: {name} is empty (shape {array.shape}); {remedy}")
    check_size(array, f"{path}: {name}", labels=not images)


def check_size(array: zarr.Array, where: str, labels: bool) -> None:
    """Check what an array says of its size, before anything of that size is made.

    Raises
    ------
    BadInput
        If a chunk is too large, which is decoded whole, or labels are, which memory holds; or if images are larger than
        any disk, or so much larger than what is stored of them that they cannot be images.
    """
    itemsize, most = array.dtype.itemsize, idx.MOST_BYTES
    if max(math.prod(array.chunks), math.prod(array.shape) if labels else 0) * itemsize > most:
        raise BadInput(f"{where} says shape {array.shape} in chunks of {array.chunks}; at most {most} bytes are taken")
    if array.nbytes > MOST_ON_DISK:
        raise BadInput(f"{where} says shape {array.shape}; at most {MOST_ON_DISK} bytes are taken")
    if array.nbytes > most and array.nbytes_stored() < array.nbytes // MOST_PACKED:
        raise BadInput(f"{where} says shape {array.shape}, of which only {array.nbytes_stored()} bytes are stored")


def _attributes(path: str, given: dict[str, Any], remedy: str) -> dict[str, Any]:
    if given.get("format") != FORMAT:
        raise BadInput(f"{path} has layout format {given.get('format')!r}; this ffdask reads format {FORMAT}: {remedy}")
    for name, kind in (("name", str), ("source", str), ("sha256", str), ("classes", int)):
        if not isinstance(given.get(name), kind):
            raise BadInput(f"{path}: attribute {name} is {given.get(name)!r}, not {kind.__name__}; {remedy}")
    if not 2 <= cast(int, given["classes"]) <= MOST_CLASSES:
        raise BadInput(f"{path}: attribute classes is {given['classes']}; 2 to {MOST_CLASSES} are allowed: {remedy}")
    return given
