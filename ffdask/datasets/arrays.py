"""The four arrays of a data set: what they must be, and the digests that name their content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from ffdask.datasets import idx
from ffdask.errors import BadInput

CLASSES = 10
# Fixed, because the digest of the whole is taken over the four digests in this order.
ORDER = ("train_images", "train_labels", "test_images", "test_labels")


class Arrays(NamedTuple):
    """Images uint8 (rows, height, width) and labels uint8 (rows,) of both splits; made by `checked`."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each array as an IDX file, by the array's name."""
        return {name: digest(array.shape, [array]) for name, array in self._asdict().items()}


def digest(shape: tuple[int, ...], blocks: Iterable[np.ndarray]) -> str:
    """Return the SHA-256 of the IDX file that holds `blocks`, one after the other."""
    sha = hashlib.sha256(idx.header(shape))
    for block in blocks:
        sha.update(np.ascontiguousarray(block).data)
    return sha.hexdigest()


def whole_digest(digests: Mapping[str, str]) -> str:
    """Return the digest of the whole: SHA-256 over the four hex digests in the fixed order."""
    return hashlib.sha256("".join(digests[name] for name in ORDER).encode()).hexdigest()


def checked(raw: Mapping[str, np.ndarray], where: Mapping[str, str], classes: int = CLASSES) -> Arrays:
    """Return the four arrays as unsigned bytes, after every check that a data set must pass.

    Parameters
    ----------
    raw
        The four arrays, of any integer type, by their names in `ORDER`.
    where
        What to call each of them in a message, such as its file.
    classes
        The number of classes; labels are below it.

    Raises
    ------
    BadInput
        A type or a shape is wrong, or a value out of range.
    """
    if not 1 <= classes <= 256:
        raise BadInput(f"classes is {classes}; 1 to 256 are allowed, since labels are kept as bytes")
    for name in ORDER:
        _check_form(raw[name], where[name], 3 if name.endswith("images") else 1)
    for split in ("train", "test"):
        images, labels = raw[f"{split}_images"], raw[f"{split}_labels"]
        if len(images) != len(labels):
            raise BadInput(
                f"{where[f'{split}_images']} holds {len(images)} images and {where[f'{split}_labels']} "
                f"{len(labels)} labels; there must be one label for each image: check that both files "
                "belong together"
            )
        _check_range(labels, where[f"{split}_labels"], "label", classes - 1)
        _check_range(images, where[f"{split}_images"], "pixel", 255)
    train, test = raw["train_images"].shape[1:], raw["test_images"].shape[1:]
    if train != test:
        raise BadInput(
            f"{where['train_images']} holds images of shape {train} and {where['test_images']} of "
            f"{test}; both must have the same: check that both files belong together"
        )
    return Arrays(*(np.ascontiguousarray(raw[name], dtype=np.uint8) for name in ORDER))


def _check_form(array: np.ndarray, where: str, ndim: int) -> None:
    if array.dtype.kind not in "iu":
        raise BadInput(
            f"{where} has type {array.dtype}; only integers are taken, pixels 0 to 255 and labels from 0: convert it"
        )
    if array.ndim != ndim:
        what = "images (rows, height, width)" if ndim == 3 else "labels (rows,)"
        raise BadInput(f"{where} has shape {array.shape}; {what} have {ndim} dimensions: reshape it")
    if array.size == 0:
        raise BadInput(f"{where} is empty (shape {array.shape}); at least one row is needed")
    if array.size > idx.MOST_BYTES:
        raise BadInput(
            f"{where} has shape {array.shape}; at most {idx.MOST_BYTES} values are taken: give a smaller data set"
        )


def _check_range(array: np.ndarray, where: str, what: str, most: int) -> None:
    if int(array.min()) >= 0 and int(array.max()) <= most:
        return
    place = tuple(int(i) for i in np.argwhere((array < 0) | (array > most))[0])
    raise BadInput(
        f"{where}: the {what} in row {place[0]} is {int(array[place])}; 0 to {most} are allowed: "
        "correct or convert the file"
    )
