"""Whether there is a GPU that training could use: asked of CUDA's driver itself, through its C interface."""

from __future__ import annotations

import ctypes
import importlib.metadata
from ctypes import byref, c_int, create_string_buffer
from typing import Any

from ffdask.kernels import BACKENDS

DRIVERS = ("libcuda.so.1", "nvcuda.dll")

WHEELS = {12: "cupy-cuda12x", 13: "cupy-cuda13x"}
"""CuPy's wheel for a driver of this major version of CUDA."""


def graphics() -> tuple[str, dict[str, Any]]:
    """Return what GPU there is and whether training can use it, or why not, as a sentence; and the same as values."""
    names, cuda, problem = devices()
    wheel = WHEELS.get(min(cuda // 1000, max(WHEELS)), "")
    installed = [name for name in WHEELS.values() if _installed(name)]
    version = f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None
    values: dict[str, Any] = {"devices": names, "cuda": version, "cupy": installed}
    if problem:
        return f"none: {problem}", values
    said = f"{', '.join(names)}, CUDA {version} by its driver"
    if "cupy" not in BACKENDS:
        return f"{said}; not used: this version of ffdask computes on processors only", values
    if not installed:
        advice = f"pip install {wheel}" if wheel else "its driver is too old for CuPy: update it"
        return f"{said}; not used: CuPy is not installed ({advice})", values
    return f"{said}; {installed[0]} {importlib.metadata.version(installed[0])}", values


def devices() -> tuple[list[str], int, str]:
    """Return the GPUs' names, the driver's version of CUDA (12040: 12.4), and why there is none, empty if there is."""
    for name in DRIVERS:
        try:
            driver = ctypes.CDLL(name)
            break
        except OSError:
            continue
    else:
        return [], 0, "no NVIDIA driver is installed"
    version, count = c_int(), c_int()
    status = driver.cuInit(0)
    if status:
        return [], 0, f"the NVIDIA driver does not start (cuInit returns {status}); see nvidia-smi"
    driver.cuDriverGetVersion(byref(version))
    driver.cuDeviceGetCount(byref(count))
    names = []
    for number in range(count.value):
        device, text = c_int(), create_string_buffer(128)
        driver.cuDeviceGet(byref(device), number)
        driver.cuDeviceGetName(text, len(text), device)
        names.append(text.value.decode(errors="replace"))
    return names, version.value, "" if names else "the NVIDIA driver finds no device; see nvidia-smi"


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
