"""The four arrays of a data set: what they must be, and the digests that name their content."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ffdask.datasets import idx
from ffdask.datasets.rows import Rows, blocks_of, len_of, read, stored_type, taken
from ffdask.errors import BadInput

CLASSES = 10
MOST_CLASSES = 256
MOST_ON_DISK = 2**40
"""Labels are kept as bytes."""

# Fixed, because the digest of the whole is taken over the four digests in this order.
ORDER = ("train_images", "train_labels", "test_images", "test_labels")
_FORMS = "(rows, height, width), (rows, height, width, channels) or (rows, features)"


class Arrays(NamedTuple):
    """The images and the labels of both splits; made by `checked`.

    Images are uint8 or float32: (rows, height, width), (rows, height, width, channels) or (rows, features), in memory
    or as `Rows`. Labels are uint8 (rows,), in memory.
    """

    train_images: np.ndarray | Rows
    train_labels: np.ndarray
    test_images: np.ndarray | Rows
    test_labels: np.ndarray

    @property
    def classes(self) -> int:
        """One more than the largest label."""
        return 1 + max(int(self.train_labels.max()), int(self.test_labels.max()))

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each array as an IDX file, by the array's name."""
        return {name: digest(a.shape, blocks_of(a), a.dtype) for name, a in self._asdict().items()}


def digest(shape: tuple[int, ...], blocks: Iterable[np.ndarray], dtype: Any = np.uint8) -> str:
    """Return the SHA-256 of the IDX file that holds `blocks`, one after the other.

    An IDX file of uint8 has type code 0x08; one of float32 has 0x0D and its values with the highest byte first.
    """
    sha = hashlib.sha256(idx.header(shape, dtype))
    for block in blocks:
        sha.update(as_idx(block))
    return sha.hexdigest()


def as_idx(block: np.ndarray) -> memoryview:
    """Return the bytes of a block as an IDX file has them."""
    return np.ascontiguousarray(block, dtype=block.dtype.newbyteorder(">")).data


def whole_digest(digests: Mapping[str, str]) -> str:
    """Return the digest of the whole: SHA-256 over the four hex digests in the fixed order."""
    return hashlib.sha256("".join(digests[name] for name in ORDER).encode()).hexdigest()


def checked(raw: Mapping[str, Any], where: Mapping[str, str], classes: int | None = None) -> Arrays:
    """Return the four arrays in their stored types, after every check that a data set must pass.

    Parameters
    ----------
    raw
        The four arrays by their names in `ORDER`: NumPy's, or such as `ffdask.datasets.rows` reads. Labels are of any
        integer type; images too, or of any type of floats.
    where
        What to call each of them in a message, such as its file.
    classes
        The number of classes; labels are below it. Left out: one more than the largest label.

    Raises
    ------
    BadInput
        A type or a shape is wrong, or a value out of range. Values of images that are not in memory are checked as
        they are read.
    """
    if classes is not None and not 2 <= classes <= MOST_CLASSES:
        raise BadInput(f"classes is {classes}; 2 to {MOST_CLASSES} are allowed, since labels are kept as bytes")
    for name in ORDER:
        _check_form(raw[name], where[name], images=name.endswith("images"))
    for split in ("train", "test"):
        images, labels = len_of(raw[f"{split}_images"]), len_of(raw[f"{split}_labels"])
        if images != labels:
            raise BadInput(
                f"{where[f'{split}_images']} holds {images} images and {where[f'{split}_labels']} "
                f"{labels} labels; there must be one label for each image: check that both belong together"
            )
    train, test = raw["train_images"], raw["test_images"]
    _check_alike(train, test, where)
    most = (classes or MOST_CLASSES) - 1
    arrays = Arrays(
        _images(train, where["train_images"]),
        _labels(raw["train_labels"], where["train_labels"], most),
        _images(test, where["test_images"]),
        _labels(raw["test_labels"], where["test_labels"], most),
    )
    if arrays.classes < 2 and classes is None:
        raise BadInput(
            f"{where['train_labels']} and {where['test_labels']} hold no label but 0; two classes are the least: "
            "check that these are the labels"
        )
    return arrays


def _check_form(array: Any, where: str, *, images: bool) -> None:
    array = array.array if isinstance(array, Rows) else array
    if np.dtype(array.dtype).kind not in ("iuf" if images else "iu"):
        allowed = "pixels 0 to 255 or finite floats" if images else "labels from 0"
        only = "integers and floats are" if images else "only integers are"
        raise BadInput(f"{where} has type {array.dtype}; {only} taken, {allowed}: convert it")
    shape = tuple(array.shape)
    if not all(isinstance(size, int | np.integer) for size in shape):
        raise BadInput(f"{where} has shape {shape}; every size must be known: call its compute_chunk_sizes()")
    if len(shape) not in ((2, 3, 4) if images else (1,)):
        what = f"images {_FORMS}" if images else "labels (rows,)"
        raise BadInput(f"{where} has shape {shape}; {what} have {'2 to 4' if images else 1} dimensions: reshape it")
    if 0 in shape:
        raise BadInput(f"{where} is empty (shape {shape}); at least one row is needed")
    row = math.prod(int(size) for size in shape[1:]) * (stored_type(array.dtype).itemsize if images else 1)
    size, most = int(shape[0]) * row, MOST_ON_DISK if images else idx.MOST_BYTES
    if size > most or row > idx.MOST_BYTES:
        raise BadInput(
            f"{where} has shape {shape}, {size} bytes; at most {most} are taken, {idx.MOST_BYTES} a row: give a "
            "smaller data set"
        )


def _check_alike(train: Any, test: Any, where: Mapping[str, str]) -> None:
    """Check that the images of both splits can be held against each other."""
    if tuple(train.shape[1:]) != tuple(test.shape[1:]):
        raise BadInput(
            f"{where['train_images']} holds images of shape {tuple(train.shape[1:])} and {where['test_images']} of "
            f"{tuple(test.shape[1:])}; both must have the same: check that both belong together"
        )
    if stored_type(train.dtype) != stored_type(test.dtype):
        raise BadInput(
            f"{where['train_images']} has type {train.dtype} and {where['test_images']} {test.dtype}; integers are "
            "scaled by 1/255 and floats are not, so only integers or only floats are taken: convert it"
        )


def _images(array: Any, where: str) -> np.ndarray | Rows:
    if isinstance(array, Rows):
        return array
    return taken(array, where, "pixel") if isinstance(array, np.ndarray) else Rows(array, where)


def _labels(array: Any, where: str, most: int) -> np.ndarray:
    # Small beside the images: read at once, since the classes are counted before anything is written.
    return taken(read(array, 0, len_of(array), where), where, "label", most=most)
