"""A data set from arrays that a program holds: NumPy, dask.array, xarray or Zarr."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ffdask.datasets.arrays import ORDER, checked
from ffdask.datasets.cache import cache_folder
from ffdask.datasets.dataset import Dataset
from ffdask.datasets.zarr_write import as_array, write_once


def _quiet(message: str) -> None:
    """Say nothing."""


def from_arrays(
    train_images: Any,
    train_labels: Any,
    test_images: Any,
    test_labels: Any,
    name: str = "arrays",
    say: Callable[[str], None] = _quiet,
) -> Dataset:
    """Keep arrays as a data set in the cache, found again by their content.

    A configuration takes it by its path::

        data = ffdask.from_arrays(train_images, train_labels, test_images, test_labels)
        ffdask.fit(ffdask.load(keys={"data.dataset": data.path}))

    Parameters
    ----------
    train_images, test_images
        (rows, height, width), (rows, height, width, channels) or (rows, features): integers 0 to 255, or finite
        floats, kept as float32 and used as they are. NumPy, dask.array, xarray.DataArray or Zarr; what is not in
        memory is read once, a few chunks at a time. A dask.array is computed by Dask's default scheduler, or by the
        cluster of the current client.
    train_labels, test_labels
        (rows,), integers from 0, below 256.
    name
        What to call it in reports.
    say
        Is told what is written.

    Returns
    -------
    Dataset
        Its `path` is a data set for ``data.dataset``, for `ffdask.datasets.obtain`, and for ``--dataset``.

    Raises
    ------
    BadInput
        The arrays are not a data set, or the cache cannot be written.

    Examples
    --------
    >>> import numpy as np
    >>> images, labels = np.zeros((30, 6, 6), np.uint8), np.arange(30) % 3
    >>> data = from_arrays(images[:20], labels[:20], images[20:], labels[20:], name="nothing")
    >>> data.train_rows, data.test_rows, data.shape, data.classes
    (20, 10, (6, 6), 3)
    """
    given = (train_images, train_labels, test_images, test_labels)
    raw = {key: as_array(array) for key, array in zip(ORDER, given, strict=True)}
    arrays = checked(raw, {key: key for key in ORDER})
    say(f"writing {name} into {cache_folder()}")
    return write_once(name, "arrays of a program", arrays)
