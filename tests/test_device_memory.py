"""Whose memory a GPU's arrays lie in, with a stand-in for CuPy and one for RMM."""

from __future__ import annotations

import importlib
import sys
import types

import numpy as np
import pytest
import standin
import standin_memory
from device_host import COMPILER, LACKING

from ffdask import accelerator
from ffdask.driver import Graphics
from ffdask.kernels import DEVICE, memory_on_device, named


class Rmm:
    """RMM as it is imported; has `most` bytes, and takes down what it is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int = 1 << 40) -> None:
        self.asked, self.left = [], most
        modules = {name: types.ModuleType(name) for name in ("rmm", "rmm.allocators", "rmm.allocators.cupy")}
        modules["rmm"].__version__ = "26.10.0"
        modules["rmm.allocators.cupy"].rmm_cupy_allocator = self.allocator
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)

    def allocator(self, nbytes: int) -> standin_memory.MemoryPointer:
        self.asked.append(nbytes)
        if nbytes > self.left:
            raise MemoryError("std::bad_alloc: out_of_memory")
        self.left -= nbytes
        return standin_memory.MemoryPointer(np.empty(nbytes, np.uint8), lambda: self._returned(nbytes))

    def _returned(self, nbytes: int) -> None:
        self.left += nbytes


@pytest.fixture
def gpu():
    with standin.in_the_place_of_cupy(), standin.Stream():
        yield


def test_without_rmm_it_is_cupys_pool(gpu, monkeypatch):
    monkeypatch.setitem(sys.modules, "rmm", None)
    before = standin_memory.get_allocator()
    named(DEVICE)
    assert memory_on_device() == "CuPy's pool"
    assert standin_memory.get_allocator() == before


def test_with_rmm_it_is_rmms_and_pooled(gpu, monkeypatch):
    rmm = Rmm(monkeypatch)
    kernels = named(DEVICE)
    assert memory_on_device() == "RMM 26.10.0, pooled by CuPy"
    for _ in range(5):
        kernels.empty(((100, 10), np.float32))
    assert rmm.asked == [4096], "each array is asked of RMM"


def test_what_the_pool_keeps_is_given_back_before_rmm_has_no_more(gpu, monkeypatch):
    rmm = Rmm(monkeypatch, most=10_000)
    kernels = named(DEVICE)
    kernels.empty(((2000,), np.float32))
    (kept,) = kernels.empty(((2200,), np.float32))
    assert rmm.asked == [8192, 9216, 9216]
    with pytest.raises(MemoryError, match="out_of_memory"):
        kernels.empty(((300,), np.float32))
    del kept


def test_an_allocator_that_somebody_has_set_stays(gpu, monkeypatch):
    rmm = Rmm(monkeypatch)
    standin_memory.set_allocator(rmm.allocator)
    named(DEVICE)
    assert memory_on_device() == "an allocator that this process has set"
    assert standin_memory.get_allocator() == rmm.allocator


def test_an_rmm_that_lacks_something_is_no_reason_to_go_without_it(gpu, monkeypatch):
    def lacks(name, at=importlib.import_module):
        if name.startswith("rmm"):
            raise ImportError("libcudart.so.12: cannot open shared object file")
        return at(name)

    room = importlib.import_module("ffdask.kernels.memory")
    monkeypatch.setattr(room, "importlib", types.SimpleNamespace(import_module=lacks))
    with pytest.raises(ImportError, match="libcudart"):
        named(DEVICE)


@pytest.mark.skipif(not COMPILER, reason=LACKING)
def test_the_doctor_says_whose_it_is(gpu, monkeypatch):
    Rmm(monkeypatch)
    monkeypatch.setattr(accelerator, "devices", lambda: Graphics(["Card 0"], (9, 0), 12040))
    monkeypatch.setattr(accelerator, "_wheels", lambda: ["numpy"])
    said, values = accelerator.graphics()
    assert said.endswith(f"numpy {np.__version__}; memory of RMM 26.10.0, pooled by CuPy")
    assert values["memory"] == "RMM 26.10.0, pooled by CuPy"
    # What bits depend on is not where they lie.
    assert "RMM" not in accelerator.described()
