"""oneDNN's product of bfloat16 matrices, through its C interface: an optional library, from pip or from the system.

Who calls may be any thread: what is made for a shape is kept by thread, since the library's scratch memory is. Each
product runs on the calling thread alone.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import threading
from contextlib import contextmanager
from ctypes import byref, c_int, c_int64, c_size_t, c_void_p
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

if TYPE_CHECKING:
    from collections.abc import Iterator


NAME = "libdnnl.so.3"
DISTRIBUTIONS = ("onednn-cpu-gomp", "onednn-cpu-iomp")
"""Packages of pip that hold the library, built for processors alone."""

_CPU, _BF16, _F32 = 1, 2, 3
_SOURCE, _WEIGHTS, _TARGET = 1, 33, 17
_HAS_BFLOAT16 = 0x80
"""Bit of the instruction sets in use that stands for AVX512-BF16, and for all above it: AMX among them."""


class _Argument(ctypes.Structure):
    _fields_ = [("which", c_int), ("memory", c_void_p)]


@cache
def _library() -> ctypes.CDLL:
    """Return the library, loaded.

    Raises
    ------
    OSError
        If it is nowhere, or cannot be loaded.
    """
    for distribution in DISTRIBUTIONS:
        try:
            files = importlib.metadata.files(distribution) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in files:
            if file.name == NAME:
                return ctypes.CDLL(str(file.locate()))
    return ctypes.CDLL(NAME)


@cache
def unavailable() -> str:
    """Return why there are no bfloat16 products on this machine, in words that end a sentence; empty if there are."""
    try:
        library = _library()
    except OSError as error:
        return f"oneDNN is not installed ({error}): pip install 'ffdask[bfloat16]'"
    if not int(library.dnnl_get_effective_cpu_isa()) & _HAS_BFLOAT16:
        return "its processor has neither AVX512-BF16 nor AMX"
    return ""


def matmul(a: NDArray[np.uint16], b: NDArray[np.uint16], out: NDArray[np.float32]) -> None:
    """Write ``a @ b`` into `out`, sums in float32.

    Parameters
    ----------
    a, b : (n, inputs), (inputs, width)
        C-contiguous rows, or the transpose of such.
    out : (n, width)
        C-contiguous.

    Raises
    ------
    ValueError
        If the shapes do not fit: the library is given addresses, and would read on.
    """
    if a.shape[1] != b.shape[0] or out.shape != (a.shape[0], b.shape[1]) or not out.flags.c_contiguous:
        raise ValueError(f"a product of {a.shape} and {b.shape} into {out.shape}, which must lie row by row")
    here, key = _here(), (a.shape, b.shape, a.strides, b.strides)
    product = here.products.get(key)
    if product is None:
        product = here.products[key] = _Product(here, a, b, out)
    product(a, b, out)


class _Here(threading.local):
    """What one thread needs: an engine, a stream, and the products that it has met."""

    def __init__(self) -> None:
        self.library = _library()
        # Handing over an address takes less time than letting go of the interpreter's lock for it.
        self.held = ctypes.PyDLL(None, handle=self.library._handle)
        self.engine, self.stream = c_void_p(), c_void_p()
        _done(self.library.dnnl_engine_create(byref(self.engine), c_int(_CPU), c_size_t(0)))
        _done(self.library.dnnl_stream_create(byref(self.stream), self.engine, c_int(1)))
        self.openmp = ThreadpoolController().select(user_api="openmp").lib_controllers
        self.products: dict[Any, _Product] = {}

    @contextmanager
    def one_thread(self) -> Iterator[None]:
        """Hold OpenMP at one thread: its setting is each thread's own."""
        before = [library.get_num_threads() for library in self.openmp]
        try:
            for library in self.openmp:
                library.set_num_threads(1)
            yield
        finally:
            for library, threads in zip(self.openmp, before, strict=True):
                library.set_num_threads(threads)


@cache
def _here() -> _Here:
    return _Here()


class _Product:
    """A product of one shape, compiled by the library for this processor."""

    def __init__(self, here: _Here, a: NDArray[np.uint16], b: NDArray[np.uint16], out: NDArray[np.float32]) -> None:
        self.here, library = here, here.library
        described = [self._described(array, kind) for array, kind in ((a, _BF16), (b, _BF16), (out, _F32))]
        made, self.primitive = c_void_p(), c_void_p()
        with here.one_thread():
            source, weights, target = described
            _done(
                library.dnnl_matmul_primitive_desc_create(byref(made), here.engine, source, weights, None, target, None)
            )
            _done(library.dnnl_primitive_create(byref(self.primitive), made))
        library.dnnl_primitive_desc_destroy(made)
        self.memories = [c_void_p() for _ in described]
        for memory, description in zip(self.memories, described, strict=True):
            _done(library.dnnl_memory_create(byref(memory), description, here.engine, c_void_p(0)))
            library.dnnl_memory_desc_destroy(description)
        pairs = zip((_SOURCE, _WEIGHTS, _TARGET), self.memories, strict=True)
        self.arguments = (_Argument * 3)(*(_Argument(which, memory) for which, memory in pairs))

    def _described(self, array: NDArray[Any], kind: int) -> c_void_p:
        description = c_void_p()
        sizes = (c_int64 * 2)(*array.shape)
        strides = (c_int64 * 2)(*(stride // array.itemsize for stride in array.strides))
        create = self.here.library.dnnl_memory_desc_create_with_strides
        _done(create(byref(description), c_int(2), sizes, c_int(kind), strides))
        return description

    def __call__(self, a: NDArray[np.uint16], b: NDArray[np.uint16], out: NDArray[np.float32]) -> None:
        addresses = a.ctypes.data, b.ctypes.data, out.ctypes.data
        for memory, address in zip(self.memories, addresses, strict=True):
            self.here.held.dnnl_memory_set_data_handle(memory, c_void_p(address))
        with self.here.one_thread():
            execute = self.here.library.dnnl_primitive_execute
            _done(execute(self.primitive, self.here.stream, c_int(3), self.arguments))
            _done(self.here.library.dnnl_stream_wait(self.here.stream))


def _done(status: int) -> None:
    if status:
        raise RuntimeError(f"oneDNN refused a call: status {status}")
