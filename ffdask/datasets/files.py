"""A data set in files that a user names: a folder with four IDX files, or Keras' ``.npz``."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ffdask.datasets import idx
from ffdask.datasets.arrays import ORDER, Arrays, checked
from ffdask.errors import BadInput

IDX_NAMES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
NPZ_KEYS = {"train_images": "x_train", "train_labels": "y_train", "test_images": "x_test", "test_labels": "y_test"}


def read_path(path: Path) -> tuple[Arrays, str]:
    """Read the data set at `path`; return its arrays and a phrase that says where they came from."""
    if path.is_dir():
        return read_folder(path), f"IDX files in {path.absolute()}"
    if zipfile.is_zipfile(path):
        return read_npz(path), f"file {path.absolute()}"
    raise BadInput(
        f"{path} is not a data set; allowed are a folder with the four IDX files, an .npz file as Keras "
        "ships it, and a Zarr store of ffdask: give one of these"
    )


def read_folder(folder: Path) -> Arrays:
    """Read the four IDX files in `folder`, under any of the names they are shared by."""
    found = {name: _find(folder, stem) for name, stem in IDX_NAMES.items()}
    missing = [IDX_NAMES[name] for name, path in found.items() if path is None]
    if missing:
        raise BadInput(
            f"{folder} has no {', '.join(missing)}; the four IDX files {', '.join(IDX_NAMES.values())} are "
            "needed, each plain or with .gz: put them there, or give another path"
        )
    paths = {name: path for name, path in found.items() if path is not None}
    raw = {name: idx.read(path, 3 if name.endswith("images") else 1) for name, path in paths.items()}
    return checked(raw, {name: str(path) for name, path in paths.items()})


def _find(folder: Path, stem: str) -> Path | None:
    # Both spellings are about: train-images-idx3-ubyte and train-images.idx3-ubyte.
    dotted = stem.replace("-idx", ".idx")
    for name in (stem, dotted, f"{stem}.gz", f"{dotted}.gz"):
        if (folder / name).is_file():
            return folder / name
    return None


def read_npz(path: Path) -> Arrays:
    """Read Keras' four arrays from an ``.npz``; nothing pickled is ever loaded."""
    where = {name: f"{path}: {key}" for name, key in NPZ_KEYS.items()}
    try:
        with zipfile.ZipFile(path) as archive:
            have = set(archive.namelist())
            missing = [key for key in NPZ_KEYS.values() if f"{key}.npy" not in have]
            if missing:
                raise BadInput(
                    f"{path} has no {', '.join(missing)}; the arrays {', '.join(NPZ_KEYS.values())} are "
                    "needed, as in Keras' mnist.npz: give another file"
                )
            raw = {name: read_member(archive, f"{NPZ_KEYS[name]}.npy", where[name]) for name in ORDER}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as exc:
        raise BadInput(f"{path} is a corrupt .npz file ({exc}); fetch the file again") from exc
    except OSError as exc:
        raise BadInput(f"{path} cannot be read ({exc.strerror or exc}); check its name and permissions") from exc
    return checked(raw, where)


def read_member(archive: zipfile.ZipFile, member: str, where: str) -> np.ndarray:
    """Read one array, after its header was held against the size of the member."""
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
    if dtype.kind not in "iu":
        what = "pickled objects" if dtype.hasobject else f"values of type {dtype}"
        raise BadInput(f"{where} holds {what}; only integers are taken, pixels 0 to 255 and labels from 0: convert it")
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
