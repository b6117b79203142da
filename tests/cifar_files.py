"""CIFAR-10 in its published formats, a few rows a batch, for the tests."""

from __future__ import annotations

import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np

from ffdask.datasets.cifar import TEST, TRAIN

ROWS = 4


def batches(seed: int = 0, rows: int = ROWS) -> dict[str, tuple[np.ndarray, list[int]]]:
    """Images (rows, 32, 32, 3) and labels of each of the six batches."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.integers(0, 256, (rows, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, rows).tolist())
        for name in (*TRAIN, TEST)
    }


def flat(images: np.ndarray) -> np.ndarray:
    """Rows of 3,072 bytes: all red, then all green, then all blue."""
    return np.stack([np.concatenate([image[:, :, c].ravel() for c in range(3)]) for image in images])


def python3(images: np.ndarray, labels: list[int], protocol: int = 2, **instead: object) -> bytes:
    """A batch as Python 3 pickles the same dictionary."""
    about = {b"batch_label": b"a batch", b"filenames": [b"%d.png" % i for i in range(len(labels))]}
    return pickle.dumps(about | {b"labels": labels, b"data": flat(images)} | instead, protocol=protocol)


def python2(images: np.ndarray, labels: list[int]) -> bytes:
    """A batch opcode by opcode as Python 2 pickled the published ones: its strings are bytes without an encoding."""

    def text(content: bytes) -> bytes:
        return (
            b"U" + bytes([len(content)]) + content
            if len(content) < 256
            else b"T" + struct.pack("<I", len(content)) + content
        )

    rows = len(labels)
    dtype = (
        b"cnumpy\ndtype\nq\x05"
        + text(b"u1")
        + b"K\x00K\x01\x87R"
        + b"(K\x03"
        + text(b"|")
        + b"NNN"
        + b"J\xff\xff\xff\xff" * 2
        + b"K\x00tb"
    )
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85" + text(b"b") + b"\x87R"
        b"(K\x01K" + bytes([rows]) + b"M\x00\x0c\x86" + dtype + b"\x89" + text(flat(images).tobytes()) + b"tb"
    )
    listed = b"]q\x09(" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    names = b"](" + b"".join(text(b"%d.png" % i) for i in range(rows)) + b"e"
    return (
        b"\x80\x02}q\x01(" + text(b"batch_label") + text(b"a batch") + text(b"labels") + listed
        + text(b"data") + array + text(b"filenames") + names + b"u."
    )  # fmt: skip


def binary(images: np.ndarray, labels: list[int]) -> bytes:
    """A batch of the binary version."""
    return b"".join(bytes([label]) + row.tobytes() for label, row in zip(labels, flat(images), strict=True))


FORMATS = {"python2": (python2, ""), "python3": (python3, ""), "binary": (binary, ".bin")}


def folder(place: Path, kind: str = "python3", seed: int = 0) -> Path:
    """Write the six batches of a kind."""
    write, ending = FORMATS[kind]
    place.mkdir(parents=True)
    for name, (images, labels) in batches(seed).items():
        (place / (name + ending)).write_bytes(write(images, labels))
    (place / "readme.html").write_text("about")
    return place


def archive(path: Path, source: Path, inside: str = "cifar-10-batches-py") -> Path:
    """Pack a folder of batches as the published archives are."""
    with tarfile.open(path, "w:gz") as packed:
        packed.add(source, arcname=inside)
    return path
