"""A data set in a Zarr group that others wrote, by Zarr itself or by xarray; read chunk by chunk."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ffdask.datasets import idx
from ffdask.datasets.arrays import ORDER, Arrays, checked
from ffdask.datasets.rows import Rows, len_of, read
from ffdask.datasets.splits import held_out, names_in, whole
from ffdask.datasets.zarr_store import check_size
from ffdask.errors import BadInput

CODECS = {
    *("blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "shuffle", "delta", "crc32", "crc32c"),
    *("adler32", "fletcher32", "packbits", "fixedscaleoffset", "quantize", "astype"),
}
"""What may stand in the metadata of version 2: numcodecs' pickle would run code that the chunks hold."""

PACKED = ("scale_factor", "add_offset")


def read_group(path: Path) -> tuple[Arrays, bool]:
    """Open the arrays of a data set in a Zarr group; return whether a test set is held out, too.

    Raises
    ------
    BadInput
        The group cannot be read, lacks arrays, or they are not a data set.
    """
    try:
        with warnings.catch_warnings():
            # Metadata that is missing or unknown is told below, where it matters.
            warnings.simplefilter("ignore")
            group = zarr.open_group(os.path.abspath(path), mode="r")
            have: dict[str, Any] = dict(group.arrays())
    except Exception as exc:
        # Zarr has many errors for metadata that it cannot read.
        raise BadInput(
            f"{path} is not a Zarr group of arrays ({str(exc) or type(exc).__name__}); give one with the arrays of a "
            "data set, or the original files"
        ) from exc
    names = names_in(have, path)
    where = {name: f"{path}: {key}" for name, key in names.items()}
    raw = {name: have[key] for name, key in names.items()}
    for name, array in raw.items():
        _check_array(array, where[name])
    alone = "images" in raw
    if alone:
        raw = _divided(raw, where, path)
    return checked({name: raw[name] for name in ORDER}, whole(where)), alone


def check_codecs(array: zarr.Array, where: object) -> None:
    """Refuse an array whose codecs are not known to do no more than decode."""
    if array.metadata.zarr_format != 2:
        # Zarr itself knows each codec of version 3 by name, and none of them runs what it reads.
        return
    codecs = [*(array.metadata.filters or ()), array.metadata.compressor]
    for codec in filter(None, codecs):
        name = getattr(codec, "codec_id", type(codec).__name__)
        if name not in CODECS:
            raise BadInput(f"{where} is packed by {name!r}; allowed are {', '.join(sorted(CODECS))}: write it anew")


def _check_array(array: zarr.Array, where: str) -> None:
    check_codecs(array, where)
    packed = [name for name in PACKED if name in array.attrs]
    if packed:
        raise BadInput(
            f"{where} is packed ({', '.join(packed)} in its attributes); plain values are needed: open it with xarray "
            "and give ffdask.from_arrays its variables"
        )
    check_size(array, where, labels=array.ndim == 1)


def _divided(raw: dict[str, Any], where: dict[str, str], path: Path) -> dict[str, Any]:
    """Return the splits of a group without a test set: the same arrays, with the rows that each split keeps."""
    images, labels = raw["images"], raw["labels"]
    if images.ndim < 2 or labels.ndim != 1 or labels.dtype.kind not in "iu" or len_of(images) != len_of(labels):
        raise BadInput(
            f"{where['images']} has shape {images.shape} and {where['labels']} shape {labels.shape} and type "
            f"{labels.dtype}; there must be one integer label for each image: check that both belong together"
        )
    if len_of(labels) > idx.MOST_BYTES:
        raise BadInput(f"{where['labels']} says {len_of(labels)} rows; at most {idx.MOST_BYTES} are taken")
    test = held_out(len_of(images), path)
    every = read(labels, 0, len(test), where["labels"])
    kept: dict[str, np.ndarray] = {"train": ~test, "test": test}
    return {f"{split}_images": Rows(images, where["images"], rows) for split, rows in kept.items()} | {
        f"{split}_labels": every[rows] for split, rows in kept.items()
    }
