"""How a function of the user's own reaches workers that run in another folder, or on another machine.

By value: a worker needs neither the file nor the notebook in which it was written. Only what is installed (NumPy, a
package of one's own in site-packages) goes by name, and is imported there.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import sysconfig
from collections import ChainMap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType, ModuleType
from typing import Any, ClassVar

import cloudpickle

from ffdask.errors import BadInput

MOST_BYTES = 1 << 20
"""That a function may take along: it travels with every step."""


@dataclass(frozen=True)
class Shipped:
    """A function as bytes, called like the function.

    Taken as it was when it was shipped, in every process alike: so what is changed afterwards, in a notebook, changes
    no result. And whatever pickler Dask takes, it sees bytes; left to itself, Dask pickles a function of a local file
    by name.
    """

    payload: bytes

    def __call__(self, *args: Any) -> Any:
        """Call the function."""
        return _unpacked(self.payload)(*args)


def _named(make: Callable[..., CodeType], args: tuple[Any, ...], filename: str) -> CodeType:
    """Return the code that ``make(*args)`` makes, as code of the file it was written in."""
    return make(*args).replace(co_filename=filename)


def _reduced(code: CodeType) -> tuple[Any, ...]:
    return _named, (*cloudpickle.Pickler.dispatch_table[CodeType](code)[:2], code.co_filename)


class _Pickler(cloudpickle.Pickler):
    """Keeps the names of files, which cloudpickle drops from 3.1.3 on: messages say where a step failed."""

    dispatch_table: ClassVar[Any] = ChainMap({CodeType: _reduced}, cloudpickle.Pickler.dispatch_table)


@lru_cache(maxsize=32)
def _unpacked(payload: bytes) -> Callable[..., Any]:
    """Return the function, unpacked once in a process."""
    function: Callable[..., Any] = cloudpickle.loads(payload)
    return function


def ship(function: Callable[..., Any], name: str) -> Shipped:
    """Return a function as it travels.

    Raises
    ------
    BadInput
        If it takes along what cannot travel, or too much.
    """
    try:
        with _local_by_value():
            written = io.BytesIO()
            _Pickler(written).dump(function)
            payload = written.getvalue()
    except Exception as error:
        raise BadInput(
            f"{name} cannot be sent to workers: {type(error).__name__}: {error}; it must not hold open files, locks "
            "or connections"
        ) from None
    if len(payload) > MOST_BYTES:
        raise BadInput(
            f"{name} takes {len(payload) / (1 << 20):.1f} MiB along to every step, in globals or a closure; "
            f"{MOST_BYTES >> 20} MiB is the most: compute large tables inside it, or read them from a file"
        )
    return Shipped(payload)


@contextlib.contextmanager
def _local_by_value() -> Iterator[None]:
    """Have every module that is not installed pickled by value, while this lasts."""
    known = cloudpickle.list_registry_pickle_by_value()
    modules = [m for name, m in list(sys.modules.items()) if name not in known and is_local(name, m)]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def is_local(name: str, module: ModuleType) -> bool:
    """Return whether a module is a file of the user's own, which a worker may lack, rather than installed."""
    file = getattr(module, "__file__", None)
    # A module under another name than its own (``os.path``) is not ours to register.
    if not isinstance(file, str) or getattr(module, "__name__", None) != name:
        return False
    if name == "__main__" or name.partition(".")[0] == "ffdask":
        return False
    file = os.path.abspath(file)
    return not file.startswith(_installed()) and not {"site-packages", "dist-packages"} & set(file.split(os.sep))


@lru_cache(maxsize=1)
def _installed() -> tuple[str, ...]:
    keys = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = {os.path.abspath(sysconfig.get_path(key)) for key in keys}
    return tuple(folder + os.sep for folder in folders | {os.path.dirname(os.__file__)})
