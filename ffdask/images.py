"""Images to predict, from a file: png, npy, npz or Zarr; of the type that the run learned from."""

from __future__ import annotations

import io
import math
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from PIL import Image

from ffdask.datasets import check_codecs, read_member
from ffdask.errors import BadInput

LARGEST = 1 << 32
"""Bytes of images that a file may hold: checked before they are read."""

KINDS = "a .png, .npy, .npz or Zarr of images"

_MODES = {3: "RGB", 4: "RGBA"}


def read_images(file: str, shape: tuple[int, ...], dtype: str = "uint8") -> NDArray[Any]:
    """Return the images of a file.

    Parameters
    ----------
    file : str
        A png (one image), npy (an array), npz (its one array, or ``x_test``), or Zarr (an array, or a group with
        ``test_images`` or ``images``).
    shape : tuple of int
        Of an image, as the network takes it: (height, width), (height, width, channels) or (features,).
    dtype : str
        ``"uint8"``, or ``"float32"`` for a network that learned from floats; it takes floats of every size.

    Returns
    -------
    (n, *shape) or (n, inputs) of `dtype`

    Raises
    ------
    BadInput
        If the file is missing, is none of these, is of another type, or has images of another size.
    """
    path = Path(file)
    if not os.path.exists(path):
        raise BadInput(f"images: given {file}, which does not exist; give {KINDS}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = _read(path, shape, dtype)
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"images: given {file}, which cannot be read as {KINDS}: {error}") from None
    _check_type(path, array.dtype, dtype)
    pixels = math.prod(shape)
    # Rows and one image look alike where there are as many rows as pixels; the rows win.
    if array.shape == shape and array[0].size != pixels:
        array = array[None]
    if not 2 <= array.ndim <= 4 or not len(array) or array[0].size != pixels:
        raise BadInput(f"images: given {file} of shape {array.shape}; the network takes images of {pixels} pixels")
    if dtype == "uint8":
        return array
    with np.errstate(over="ignore"):
        floats = array.astype(np.float32)
    if not np.isfinite(floats).all():
        raise BadInput(f"images: given {file}, with values that are not finite float32; correct it")
    return floats


def as_images(images: Any, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Return an array of images (n, *shape) or (n, inputs), such as a network that learned from them takes.

    Parameters
    ----------
    images : array
        Integers 0 to 255, or for a network that learned from floats any finite numbers; one image alone is taken too.
    shape, dtype
        As for `read_images`.

    Raises
    ------
    BadInput
        If they are of another shape or type.
    """
    array, inputs = np.asarray(images), math.prod(shape)
    array = array[None] if array.shape in (shape, (inputs,)) else array
    if array.ndim < 2 or array.shape[1:] not in (shape, (inputs,)):
        sizes = " x ".join(map(str, shape))
        raise BadInput(f"images: given an array of shape {np.shape(images)}; the run learned from n of {sizes}")
    if dtype == "float32":
        if not np.issubdtype(array.dtype, np.number) or not np.isfinite(array).all():
            raise BadInput("images: given values that are no finite numbers; the run learned from floats")
        return array.astype(np.float32)
    if array.dtype != np.uint8 and (
        not np.issubdtype(array.dtype, np.integer) or (array.size and (array.min() < 0 or array.max() > 255))
    ):
        raise BadInput(f"images: given {array.dtype}; the run learned from integers 0 to 255: give such")
    return array.astype(np.uint8)


def _read(path: Path, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    if path.is_dir():
        opened: Any = zarr.open(str(path), mode="r")
        found = opened
        if isinstance(opened, zarr.Group):
            found = next((opened[name] for name in ("test_images", "images") if name in opened), None)
        if found is None:
            raise BadInput(f"images: given {path}, a Zarr group without test_images or images")
        # Before it is decoded: what is not plain numbers could be anything, and so could what another codec makes.
        _check_type(path, found.dtype, dtype)
        check_codecs(found, f"images: given {path}, which")
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
    _check_size(path, path.stat().st_size)
    # From memory, which gives what there is: of a file, Pillow would make room for what a part says is its length.
    with Image.open(io.BytesIO(path.read_bytes()), formats=["PNG"]) as image:
        layout = (1, image.height, image.width, *shape[2:])
        # Before it is decoded, for which a file of a few bytes could ask for gigabytes.
        if math.prod(layout) != math.prod(shape):
            raise BadInput(
                f"images: given {path} of shape {layout}; the network takes images of {math.prod(shape)} pixels"
            )
        if image.mode.startswith(("I", "F")):
            raise BadInput(f"images: given {path} with more than 8 bits a pixel; give uint8: save it with 8")
        mode = _MODES.get(shape[2], "L") if len(shape) == 3 else "L"
        return np.asarray(image.convert(mode), dtype=np.uint8).reshape(layout)


def _check_type(path: Path, found: np.dtype[Any], wanted: str) -> None:
    if wanted == "uint8" and found != np.uint8:
        raise BadInput(f"images: given {path} of {found}; give uint8, 0 for background to 255")
    if wanted != "uint8" and found.kind != "f":
        raise BadInput(f"images: given {path} of {found}; the run learned from floats: give floats scaled alike")


def _check_size(path: Path, size: int) -> None:
    if size > LARGEST:
        raise BadInput(f"images: given {path} of {size} bytes; at most {LARGEST} are read at once: split it")
