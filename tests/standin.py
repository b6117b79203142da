"""A stand-in for CuPy on the host, as strict as CuPy is, so that a wrong call fails here and not on somebody's GPU.

Its arrays are no NumPy arrays, are not turned into some by accident, and do not mix with them. Memory that nobody has
written is NaN. Kernels are the GPU's own, built for the host; products read the addresses and distances that cuBLAS
would. What was called is kept in `calls`, to be held against the CuPy that is installed; reading a value on the host,
for which a GPU would have to be waited for, is counted in `waits`.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import sys
import threading
import types
import weakref
from collections import Counter
from collections.abc import Iterator
from typing import Any

import device_host
import numpy as np

from ffdask.resident import moved

calls: dict[str, tuple[tuple, dict]] = {}
waits: Counter[str] = Counter()
products: Counter[tuple[int, int]] = Counter()
"""By the factors' kind and how is added up, as cuBLAS numbers them."""
_streams = threading.local()
_shape = [1, 1]
"""Blocks and threads of whatever is launched."""
_memory: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

COMPARED = {"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"}
UFUNCS = {*COMPARED.values(), "add", "subtract", "multiply", "divide", "negative", "sqrt", "exp", "left_shift"}
FUNCTIONS = {"concatenate", "stack", "tile", "empty_like", "zeros_like", "full_like", "argsort", "mean"}


class Memory:
    def __init__(self, address: int) -> None:
        self.ptr = address


