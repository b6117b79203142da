"""A batch of CIFAR-10 in a Python pickle, read by an unpickler that can make nothing but arrays, strings and numbers.

Two walls. A scan of the opcodes, before anything is made, admits only what plain data needs. And of the five names that
NumPy's pickles call, each is a stand-in of ours: NumPy itself is called only after the sizes agree with the bytes that
are there.
"""

from __future__ import annotations

import io
import math
import pickle
from typing import Any

import numpy as np

from ffdask.datasets.pickle_scan import NAMES, scan
from ffdask.errors import BadInput

CODES = frozenset(kind + size for kind in "iu" for size in "1248")


class Stored:
    """NumPy's array, as its pickle describes it; `array` once its state was read."""

    __slots__ = ("array",)

    def __init__(self) -> None:
        self.array: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        # What an `ndarray` pickles: version, shape, type, whether its first axis runs fastest, its bytes.
        _, shape, form, first_fastest, content = state
        if not isinstance(form, Type) or not isinstance(content, bytes) or not isinstance(shape, tuple):
            raise ValueError("an array without type, shape or bytes")
        if not 1 <= len(shape) <= 4 or not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError("an array of a shape that is none")
        dtype = np.dtype(form.order + form.code)
        if math.prod(shape) * dtype.itemsize != len(content):
            raise ValueError(f"an array of shape {shape} and type {dtype} with {len(content)} bytes")
        flat = np.frombuffer(content, dtype=dtype)
        self.array = flat.reshape(shape, order="F" if first_fastest else "C")


class Type:
    """NumPy's type of integers."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        self.code = code
        self.order = "<"

    def __setstate__(self, state: Any) -> None:
        # Version, byte order, then what only other types than integers have.
        order = _text(state[1])
        if order not in ("<", ">", "|", "="):
            raise ValueError("a type of no byte order")
        self.order = order


class Called:
    """A name that a pickle may call; a slot and no dict, so that a pickle cannot change it."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        raise ValueError(f"{self.name} given a state")

    def __call__(self, *given: Any) -> Any:
        """Do what the name does in the pickle of an array, and no more."""
        if self.name == "encode":
            text, encoding = given
            if type(text) is not str or _text(encoding) != "latin1":
                raise ValueError("bytes in another encoding than latin1")
            return text.encode("latin1")
        if self.name == "dtype":
            code = _text(given[0])
            if code not in CODES:
                raise ValueError("an array of a type that is not integers")
            return Type(code)
        if self.name == "_reconstruct":
            # Its arguments ask for an empty array, which nobody needs: the state says it all.
            return Stored()
        raise ValueError(f"{self.name} called")


class Restricted(pickle.Unpickler):
    """Makes only what `NAMES` stand for."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a name of `NAMES`; every other name is refused."""
        if (module, name) not in NAMES:
            raise BadInput(f"it asks for {module}.{name}, which is no part of an array")
        return Called(name)


def load(content: bytes, where: object) -> dict[str, Any]:
    """Return the dictionary of a pickle: text keys; arrays, lists, numbers and bytes as values.

    Raises
    ------
    BadInput
        The pickle holds, or does, anything else. Nothing that it names was run.
    """
    try:
        scan(content)
        # Strings of Python 2 come as bytes, as the arrays' content must.
        found = Restricted(io.BytesIO(content), fix_imports=False, encoding="bytes").load()
        if type(found) is not dict:
            raise BadInput("it holds no dictionary")
        return {_text(key): value.array if type(value) is Stored else value for key, value in found.items()}
    except Exception as exc:
        # A pickle can fail in as many ways as it has opcodes.
        raise BadInput(
            f"{where} is not a batch of CIFAR-10 ({str(exc) or type(exc).__name__}); allowed is a pickle of plain "
            "arrays, strings and numbers: fetch the file again"
        ) from exc


def _text(given: Any) -> str:
    """Return a text of Python 3, or of Python 2, whose texts were bytes."""
    if type(given) not in (bytes, str):
        raise ValueError("something where a text should be")
    return given.decode("ascii") if isinstance(given, bytes) else given
