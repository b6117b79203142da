"""A forecast as a picture: lanes are nodes, boxes are steps coloured by layer, arrows are what flows between them."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ffdask.colours import in_order, ink, look
from ffdask.errors import BadInput, nearest
from ffdask.lanes import KEY, lanes
from ffdask.plan import Forecast
from ffdask.schedules.ideal import Timed, makespan
from ffdask.schedules.steps import Step
from ffdask.timeline import tracks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".svg", ".png", ".pdf", ".txt")
"""What a picture may be written as."""

MOST_LANES = 16
"""Nodes that are drawn: more lanes than this nobody reads."""

MOST_BOXES = 400
"""Steps that are drawn."""

Dashes = tuple[float, tuple[float, ...]]

FLOWS: dict[str, tuple[str, Dashes, str]] = {
    "state": ("layer state", (0, ()), "#333333"),
    "activities": ("activities", (0, (4, 1.5)), "#333333"),
    "probabilities": ("probabilities", (0, (1, 1.5)), "#aa3300"),
    "labels": ("labels", (0, (6, 1.5, 1, 1.5)), "#dd8800"),
}
"""What flows: its name in the legend, the style of its line, its colour."""

WIDTH, MARGIN = 13.0, 1.1
"""Inches of the whole figure, and of it what the lanes' labels take."""

HALF = 0.32
"""Half a box's height, in lanes."""


@dataclass(frozen=True)
class Shown:
    """What of a forecast is drawn.

    Attributes
    ----------
    timed : tuple of Timed
    later : tuple of Timed
        What comes after, as far as it runs beside these.
    nodes, rounds : int
        The first ones.
    note : str
        The same, said to the reader.
    """

    timed: tuple[Timed, ...]
    later: tuple[Timed, ...]
    nodes: int
    rounds: int
    note: str


def shown(forecast: Forecast, rounds: int | None = None, most: int = MOST_BOXES, most_nodes: int = MOST_LANES) -> Shown:
    """Return the first rounds of a forecast, as far as they are there and can still be read.

    Parameters
    ----------
    forecast : Forecast
    rounds : int, optional
        How many; left out: two for every node and one more, after which a schedule repeats itself.
    most, most_nodes : int
        Steps and nodes at most.
    """
    plan = forecast.resolved.plan
    nodes = min(plan.nodes, most_nodes)
    steps = Counter(one.step.round for one in forecast.timed if one.step.node < nodes)
    wanted = [round_ for round_ in sorted(steps) if round_ < (rounds or 2 * nodes + 1)]
    while len(wanted) > 1 and sum(steps[round_] for round_ in wanted) > most:
        wanted.pop()
    last = wanted[-1] if wanted else -1
    fitting = [one for one in forecast.timed if one.step.node < nodes and one.step.round <= last]
    note = f"the first {last + 1} of {plan.rounds} {plan.word}s" if last + 1 < plan.rounds else f"all {plan.word}s"
    if nodes < plan.nodes:
        note += f"; nodes 0 to {nodes - 1} of {plan.nodes}"
    if len(fitting) > most:
        note += f"; the first {most} of {len(fitting)} steps"
    timed = tuple(fitting[:most])
    end, names = makespan(timed), {one.step.name for one in timed}
    beside = (one for one in forecast.timed if one.step.node < nodes and one.start < end)
    later = tuple(islice((one for one in beside if one.step.name not in names), most))
    return Shown(timed, later, nodes, last + 1, note)


def titles(forecast: Forecast) -> tuple[str, str]:
    """Return what is drawn, and what it promises over the whole run."""
    resolved, units = forecast.resolved, sum(forecast.units)
    widths = [str(width) for width in (resolved.job.fan_in, *resolved.job.widths)]
    network = "-".join(widths if len(widths) <= 8 else [*widths[:4], "...", widths[-1]])
    where = (
        f"{_many(resolved.plan.nodes, 'node')} on {_many(len(forecast.units), 'worker')} with {_many(units, 'unit')}"
    )
    return (
        f"{resolved.config.schedule.name}: {network}, {where}",
        f"ideal makespan {seconds(makespan(forecast.timed))}{forecast.partly} at a nominal 100 GFLOP/s a unit: "
        f"speed-up {forecast.speed_up:.2f}, never above {forecast.bound:.2f} however many units",
    )


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def seconds(value: float) -> str:
    """Return a time to be read: in seconds, or where it is less than one in milliseconds."""
    return f"{value:,.1f} s" if value >= 1 else f"{1000 * value:.3g} ms"


def timeline_text(forecast: Forecast, rounds: int | None = None, width: int = 100) -> str:
    """Return the ideal timeline as plain text, one line a node."""
    chosen = shown(forecast, rounds)
    drawn = lanes(chosen.timed, chosen.nodes, width, chosen.later)
    end = seconds(makespan(chosen.timed))
    scale = f"{'':11}0{end:>{width - 1}}"
    labelled = [f"{line}  {_worker(forecast, node)}" for node, line in enumerate(drawn)]
    return "\n".join([*titles(forecast), f"{chosen.note} ({KEY}):", "", *labelled, scale])


