"""Federated training: each node has rows of its own, a shard, that no other node sees [PFF, Federated].

Two ways to have shards. **Dealt** from one data set, to study what a federated run does: evenly (``iid``) or skewed by
class (``dirichlet``). Or **held**: a path with ``{node}`` in it names each node's own Zarr store, wherever it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffdask import draws
from ffdask.calendar import Calendar, Rows, Visit, permuted

Labels = NDArray[np.integer[Any]]

DEALT = ("iid", "dirichlet")
"""Kinds of shards that are dealt from one data set."""


@dataclass(frozen=True)
class Shards:
    """Where the nodes' shards come from.

    Attributes
    ----------
    kind : str
        ``iid``, ``dirichlet``, or a path with ``{node}`` in it.
    nodes : int
    alpha : float
        Of the Dirichlet distribution by which each class is dealt: the smaller, the more skewed.
    seed : int
    """

    kind: str
    nodes: int
    alpha: float
    seed: int

    @property
    def held(self) -> bool:
        """Return whether each node has a store of its own."""
        return self.kind not in DEALT

    def path(self, node: int) -> str:
        """Return the path of a node's own store."""
        return self.kind.replace("{node}", str(node))

    def deal(self, rows: Rows, labels: Labels) -> list[Rows]:
        """Return each node's rows of a data set, sorted.

        Parameters
        ----------
        rows : (n,)
            Row numbers that may be dealt: all that are not held out.
        labels : (n,)
            Of these rows; not read for ``iid``.
        """
        if self.kind == "iid":
            order = draws.generator(self.seed, "shards").permutation(rows)
            return [np.sort(part) for part in np.array_split(order, self.nodes)]
        parts: list[list[Rows]] = [[] for _ in range(self.nodes)]
        for label in np.unique(labels):
            generator = draws.generator(self.seed, "shards", int(label))
            order = generator.permutation(rows[labels == label])
            shares = generator.dirichlet(np.full(self.nodes, self.alpha))
            cuts = np.rint(np.cumsum(shares)[:-1] * len(order)).astype(int)
            for node, part in enumerate(np.split(order, cuts)):
                parts[node].append(part)
        return [np.sort(np.concatenate(part)) for part in parts]


@dataclass(frozen=True)
class Federation:
    """The nodes' shards.

    Attributes
    ----------
    shards : Shards
    rows : tuple of int
        Of each node's shard.
    sha256 : tuple of str
        Of each node's own store; empty where shards are dealt.
    readers : tuple of frozenset of str, or None
        Names of the workers that can read each node's shard; None where nobody was asked.
    """

    shards: Shards
    rows: tuple[int, ...]
    sha256: tuple[str, ...] = ()
    readers: tuple[frozenset[str], ...] | None = None


