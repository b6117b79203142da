"""The stand-in's arrays: no NumPy arrays, though NumPy's functions reach them, those that were looked up in CuPy."""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

import numpy as np
import standin_memory as memory
from standin_memory import waits

from ffdask.resident import moved

calls: dict[str, tuple[tuple, dict]] = {}
"""By the function's name, what it was given last, without the arrays."""
_memory: weakref.WeakValueDictionary[tuple[int, int, int], Any] = weakref.WeakValueDictionary()
"""Each array's memory, by where it starts and stops."""

COMPARED = {"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"}
UFUNCS = {*COMPARED.values(), "add", "subtract", "multiply", "divide", "negative", "sqrt", "exp", "left_shift"}
HOLE = np.empty(0)
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
            return computed(lambda host, key: host[key], self, key)
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
        called(ufunc.__name__, *inputs, **kwargs)
        if out:
            _wrote(lambda to, *of: np.copyto(to, ufunc(*of, **kwargs), casting="same_kind"), out[0], *inputs)
            return out[0]
        return computed(lambda *of: ufunc(*of, **kwargs), *inputs)

    def __array_function__(self, function: Any, of: Any, args: Any, kwargs: Any) -> Any:
        if function.__name__ not in FUNCTIONS:
            raise TypeError(f"{function.__name__} was not looked up in CuPy")
        called(function.__name__, *args, **kwargs)
        if function.__name__ == "empty_like":
            like = function(*plain(args), **plain(kwargs))
            return ndarray(memory.unwritten(like.shape, like.dtype))
        if function.__name__ in ("concatenate", "stack") and len(args[0]) > 8:
            memory.refused("CuPy brings the addresses of more than eight arrays to the device")
        return computed(lambda *of: function(*of, **plain(kwargs)), *args)

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
        return computed(np.copy, self)

    def astype(self, dtype: Any, copy: bool = True) -> ndarray:
        return self if not copy and self.dtype == dtype else computed(lambda host: host.astype(dtype), self)

    def view(self, dtype: Any) -> ndarray:
        return ndarray(self._host.view(dtype))

    def reshape(self, *shape: Any) -> ndarray:
        found = self._host.reshape(*shape)
        viewed = not found.size or np.shares_memory(found, self._host)
        return ndarray(found) if viewed else self.copy().reshape(*shape)

    def fill(self, value: float) -> None:
        memory.do(lambda host: host.fill(value), self._host)

    def _reduced(self, name: str, **kwargs: Any) -> ndarray:
        return computed(lambda host: getattr(host, name)(**kwargs), self)

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


def plain(value: Any) -> Any:
    """Return a value with the arrays inside, which must be the stand-in's."""
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, list | tuple):
        return type(value)(plain(part) for part in value)
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return value


def called(name: str, *args: Any, **kwargs: Any) -> None:
    """Take a call down, without its arrays: their memory is to be used again."""
    calls[name] = moved((args, kwargs), lambda _: HOLE)


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


def computed(compute: Any, *given: Any) -> ndarray:
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
    hollow = moved(plain(given), lambda host: arrays.append(host) or HOLE)

    def full(hosts: Any) -> Any:
        left = iter(hosts)
        return moved(hollow, lambda _: next(left))

    return arrays, full


def within_an_array(address: int, size: int) -> bool:
    """Whether bytes are an array's, all of them of the same one."""
    # Other threads make arrays meanwhile: the dictionary underneath is copied at once.
    return any(start <= address and address + size <= stop for start, stop, _ in list(_memory.data))
