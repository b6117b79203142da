"""A stand-in for CuPy on the host, as strict as CuPy is, so that a wrong call fails here and not on somebody's GPU.

Its arrays are no NumPy arrays, are not turned into some by accident, and do not mix with them. Memory that nobody has
written is NaN. Kernels are the GPU's own, built for the host; products read the addresses and distances that cuBLAS
would. What was called is kept in `calls`, to be held against the CuPy that is installed; reading a value on the host,
for which a GPU would have to be waited for, is counted in `waits`. Memory, streams and graphs are `standin_memory`'s.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import sys
import types
from collections import Counter
from collections.abc import Iterator
from typing import Any

import device_host
import numpy as np
import standin_memory as memory
from standin_array import HOLE, called, computed, ndarray, within_an_array
from standin_array import Memory as Memory
from standin_array import calls as calls
from standin_memory import Stream, graphs, waits

from ffdask.resident import moved

products: Counter[tuple[int, int]] = Counter()
"""By the factors' kind and how is added up, as cuBLAS numbers them."""
_shape = [1, 1]
"""Blocks and threads of whatever is launched."""


@contextlib.contextmanager
def launches(blocks: int, threads: int) -> Iterator[None]:
    """Have kernels run in blocks of several threads, as on a GPU; only one thread may launch meanwhile."""
    before = _shape[:]
    _shape[:] = blocks, threads
    try:
        yield
    finally:
        _shape[:] = before


# --- the module


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return ndarray(memory.unwritten(shape, dtype, order))


def asarray(a: Any, dtype: Any = None) -> ndarray:
    called("asarray", a)
    if isinstance(a, ndarray):
        return a
    assert isinstance(a, np.ndarray), type(a)
    memory.refused("the host's memory is copied")
    # A copy: the device has memory of its own. In CuPy rows stay rows.
    out = empty(a.shape, a.dtype if dtype is None else dtype)
    out._host[...] = a
    return out


def ascontiguousarray(a: ndarray, dtype: Any = None) -> ndarray:
    called("ascontiguousarray", a)
    return computed(lambda host: np.ascontiguousarray(host, dtype), a)


class RawModule:
    def __init__(self, *, code: str, options: tuple[str, ...]) -> None:
        assert code == device_host.TEXT.read_text()
        (self.real,) = (option.removeprefix("-DREAL=") for option in options if option.startswith("-DREAL="))
        assert self.real in ("float", "double"), self.real

    def get_function(self, name: str) -> Any:
        def launch(grid: tuple[int, ...], block: tuple[int, ...], args: tuple) -> None:
            _in_a_stream(name)
            ((blocks,), (threads,)) = grid, block
            assert 1 <= blocks < 2**31
            assert threads in (32, 64, 128, 256, 512, 1024)
            # A kernel is right in any launch: few threads are cheap here.
            shape, arrays = tuple(_shape), [one._host for one in args if isinstance(one, ndarray)]

            def again(*hosts: np.ndarray) -> None:
                left = iter(hosts)
                given = [ndarray(next(left)) if one is HOLE else one for one in hollow]
                device_host.launch(self.real, name, *shape, tuple(given))

            hollow = [HOLE if isinstance(one, ndarray) else one for one in args]
            memory.do(again, *arrays)

        return launch


def _in_a_stream(what: str) -> None:
    if memory.current() is None:
        waits[f"{what} outside of a stream"] += 1


class Device:
    cublas_handle = 4711

    @staticmethod
    def synchronize() -> None:
        waits["synchronize"] += 1
        memory.refused_anywhere("the device is waited for")


_KINDS = {0: np.float32, 1: np.float64, 14: np.uint16}


