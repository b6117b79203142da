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
import weakref
from collections import Counter
from collections.abc import Iterator
from typing import Any

import device_host
import numpy as np
import standin_memory as memory
from standin_memory import Stream, graphs, waits

from ffdask.resident import moved

calls: dict[str, tuple[tuple, dict]] = {}
products: Counter[tuple[int, int]] = Counter()
"""By the factors' kind and how is added up, as cuBLAS numbers them."""
_shape = [1, 1]
"""Blocks and threads of whatever is launched."""
_memory: weakref.WeakValueDictionary[tuple[int, int, int], Any] = weakref.WeakValueDictionary()
"""Each array's memory, by where it starts and stops."""

COMPARED = {"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"}
UFUNCS = {*COMPARED.values(), "add", "subtract", "multiply", "divide", "negative", "sqrt", "exp", "left_shift"}
_HOLE = np.empty(0)
FUNCTIONS = {"concatenate", "stack", "tile", "empty_like", "zeros_like", "full_like", "argsort", "mean"}


class Memory:
    def __init__(self, host: np.ndarray) -> None:
        self.ptr, self._host = host.ctypes.data, host

    def copy_from_device_async(self, src: Memory, size: int, stream: Any = None) -> None:
        assert size == src._host.nbytes <= self._host.nbytes
        assert src._host.flags.c_contiguous
        assert self._host.flags.c_contiguous
        memory.do(lambda to, of: ctypes.memmove(to.ctypes.data, of.ctypes.data, size), self._host, src._host)


class ndarray:
    """An array of the stand-in's."""

    def __init__(self, host: np.ndarray) -> None:
        self._host = host
        base = host
        while isinstance(base.base, np.ndarray):
            base = base.base
        start = base.__array_interface__["data"][0]
        _memory[start, start + base.nbytes, id(base)] = base

    shape = property(lambda self: self._host.shape)
    strides = property(lambda self: self._host.strides)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    flags = property(lambda self: self._host.flags)
    T = property(lambda self: ndarray(self._host.T))
    data = property(lambda self: Memory(self._host))
    __cuda_array_interface__ = property(lambda self: {"shape": self.shape, "version": 3})

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self):
        return (self[index] for index in range(len(self)))

    def __getitem__(self, key: Any) -> ndarray:
        if _of_arrays(key):
            return _computed(lambda host, key: host[key], self, key)
        found = self._host[key]
        # A number stays where it is: an array without axes, over the same memory.
        key = key if isinstance(key, tuple) else (key,)
        return ndarray(found if isinstance(found, np.ndarray) else self._host[(*key, ...)])

    def __setitem__(self, key: Any, value: Any) -> None:
        if _of_arrays(key):
            _wrote(lambda to, key, value: to.__setitem__(key, value), self, key, value)
        else:
            _wrote(np.copyto, self[key], value)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = (), **kwargs: Any) -> Any:
        if method != "__call__" or ufunc.__name__ not in UFUNCS:
            raise TypeError(f"{ufunc.__name__}.{method} was not looked up in CuPy")
        _called(ufunc.__name__, *inputs, **kwargs)
        if out:
            _wrote(lambda to, *of: np.copyto(to, ufunc(*of, **kwargs), casting="same_kind"), out[0], *inputs)
            return out[0]
        return _computed(lambda *of: ufunc(*of, **kwargs), *inputs)

    def __array_function__(self, function: Any, of: Any, args: Any, kwargs: Any) -> Any:
        if function.__name__ not in FUNCTIONS:
            raise TypeError(f"{function.__name__} was not looked up in CuPy")
        _called(function.__name__, *args, **kwargs)
        if function.__name__ == "empty_like":
            like = function(*_plain(args), **_plain(kwargs))
            return ndarray(memory.unwritten(like.shape, like.dtype))
        if function.__name__ in ("concatenate", "stack") and len(args[0]) > 8:
            memory.refused("CuPy brings the addresses of more than eight arrays to the device")
        return _computed(lambda *of: function(*of, **_plain(kwargs)), *args)

    def get(self) -> np.ndarray:
        _read("get")
        return self._host.copy()

    def __bool__(self) -> bool:
        _read("bool")
        return bool(self._host)

    def __float__(self) -> float:
        _read("float")
        return float(self._host)

    def __int__(self) -> int:
        _read("int")
        return int(self._host)

    __index__ = __int__

    def copy(self) -> ndarray:
        return _computed(np.copy, self)

    def astype(self, dtype: Any, copy: bool = True) -> ndarray:
        return self if not copy and self.dtype == dtype else _computed(lambda host: host.astype(dtype), self)

    def view(self, dtype: Any) -> ndarray:
        return ndarray(self._host.view(dtype))

    def reshape(self, *shape: Any) -> ndarray:
        found = self._host.reshape(*shape)
        viewed = not found.size or np.shares_memory(found, self._host)
        return ndarray(found) if viewed else self.copy().reshape(*shape)

    def fill(self, value: float) -> None:
        memory.do(lambda host: host.fill(value), self._host)

    def _reduced(self, name: str, **kwargs: Any) -> ndarray:
        return _computed(lambda host: getattr(host, name)(**kwargs), self)

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


