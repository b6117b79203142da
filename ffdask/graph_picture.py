"""The Dask graph as a picture: nodes are tasks, edges are the pieces that flow between them, layered left to right."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import networkx as nx

from ffdask.colours import in_order, ink, look
from ffdask.picture import FLOWS, flow, head, shown, titles
from ffdask.plan import Forecast
from ffdask.tasks import Task, tasks_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.path import Path

MOST_STEPS = 60
"""Steps whose tasks are drawn."""

MOST_LABELS = 90
"""Pieces up to which each arrow says what it is; beyond, the legend does."""

COLUMN, ROW = 1.75, 0.75
"""Inches between two tasks, from left to right and from top to bottom."""

BOX_WIDTH, BOX_HEIGHT = 0.62, 0.62
"""Of a task's box, in columns and rows."""

PASSING = 0.4
"""Rows that an arrow takes where it passes between tasks."""

SWEEPS = 12
"""Times that tasks are moved toward those they flow from and to: few edges cross after as many."""

Bend = tuple[Task, Task, int]
"""Where an edge (from, to) passes a column on its way."""

Point = tuple[float, float]

Places = dict[Task | Bend, Point]


def graph_of(tasks: list[Task]) -> nx.MultiDiGraph[Task]:
    """Return tasks as a directed graph.

    An edge is a piece, with `piece`. A task's `column` is how many lie before it; a task that takes nothing is beside
    the first that takes of it.
    """
    graph: nx.MultiDiGraph[Task] = nx.MultiDiGraph()
    graph.add_nodes_from(tasks)
    graph.add_edges_from((source, task, piece, {"piece": piece}) for task in tasks for source, piece in task.takes)
    columns = {task: column for column, tasks in enumerate(nx.topological_generations(graph)) for task in tasks}
    for task in graph:
        late = min((columns[reader] for reader in graph.succ[task]), default=1) - 1
        graph.nodes[task]["column"] = columns[task] if graph.pred[task] else late
    return graph


def graph_text(forecast: Forecast, rounds: int | None = None) -> str:
    """Return the Dask graph as plain text: a task a line, and what it takes of which."""
    tasks, note = _chosen(forecast, rounds)
    wide = max((len(task.key) for task in tasks), default=0)
    lines = [
        f"{task.key:{wide}} <- {', '.join(f'{piece} of {source.key}' for source, piece in task.takes)}".removesuffix(
            " <- "
        ).rstrip()
        for task in tasks
    ]
    return "\n".join([titles(forecast)[0], note, "", *lines])


def _chosen(forecast: Forecast, rounds: int | None) -> tuple[list[Task], str]:
    """Return the tasks that are drawn, and what they are."""
    chosen = shown(forecast, rounds or 3, MOST_STEPS, forecast.resolved.plan.nodes)
    names = {one.step.name for one in chosen.timed}
    tasks = tasks_of(forecast, [step for step in forecast.steps if step.name in names])
    return tasks, f"{len(tasks)} tasks, {chosen.note}; each key goes on with the run's id"


def graph_picture(forecast: Forecast, rounds: int | None = None) -> Figure:
    """Return the Dask graph of a forecast's first rounds.

    Each task is a text whose `gid` is its key. Each piece is an arrow whose `gid` is ``from>to:piece``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tasks, note = _chosen(forecast, rounds)
    graph = graph_of(tasks)
    places = _places(graph)
    columns = 1 + max((x for x, _ in places.values()), default=0)
    top, bottom = min((y for _, y in places.values()), default=0), max((y for _, y in places.values()), default=0)
    figure = Figure(figsize=(max(COLUMN * columns, 9), ROW * (bottom - top + 1) + 1.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xlim(-0.4, columns - 0.6)
    axes.set_ylim(bottom + 0.5, top - 0.5)
    axes.axis("off")
    head(axes, titles(forecast)[0], note)
    labelled = graph.number_of_edges() <= MOST_LABELS
    for source, task in dict.fromkeys(graph.edges()):
        pieces = list(graph[source][task])
        for kind in dict.fromkeys(map(flow, pieces)):
            _edge(axes, source, task, kind, [piece for piece in pieces if flow(piece) == kind], places, labelled)
    for task in graph:
        _node(axes, task, places[task])
    _legend(figure, graph)
    return figure


def _places(graph: nx.MultiDiGraph[Task]) -> Places:
    """Return each task's column and row, and each bend's: columns by what flows, rows so that arrows are short.

    An edge that passes columns has a bend in each, which takes a place there as a task does: no arrow runs behind a
    box.
    """
    if not graph:
        return {}
    routed: nx.DiGraph[Task | Bend] = nx.DiGraph()
    routed.add_nodes_from(graph.nodes(data=True))
    for source, task in dict.fromkeys(graph.edges()):
        way: list[Task | Bend] = [source]
        for column in range(graph.nodes[source]["column"] + 1, graph.nodes[task]["column"]):
            way.append((source, task, column))
            routed.add_node(way[-1], column=column)
        nx.add_path(routed, [*way, task])
    layout = nx.multipartite_layout(routed, subset_key="column", align="vertical")
    columns: dict[int, list[Task | Bend]] = {}
    for place in routed:
        columns.setdefault(routed.nodes[place]["column"], []).append(place)
    rows = {place: float(layout[place][1]) for place in routed}
    for sweep in range(SWEEPS):
        beside = routed.succ if sweep % 2 else routed.pred
        for column in sorted(columns, reverse=bool(sweep % 2)):
            _settle(columns[column], {place: list(beside[place]) for place in columns[column]}, rows)
    return {place: (float(routed.nodes[place]["column"]), rows[place]) for place in routed}


def _settle(
    column: list[Task | Bend], beside: dict[Task | Bend, list[Task | Bend]], rows: dict[Task | Bend, float]
) -> None:
    """Put a column's places in the order of those beside them, and as near to them as the places' heights allow."""
    wish = {
        place: sum(rows[other] for other in beside[place]) / len(beside[place]) if beside[place] else rows[place]
        for place in column
    }
    column.sort(key=lambda place: wish[place])
    bottom, shifts = -float("inf"), []
    for place in column:
        height = 1.0 if isinstance(place, Task) else PASSING
        rows[place] = max(wish[place], bottom + height / 2)
        bottom = rows[place] + height / 2
        shifts.append(rows[place] - wish[place])
    # Pushed down only, so far: back up together, by what the column was pushed on average.
    back = sum(shifts) / len(shifts)
    for place in column:
        rows[place] -= back


def _name(task: Task) -> tuple[str, str]:
    """Return a task's name in the legend and its colour."""
    if task.step is not None:
        return look(task.step.kind, task.step.layer)
    return {"pick": ("picked for another worker", "#ffffff"), "recall": ("cut: taken up anew", "#f6e8c3")}.get(
        task.function, (task.function, "#ffffff")
    )


