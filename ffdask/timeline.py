"""Records of steps -> how busy the workers were, and a picture. No Dask: a step returns its start and stop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffdask.colours import in_order, look

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = dict[str, Any]

NAMES_ACROSS = 10
"""That a row of the legend has."""


def training_seconds(records: Sequence[Record]) -> float:
    """Return the seconds from the first training step's start to the last state's end, of each session of a run."""
    windows = [_window(session) for session in _sessions(records)]
    return float(sum(last - first for first, last in windows))


def busy_seconds(records: Sequence[Record]) -> float:
    """Return the seconds inside steps' own computing while training went on, evaluation left out."""
    total = 0.0
    for session in _sessions(records):
        first, last = _window(session)
        busy = (min(r["stop"], last) - max(r["start"], first) for r in session if r["kind"] != "evaluate")
        total += sum(seconds for seconds in busy if seconds > 0)
    return float(total)


def _sessions(records: Sequence[Record]) -> list[list[Record]]:
    """Return the records of each session: a run that was resumed has several."""
    numbers = sorted({record.get("session", 0) for record in records})
    return [[record for record in records if record.get("session", 0) == number] for number in numbers]


def _window(records: Sequence[Record]) -> tuple[float, float]:
    """Return when the first training step started and when the last state was there; (0, 0) if there was none."""
    states = [record for record in records if record["kind"] in ("train", "head")]
    starts, stops = [r["start"] for r in states], [r["stop"] for r in states]
    return min(starts, default=0.0), max(stops, default=0.0)


def utilization(records: Sequence[Record], units: int) -> float:
    """Return busy seconds over compute units times training seconds."""
    seconds = training_seconds(records)
    return busy_seconds(records) / (units * seconds) if seconds else 0.0


def overlap(records: Sequence[Record], one: int, other: int) -> float:
    """Return for how many seconds train steps of layer `one` and of layer `other` ran at the same time.

    Examples
    --------
    >>> one = {"kind": "train", "layer": 1, "start": 0.0, "stop": 3.0}
    >>> overlap([one, one | {"layer": 2, "start": 2.0, "stop": 5.0}], 1, 2)
    1.0
    """
    first, second = (
        sorted((r["start"], r["stop"]) for r in records if r["kind"] == "train" and r["layer"] == layer)
        for layer in (one, other)
    )
    return float(sum(max(0.0, min(b, d) - max(a, c)) for a, b in first for c, d in second))


def tracks(spans: Sequence[tuple[float, float]]) -> list[tuple[int, int]]:
    """Return for each span (start, stop) its track and how many tracks there are beside it.

    Spans that overlap, and those that overlap these, share a lane as so many tracks; what takes no time needs none.

    Examples
    --------
    >>> tracks([(0, 2), (1, 3), (4, 5)])
    [(0, 2), (1, 2), (0, 1)]
    """
    order = sorted((i for i, (start, stop) in enumerate(spans) if stop > start), key=lambda i: spans[i])
    track_of, group_of = dict[int, int](), dict[int, int]()
    ends, counts, last = list[float](), list[int](), float("-inf")
    for i in order:
        start, stop = spans[i]
        if start >= last:
            ends = []
            counts.append(0)
        free = next((track for track, end in enumerate(ends) if end <= start), len(ends))
        ends[free : free + 1] = [stop]
        track_of[i], group_of[i] = free, len(counts) - 1
        counts[-1], last = len(ends), max(last, stop)
    return [(track_of[i], counts[group_of[i]]) if i in track_of else (0, 1) for i in range(len(spans))]


def draw(records: Sequence[Record], path: Path, title: str) -> None:
    """Write the timeline to `path` (png, svg or pdf)."""
    picture(records, title).savefig(path, dpi=120)


def picture(records: Sequence[Record], title: str = "") -> Figure:
    """Return the timeline: one row a node, one bar a step, coloured by layer."""
    # Imported here: a third of a second that only those who draw should wait for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    nodes = sorted({record["node"] for record in records})
    names = in_order((record["kind"], record["layer"]) for record in records)
    rows = -(-len(names) // NAMES_ACROSS)
    figure = Figure(figsize=(12, 1.1 + 0.6 * len(nodes) + 0.25 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    origin = min((record["start"] for record in records), default=0.0)
    for node in nodes:
        mine = [record for record in records if record["node"] == node]
        places = tracks([(record["start"], record["stop"]) for record in mine])
        for track, count in sorted(set(places)):
            here = [record for record, place in zip(mine, places, strict=True) if place == (track, count)]
            looks = [look(record["kind"], record["layer"]) for record in here]
            bars = [(record["start"] - origin, record["stop"] - record["start"]) for record in here]
            high = 0.8 / count
            where = (nodes.index(node) - 0.4 + track * high, high)
            axes.broken_barh(bars, where, facecolors=[colour for _, colour in looks], edgecolor="white", linewidth=0.2)
    axes.set_yticks(range(len(nodes)), [f"node {node}" for node in nodes])
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    axes.set_title(title, loc="left", fontsize=10)
    handles = [Patch(color=colour, label=name) for name, colour in names.items()]
    # In rows as long as one another.
    across = -(-len(handles) // max(rows, 1))
    figure.legend(handles=handles, loc="outside lower center", ncols=max(across, 1), fontsize=8, frameon=False)
    return figure