def _called(name: str, *args: Any, **kwargs: Any) -> None:
    """Take a call down, without its arrays: their memory is to be used again."""
    calls[name] = moved((args, kwargs), lambda _: _HOLE)


def _of_arrays(key: Any) -> bool:
    """Whether a key takes elements by arrays of numbers: that copies them."""
    return any(isinstance(part, ndarray | np.ndarray | list) for part in (key if isinstance(key, tuple) else (key,)))


def _read(what: str) -> None:
    waits[what] += 1
    memory.refused(f"a value is read on the host ({what})")


def _wrote(compute: Any, out: ndarray, *given: Any) -> None:
    """Launch ``compute(out, *given)``, which writes into an array."""
    arrays, full = _sorted(given)
    memory.do(lambda into, *hosts: compute(into, *full(hosts)), out._host, *arrays)


def _computed(compute: Any, *given: Any) -> ndarray:
    """Launch ``compute(*given)``, which gives a new array."""
    arrays, full = _sorted(given)
    hosts = arrays
    if memory.recording() is not None:
        # Nothing is there yet: what will come out has the shape that zeros have.
        hosts = [np.zeros_like(host) for host in arrays]
    with np.errstate(all="ignore"):
        found = np.asarray(compute(*full(hosts)))
    out = ndarray(memory.unwritten(found.shape, found.dtype))
    if memory.recording() is None:
        np.copyto(out._host, found)
    else:
        _wrote(lambda to, *of: np.copyto(to, compute(*of)), out, *given)
    return out


def _sorted(given: Any) -> tuple[list[np.ndarray], Any]:
    """Return the arrays in what is given to a function, and what puts others in their place."""
    arrays: list[np.ndarray] = []
    # What is recorded holds no array: a graph does not, either.
    hollow = moved(_plain(given), lambda host: arrays.append(host) or _HOLE)

    def full(hosts: Any) -> Any:
        left = iter(hosts)
        return moved(hollow, lambda _: next(left))

    return arrays, full


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
    _called("asarray", a)
    if isinstance(a, ndarray):
        return a
    assert isinstance(a, np.ndarray), type(a)
    memory.refused("the host's memory is copied")
    # A copy: the device has memory of its own. In CuPy rows stay rows.
    out = empty(a.shape, a.dtype if dtype is None else dtype)
    out._host[...] = a
    return out


def ascontiguousarray(a: ndarray, dtype: Any = None) -> ndarray:
    _called("ascontiguousarray", a)
    return _computed(lambda host: np.ascontiguousarray(host, dtype), a)


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
                given = [ndarray(next(left)) if one is _HOLE else one for one in hollow]
                device_host.launch(self.real, name, *shape, tuple(given))

            hollow = [_HOLE if isinstance(one, ndarray) else one for one in args]
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
    assert any(start <= address and address + size <= stop for start, stop, _ in list(_memory)), (
        "beyond an array's memory"
    )
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