def _worker(forecast: Forecast, node: int) -> str:
    return f"worker {forecast.worker_of[node]}"


def flow(piece: str) -> str:
    """Return which of `FLOWS` a piece belongs to; a piece unheard of flows as activities do."""
    if piece.startswith(("activities", "neutral", "candidates")):
        return "activities"
    return piece if piece in FLOWS else "activities"


def flows(timed: tuple[Timed, ...]) -> Iterator[tuple[Timed, Timed, str]]:
    """Yield (from, to, what flows) for all that drawn steps need of drawn steps, each once."""
    at = {one.step.name: one for one in timed}
    for one in timed:
        needed = {(need.step, flow(need.piece)) for need in one.step.needs.values() if need.step in at}
        for source, kind in sorted(needed):
            yield at[source], one, kind


def timeline_picture(forecast: Forecast, rounds: int | None = None) -> Figure:
    """Return the ideal timeline of a forecast's first rounds.

    Each step is a rectangle whose `gid` is the step's name, at its time and in its node's lane; one that takes no
    time is a stroke. Each thing that flows between nodes is an arrow whose `gid` is ``from>to:what``.
    """
    # Imported here: a third of a second that only those who draw should wait for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    chosen = shown(forecast, rounds)
    span = makespan(chosen.timed) or 1.0
    figure = Figure(figsize=(WIDTH, 1.9 + 0.95 * chosen.nodes), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    what, promise = titles(forecast)
    head(axes, what, promise)
    for node in range(chosen.nodes):
        axes.axhspan(node - 0.42, node + 0.42, color="#f3f3f3", linewidth=0, zorder=0)
    boxes = (*chosen.timed, *chosen.later)
    places = _places(boxes)
    for one in chosen.later:
        _ghost(axes, one, places[one.step.name])
    for one in chosen.timed:
        _box(axes, one, places[one.step.name], span)
    single = chosen.nodes == 1
    drawn = {kind for source, target, kind in flows(chosen.timed) if _arrow(axes, source, target, kind, span, single)}
    axes.set_xlim(-0.004 * span, 1.004 * span)
    axes.set_ylim(chosen.nodes - 0.4, -0.8 if single else -0.6)
    axes.set_yticks(range(chosen.nodes), [f"node {node}\n{_worker(forecast, node)}" for node in range(chosen.nodes)])
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(10))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel(f"seconds, nominal ({chosen.note})", fontsize=9)
    _legend(figure, chosen, drawn)
    return figure


def head(axes: Axes, title: str, second: str) -> None:
    """Write a title and a line below it above a picture's left edge."""
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", pad=26)
    axes.annotate(
        second,
        (0, 1),
        xytext=(0, 9),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=10,
        color="#333333",
    )


def _places(timed: Sequence[Timed]) -> dict[str, tuple[float, float]]:
    """Return each step's middle and half its height, in lanes: steps of a node at the same time share its lane."""
    found: dict[str, tuple[float, float]] = {}
    for node in {one.step.node for one in timed}:
        mine = [one for one in timed if one.step.node == node]
        for one, (track, count) in zip(mine, tracks([(one.start, one.stop) for one in mine]), strict=True):
            half = HALF / count
            found[one.step.name] = (node - HALF + (2 * track + 1) * half, half)
    return found


def _ghost(axes: Axes, one: Timed, place: tuple[float, float]) -> None:
    """Draw a step of a later round: what keeps a node busy that would otherwise look idle."""
    from matplotlib.patches import Rectangle

    (middle, half), long = place, one.stop - one.start
    axes.add_patch(Rectangle((one.start, middle - half), long, 2 * half, facecolor="#e2e2e2", edgecolor="white"))


def _box(axes: Axes, one: Timed, place: tuple[float, float], span: float) -> None:
    from matplotlib.patches import Rectangle

    step, long = one.step, one.stop - one.start
    _, colour = look(step.kind, step.layer)
    inches = long / span * (WIDTH - MARGIN)
    middle, half = place
    half += 0 if long else 0.08
    # A white edge would hide a narrow box, which is drawn by its own edge instead.
    edge, thick = ("white", 0.8) if inches > 0.05 else (colour, 1.2 if long else 2)
    axes.add_patch(
        Rectangle(
            (one.start, middle - half),
            long,
            2 * half,
            facecolor=colour,
            gid=step.name,
            edgecolor=edge,
            linewidth=thick,
            zorder=2 if long else 4,
        )
    )
    for lines, size in _labels(step):
        if half < HALF and len(lines) * size > 2 * half * 0.95 * 72:
            continue
        # A glyph is about 0.6 of its font's size wide; a point is 1/72 inch.
        if inches > max(map(len, lines)) * size * 0.6 / 72 + 0.04:
            axes.text(
                (one.start + one.stop) / 2,
                middle,
                "\n".join(lines),
                color=ink(colour),
                fontsize=size,
                ha="center",
                va="center",
                zorder=6,
            )
            return


