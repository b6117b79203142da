"""CIFAR-10 as it is published: a folder or a ``.tar.gz`` of batches, Python pickles or binary records."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ffdask.datasets import unpickle
from ffdask.datasets.arrays import CLASSES, Arrays, checked
from ffdask.errors import BadInput

TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = "test_batch"
FOLDERS = ("cifar-10-batches-py", "cifar-10-batches-bin")
SHAPE = (3, 32, 32)
"""Of an image in the files, which hold one colour after the other."""

PIXELS = 3 * 32 * 32
RECORD = 1 + PIXELS

MOST_BATCH_BYTES = 64 * 2**20
"""Twice a batch of 10,000 images."""

MOST_BYTES = 512 * 2**20
MOST_MEMBERS = 64
"""Bounds on an unpacked archive; the published ones have 187 MB in 9 members."""


def is_cifar(path: Path) -> bool:
    """Return whether `path` is a folder with a batch of CIFAR-10, or an archive by its name."""
    if path.is_dir():
        return any((folder / name).is_file() for folder in _folders(path) for name in _names())
    return path.name.endswith((".tar.gz", ".tgz", ".tar"))


def read_cifar(path: Path) -> Arrays:
    """Read the batches in a folder or an archive.

    Raises
    ------
    BadInput
        A batch is missing, too large, or not what it should be.
    """
    batches = _from_folder(path) if path.is_dir() else _from_archive(path)
    for ending in ("", ".bin"):
        wanted = [name + ending for name in (*TRAIN, TEST)]
        if all(name in batches for name in wanted):
            break
    else:
        binary = any(name.endswith(".bin") for name in batches)
        missing = [name for name in _names() if name.endswith(".bin") == binary and name not in batches]
        raise BadInput(
            f"{path} has no {', '.join(missing)}; the six batches {TRAIN[0]} to {TRAIN[-1]} and {TEST} are needed, all "
            "pickles or all with .bin: put them there, or give another path"
        )
    read = _binary if ending else _pickled
    parts = [read(batches[name], f"{path}: {name}") for name in wanted]
    raw = {
        "train_images": np.concatenate([images for images, _ in parts[:-1]]),
        "train_labels": np.concatenate([labels for _, labels in parts[:-1]]),
        "test_images": parts[-1][0],
        "test_labels": parts[-1][1],
    }
    where = {name: f"{path}: {TEST if name.startswith('test') else 'data_batch_1 to 5'}" for name in raw}
    return checked(raw, where, CLASSES)


def _names() -> Iterable[str]:
    return (name + ending for ending in ("", ".bin") for name in (*TRAIN, TEST))


def _folders(path: Path) -> list[Path]:
    return [path, *(path / name for name in FOLDERS)]


def _from_folder(path: Path) -> dict[str, bytes]:
    batches = {}
    for folder in _folders(path):
        for name in _names():
            file = folder / name
            if name in batches or not file.is_file():
                continue
            try:
                _check_size(file, os.path.getsize(file))
                with file.open("rb") as stream:
                    batches[name] = stream.read(MOST_BATCH_BYTES + 1)
            except OSError as exc:
                raise BadInput(f"{file} cannot be read ({exc.strerror or exc}); check its permissions") from exc
    return batches


def _from_archive(path: Path) -> dict[str, bytes]:
    """Return the content of the batches in an archive, which is read from front to back and never extracted."""
    batches: dict[str, bytes] = {}
    try:
        with path.open("rb") as raw:
            gzipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            stream: Any = gzip.GzipFile(fileobj=raw) if gzipped else raw
            with tarfile.open(fileobj=_Bounded(stream, path), mode="r|") as archive:
                for number, member in enumerate(archive):
                    if number >= MOST_MEMBERS:
                        raise BadInput(f"{path} has more than {MOST_MEMBERS} members; give CIFAR-10 as it is published")
                    name = _batch(member.name)
                    if name is None:
                        continue
                    where = f"{path}: {member.name}"
                    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or name in batches:
                        raise BadInput(f"{where} is no plain file, or there twice; give CIFAR-10 as it is published")
                    _check_size(where, member.size)
                    file = archive.extractfile(member)
                    batches[name] = file.read() if file is not None else b""
    except BadInput:
        raise
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, OverflowError) as exc:
        raise BadInput(f"{path} is not a whole .tar.gz ({exc}); fetch the file again") from exc
    except OSError as exc:
        raise BadInput(f"{path} cannot be read ({exc.strerror or exc}); check its name and permissions") from exc
    return batches


def _batch(member: str) -> str | None:
    """Return the batch that a member is, if it lies where the published archives have it."""
    folder, _, name = member.removeprefix("./").rpartition("/")
    return name if folder in ("", *FOLDERS) and name in set(_names()) else None


def _check_size(where: object, size: int) -> None:
    if size > MOST_BATCH_BYTES:
        raise BadInput(f"{where} has {size} bytes; a batch has at most {MOST_BATCH_BYTES}: give CIFAR-10's own")


class _Bounded(io.RawIOBase):
    """A stream that refuses to go on for longer than any CIFAR-10: a small file may unpack to a very large one."""

    def __init__(self, stream: Any, path: Path) -> None:
        self.stream, self.path, self.left = stream, path, MOST_BYTES

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, `size` at most."""
        block: bytes = self.stream.read(min(size, self.left + 1) if size >= 0 else self.left + 1)
        self.left -= len(block)
        if self.left < 0:
            raise BadInput(f"{self.path} unpacks to more than {MOST_BYTES} bytes; give CIFAR-10 as it is published")
        return block


def _binary(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    if not content or len(content) % RECORD:
        raise BadInput(
            f"{where} has {len(content)} bytes; records of {RECORD} are needed, a label and {PIXELS} pixels each: "
            "fetch the file again"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    return _images(records[:, 1:]), records[:, 0]


def _pickled(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    batch = unpickle.load(content, where)
    data, labels = batch.get("data"), batch.get("labels")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != PIXELS:
        found = f"{data.dtype} of shape {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise BadInput(f"{where}: data is {found}; uint8 of shape (rows, {PIXELS}) is needed: fetch the file again")
    if type(labels) is list and all(type(label) is int and 0 <= label < CLASSES for label in labels):
        labels = np.array(labels, dtype=np.uint8)
    if not isinstance(labels, np.ndarray) or labels.shape != data.shape[:1]:
        raise BadInput(
            f"{where}: labels are not one integer from 0 to {CLASSES - 1} for each of the {len(data)} rows; fetch the "
            "file again"
        )
    return _images(data), labels


def _images(rows: np.ndarray) -> np.ndarray:
    """Return rows of one colour after the other as images (rows, 32, 32, 3)."""
    return rows.reshape(-1, *SHAPE).transpose(0, 2, 3, 1)