@dataclass(frozen=True)
class ShardedCalendar(Calendar):
    """A calendar of rows that are in shards: node n's chapters, c mod N = n, visit its own shard's chunks only.

    Attributes
    ----------
    shards : tuple of int
        Rows of each node's shard; their sum is `rows`.
    origin : Shards
        Where they come from.
    sha256 : tuple of str
        Of each node's own store; empty where shards are dealt.
    """

    shards: tuple[int, ...] = ()
    origin: Shards = Shards("iid", 1, 1.0, 0)
    sha256: tuple[str, ...] = ()

    @cached_property
    def _chunks_of(self) -> list[int]:
        return [-(-rows // self.chunk) for rows in self.shards]

    @cached_property
    def _offsets(self) -> list[int]:
        """Return each shard's first chunk's number: numbered on from the shards before."""
        return [0, *np.cumsum(self._chunks_of).tolist()]

    @property
    def chunks(self) -> int:
        """Number of chunks of all shards."""
        return self._offsets[-1]

    @property
    def runs(self) -> int:
        """Number of chapters that each node has."""
        return self.chapters // len(self.shards)

    def shard_of(self, chunk: int) -> int:
        """Return the node that has a chunk."""
        return int(np.searchsorted(self._offsets, chunk, side="right")) - 1

    def chunk_rows(self, chunk: int) -> int:
        """Return how many rows chunk number `chunk` has."""
        shard = self.shard_of(chunk)
        return min(self.chunk, self.shards[shard] - (chunk - self._offsets[shard]) * self.chunk)

    def deal(self) -> list[Rows]:
        """Return each chunk's row numbers within its shard, each shard dealt by a permutation of its own."""
        return self._dealt

    @cached_property
    def _dealt(self) -> list[Rows]:
        dealt: list[Rows] = []
        for node, rows in enumerate(self.shards):
            order = permuted(draws.generator(self.seed, "deal", node), rows)
            dealt += [order[start : start + self.chunk] for start in range(0, rows, self.chunk)]
        return dealt

    def __getstate__(self) -> dict[str, Any]:
        # It travels with every task; what is worked out from it need not.
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_")}

    def _first_of(self, node: int, run: int) -> int:
        """Return the number, among its node's visits, of a run's first one; also beyond the epochs' end."""
        visits = self.epochs * self._chunks_of[node]
        if run <= self.runs:
            return run * visits // self.runs
        return visits + (run - self.runs) * max(1, visits // self.runs)

    def visits_of(self, round_: int, again: int = 0) -> tuple[Visit, ...]:
        """Return the visits of a chapter: a run of its node's."""
        run, node = divmod(round_, len(self.shards))
        numbers = range(self._first_of(node, run), self._first_of(node, run + 1))
        return tuple(self._visit(node, number, again) for number in numbers)

    def _visit(self, node: int, number: int, again: int = 0) -> Visit:
        epoch, chunk = divmod(number, self._chunks_of[node])
        return Visit(epoch, self._offsets[node] + chunk, again)

    def _number(self, visit: Visit) -> tuple[int, int]:
        """Return a visit's node, and its number among that node's visits."""
        node = self.shard_of(visit.chunk)
        return node, visit.epoch * self._chunks_of[node] + visit.chunk - self._offsets[node]

    def _round(self, node: int, number: int) -> int:
        visits = self.epochs * self._chunks_of[node]
        if number < visits:
            run = ((number + 1) * self.runs - 1) // visits
        else:
            run = self.runs + (number - visits) // max(1, visits // self.runs)
        return run * len(self.shards) + node

    def source(self, visit: Visit, round_: int, staleness: int) -> tuple[int, Visit] | None:
        """Return (chapter, visit) of the newest probabilities of `visit`'s rows that its negatives may read."""
        node, number = self._number(visit)
        for earlier in range(number - self._chunks_of[node], -1, -self._chunks_of[node]):
            if self._round(node, earlier) <= round_ - 1 - staleness:
                return self._round(node, earlier), self._visit(node, earlier)
        return None

    @cached_property
    def _seen(self) -> list[int]:
        """Return how many rows have been seen when each chapter begins, and at the end."""
        rows = [sum(self.chunk_rows(visit.chunk) for visit in self.visits_of(c)) for c in range(self.chapters)]
        return [0, *np.cumsum(rows).tolist()]

    def factor(self, visit: Visit, start: int) -> float:
        """Return the cool-down's factor of the rate, by the rows of all shards, in the order of the chapters."""
        node, number = self._number(visit)
        chapter = self._round(node, number)
        if chapter >= self.chapters:
            # Chapters beyond the epochs' end go at the rate with which the last but one began.
            seen, before = self._seen[max(self.chapters - 2, 0)], 0
        else:
            first = self._first_of(node, chapter // len(self.shards))
            before = sum(self.chunk_rows(self._visit(node, earlier).chunk) for earlier in range(first, number)) + start
            seen = self._seen[chapter]
        progress = (seen + before) / self._seen[-1]
        return 1.0 if progress < self.cooldown else (1 - progress) / max(1 - self.cooldown, 1e-12)
