"""A data set in an ``.npz``; nothing pickled is ever loaded."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ffdask.datasets import idx
from ffdask.datasets.arrays import ORDER, Arrays, checked
from ffdask.datasets.splits import held_out, names_in, whole
from ffdask.errors import BadInput


def read_npz(path: Path) -> tuple[Arrays, bool]:
    """Read the arrays of a data set from an ``.npz``; return whether a test set was held out, too."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")}
            names = names_in(members, path)
            where = {name: f"{path}: {key}" for name, key in names.items()}
            raw = {name: read_member(archive, f"{key}.npy", where[name]) for name, key in names.items()}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as exc:
        raise BadInput(f"{path} is a corrupt .npz file ({exc}); fetch the file again") from exc
    except OSError as exc:
        raise BadInput(f"{path} cannot be read ({exc.strerror or exc}); check its name and permissions") from exc
    alone = "images" in raw
    if alone:
        raw = _divided(raw, path)
    return checked({name: raw[name] for name in ORDER}, whole(where)), alone


def _divided(raw: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    rows = {name: len(array) if array.ndim else 0 for name, array in raw.items()}
    if len(set(rows.values())) > 1:
        raise BadInput(
            f"{path}: images holds {rows['images']} images and labels {rows['labels']} labels; there must be one label "
            "for each image: check that both belong together"
        )
    test = held_out(rows["images"], path)
    return {
        f"{split}_{name}": array[test if split == "test" else ~test]
        for split in ("train", "test")
        for name, array in raw.items()
    }


def read_member(archive: zipfile.ZipFile, member: str, where: str) -> np.ndarray:
    """Read one array of integers or floats, after its header was held against the size of the member."""
    try:
        with archive.open(member) as stream:
            version = np.lib.format.read_magic(stream)
            read_header = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read_header(stream)
            promised = math.prod(shape) * dtype.itemsize
            length = stream.tell() + promised
    except (ValueError, SyntaxError, tokenize.TokenError) as exc:
        raise BadInput(f"{where} is not a NumPy array ({exc}); fetch the file again") from exc
    if dtype.kind not in "iuf":
        what = "pickled objects" if dtype.hasobject else f"values of type {dtype}"
        raise BadInput(
            f"{where} holds {what}; only integers and floats are taken, pixels 0 to 255 or finite floats, and labels "
            "from 0: convert it"
        )
    size = archive.getinfo(member).file_size
    if promised > idx.MOST_BYTES:
        raise BadInput(
            f"{where} says shape {shape}, {promised} bytes; at most {idx.MOST_BYTES} are taken: give a smaller data set"
        )
    if size != length:
        raise BadInput(f"{where} holds {size} bytes where its header says {length}; fetch the file again")
    try:
        with archive.open(member) as stream:
            return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
    except ValueError as exc:
        raise BadInput(f"{where} is not a NumPy array ({exc}); fetch the file again") from exc
