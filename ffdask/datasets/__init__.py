"""Data sets: obtained, checked, kept as Zarr stores and found again by their content.

`obtain` gets a data set onto this machine, `describe` says what a plan needs without any download,
`locate` finds the same data on a worker, and `load` reads it, once in a process.
"""

from ffdask.datasets.catalogue import cache_folder, describe, locate, obtain
from ffdask.datasets.dataset import KNOWN, Dataset, Known
from ffdask.datasets.files import read_member
from ffdask.datasets.zarr_store import forget, load
from ffdask.datasets.zarr_write import write_store

__all__ = [
    "KNOWN",
    "Dataset",
    "Known",
    "cache_folder",
    "describe",
    "forget",
    "load",
    "locate",
    "obtain",
    "read_member",
    "write_store",
]
