"""Images to predict, from a file: png, npy, npz or Zarr; uint8 in every case."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from PIL import Image

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
    if not path.exists():
        raise BadInput(f"images: given {file}, which does not exist; give {KINDS}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = _read(path)
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"images: given {file}, which cannot be read as {KINDS}: {error}") from None
    if array.dtype != np.uint8:
        raise BadInput(f"images: given {file} of {array.dtype}; give uint8, 0 for background to 255")
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
        _check_size(path, found.nbytes)
        return np.asarray(found[...])
    if path.suffix == ".npy":
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        _check_size(path, mapped.nbytes)
        return np.asarray(mapped)
    if path.suffix == ".npz":
        _check_size(path, sum(member.file_size for member in zipfile.ZipFile(path).infolist()))
        with np.load(path, allow_pickle=False) as archive:
            names = archive.files
            name = "x_test" if "x_test" in names else names[0] if len(names) == 1 else None
            if name is None:
                raise BadInput(f"images: given {path} with {', '.join(names)}; one array, or x_test, is wanted")
            return np.asarray(archive[name])
    with Image.open(path) as image:
        _check_size(path, image.width * image.height)
        return np.asarray(image.convert("L"), dtype=np.uint8)[None]


def _check_size(path: Path, size: int) -> None:
    if size > LARGEST:
        raise BadInput(f"images: given {path} of {size} bytes; at most {LARGEST} are read at once: split it")
