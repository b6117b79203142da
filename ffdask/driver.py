"""The GPUs of this machine, as CUDA's driver has them: asked through its C interface, with no library of Python's."""

from __future__ import annotations

import ctypes
import os
from ctypes import byref, c_int, create_string_buffer
from dataclasses import dataclass

DRIVERS = ("libcuda.so.1", "nvcuda.dll")

NO_DRIVER = "no NVIDIA driver is installed"

_MAJOR, _MINOR = 75, 76
"""Attributes of a device: its compute capability."""


@dataclass(frozen=True)
class Graphics:
    """What CUDA's driver says of this machine.

    Attributes
    ----------
    names : list of str
        Of its GPUs.
    capability : tuple of int
        Of the first one, which a worker uses: 8, 0 of an A100.
    cuda : int
        The driver's version of CUDA: 12040 is 12.4.
    problem : str
        Why there is none, in words that end a sentence; empty if there is one.
    """

    names: list[str]
    capability: tuple[int, int] = (0, 0)
    cuda: int = 0
    problem: str = ""

    @property
    def version(self) -> str:
        """The driver's version of CUDA, as text."""
        return f"{self.cuda // 1000}.{self.cuda % 1000 // 10}"


def devices() -> Graphics:
    """Return what CUDA's driver says."""
    for name in DRIVERS:
        try:
            driver = ctypes.CDLL(name)
            break
        except OSError:
            continue
    else:
        return Graphics([], problem=NO_DRIVER)
    version, count = c_int(), c_int()
    status = driver.cuInit(0)
    if status:
        problem = f"the NVIDIA driver does not start (cuInit returns {status}); see nvidia-smi"
        return Graphics([], problem=problem)
    driver.cuDriverGetVersion(byref(version))
    driver.cuDeviceGetCount(byref(count))
    names, capability = [], [c_int(), c_int()]
    for number in range(count.value):
        device, text = c_int(), create_string_buffer(128)
        driver.cuDeviceGet(byref(device), number)
        driver.cuDeviceGetName(text, len(text), device)
        names.append(text.value.decode(errors="replace"))
        if not number:
            for to, attribute in zip(capability, (_MAJOR, _MINOR), strict=True):
                driver.cuDeviceGetAttribute(byref(to), attribute, device)
    problem = "" if names else "the NVIDIA driver finds no device; see nvidia-smi"
    return Graphics(names, (capability[0].value, capability[1].value), version.value, problem)


def shared_out(workers: int) -> list[dict[str, str]]:
    """Return the environment of each of a number of worker processes, by which each sees one of the GPUs, in turn.

    Where there is one or none, nothing need be said: that one is shared.
    """
    given, count = os.environ.get("CUDA_VISIBLE_DEVICES"), len(devices().names)
    if count < 2:
        return [{} for _ in range(workers)]
    # The driver counts those only that are named there, by number or by UUID.
    named = given.split(",")[:count] if given else [str(number) for number in range(count)]
    return [{"CUDA_VISIBLE_DEVICES": named[worker % count]} for worker in range(workers)]
