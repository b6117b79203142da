"""A run as the page shows it, filled by its steps' records. No Dask and no Bokeh.

However long a run is, it takes the same memory: the newest `MOST_BOXES` steps, and of all others sums by column, of
which there are at most `MOST_COLUMNS`; a column is a chapter, or several next to one another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffdask.colours import look

Record = Mapping[str, Any]

MOST_BOXES = 2_000
MOST_COLUMNS = 240
RECENT_SECONDS = 30.0
"""That count as now, where it is said how busy a node is."""


class Box(NamedTuple):
    """A step in the timeline; `start` and `stop` in seconds since the epoch, by its worker's clock."""

    name: str
    look: str
    colour: str
    lane: str
    pushes: bool
    node: int
    worker: str
    start: float
    stop: float


class Shown:
    """What is shown of one run.

    Parameters
    ----------
    run : str
        Its id.
    about : mapping
        What its client has announced: ``layers``, ``head``, ``nodes``, ``rounds``, ``chapters``, and what names it.

    Attributes
    ----------
    boxes : deque of Box
        Of the newest steps.
    trained : list of int
        The layers, from 1, and the head, 0, if there is one.
    lanes : list of str
        Their names, and that of the rest.
    width, columns : int
        Chapters to a column, and how many columns there are.
    heard : int
        How many steps there were.
    origin, newest : float
        When the first step started, and the last to end stopped.
    ended : str
        How it ended; empty while it goes.
    """

    def __init__(self, run: str, about: Mapping[str, Any]) -> None:
        self.run, self.about = run, dict(about)
        self.boxes: deque[Box] = deque(maxlen=MOST_BOXES)
        self.heard, self.origin, self.newest, self.ended = 0, 0.0, 0.0, ""
        self.layers = int(about["layers"])
        self.width = max(1, -(-int(about["chapters"]) // MOST_COLUMNS))
        self.trained = [*range(1, self.layers + 1), *([0] if about["head"] else [])]
        self.lanes = [*map(lane, self.trained), "other"]
        self._rounds = max(1, int(about["rounds"]))
        self._all = np.bincount(self._columns_of(np.arange(self._rounds)))
        self.columns = len(self._all)
        # By figure and layer, (columns, 2): the sum over rows, and the rows.
        self._sums: dict[tuple[str, int], NDArray[np.float64]] = {}
        # Of each layer (0: the head) the round that was trained last, and by column how many were.
        self._last = dict.fromkeys(self.trained, -1)
        self._done = {layer: np.zeros(self.columns) for layer in self.trained}
        self._busy: dict[int, float] = dict.fromkeys(range(int(about["nodes"])), 0.0)
        self._worker: dict[int, str] = {}

    def goes_on(self, run: str, about: Mapping[str, Any]) -> bool:
        """Return whether what begins is this run, resumed: then it is shown on."""
        if (run, dict(about)) != (self.run, self.about):
            return False
        self.ended = ""
        return True

    def _chapter(self, round_: float) -> float:
        return float(round_ * self.about["chapters"] / self._rounds)

    def _columns_of(self, rounds: NDArray[np.int_]) -> NDArray[np.int_]:
        # As `Calendar.chapter_of`, in whole numbers; what comes behind the last round counts for it.
        rounds = np.minimum(rounds, self._rounds - 1)
        columns: NDArray[np.int_] = ((rounds + 1) * int(self.about["chapters"]) - 1) // self._rounds // self.width
        return columns

    def end(self, how: str) -> None:
        """Hear that no step follows."""
        self.ended = str(how)

    def add(self, record: Record) -> None:
        """Hear of a step that has ended."""
        kind, layer, node = record["kind"], record["layer"], record["node"]
        start, stop = record["start"], record["stop"]
        pushes = kind.startswith("push")
        where = lane(layer) if layer or kind in ("head", "push_head") else "other"
        if where not in self.lanes or node not in self._busy:
            raise ValueError(f"{record['name']}: the run announced no {where}, or no node {node}")
        box = Box(record["name"], *look(kind, layer), where, pushes, node, str(record["worker"]), start, stop)
        self.boxes.append(box)
        self.heard += 1
        self.origin = min(self.origin or start, start)
        self.newest = max(self.newest, stop)
        self._busy[node] += stop - start
        self._worker[node] = box.worker
        self._measure(record)

    def _measure(self, record: Record) -> None:
        kind, layer, column = record["kind"], record["layer"], int(self._columns_of(np.asarray(record["round"])))
        if kind in ("train", "head"):
            figures = ("error", "goodness_positive", "goodness_negative") if kind == "train" else ("error",)
            for name in figures:
                self._sum(name, layer, column, record[name], record["rows"])
            # A step that is done again, for its worker was lost, or as a schedule decides, fills nothing anew.
            if record["last"] and record["round"] > self._last[layer]:
                self._last[layer] = record["round"]
                self._done[layer][column] += 1
        elif kind == "evaluate":
            for name in (name for name in record if "_errors_" in name):
                self._sum(name, 0, column, record[name] / record["rows"], record["rows"])

    def _sum(self, name: str, layer: int, column: int, value: float, rows: int) -> None:
        sums = self._sums.setdefault((name, layer), np.zeros((self.columns, 2)))
        sums[column] += value * rows, rows

    def curve(self, name: str, layer: int = 0) -> tuple[list[float], list[float]]:
        """Return a figure by column: how many chapters there are up to its end, and the mean over the rows in it."""
        sums = self._sums.get((name, layer), np.zeros((self.columns, 2)))
        (there,) = sums[:, 1].nonzero()
        chapters = np.minimum((there + 1) * self.width, self.about["chapters"])
        return chapters.tolist(), (sums[there, 0] / sums[there, 1]).tolist()

    @property
    def accuracies(self) -> dict[str, tuple[list[float], list[float]]]:
        """Curves of the shares that are right: of the training rows as they are learned from, and of looks."""
        shown = 0 if self.about["head"] else self.layers
        curves = {f"training, {lane(shown)}": self.curve("error", shown)}
        for name in sorted(name for name, _ in self._sums if "_errors_" in name):
            of, _, classifier = name.partition("_errors_")
            curves[f"{of}, {classifier}"] = self.curve(name)
        return {name: (chapters, [1 - value for value in values]) for name, (chapters, values) in curves.items()}

    def schedule(self, in_work: Mapping[int, int]) -> list[tuple[str, str, float, float, str]]:
        """Return the schedule as it fills: (lane, colour, from chapter, to chapter, state), from 0.

        A layer's chapters (or several together) that are to come, the part of each that is done, and behind them the
        rounds whose steps workers have been given (`in_work`, by layer).
        """
        parts: list[tuple[str, str, float, float, str]] = []
        for layer in self.trained:
            name, colour = lane(layer), look("train" if layer else "head", layer)[1]
            for column, done in enumerate(np.minimum(1.0, self._done[layer] / self._all)):
                left = self.width * column
                right = min(left + self.width, self.about["chapters"])
                parts.append((name, colour, left, right, "to come"))
                if done:
                    parts.append((name, colour, left, left + done * (right - left), "done"))
            if in_work.get(layer) and not self.ended:
                first = self._last[layer] + 1
                last = min(first + in_work[layer], self._rounds)
                parts.append((name, colour, self._chapter(first), self._chapter(last), "in work"))
        return parts

    @property
    def seconds(self) -> float:
        """From the first step's start to the end of the one that ended last."""
        return self.newest - self.origin

    def utilisation(self) -> list[tuple[str, float, float]]:
        """Return of each node its name, with its worker's; how busy it was all the time; and how busy it is now."""
        since = max(self.origin, self.newest - RECENT_SECONDS)
        now = dict.fromkeys(self._busy, 0.0)
        for box in self.boxes:
            now[box.node] += max(0.0, box.stop - max(box.start, since))
        return [
            (
                f"node {node} · {self._worker[node]}" if node in self._worker else f"node {node}",
                busy / self.seconds if self.seconds else 0.0,
                now[node] / (self.newest - since) if self.newest > since else 0.0,
            )
            for node, busy in self._busy.items()
        ]


def lane(layer: int) -> str:
    """Return the name of a layer's lane; of the head's for 0."""
    return f"layer {layer}" if layer else "head"
