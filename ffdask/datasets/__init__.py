"""Data sets: obtained, checked, kept as Zarr stores and found again by their content.

`obtain` gets a data set onto this machine, `describe` says what a plan needs without any download,
`locate` finds the same data on a worker, and `load` reads it, once in a process. `from_arrays` keeps what a program
holds.
"""

from ffdask.datasets.cache import cache_folder
from ffdask.datasets.catalogue import describe, kept, locate, obtain
from ffdask.datasets.dataset import KNOWN, Dataset, Known
from ffdask.datasets.given import from_arrays
from ffdask.datasets.npz import read_member
from ffdask.datasets.on_disk import most_in_memory
from ffdask.datasets.zarr_foreign import check_codecs
from ffdask.datasets.zarr_store import forget, load
from ffdask.datasets.zarr_write import write_store

__all__ = [
    "KNOWN",
    "Dataset",
    "Known",
    "cache_folder",
    "check_codecs",
    "describe",
    "forget",
    "from_arrays",
    "kept",
    "load",
    "locate",
    "most_in_memory",
    "obtain",
    "read_member",
    "write_store",
]
