"""What a run remembers of each step: its record, kept as a line of JSON, a quarter of what a dict takes.

A run of days has millions of steps, and of most of them nobody asks again before the end.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any

Record = dict[str, Any]


class Records(MutableMapping[str, Record]):
    """Records by their step's name, in the order in which they came; each with ``name`` and ``round``.

    What is asked for is made anew each time: changing it changes nothing here.

    Parameters
    ----------
    given : mapping of str to dict
        To begin with.
    """

    def __init__(self, given: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._lines: dict[str, bytes] = {}
        self._of_round: dict[int, list[str]] = {}
        for record in (given or {}).values():
            self[record["name"]] = dict(record)

    def __getitem__(self, name: str) -> Record:
        record: Record = json.loads(self._lines[name])
        return record

    def __setitem__(self, name: str, record: Record) -> None:
        if name not in self._lines:
            self._of_round.setdefault(record["round"], []).append(name)
        self._lines[name] = json.dumps(record).encode()

    def __delitem__(self, name: str) -> None:
        raise TypeError("a record is never forgotten")

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def __contains__(self, name: object) -> bool:
        return name in self._lines

    def up_to(self, round_: int) -> Records:
        """Return those of the rounds up to one."""
        some = Records()
        some._of_round = {each: list(names) for each, names in self._of_round.items() if each <= round_}
        some._lines = {name: self._lines[name] for names in some._of_round.values() for name in names}
        return some

    def lines(self, after: int = -1) -> Iterable[bytes]:
        """Return the lines of the rounds after one, each with its end."""
        rounds = (names for each, names in self._of_round.items() if each > after)
        return (self._lines[name] + b"\n" for names in rounds for name in names)
