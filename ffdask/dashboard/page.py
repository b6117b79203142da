"""The page itself: a Bokeh document on the scheduler's own server, filled anew twice a second while somebody looks.

Its links are relative, as those of Dask's pages, so that it works behind a proxy and under a prefix.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from itertools import islice
from typing import TYPE_CHECKING, Any

from bokeh.layouts import column, row
from bokeh.models import ColumnDataSource, Div, FixedTicker, HoverTool, NumeralTickFormatter, Range1d
from bokeh.plotting import figure
from bokeh.server.tornado import BokehTornado
from distributed.dashboard.components import add_periodic_callback
from distributed.dashboard.components.scheduler import BOKEH_THEME, env
from distributed.dashboard.core import BokehApplication
from distributed.dashboard.scheduler import template_variables
from tornado.ioloop import IOLoop

from ffdask.colours import look
from ffdask.dashboard.shown import MOST_BOXES, RECENT_SECONDS, Shown, lane

if TYPE_CHECKING:
    from bokeh.document import Document
    from distributed import Scheduler

    from ffdask.dashboard.follower import Follower

NAME = "forward-forward"
EVERY_MILLISECONDS = 500

ALPHA = {"to come": 0.12, "in work": 0.45, "done": 1.0}
"""Of a chapter in the schedule."""

WIDE = {"sizing_mode": "stretch_width", "toolbar_location": "above", "tools": "xpan,xwheel_zoom,box_zoom,reset"}

SOURCES = {
    "schedule": ("left", "right", "top", "bottom", "colour", "alpha", "state"),
    "steps": ("left", "right", "top", "bottom", "colour", "name", "look", "node", "worker", "seconds"),
    "accuracy": ("xs", "ys", "colour", "dash", "name"),
    "goodness": ("xs", "ys", "colour", "dash", "name"),
    "utilisation": ("y", "all", "now"),
}
"""What is drawn, by its name, and its columns."""


def serve(scheduler: Scheduler) -> None:
    """Serve the page beside Dask's own, and list it in their navigation; where there are none, do nothing."""
    beside = [app for app in scheduler.http_application.applications if isinstance(app, BokehTornado)]
    if not beside or any(f"/{NAME}" in app.app_paths for app in beside):
        return
    variables = template_variables(scheduler)
    # The very list that Dask's pages have been given: it remembers what it makes for a scheduler.
    variables["pages"].append(NAME)
    app = BokehApplication({f"/{NAME}": document}, scheduler, beside[0].prefix, variables)
    scheduler.http_application.add_application(app)
    app.initialize(IOLoop.current())
    app.start()


def document(scheduler: Scheduler, extra: Mapping[str, Any], doc: Document) -> None:
    """Fill a document for somebody who opens the page."""
    page = Page(scheduler)
    page.update()
    add_periodic_callback(doc, page, EVERY_MILLISECONDS)
    doc.add_root(page.root)
    doc.title = "Dask: Forward-Forward"
    doc.theme = BOKEH_THEME
    doc.template = env.get_template("simple.html")
    doc.template_variables.update(extra)


