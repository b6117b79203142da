"""Whether a pickle is of plain data, seen from its opcodes, before any of them acts."""

from __future__ import annotations

import pickletools
from typing import Any

from ffdask.errors import BadInput

MADE = {
    *("NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG1", "STRING", "BINSTRING"),
    *("SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES"),
    *("EMPTY_LIST", "EMPTY_DICT", "EMPTY_TUPLE", "GLOBAL"),
}
"""Opcodes that put something of their own on the stack."""

TAKEN = {"APPEND": 1, "SETITEM": 2, "BUILD": 1}
"""Opcodes that take so many from the stack into what lies below."""

TAKEN_TO_MARK = {"APPENDS", "SETITEMS"}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
FROM_MARK = {"TUPLE", "LIST", "DICT"}
PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
GETS = {"GET", "BINGET", "LONG_BINGET"}
CONTAINERS = {"EMPTY_LIST", "LIST", "EMPTY_DICT", "DICT", "BUILD"}

NAMES = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}
"""What a pickle of arrays asks for."""

MOST_OPCODES = 1_000_000
"""A batch of 10,000 rows takes 100,000 at most."""

MOST_CONTAINERS = 1_000
"""A batch has about 10."""

MOST_DEPTH = 50
"""Of tuples in tuples: a million deep, they end the process when they are hashed."""


def scan(content: bytes) -> None:
    """Check every opcode.

    Raises
    ------
    BadInput
        One is not of plain data, asks for a name that is not in `NAMES`, or there are too many.
    """
    depths = _Depths()
    kept = containers = last = 0
    for number, (opcode, given, at) in enumerate(pickletools.genops(content)):
        name, argument, last = opcode.name, given, at or 0
        kept += name in PUTS or name == "MEMOIZE"
        containers += name in CONTAINERS
        if number >= MOST_OPCODES or containers > MOST_CONTAINERS:
            raise BadInput("it has more parts than a batch can have")
        # The unpickler takes memory for every number below the largest.
        if name in PUTS and not 0 <= _number(argument) <= 2 * kept + 100:
            raise BadInput(f"its opcode {name} at byte {at} keeps part {argument} of {kept}")
        if name == "GLOBAL" and tuple(str(argument).split(" ", 1)) not in NAMES:
            raise BadInput(f"it asks for {str(argument).replace(' ', '.')}, which is no part of an array")
        if depths.after(name, argument) > MOST_DEPTH:
            raise BadInput(f"it holds tuples in tuples, more than {MOST_DEPTH} deep")
    if last + 1 != len(content):
        raise BadInput("something follows its end")


class _Depths:
    """The unpickler's stack, with nothing on it but how deep tuples lie in tuples.

    Lists and dictionaries count as flat: they have no hash, and Python takes them apart without recursion.
    """

    def __init__(self) -> None:
        self.stack: list[int] = []
        self.below: list[list[int]] = []
        self.memo: dict[int, int] = {}

    def after(self, name: str, argument: Any) -> int:
        """Return the depth of what lies on top after an opcode."""
        if name in MADE:
            self.stack.append(0)
        elif name == "MARK":
            self.below.append(self.stack)
            self.stack = []
        elif name in TAKEN:
            self._take(TAKEN[name])
        elif name in TAKEN_TO_MARK:
            self._take_to_mark()
        elif name in TUPLES:
            self.stack.append(1 + max(self._take(TUPLES[name])))
        elif name in FROM_MARK:
            items = self._take_to_mark()
            self.stack.append(1 + max(items, default=0) if name == "TUPLE" else 0)
        elif name in ("REDUCE", "STACK_GLOBAL"):
            self._take(2)
            self.stack.append(0)
        elif name in PUTS or name == "MEMOIZE":
            self.memo[len(self.memo) if name == "MEMOIZE" else _number(argument)] = self.stack[-1]
        elif name in GETS:
            self.stack.append(self.memo[_number(argument)])
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise BadInput(f"its opcode {name} is not one of plain data")
        return self.stack[-1] if self.stack else 0

    def _take(self, count: int) -> list[int]:
        if len(self.stack) < count:
            raise BadInput("it takes more than there is")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def _take_to_mark(self) -> list[int]:
        if not self.below:
            raise BadInput("it goes back to a mark that is not there")
        taken, self.stack = self.stack, self.below.pop()
        return taken


def _number(argument: Any) -> int:
    if type(argument) is not int:
        raise BadInput("it keeps something under no number")
    return argument
