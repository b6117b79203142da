"""What a data set is called and how it is recognised: `Dataset`, and the names known without a path."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ffdask.datasets.arrays import CLASSES, whole_digest


@dataclass(frozen=True)
class Dataset:
    """A data set that is on this machine; small and picklable, so that a worker can find the same data.

    Attributes
    ----------
    name
        A known name such as ``"mnist"``, or the path that was given.
    path
        The absolute path of the Zarr store. After `describe` of files that were never converted,
        where their store is going to be.
    sha256
        Digest of the whole: SHA-256 over the hex digests of the four arrays, each as an IDX file. Empty for a known
        name of which no digest is published, until it is here.
    shape
        Of one sample: (height, width), (height, width, channels) or (features,).
    classes
        Labels are below it.
    source
        Where the rows came from, for the reader of a report.
    dtype
        Of the samples: ``"uint8"``, scaled by 1/255 where they are used, or ``"float32"``, used as they are.
    """

    name: str
    path: str
    sha256: str
    train_rows: int
    test_rows: int
    shape: tuple[int, ...]
    classes: int
    source: str
    dtype: str = "uint8"

    def __post_init__(self) -> None:
        # A run's record comes back from JSON with a list, which has no hash.
        object.__setattr__(self, "shape", tuple(self.shape))

    @property
    def inputs(self) -> int:
        """The number of values of one sample."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Known:
    """What a known name stands for: sizes, and digests; None where nobody published what the arrays hash to."""

    train_rows: int
    test_rows: int
    shape: tuple[int, ...]
    classes: int
    digests: Mapping[str, str] | None

    @property
    def sha256(self) -> str:
        """The digest of the whole; empty where there is none."""
        return whole_digest(self.digests) if self.digests is not None else ""

    def fits(self, dataset: Dataset) -> bool:
        """Return whether a store's record is of this data set: by its digest, or by its sizes where there is none."""
        sizes = (dataset.train_rows, dataset.test_rows, dataset.shape, dataset.classes, dataset.dtype)
        same = sizes == (self.train_rows, self.test_rows, self.shape, self.classes, "uint8")
        return same and self.sha256 in ("", dataset.sha256)


KNOWN: dict[str, Known] = {
    "mnist": Known(
        train_rows=60_000,
        test_rows=10_000,
        shape=(28, 28),
        classes=CLASSES,
        digests={
            "train_images": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train_labels": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "test_images": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "test_labels": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
    ),
    "fashion-mnist": Known(
        train_rows=60_000,
        test_rows=10_000,
        shape=(28, 28),
        classes=CLASSES,
        digests={
            "train_images": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "train_labels": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "test_images": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "test_labels": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
    ),
    # Of these two, digests of the files are published, and checked where they are downloaded; none of the arrays.
    "kmnist": Known(train_rows=60_000, test_rows=10_000, shape=(28, 28), classes=CLASSES, digests=None),
    "cifar-10": Known(train_rows=50_000, test_rows=10_000, shape=(32, 32, 3), classes=CLASSES, digests=None),
}
