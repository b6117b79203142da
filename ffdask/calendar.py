"""Which rows are seen when: chunks, visits, chapters, minibatches, and the rate at each.

Training rows are dealt into chunks once. An epoch visits every chunk; a **visit** is (epoch, chunk). A **round** is
what one pass of a schedule over the layers works through: a chapter of several visits, or in streaming one visit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffdask import draws

Rows = NDArray[np.unsignedinteger[Any]]
"""Row numbers."""


@dataclass(frozen=True, slots=True, order=True)
class Visit:
    """One pass over a chunk: `epoch` and `chunk`, from 0; `again` counts a dynamic schedule's repetitions."""

    epoch: int
    chunk: int
    again: int = 0

    def draw(self, seed: int, purpose: str, *where: int) -> np.random.Generator:
        """Return the generator of this visit's draws for `purpose` (and, within it, for `where`)."""
        name = f"{purpose}-again-{self.again}" if self.again else purpose
        return draws.generator(seed, name, self.epoch, self.chunk, *where)


@dataclass(frozen=True)
class Calendar:
    """The run's rows in time, a pure function of the configuration.

    Attributes
    ----------
    rows : int
        Training rows.
    chunk : int
        Rows in a chunk; the last chunk may be smaller.
    batch : int
        Rows in a minibatch; the last of a visit may be smaller.
    epochs, chapters : int
    by_visit : bool
        Whether a round is one visit (the streaming rule) or one chapter (the chapter rule).
    seed : int
    cooldown : float
        Progress at which the rate starts its linear fall to 0.
    validation : int
        Rows held out beside the `rows` that are trained on.

    Examples
    --------
    >>> calendar = Calendar(rows=100, chunk=40, batch=10, epochs=2, chapters=4, by_visit=False, seed=0)
    >>> calendar.chunks, calendar.visits, calendar.rounds
    (3, 6, 4)
    >>> [[(visit.epoch, visit.chunk) for visit in calendar.visits_of(chapter)] for chapter in range(4)]
    [[(0, 0)], [(0, 1), (0, 2)], [(1, 0)], [(1, 1), (1, 2)]]
    """

    rows: int
    chunk: int
    batch: int
    epochs: int
    chapters: int
    by_visit: bool
    seed: int
    cooldown: float = 0.5
    validation: int = 0

    @property
    def chunks(self) -> int:
        """Number K of chunks."""
        return -(-self.rows // self.chunk)

    @property
    def visits(self) -> int:
        """Number E K of visits that the epochs have."""
        return self.epochs * self.chunks

    @property
    def rounds(self) -> int:
        """Number of rounds that the epochs have: chapters, or visits when streaming."""
        return self.visits if self.by_visit else self.chapters

    def deal(self) -> list[Rows]:
        """Return each chunk's row numbers, dealt once by a permutation of all rows that are not held out."""
        return _deal(self.seed, self.rows, self.chunk, self.validation)

    def held_out(self) -> Rows:
        """Return the numbers of the rows that are held out for validation, which leave before dealing."""
        return held_out(self.seed, self.rows + self.validation, self.validation)

    def chunk_rows(self, chunk: int) -> int:
        """Return how many rows chunk number `chunk` has."""
        return min(self.chunk, self.rows - chunk * self.chunk)

    def _first(self, round_: int) -> int:
        """Return the number of the first visit of a round, also beyond the epochs' end."""
        if self.by_visit:
            return round_
        if round_ <= self.chapters:
            return round_ * self.visits // self.chapters
        return self.visits + (round_ - self.chapters) * max(1, self.visits // self.chapters)

    def visits_of(self, round_: int, again: int = 0) -> tuple[Visit, ...]:
        """Return the visits of a round; rounds past the last one take the visits that follow."""
        return tuple(
            Visit(*divmod(number, self.chunks), again) for number in range(self._first(round_), self._first(round_ + 1))
        )

    def rows_of(self, round_: int) -> int:
        """Return how many rows a round works through."""
        return sum(self.chunk_rows(visit.chunk) for visit in self.visits_of(round_))

    def round_of(self, number: int) -> int:
        """Return the round in which visit `number` lies."""
        if self.by_visit:
            return number
        if number < self.visits:
            # The largest c with floor(c V / S) <= number.
            return ((number + 1) * self.chapters - 1) // self.visits
        return self.chapters + (number - self.visits) // max(1, self.visits // self.chapters)

    def chapter_of(self, round_: int) -> int:
        """Return the chapter to which a round belongs: itself, or when streaming that of its visit."""
        if not self.by_visit:
            return round_
        return ((min(round_, self.visits - 1) + 1) * self.chapters - 1) // self.visits

    def source(self, visit: Visit, round_: int, staleness: int) -> tuple[int, Visit] | None:
        """Return (round, visit) of the newest probabilities of `visit`'s rows that its negatives may read.

        The newest earlier visit of the same chunk in a round <= `round_` - 1 - `staleness`; None if there is none.
        """
        number = visit.epoch * self.chunks + visit.chunk
        # A repetition within a round may read the round's own epoch only through an earlier round, as the first did.
        for earlier in range(number - self.chunks, -1, -self.chunks):
            if self.round_of(earlier) <= round_ - 1 - staleness:
                return self.round_of(earlier), Visit(*divmod(earlier, self.chunks))
        return None

    def order(self, visit: Visit) -> NDArray[np.intp]:
        """Return the order in which a visit takes its chunk's rows: the same for every layer and schedule."""
        return visit.draw(self.seed, "order").permutation(self.chunk_rows(visit.chunk))

    def minibatches_in(self, chunk: int) -> int:
        """Return how many minibatches a visit of chunk number `chunk` has."""
        return -(-self.chunk_rows(chunk) // self.batch)

    def minibatches(self, visit: Visit) -> Iterator[tuple[int, int, float]]:
        """Yield (start, stop, rate factor) of a visit's minibatches, within its order."""
        rows = self.chunk_rows(visit.chunk)
        for start in range(0, rows, self.batch):
            yield start, min(start + self.batch, rows), self.factor(visit, start)

    def factor(self, visit: Visit, start: int) -> float:
        """Return the cool-down's factor of the rate, read at the start of a minibatch.

        Constant to `cooldown`, then linear to 0 [PFF]. Visits after the epochs' end go at the rate of the last
        chapter but one.
        """
        number = visit.epoch * self.chunks + visit.chunk
        if number >= self.visits:
            first = self.chapters - 2 if self.chapters > 1 else 0
            low, high = first * self.visits // self.chapters, (first + 1) * self.visits // self.chapters
            number = low + (number - self.visits) % (high - low)
            start = min(start, self.chunk_rows(number % self.chunks) - 1)
        epoch, chunk = divmod(number, self.chunks)
        progress = (epoch * self.rows + chunk * self.chunk + start) / (self.epochs * self.rows)
        return 1.0 if progress < self.cooldown else (1 - progress) / max(1 - self.cooldown, 1e-12)


@lru_cache(maxsize=4)
def _deal(seed: int, rows: int, chunk: int, validation: int) -> list[Rows]:
    order = permuted(draws.generator(seed, "deal"), rows)
    if validation:
        order = kept_rows(rows + validation, held_out(seed, rows + validation, validation))[order]
    order.setflags(write=False)
    return [order[start : start + chunk] for start in range(0, rows, chunk)]


@lru_cache(maxsize=4)
def held_out(seed: int, rows: int, validation: int) -> Rows:
    """Return which `validation` of all training `rows` are held out, sorted."""
    # A permutation of all rows is drawn only where some are held out of them.
    held: Rows = np.sort(permuted(draws.generator(seed, "validation"), rows)[:validation]) if validation else numbers(0)
    held.setflags(write=False)
    return held


def kept_rows(rows: int, held: Rows) -> Rows:
    """Return the row numbers that are not `held` out, sorted."""
    kept = np.ones(rows, bool)
    kept[held] = False
    return numbers(rows)[kept]


def numbers(rows: int) -> Rows:
    """Return 0 to `rows`, in as few bytes as data sets of up to 2 ** 32 rows need: memory grows with them."""
    return np.arange(rows, dtype=np.uint32 if rows <= 1 << 32 else np.uint64)


def permuted(generator: np.random.Generator, rows: int) -> Rows:
    """Return the numbers 0 to `rows` in a drawn order, that of ``generator.permutation(rows)``."""
    order = numbers(rows)
    generator.shuffle(order)
    return order
