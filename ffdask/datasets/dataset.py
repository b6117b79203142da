"""What a data set is called and how it is recognised: `Dataset`, and the names known without a path."""

from __future__ import annotations

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
        Digest of the whole: SHA-256 over the hex digests of the four arrays, each as an IDX file.
    source
        Where the rows came from, for the reader of a report.
    """

    name: str
    path: str
    sha256: str
    train_rows: int
    test_rows: int
    height: int
    width: int
    classes: int
    source: str


@dataclass(frozen=True)
class Known:
    """The shape and the digests that a known name stands for."""

    train_rows: int
    test_rows: int
    height: int
    width: int
    classes: int
    digests: Mapping[str, str]

    @property
    def sha256(self) -> str:
        """The digest of the whole."""
        return whole_digest(self.digests)


KNOWN: dict[str, Known] = {
    "mnist": Known(
        train_rows=60_000,
        test_rows=10_000,
        height=28,
        width=28,
        classes=CLASSES,
        digests={
            "train_images": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train_labels": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "test_images": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "test_labels": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
    ),
}