def _labels(step: Step) -> Iterator[tuple[list[str], float]]:
    """Yield what a box could say and in which size, the longest first; ``T1 v7``: layer 1 trains on visit 7."""
    again = "'" * step.again
    name, short = {
        "train": (f"layer {step.layer}", f"T{step.layer}"),
        "push": (f"push {step.layer}", f"P{step.layer}"),
        "push_head": ("push head", "PH"),
    }.get(step.kind, (step.kind.replace("_", " "), step.kind[:1].upper()))
    yield [name, f"{step.word} {step.round}{again}"], 9
    yield [short, f"{step.word} {step.round}{again}"], 9
    yield [short, f"{step.word[:1]}{step.round}{again}"], 8
    yield [short, f"{step.round}{again}"], 6


def _arrow(axes: Axes, source: Timed, target: Timed, kind: str, span: float, single: bool) -> bool:
    """Draw what flows from one step to another; return whether it was: within a node only where it is alone."""
    from matplotlib.patches import FancyArrowPatch

    _, style, colour = FLOWS[kind]
    down = target.step.node - source.step.node
    if not down and not (single and kind in ("state", "probabilities") and target.start > source.stop):
        return False
    # Beside each other, not on top: what leaves at the same moment, and what arrives.
    inset = 0.003 * span * (1 + list(FLOWS).index(kind))
    leaves = source.stop - min(inset, 0.4 * (source.stop - source.start))
    arrives = target.start + min(inset, 0.4 * (target.stop - target.start))
    side = 1 if down > 0 else -1
    tip = HALF if target.stop > target.start else HALF + 0.08
    # What passes other lanes passes over their boxes: thinner, so that they can be read.
    thick, alpha = {0: (0.6, 0.5), 1: (1.1, 0.85)}.get(abs(down), (0.9, 0.55))
    rad = {0: -0.18, 1: 0.0, -1: 0.0}.get(down, 0.06 * side)
    axes.add_patch(
        FancyArrowPatch(
            (leaves, source.step.node + side * (HALF if down else HALF - 0.06)),
            (arrives, target.step.node - side * (tip if down else -tip)),
            connectionstyle=f"arc3,rad={rad}",
            arrowstyle="-|>",
            mutation_scale=9 if down else 6,
            linestyle=style,
            linewidth=thick,
            color=colour,
            alpha=alpha,
            shrinkA=0,
            shrinkB=0,
            gid=f"{source.step.name}>{target.step.name}:{kind}",
            zorder=5,
        )
    )
    return True


def _legend(figure: Figure, chosen: Shown, drawn: set[str]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    looks = in_order((one.step.kind, one.step.layer) for one in chosen.timed)
    boxes = [Patch(color=colour, label=name) for name, colour in looks.items()]
    boxes += [Patch(color="#e2e2e2", label=f"later {chosen.timed[0].step.word}s")] if chosen.later else []
    lines = [
        Line2D([], [], color=colour, linestyle=style, linewidth=1.3, label=name)
        for kind, (name, style, colour) in FLOWS.items()
        if kind in drawn
    ]
    entries = len(boxes) + len(lines)
    # In rows as long as one another.
    columns = -(-entries // -(-entries // 9)) if entries else 1
    figure.legend(
        handles=[*boxes, *lines],
        loc="outside lower center",
        ncols=columns,
        fontsize=8.5,
        frameon=False,
        handlelength=2.4,
    )


def check_file(path: str) -> None:
    """Raise BadInput if no picture can be written to `path`; nothing is written.

    The message says what was given, and what is allowed.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise BadInput(
            f"--out: given {path!r}, whose suffix is {suffix!r}; allowed are {', '.join(SUFFIXES)}"
            f"{nearest(suffix, SUFFIXES)}"
        )
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise BadInput(f"--out: given {path}, but there is no folder {folder}; make it, or give another")
    if os.path.isdir(path):
        raise BadInput(f"--out: given {path}, which is a folder; give a file in it")
    if not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise BadInput(f"--out: given {path}, which cannot be written; give another file")


def write(picture: Figure | str, path: str) -> None:
    """Write a picture to `path`, in the form of its suffix; the same picture is the same bytes."""
    if isinstance(picture, str):
        content = f"{picture}\n".encode()
    else:
        from matplotlib import rc_context

        suffix, buffer = Path(path).suffix.lower(), io.BytesIO()
        undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix)
        # Text as text: a tenth of the bytes, and it can be searched.
        with rc_context({"svg.hashsalt": "ffdask", "svg.fonttype": "none"}):
            picture.savefig(buffer, format=suffix[1:], dpi=120, metadata=undated)
        content = buffer.getvalue()
    try:
        Path(path).write_bytes(content)
    except OSError as error:
        raise BadInput(f"--out: {path} cannot be written ({error.strerror or error}); give another file") from error