class ndarray:
    """An array of the stand-in's."""

    def __init__(self, host: np.ndarray) -> None:
        self._host = host
        base = host
        while isinstance(base.base, np.ndarray):
            base = base.base
        _memory[id(base)] = base

    shape = property(lambda self: self._host.shape)
    strides = property(lambda self: self._host.strides)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    flags = property(lambda self: self._host.flags)
    T = property(lambda self: ndarray(self._host.T))
    data = property(lambda self: Memory(self._host.ctypes.data))
    __cuda_array_interface__ = property(lambda self: {"shape": self.shape, "version": 3})

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self):
        return (self[index] for index in range(len(self)))

    def __getitem__(self, key: Any) -> ndarray:
        return _wrapped(self._host[_plain(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        self._host[_plain(key)] = _plain(value)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = (), **kwargs: Any) -> Any:
        if method != "__call__" or ufunc.__name__ not in UFUNCS:
            raise TypeError(f"{ufunc.__name__}.{method} was not looked up in CuPy")
        calls[ufunc.__name__] = (tuple(inputs), kwargs)
        found = ufunc(*_plain(inputs), **kwargs)
        if out:
            np.copyto(out[0]._host, found, casting="same_kind")
            return out[0]
        return _wrapped(found)

    def __array_function__(self, function: Any, of: Any, args: Any, kwargs: Any) -> Any:
        if function.__name__ not in FUNCTIONS:
            raise TypeError(f"{function.__name__} was not looked up in CuPy")
        calls[function.__name__] = (args, kwargs)
        found = function(*_plain(args), **_plain(kwargs))
        return _wrapped(_unwritten(found) if function.__name__ == "empty_like" else found)

    def get(self) -> np.ndarray:
        waits["get"] += 1
        return self._host.copy()

    def __bool__(self) -> bool:
        waits["bool"] += 1
        return bool(self._host)

    def __float__(self) -> float:
        waits["float"] += 1
        return float(self._host)

    def __int__(self) -> int:
        waits["int"] += 1
        return int(self._host)

    __index__ = __int__

    def copy(self) -> ndarray:
        return ndarray(self._host.copy())

    def astype(self, dtype: Any, copy: bool = True) -> ndarray:
        return self if not copy and self.dtype == dtype else ndarray(self._host.astype(dtype))

    def view(self, dtype: Any) -> ndarray:
        return ndarray(self._host.view(dtype))

    def reshape(self, *shape: Any) -> ndarray:
        return ndarray(self._host.reshape(*shape))

    def fill(self, value: float) -> None:
        self._host.fill(value)

    def _reduced(self, name: str, **kwargs: Any) -> ndarray:
        return _wrapped(getattr(self._host, name)(**kwargs))

    def sum(self, axis: Any = None, keepdims: bool = False) -> ndarray:
        return self._reduced("sum", axis=axis, keepdims=keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> ndarray:
        return self._reduced("mean", axis=axis, keepdims=keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> ndarray:
        return self._reduced("max", axis=axis, keepdims=keepdims)

    def argmax(self, axis: Any = None) -> ndarray:
        return self._reduced("argmax", axis=axis)


def _operator(ufunc: np.ufunc, name: str) -> None:
    setattr(ndarray, f"__{name}__", lambda self, other: ufunc(self, other))
    setattr(ndarray, f"__r{name}__", lambda self, other: ufunc(other, self))
    setattr(ndarray, f"__i{name}__", lambda self, other: ufunc(self, other, out=self))


for _name, _ufunc in {"add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide}.items():
    _operator(_ufunc, _name)
_operator(np.left_shift, "lshift")
for _name, _full in COMPARED.items():
    setattr(ndarray, f"__{_name}__", lambda self, other, name=_full: getattr(np, name)(self, other))
ndarray.__neg__ = lambda self: np.negative(self)
ndarray.__hash__ = None


def _plain(value: Any) -> Any:
    """Return a value with the arrays inside, which must be the stand-in's."""
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, list | tuple):
        return type(value)(_plain(part) for part in value)
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return value


def _wrapped(found: Any) -> Any:
    return ndarray(np.asarray(found))


def _unwritten(host: np.ndarray) -> np.ndarray:
    host.fill(np.nan if host.dtype.kind == "f" else 171)
    return host


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
    return ndarray(_unwritten(np.empty(shape, dtype, order)))


def asarray(a: Any, dtype: Any = None) -> ndarray:
    calls["asarray"] = ((a,), {})
    if isinstance(a, ndarray):
        return a
    assert isinstance(a, np.ndarray), type(a)
    # A copy: the device has memory of its own. In CuPy rows stay rows.
    return ndarray(np.array(a, dtype, order="C"))


def ascontiguousarray(a: ndarray, dtype: Any = None) -> ndarray:
    calls["ascontiguousarray"] = ((a,), {})
    return ndarray(np.ascontiguousarray(_plain(a), dtype))


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
            device_host.launch(self.real, name, *_shape, args)

        return launch


class Stream:
    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        self.open = 0

    def __enter__(self) -> Stream:
        _streams.open = getattr(_streams, "open", 0) + 1
        return self

    def __exit__(self, *error: object) -> None:
        _streams.open -= 1

    def synchronize(self) -> None:
        waits["synchronize"] += 1


def _in_a_stream(what: str) -> None:
    if not getattr(_streams, "open", 0):
        waits[f"{what} outside of a stream"] += 1


class Device:
    cublas_handle = 4711

    @staticmethod
    def synchronize() -> None:
        waits["synchronize"] += 1


_KINDS = {0: np.float32, 1: np.float64, 14: np.uint16}


def _matrix(address: int, kind: int, rows: int, columns: int, lead: int) -> np.ndarray:
    """Return the matrix at an address, whose columns lie `lead` numbers apart."""
    dtype = np.dtype(_KINDS[kind])
    assert lead >= rows, f"{lead} numbers between columns of {rows}"
    size = ((columns - 1) * lead + rows) * dtype.itemsize
    spans = [(base.ctypes.data, base.ctypes.data + base.nbytes) for base in list(_memory.values())]
    assert any(start <= address and address + size <= stop for start, stop in spans), "beyond an array's memory"
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
    _matrix(c, of_c, m, n, ldc)[...] = _wide(np.ascontiguousarray(left)) @ _wide(np.ascontiguousarray(right))


module = types.ModuleType("cupy")
vars(module).update(
    ndarray=ndarray,
    empty=empty,
    asarray=asarray,
    ascontiguousarray=ascontiguousarray,
    RawModule=RawModule,
    cuda=types.SimpleNamespace(
        Stream=Stream,
        Device=lambda: Device,
        cublas=types.SimpleNamespace(gemmEx=gemm_ex),
        get_current_stream=Stream,
        runtime=types.SimpleNamespace(memGetInfo=lambda: (1 << 33, 1 << 34)),
    ),
)

_OURS = ("ffdask.kernels.device", "ffdask.kernels.cublas")


@contextlib.contextmanager
def in_the_place_of_cupy() -> Iterator[None]:
    """Have ``import cupy`` in the kernels find the stand-in."""
    kernels = importlib.import_module("ffdask.kernels")
    before = {name: sys.modules.pop(name) for name in ("cupy", *_OURS) if name in sys.modules}
    sys.modules["cupy"] = module
    kernels._backend.cache_clear()
    waits.clear()
    try:
        yield
    finally:
        for name in ("cupy", *_OURS):
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
