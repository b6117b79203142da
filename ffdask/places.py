"""Where checkpoints are kept: a folder, or any URL that fsspec knows. What was put is there, whole, or is not.

A disk is told to write each file, and then the folder's list of them. An object store has no rename: an object appears
when all of it has come.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from ffdask.errors import BadInput, told


class Place(Protocol):
    """Files by name; none is ever changed, only put and removed."""

    def names(self) -> list[str]:
        """Return the names of all files; none where nothing was ever put."""

    def making(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Return a path of this machine's to make a file at, which is put when that is left.

        Nothing is put, and nothing stays, if an exception leaves it. Raises OSError, or whatever the store raises, if
        the file cannot be kept.
        """

    def got(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Return a file as one of this machine's."""

    def remove(self, name: str) -> None:
        """Remove a file."""


class Folder:
    """A folder on a disk.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        """Return the names of all files."""
        return sorted(path.name for path in self.path.glob("*"))

    @contextlib.contextmanager
    def making(self, name: str) -> Iterator[Path]:
        """Return a path beside the file's: what bears its name is whole, and on the disk, with the folder's list."""
        self.path.mkdir(exist_ok=True)
        draft = self.path / f"{name}.tmp"
        try:
            yield draft
            _to_disk(draft)
            draft.replace(self.path / name)
            _to_disk(self.path)
        except BaseException:
            # A disk that is full is not to be kept full by what was begun.
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise

    @contextlib.contextmanager
    def got(self, name: str) -> Iterator[Path]:
        """Return the file itself."""
        yield self.path / name

    def remove(self, name: str) -> None:
        """Remove a file."""
        (self.path / name).unlink()


class Store:
    """A URL that fsspec knows.

    Parameters
    ----------
    url : str
        Such as ``s3://bucket/run``.

    Raises
    ------
    BadInput
        If its kind is unknown, or what it takes is not installed.
    """

    def __init__(self, url: str) -> None:
        # Imported here: most runs keep their checkpoints in their folder.
        import fsspec

        try:
            found = fsspec.core.url_to_fs(url)
        except Exception as error:
            raise BadInput(
                f"run.checkpoints (--checkpoints): given {url}, for which there is no file system ({told(error)}); "
                "install what fsspec needs for it (s3fs for s3://, gcsfs for gs://), or give a folder"
            ) from None
        self.files: Any = found[0]
        self.root = str(found[1]).rstrip("/")

    def names(self) -> list[str]:
        """Return the names of all files."""
        self.files.invalidate_cache()
        try:
            return sorted(path.rpartition("/")[2] for path in self.files.ls(self.root, detail=False))
        except FileNotFoundError:
            return []

    @contextlib.contextmanager
    def making(self, name: str) -> Iterator[Path]:
        """Return a path among temporary files; what is made there is sent."""
        with tempfile.TemporaryDirectory(prefix="ffdask-checkpoint-") as folder:
            made = Path(folder) / name
            yield made
            self.files.makedirs(self.root, exist_ok=True)
            self.files.put_file(str(made), f"{self.root}/{name}")

    @contextlib.contextmanager
    def got(self, name: str) -> Iterator[Path]:
        """Return a copy among temporary files."""
        with tempfile.TemporaryDirectory(prefix="ffdask-checkpoint-") as folder:
            self.files.get_file(f"{self.root}/{name}", str(Path(folder) / name))
            yield Path(folder) / name

    def remove(self, name: str) -> None:
        """Remove a file."""
        self.files.rm_file(f"{self.root}/{name}")


def place_at(where: str | Path) -> Place:
    """Return the place at a path or a URL.

    Raises
    ------
    BadInput
        As `Store`.
    """
    return Store(where) if isinstance(where, str) and "://" in where else Folder(Path(where))


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _to_disk(path: Path) -> None:
    """Return when a file, or a folder's list of files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