def _matrix(address: int, kind: int, rows: int, columns: int, lead: int) -> np.ndarray:
    """Return the matrix at an address, whose columns lie `lead` numbers apart."""
    dtype = np.dtype(_KINDS[kind])
    assert lead >= rows, f"{lead} numbers between columns of {rows}"
    size = ((columns - 1) * lead + rows) * dtype.itemsize
    assert within_an_array(address, size), "beyond an array's memory"
    numbers = np.frombuffer((ctypes.c_char * size).from_address(address), dtype)
    return np.lib.stride_tricks.as_strided(numbers, (rows, columns), (dtype.itemsize, lead * dtype.itemsize))


def _wide(numbers: np.ndarray) -> np.ndarray:
    return (numbers.astype(np.uint32) << 16).view(np.float32) if numbers.dtype == np.uint16 else numbers


def gemm_ex(handle, transa, transb, m, n, k, alpha, a, of_a, lda, b, of_b, ldb, beta, c, of_c, ldc, compute, algo):
    _in_a_stream("gemmEx")
    assert (handle, algo, of_a) == (Device.cublas_handle, -1, of_b)
    assert compute in ((70,) if of_c == 1 else (68, 77))
    products[of_a, compute] += 1
    scale = ctypes.c_double if of_c == 1 else ctypes.c_float
    assert (scale.from_address(alpha).value, scale.from_address(beta).value) == (1, 0)
    left = _matrix(a, of_a, k, m, lda).T if transa else _matrix(a, of_a, m, k, lda)
    right = _matrix(b, of_b, n, k, ldb).T if transb else _matrix(b, of_b, k, n, ldb)

    def product(into: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
        into[...] = _wide(np.ascontiguousarray(left)) @ _wide(np.ascontiguousarray(right))

    memory.do(product, _matrix(c, of_c, m, n, ldc), left, right)


module = types.ModuleType("cupy")
vars(module).update(
    ndarray=ndarray,
    empty=empty,
    asarray=asarray,
    ascontiguousarray=ascontiguousarray,
    RawModule=RawModule,
    get_default_memory_pool=lambda: memory.pool,
    cuda=types.SimpleNamespace(
        Stream=Stream,
        MemoryPool=memory.MemoryPool,
        Device=lambda: Device,
        cublas=types.SimpleNamespace(gemmEx=gemm_ex),
        get_current_stream=lambda: memory.current() or Stream(),
        get_allocator=memory.get_allocator,
        set_allocator=memory.set_allocator,
        using_allocator=memory.using_allocator,
        runtime=types.SimpleNamespace(memGetInfo=lambda: (1 << 33, 1 << 34), streamEndCapture=memory.end_capture_of),
    ),
)

OURS = tuple(f"ffdask.kernels.{name}" for name in ("device", "cublas", "launches", "memory", "recorded", "uploaded"))


@contextlib.contextmanager
def in_the_place_of_cupy() -> Iterator[None]:
    """Have ``import cupy`` in the kernels find the stand-in."""
    kernels = importlib.import_module("ffdask.kernels")
    before = {name: sys.modules.pop(name) for name in ("cupy", *OURS) if name in sys.modules}
    sys.modules["cupy"] = module
    kernels._backend.cache_clear()
    waits.clear()
    graphs.clear()
    try:
        yield
    finally:
        memory.set_allocator(memory.pool.malloc)
        for name in ("cupy", *OURS):
            sys.modules.pop(name, None)
        sys.modules.update(before)
        kernels._backend.cache_clear()


class OnTheHost:
    """The backend of a GPU, its kernels and cuBLAS on the host: it takes and gives NumPy's arrays, where they lie.

    Launches are of blocks of several threads, which add up together, and several times over a matrix.
    """

    BLOCKS, THREADS = 3, 4

    def __init__(self) -> None:
        with in_the_place_of_cupy():
            self._device = importlib.import_module("ffdask.kernels.device").Device()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._device, name)
        if not callable(found):
            return found

        def call(*given: Any, **named: Any) -> Any:
            with launches(self.BLOCKS, self.THREADS):
                values = found(*moved(given, ndarray), **moved(named, ndarray))
            return moved(values, lambda array: array._host)

        return call