class Page:
    """What one visitor sees.

    Parameters
    ----------
    scheduler : distributed.Scheduler
        With a `Follower` among its plugins.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.shown: Shown | None = None
        self._heard = 0
        self._seen: object = None
        self.sources = {name: ColumnDataSource(_empty(name), name=name) for name in SOURCES}
        self.title = Div(name="title", styles={"font-size": "110%", "margin": "8px"})
        self.schedule = _schedule_lanes(self.sources["schedule"])
        self.timeline = _timeline(self.sources["steps"])
        accuracy = _curves(self.sources["accuracy"], "Accuracy, while training", legend_field="name")
        accuracy.yaxis.formatter = NumeralTickFormatter(format="0.0 %")
        accuracy.legend[0].update(location="bottom_right", background_fill_alpha=0.5, label_text_font_size="9pt")
        goodness = _curves(self.sources["goodness"], "Goodness a unit; dashed: of negatives")
        self.busy = _utilisation(self.sources["utilisation"])
        below = row(accuracy, goodness, self.busy, sizing_mode="stretch_width")
        self.root = column(
            self.title, self.schedule, self.timeline, below, sizing_mode="stretch_width", name="forward-forward"
        )

    def update(self) -> None:
        """Show what has happened since."""
        follower: Follower = self.scheduler.plugins["ffdask-page"]
        shown, in_work = follower.shown, follower.in_work(self.scheduler)
        if shown is None:
            self.title.text = "No run has begun on this scheduler since the page was added to it."
            return
        if shown is not self.shown:
            self._begin(shown)
        now = (shown.heard, shown.ended, in_work)
        if now == self._seen:
            return
        self._seen = now
        self.title.text = _title(shown)
        self._step_boxes(shown)
        self._set("schedule", _schedule(shown, in_work))
        self._set("accuracy", _accuracy(shown))
        self._set("goodness", _goodness(shown))
        self._set("utilisation", [(node, share, now) for node, (_, share, now) in enumerate(shown.utilisation())])
        _name_lanes(self.busy, [name for name, _, _ in shown.utilisation()])

    def _begin(self, shown: Shown) -> None:
        """Turn to another run."""
        self.shown, self._heard, self._seen = shown, 0, None
        self.sources["steps"].data = _empty("steps")
        _name_lanes(self.schedule, [lane(layer) for layer in shown.trained])
        _name_lanes(self.timeline, shown.lanes)
        self.schedule.x_range.end = shown.about["chapters"]

    def _set(self, name: str, rows: list[tuple[Any, ...]]) -> None:
        self.sources[name].data = _columns(name, rows)

    def _step_boxes(self, shown: Shown) -> None:
        """Add the steps that have ended since; each is sent to the visitor once."""
        fresh = min(shown.heard - self._heard, len(shown.boxes))
        self._heard = shown.heard
        boxes = islice(shown.boxes, len(shown.boxes) - fresh, None)
        rows = []
        for box in boxes:
            # A push lies below the training steps of its layer, beside which it may run.
            y = shown.lanes.index(box.lane)
            top, bottom = (y + 0.4, y + 0.1) if box.pushes else (y + 0.1, y - 0.4)
            left, right = box.start - shown.origin, box.stop - shown.origin
            seconds = f"{right - left:.3g}"
            rows.append((left, right, top, bottom, box.colour, box.name, box.look, box.node, box.worker, seconds))
        self.sources["steps"].stream(_columns("steps", rows), rollover=MOST_BOXES)


def _empty(name: str) -> dict[str, list[Any]]:
    return {key: [] for key in SOURCES[name]}


def _columns(name: str, rows: list[tuple[Any, ...]]) -> dict[str, list[Any]]:
    return dict(zip(SOURCES[name], map(list, zip(*rows, strict=True)), strict=True)) if rows else _empty(name)


def _title(shown: Shown) -> str:
    about, chapters = shown.about, shown.about["chapters"]
    network = "-".join(map(str, about["widths"]))
    how = f"<b>{escape(shown.ended)}</b>" if shown.ended else "training"
    parts = [f"{escape(str(about['schedule']))}: {escape(str(about['dataset']))}, layers {escape(network)}"]
    parts += [f"run {escape(shown.run)}", f"{chapters} chapters", f"{shown.heard} steps in {shown.seconds:.1f} s", how]
    return " · ".join(parts)


def _schedule(shown: Shown, in_work: Mapping[int, int]) -> list[tuple[Any, ...]]:
    rows = []
    for name, colour, left, right, state in shown.schedule(in_work):
        y = shown.lanes.index(name)
        rows.append((left, right, y + 0.4, y - 0.4, colour, ALPHA[state], state))
    return rows


def _accuracy(shown: Shown) -> list[tuple[Any, ...]]:
    colours = ("#222222", "#4477aa", "#ee6677", "#228833", "#aa3377")
    curves = enumerate(shown.accuracies.items())
    return [(*curve, colours[i % len(colours)], "solid", name) for i, (name, curve) in curves]


def _goodness(shown: Shown) -> list[tuple[Any, ...]]:
    return [
        (*shown.curve(f"goodness_{side}", layer), look("train", layer)[1], dash, f"layer {layer}, {side}")
        for layer in shown.trained
        if layer
        for side, dash in (("positive", "solid"), ("negative", "dashed"))
    ]


def _name_lanes(lanes: figure, names: list[str]) -> None:
    """Name a figure's lanes, the first above; the axis has one tick for each."""
    lanes.yaxis.ticker = FixedTicker(ticks=list(range(len(names))))
    lanes.yaxis.major_label_overrides = dict(enumerate(names))
    lanes.y_range.start, lanes.y_range.end = len(names) - 0.5, -0.5
    lanes.height = 90 + 24 * max(1, len(names))


def _schedule_lanes(source: ColumnDataSource) -> figure:
    ranges = {"x_range": Range1d(0, 1), "y_range": Range1d(0.5, -0.5)}
    lanes = figure(title="Schedule", x_axis_label="chapters", height=160, **ranges, **WIDE)
    lanes.quad("left", "right", "top", "bottom", source=source, color="colour", fill_alpha="alpha", line_color="white")
    lanes.add_tools(HoverTool(tooltips="@state"))
    lanes.ygrid.visible = False
    return lanes


def _timeline(source: ColumnDataSource) -> figure:
    lanes = figure(title="Timeline", x_axis_label="seconds", y_range=Range1d(0.5, -0.5), height=160, **WIDE)
    lanes.quad("left", "right", "top", "bottom", source=source, fill_color="colour", line_color=None)
    lanes.add_tools(HoverTool(tooltips="@name: @seconds s, node @node, @worker"))
    lanes.ygrid.visible = False
    return lanes


def _curves(source: ColumnDataSource, title: str, **legend: str) -> figure:
    curves = figure(title=title, x_axis_label="chapters", height=260, **WIDE)
    how = {"line_color": "colour", "line_dash": "dash", "line_width": 2}
    curves.multi_line("xs", "ys", source=source, **how, **legend)
    curves.add_tools(HoverTool(tooltips="@name"))
    return curves


def _utilisation(source: ColumnDataSource) -> figure:
    title = f"Utilisation; thin: the last {RECENT_SECONDS:.0f} s"
    bars = figure(title=title, x_range=Range1d(0, 1), y_range=Range1d(0.5, -0.5), height=260, **WIDE)
    bars.hbar("y", right="all", height=0.7, source=source, color="#bbbbbb")
    bars.hbar("y", right="now", height=0.25, source=source, color="#4477aa")
    bars.xaxis.formatter = NumeralTickFormatter(format="0 %")
    bars.add_tools(HoverTool(tooltips="@all{0 %}, now @now{0 %}"))
    bars.ygrid.visible = False
    return bars
