"""The IDX format: two zero bytes, a type code, the number of dimensions, their sizes, then the values.

MNIST was published in it, so it also fixes the bytes over which an array's digest is taken.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from ffdask.errors import BadInput

UNSIGNED_BYTE = 0x08
FLOAT = 0x0D
# The most that one array may hold. A header is four numbers that anybody can write; what it
# promises is held against this, and against the file, before memory is taken.
MOST_BYTES = 2 * 2**30
# Deflate cannot shrink by more than about 1032 to 1, so a small gzip file cannot hold a large array.
MOST_DEFLATE = 1040


def header(shape: tuple[int, ...], dtype: Any = np.uint8) -> bytes:
    """Return the IDX header of an array of `shape`, of unsigned bytes or of float32."""
    code = FLOAT if np.dtype(dtype) == np.float32 else UNSIGNED_BYTE
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, code, len(shape), *shape)


def write(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Write an array of unsigned bytes as an IDX file, gzipped when the name ends in ``.gz``."""
    content = header(array.shape) + np.ascontiguousarray(array, dtype=np.uint8).tobytes()
    Path(path).write_bytes(gzip.compress(content) if str(path).endswith(".gz") else content)


def read(path: str | os.PathLike[str], ndim: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes.

    Parameters
    ----------
    path
        The file. Whether it is gzipped is seen from its first bytes, not from its name: some
        programs unpack a download and keep the ``.gz``.
    ndim
        The number of dimensions it must have: 3 for images, 1 for labels.

    Returns
    -------
    numpy.ndarray
        The values, uint8.

    Raises
    ------
    BadInput
        The file cannot be read, is not IDX, has other dimensions, or holds fewer or more bytes
        than its header says.
    """
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as raw:
            gzipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not gzipped:
                return _read_stream(raw, path, ndim, size, exact=True)
            with gzip.GzipFile(fileobj=raw) as unpacked:
                return _read_stream(cast(BinaryIO, unpacked), path, ndim, size * MOST_DEFLATE, exact=False)
    except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
        raise BadInput(f"{path} is a corrupt gzip file ({exc}); a whole one is needed: fetch the file again") from exc
    except OSError as exc:
        raise BadInput(
            f"{path} cannot be read ({exc.strerror or exc}); a readable IDX file is needed: "
            "check its name and its permissions"
        ) from exc


def _read_stream(stream: BinaryIO, path: object, ndim: int, room: int, *, exact: bool) -> np.ndarray:
    """Read one array; `room` is the number of bytes there, or, when not `exact`, a bound on them."""
    shape = _read_header(stream, path, ndim)
    promised = math.prod(shape)
    length = len(header(shape)) + promised
    if promised == 0:
        raise BadInput(f"{path} is empty (its header says {shape}); at least one row is needed")
    if promised > MOST_BYTES:
        raise BadInput(
            f"the header of {path} says {shape}, {promised} bytes; at most {MOST_BYTES} are taken: "
            "give a smaller data set"
        )
    if (exact and room != length) or room < length:
        holds = f"{room} bytes" if exact else f"at most {room} bytes"
        raise BadInput(
            f"{path} holds {holds} where its header {shape} says {length}; it is truncated or too long: "
            "fetch the file again"
        )
    array = np.empty(shape, dtype=np.uint8)
    got = _fill(stream, array.reshape(-1).data)
    # Reading past the end also makes gzip check its checksum.
    if got < promised or stream.read(1):
        more = f"only {got}" if got < promised else "more"
        raise BadInput(
            f"{path} holds {more} values where its header {shape} says {promised}; "
            "it is truncated or too long: fetch the file again"
        )
    return array


def _read_header(stream: BinaryIO, path: object, ndim: int) -> tuple[int, ...]:
    start = stream.read(4)
    if len(start) < 4 or start[:2] != b"\0\0":
        raise BadInput(
            f"{path} is not an IDX file (it starts with {start!r}); an IDX file starts with two zero "
            "bytes: check that it is the right file"
        )
    if start[2] != UNSIGNED_BYTE:
        raise BadInput(
            f"{path} holds values of IDX type 0x{start[2]:02x}; only unsigned bytes (0x08) are taken: convert it"
        )
    if start[3] != ndim:
        what = "images (rows, height, width)" if ndim == 3 else "labels (rows)"
        raise BadInput(
            f"{path} has {start[3]} dimensions where {what} have {ndim}; check that images and labels are not swapped"
        )
    sizes = stream.read(4 * ndim)
    if len(sizes) < 4 * ndim:
        raise BadInput(f"{path} is truncated within its header; fetch the file again")
    return struct.unpack(f">{ndim}I", sizes)


def _fill(stream: BinaryIO, into: memoryview) -> int:
    """Fill `into` from the stream as far as it goes; return how many bytes came."""
    got = 0
    while got < len(into):
        block = stream.read(min(2**20, len(into) - got))
        if not block:
            break
        into[got : got + len(block)] = block
        got += len(block)
    return got
