"""Images to predict, from a file: png, npy, npz or Zarr; uint8 in every case."""

from __future__ import annotations

import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from PIL import Image

from ffdask.datasets import read_member
from ffdask.errors import BadInput

LARGEST = 1 << 32
"""Bytes of images that a file may hold: checked before they are read."""

KINDS = "a .png, .npy, .npz or Zarr of uint8 images"


def read_images(file: str, pixels: int) -> NDArray[np.uint8]:
    """Return the images of a file.

    Parameters
    ----------
    file : str
        A png (one image), npy (an array), npz (its one array, or ``x_test``), or Zarr (an array, or a group with
        ``test_images`` or ``images``).
    pixels : int
        Of an image, as the network takes it.

    Returns
    -------
    (n, height, width) or (n, pixels) uint8

    Raises
    ------
    BadInput
        If the file is missing, is none of these, is not uint8, or has images of another size.
    """
    path = Path(file)
    if not os.path.exists(path):
        raise BadInput(f"images: given {file}, which does not exist; give {KINDS}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = _read(path)
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"images: given {file}, which cannot be read as {KINDS}: {error}") from None
    _check_type(path, array.dtype)
    if array.ndim == 2 and array.shape[1] != pixels:
        array = array[None]
    if array.ndim not in (2, 3) or not len(array) or array[0].size != pixels:
        raise BadInput(f"images: given {file} of shape {array.shape}; the network takes images of {pixels} pixels")
    return array


def _read(path: Path) -> NDArray[Any]:
    if path.is_dir():
        opened: Any = zarr.open(str(path), mode="r")
        found = opened
        if isinstance(opened, zarr.Group):
            found = next((opened[name] for name in ("test_images", "images") if name in opened), None)
        if found is None:
            raise BadInput(f"images: given {path}, a Zarr group without test_images or images")
        # Before it is decoded: what is not plain bytes could be anything.
        _check_type(path, found.dtype)
        _check_size(path, found.nbytes)
        return np.asarray(found[...])
    if path.suffix == ".npy":
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        _check_size(path, mapped.nbytes)
        return np.asarray(mapped)
    if path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            name = "x_test" if "x_test" in names else names[0] if len(names) == 1 else None
            if name is None:
                held = ", ".join(names) or "nothing in it"
                raise BadInput(f"images: given {path} with {held}; one array, or x_test, is wanted")
            _check_size(path, archive.getinfo(f"{name}.npy").file_size)
            return read_member(archive, f"{name}.npy", f"images: given {path}, where {name}")
    with Image.open(path, formats=["PNG"]) as image:
        _check_size(path, image.width * image.height)
        if image.mode.startswith(("I", "F")):
            raise BadInput(f"images: given {path} with more than 8 bits a pixel; give uint8: save it with 8")
        return np.asarray(image.convert("L"), dtype=np.uint8)[None]


def _check_type(path: Path, dtype: np.dtype[Any]) -> None:
    if dtype != np.uint8:
        raise BadInput(f"images: given {path} of {dtype}; give uint8, 0 for background to 255")


def _check_size(path: Path, size: int) -> None:
    if size > LARGEST:
        raise BadInput(f"images: given {path} of {size} bytes; at most {LARGEST} are read at once: split it")
