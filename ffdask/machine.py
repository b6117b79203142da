"""What this machine is, as far as bits depend on it: BLAS threads, processor, versions. No Dask here."""

from __future__ import annotations

import importlib.metadata
import platform
import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np  # noqa: F401  (its BLAS must be loaded before threadpoolctl looks)
from threadpoolctl import ThreadpoolController

VERSIONED = ("ffdask", "dask", "distributed", "numpy", "numba", "onednn-cpu-gomp", "zarr", "xarray")
"""Packages whose versions a run records."""

_lock = threading.Lock()
_holders = 0
_held: list[tuple[Any, int]] = []
"""Each BLAS that is held, and how many threads it had before."""


def _blas() -> list[Any]:
    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


def hold_one_thread() -> None:
    """Set BLAS to one thread for the whole process, until every holder has let go.

    Process-wide and counted: several workers may live in one process, and several runs on one worker. The number of
    threads is part of the bits, and compute threads of Dask times threads of BLAS must not exceed the cores. A BLAS
    that somebody loads later is left alone: NumPy's, which the kernels use, is there from the start.
    """
    global _holders
    with _lock:
        if not _holders:
            _held[:] = [(library, library.get_num_threads()) for library in _blas()]
            for library, _ in _held:
                _set_threads(library, 1)
        _holders += 1


def let_go() -> None:
    """Undo one `hold_one_thread`; the last one restores the threads that there were."""
    global _holders
    with _lock:
        _holders -= 1
        if not _holders:
            for library, threads in _held:
                _set_threads(library, threads)
            _held.clear()


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold BLAS at one thread inside a ``with`` block."""
    hold_one_thread()
    try:
        yield
    finally:
        let_go()


def _set_threads(library: Any, threads: int) -> None:
    # Recent threadpoolctl lets only one thread of Python set OpenBLAS, the first that did, and ignores the others in
    # silence. Our lock stands for that: whoever holds first here may be any thread.
    disown = getattr(library, "clear_controlling_thread", lambda force: None)
    disown(force=True)
    library.set_num_threads(threads)
    disown(force=True)


def blas_threads() -> int:
    """Return the largest number of threads that the BLAS held, or any if none is held, would use now."""
    libraries = [library for library, _ in _held] or _blas()
    return max((int(library.get_num_threads()) for library in libraries), default=1)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a run records; ``"absent"`` where there is none."""
    found = {"python": platform.python_version()}
    for package in VERSIONED:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def fingerprint() -> dict[str, str]:
    """Return what the bits of a run depend on beside its configuration: equal fingerprints, equal bits."""
    # Sorted: several libraries are found in another order in each process.
    blas = "; ".join(
        sorted(
            f"{library.internal_api} {library.version} {getattr(library, 'architecture', '')}".strip()
            for library in _blas()
        )
    )
    return {"processor": _processor(), "blas": blas, "system": platform.system(), **versions()}


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def peak_memory() -> int:
    """Return this process's peak resident memory in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
