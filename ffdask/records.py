"""What a run remembers of each step: its record, kept as a packed line of JSON, a tenth of what a dict takes.

A run of days has millions of steps, and of most of them nobody asks again before the end: what is done at each
checkpoint looks at none of them, what is done at a recovery decodes none.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any

Record = dict[str, Any]

_WORDS = (
    b'chapter evaluate test_errors_softmax negatives push_ head {"name": "train_layer1-visit000", "kind": "train", '
    b'"round": 0, "layer": 1, "again": 0, "last": true, "node": 0, "worker": "worker0", "start": 17, "stop": 17, '
    b'"rows": 1000, "loss": 0.1, "goodness_positive": 1.0, "goodness_negative": 0.9, "error": 0.0, "session": 0}'
)
"""What records have in common, so that it is kept once and not with each."""


def _packed(line: bytes) -> bytes:
    # A window as short as the words and a line: room for the usual one would be made, and let go, for each record.
    how = zlib.compressobj(wbits=11, memLevel=4, zdict=_WORDS)
    return how.compress(line) + how.flush()


def _unpacked(line: bytes) -> bytes:
    return zlib.decompressobj(zdict=_WORDS).decompress(line)


class Records(MutableMapping[str, Record]):
    """Records by their step's name, in the order in which they came; each with ``name`` and ``round``, from 0.

    What is asked for is made anew each time: changing it changes nothing here.

    Parameters
    ----------
    given : mapping of str to dict
        To begin with.
    """

    def __init__(self, given: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._lines: dict[str, bytes] = {}
        self._of_round: dict[int, list[str]] = {}
        # The round behind the last one here, and the one before which nothing comes or changes any more.
        self._end = self._fixed = 0
        self._view = False
        for record in (given or {}).values():
            self[record["name"]] = dict(record)

    @classmethod
    def of_lines(cls, lines: Iterable[bytes]) -> Records:
        """Return records as `lines` gave them."""
        records = cls()
        for line in lines:
            record = json.loads(line)
            records._put(record["name"], record["round"], _packed(line.rstrip(b"\n")))
        return records

    def __getitem__(self, name: str) -> Record:
        record: Record = json.loads(_unpacked(self._lines[name]))
        if record["round"] >= self._end:
            raise KeyError(name)
        return record

    def __setitem__(self, name: str, record: Record) -> None:
        self._put(name, record["round"], _packed(json.dumps(record).encode()))

    def _put(self, name: str, round_: int, line: bytes) -> None:
        if self._view or round_ < self._fixed:
            raise TypeError(f"{name}: round {round_} is in a checkpoint, where nothing comes or changes any more")
        if name not in self._lines:
            self._of_round.setdefault(round_, []).append(name)
            self._end = max(self._end, round_ + 1)
        self._lines[name] = line

    def __delitem__(self, name: str) -> None:
        raise TypeError("a record is never forgotten")

    def __iter__(self) -> Iterator[str]:
        # Of a list, copied in one go: a notebook looks at a run whose records come on another thread.
        return self._names() if self._view else iter(list(self._lines))

    def __len__(self) -> int:
        return sum(1 for _ in self._names()) if self._view else len(self._lines)

    def __contains__(self, name: object) -> bool:
        return name in self._lines and (not self._view or super().__contains__(name))

    def _names(self, after: int = -1) -> Iterator[str]:
        # By number, for one thread may write a view while records of later rounds come to another.
        return (name for each in range(after + 1, self._end) for name in self._of_round.get(each, ()))

    def up_to(self, round_: int) -> Records:
        """Return a view of the rounds up to one, all of whose steps are done: nothing is copied."""
        view = Records()
        view._lines, view._of_round, view._view = self._lines, self._of_round, True
        view._end = min(round_ + 1, self._end)
        self._fixed = max(self._fixed, view._end)
        return view

    def copy(self) -> Records:
        """Return records to go on with: their own, but for the lines themselves, which are shared."""
        some = Records()
        some._of_round = {each: list(names) for each, names in self._of_round.items() if each < self._end}
        some._lines, some._end = {name: self._lines[name] for name in self}, self._end
        return some

    def lines(self, after: int = -1) -> Iterable[bytes]:
        """Return the lines of the rounds after one, each with its end."""
        return (_unpacked(self._lines[name]) + b"\n" for name in self._names(after))
