"""Where converted stores lie on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pooch


def cache_folder() -> Path:
    """Return the folder of converted stores: FFDASK_CACHE where it is set, else the user's cache."""
    given = os.environ.get("FFDASK_CACHE")
    return Path(os.path.abspath(os.path.expanduser(given) if given else pooch.os_cache("ffdask")))


def place_of_known(name: str) -> Path:
    """Return where the store of a known data set lies."""
    return cache_folder() / f"{name}.zarr"


def place_of(sha256: str) -> Path:
    """Return where the store of the data with this digest lies."""
    # Half of the digest: enough to tell any two data sets apart, short enough to read in a list.
    return cache_folder() / f"data-{sha256[:32]}.zarr"


def folder_by_hand(name: str) -> Path:
    """Return the folder in which the files of a known data set are found when a user put them there."""
    return cache_folder() / name
