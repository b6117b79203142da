"""Whether this process can train on a GPU, and what it is."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import numpy as np

from ffdask.driver import devices
from ffdask.errors import told
from ffdask.kernels import DEVICE, memory_on_device, named

WHEELS = {12: "cupy-cuda12x", 13: "cupy-cuda13x"}
"""CuPy's wheel for a driver of this major version of CUDA."""

EXTRAS = {12: "gpu", 13: "gpu13"}
"""Our extras that bring it, by the same."""


def graphics() -> tuple[str, dict[str, Any]]:
    """Return what GPU there is and whether training can use it, or why not, as a sentence; and the same as values."""
    found, wheels = devices(), _wheels()
    values: dict[str, Any] = {"devices": found.names, "cuda": found.version if found.cuda else None, "cupy": wheels}
    if found.problem:
        return f"none: {found.problem}", values
    said, why = f"{', '.join(found.names)}, CUDA {found.version} by its driver", unusable()
    if why:
        return f"{said}; not used: {why}", values
    values["memory"] = memory_on_device()
    return f"{said}; {_described(wheels)}; memory of {values['memory']}", values


def unusable() -> str:
    """Return why this process cannot train on a GPU, in words that end a sentence; empty if it can: it is tried."""
    found = devices()
    if found.problem:
        return found.problem
    if not _wheels():
        major = min(found.cuda // 1000, max(WHEELS))
        if major not in WHEELS:
            return f"its driver is too old for CuPy (CUDA {found.version}): update it"
        return f"CuPy is not installed: pip install 'ffdask[{EXTRAS[major]}]', or {WHEELS[major]}"
    try:
        kernels = named(DEVICE)
        with kernels.working():
            x = kernels.here(np.ones((2, 2), np.float32))
            kernels.activate(kernels.matmul(x, x), x[0])
    except Exception as error:
        # Whatever it is that CuPy misses: a library of CUDA's, a GPU that is new enough, memory.
        return f"CuPy cannot use {found.names[0]} ({told(error)})"
    return ""


def without_tensor_cores() -> str:
    """Return why this process's GPU multiplies no TF32 and bfloat16 numbers; empty if it does."""
    found = devices()
    if found.problem:
        return found.problem
    major, minor = found.capability
    return "" if major >= 8 else f"{found.names[0]} has compute capability {major}.{minor}, and it takes 8.0"


def described() -> str:
    """Return what bits depend on beside a run's configuration on this process's GPU; empty if it cannot be used."""
    found = devices()
    return "" if unusable() else f"{found.names[0]}, CUDA {found.version}, {_described(_wheels())}"


def _wheels() -> list[str]:
    """Return under which names CuPy is installed; conda's is called after itself."""
    return [name for name in (*WHEELS.values(), "cupy") if _installed(name)]


def _described(wheels: list[str]) -> str:
    return f"{wheels[0]} {importlib.metadata.version(wheels[0])}"


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