def _node(axes: Axes, task: Task, place: Point) -> None:
    from matplotlib.patches import Rectangle

    _, colour = _name(task)
    helper, (x, y) = task.step is None, place
    axes.add_patch(
        Rectangle(
            (x - BOX_WIDTH / 2, y - BOX_HEIGHT / 2),
            BOX_WIDTH,
            BOX_HEIGHT,
            facecolor=colour,
            edgecolor="#666666" if helper else "white",
            linestyle=":" if helper else "-",
            zorder=4,
            gid=task.key,
        )
    )
    lines = task.key.split("-", 2 if helper else 1)
    size = 6.5 if helper else 8
    axes.text(x, y, "\n".join(lines), fontsize=size, ha="center", va="center", color=ink(colour), zorder=5)


def _edge(axes: Axes, source: Task, task: Task, kind: str, pieces: list[str], places: Places, labelled: bool) -> None:
    from matplotlib.patches import FancyArrowPatch

    _, style, colour = FLOWS[kind]
    between = range(int(places[source][0]) + 1, int(places[task][0]))
    bends = [places[source, task, column] for column in between]
    points = _way(places[source], bends, places[task], list(FLOWS).index(kind))
    axes.add_patch(
        FancyArrowPatch(
            path=_smooth(points),
            arrowstyle="-|>",
            mutation_scale=9,
            linestyle=style,
            linewidth=1,
            color=colour,
            alpha=0.75,
            zorder=2,
            gid=f"{source.key}>{task.key}:{'+'.join(pieces)}",
        )
    )
    if labelled:
        # In the gap right of the source's column, where no box is.
        (x0, y0), (x1, y1) = points[:2]
        axes.text(
            (x0 + x1) / 2,
            (y0 + y1) / 2,
            "\n".join(pieces),
            fontsize=6,
            color=colour,
            ha="center",
            va="center",
            linespacing=0.95,
            zorder=3,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
        )


def _way(start: Point, bends: list[Point], stop: Point, order: int) -> list[Point]:
    """Return what a path passes from a box's right side, left and right of the bends, to another's left side."""
    # What flows by another style leaves and arrives at a height of its own.
    aside = (order - 1) * 0.1
    points = [(start[0] + BOX_WIDTH / 2, start[1] + aside)]
    for x, y in bends:
        points += [(x - BOX_WIDTH / 2, y), (x + BOX_WIDTH / 2, y)]
    return [*points, (stop[0] - BOX_WIDTH / 2, stop[1] + aside)]


def _smooth(points: list[Point]) -> Path:
    """Return a path through points, level at each."""
    from matplotlib.path import Path

    vertices, codes = [points[0]], [Path.MOVETO]
    for (x0, y0), (x1, y1) in pairwise(points):
        middle = (x0 + x1) / 2
        vertices += [(middle, y0), (middle, y1), (x1, y1)]
        codes += [Path.CURVE4] * 3
    return Path(vertices, codes)


def _legend(figure: Figure, graph: nx.MultiDiGraph[Task]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    looks = in_order((task.step.kind, task.step.layer) for task in graph if task.step is not None)
    looks |= dict(_name(task) for task in graph if task.step is None)
    boxes = [Patch(facecolor=colour, edgecolor="#666666", linewidth=0.5, label=name) for name, colour in looks.items()]
    drawn = {flow(piece) for _, _, piece in graph.edges(keys=True)}
    lines = [
        Line2D([], [], color=colour, linestyle=style, linewidth=1.3, label=name)
        for kind, (name, style, colour) in FLOWS.items()
        if kind in drawn
    ]
    figure.legend(
        handles=[*boxes, *lines],
        loc="outside lower center",
        ncols=min(len(boxes) + len(lines), 7),
        fontsize=8.5,
        frameon=False,
    )
