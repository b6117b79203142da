"""A data set at a path that a user names: which kind of file it is; and folders of four IDX files."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

from ffdask.datasets import idx
from ffdask.datasets.arrays import CLASSES, Arrays, checked
from ffdask.datasets.cifar import is_cifar, read_cifar
from ffdask.datasets.npz import read_npz
from ffdask.datasets.splits import HELD_OUT
from ffdask.datasets.zarr_foreign import read_group
from ffdask.datasets.zarr_store import is_store
from ffdask.errors import BadInput

IDX_NAMES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
KINDS = (
    "a folder with the four IDX files, CIFAR-10 in a folder or a .tar.gz, an .npz file, or a Zarr group, each with "
    "the arrays of a data set"
)


def _quiet(message: str) -> None:
    """Say nothing."""


def read_path(path: Path, say: Callable[[str], None] = _quiet) -> tuple[Arrays, str]:
    """Read the data set at `path`; return its arrays and a phrase that says where they came from."""
    alone = False
    if is_store(path):
        (arrays, alone), source = read_group(path), f"Zarr group {path.absolute()}"
    elif is_cifar(path):
        arrays, source = read_cifar(path), f"CIFAR-10 in {path.absolute()}"
    elif path.is_dir():
        arrays, source = read_folder(path), f"IDX files in {path.absolute()}"
    elif zipfile.is_zipfile(path):
        (arrays, alone), source = read_npz(path), f"file {path.absolute()}"
    else:
        raise BadInput(f"{path} is not a data set; allowed are {KINDS}: give one of these")
    if alone:
        say(f"{path} has no test set: {HELD_OUT}")
    return arrays, f"{source}; {HELD_OUT}" if alone else source


def read_folder(folder: Path, classes: int | None = None) -> Arrays:
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
    return checked(raw, {name: str(path) for name, path in paths.items()}, classes)


def read_known(folder: Path) -> Arrays:
    """Read the files of a known data set, IDX or CIFAR-10's batches, in a folder."""
    archives = sorted(folder.glob("cifar-10-*.tar.gz"))
    if archives:
        return read_cifar(archives[0])
    return read_cifar(folder) if is_cifar(folder) else read_folder(folder, CLASSES)


def _find(folder: Path, stem: str) -> Path | None:
    # Both spellings are about: train-images-idx3-ubyte and train-images.idx3-ubyte.
    dotted = stem.replace("-idx", ".idx")
    for name in (stem, dotted, f"{stem}.gz", f"{dotted}.gz"):
        if (folder / name).is_file():
            return folder / name
    return None
