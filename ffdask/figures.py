"""A run's figures drawn: curves, a confusion matrix, histograms. `ffdask.svg` has them in a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ffdask.colours import COLOURS, ink

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LINES = 8
"""Layers that a figure shows one by one: as many as there are colours."""

MOST_NUMBERED = 20
"""Classes up to which a confusion matrix has its counts written in."""

MOST_DOTS = 30
"""Points of a line up to which each has a dot."""

WIDTH = 10.0
"""Inches of a figure."""


def chosen_layers(layers: int) -> list[int]:
    """Return which layers, from 1, are drawn: all, or as many as there are colours, from the first to the last."""
    if layers <= MOST_LINES:
        return list(range(1, layers + 1))
    return sorted({round(layer) for layer in np.linspace(1, layers, MOST_LINES)})


def blank(height: float, across: int = 1, down: int = 1, width: float = WIDTH) -> tuple[Figure, list[Axes]]:
    """Return an empty figure and its axes, row by row."""
    # Imported here: a third of a second that only those who draw should wait for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(down, across, squeeze=False)
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#888888", alpha=0.25, linewidth=0.6)
        axes.set_axisbelow(True)
    return figure, list(grid.flat)


def learning_curves(history: xr.Dataset, threshold: float | None, paired: bool) -> Figure:
    """Return each layer's loss, error and goodness by chapter; of positive data solid, of negative dashed."""
    figure, (loss, error, goodness) = blank(3.4, across=3)
    chapters, layers = history["chapter"].values + 1, chosen_layers(history.sizes["layer"])
    for number, layer in enumerate(layers):
        # A schedule may leave a layer out of a chapter.
        trained = history["loss"].sel(layer=layer).notnull().values
        mine, at = history.sel(layer=layer).isel(chapter=trained), chapters[trained]
        look = _line(COLOURS[number % len(COLOURS)], len(at))
        loss.plot(at, mine["loss"], **look, label=f"layer {layer}")
        error.plot(at, 100 * mine["error"], **look)
        goodness.plot(at, mine["goodness_positive"], **look)
        if paired:
            goodness.plot(at, mine["goodness_negative"], **look | {"linestyle": "--"})
    if not (history["loss"] <= 0).any():
        loss.set_yscale("log")
    if threshold is not None:
        goodness.axhline(threshold, color="#000000", linewidth=1, linestyle=":", label="threshold")
        goodness.legend(frameon=False, fontsize=8)
    loss.set_title("loss", loc="left", fontsize=10)
    error.set_title("error, %", loc="left", fontsize=10)
    error.set_ylim(bottom=0)
    goodness.set_title("goodness over the width", loc="left", fontsize=10)
    for axes in (loss, error, goodness):
        _by_chapter(axes)
    figure.legend(handles=loss.lines, loc="outside lower center", ncols=len(layers), frameon=False, fontsize=9)
    return figure


def accuracy_curves(looks: Mapping[str, NDArray[Any]], training: NDArray[Any] | None) -> Figure:
    """Return accuracies by chapter: of each classifier where it was looked at, and the head's on what it trained on.

    Parameters
    ----------
    looks : mapping
        Name -> share right (chapters,), NaN where nobody looked.
    training : (chapters,), optional
        The head's share right in training.
    """
    figure, (axes,) = blank(3.2)
    for number, (name, right) in enumerate(looks.items()):
        seen = np.flatnonzero(np.isfinite(right))
        look = _line(COLOURS[(0, 4, 2, 5)[number % 4]], len(seen))
        axes.plot(seen + 1, 100 * right[seen], **look, label=name)
    if training is not None and np.isfinite(training).any():
        look = _line("#888888", len(training)) | {"linestyle": "--"}
        axes.plot(np.arange(len(training)) + 1, 100 * training, **look, label="head in training")
    axes.set_title("accuracy, %", loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=9)
    _by_chapter(axes)
    return figure


def _as_it_is(name: str) -> str:
    """Return a name of the user's as a label: a dollar is no formula, and a leading underscore hides nothing."""
    return f"{' ' * name.startswith('_')}{name}".replace("$", r"\$")


def _line(colour: str, points: int) -> dict[str, Any]:
    """Return the look of a line; of few points each is seen."""
    dots = {"marker": "o", "markersize": 3.5} if points <= MOST_DOTS else {}
    return {"color": colour, "linewidth": 1.6, **dots}


def _by_chapter(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("chapters")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))


def confusion_matrix(counts: NDArray[np.intp]) -> Figure:
    """Return the confusion matrix: true classes down, classes given across; shades by share of the true class."""
    from matplotlib.colors import LogNorm, to_hex
    from matplotlib.ticker import MaxNLocator

    classes = len(counts)
    figure, (axes,) = blank(5.4, width=6.0)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    wrong = share * ~np.eye(classes, dtype=bool)
    # What is right would drown what is wrong: the diagonal has a shade of its own, mistakes theirs.
    top = wrong.max() or 1.0
    norm = LogNorm(max(top / 50, 1e-6), max(top, 2e-6), clip=True)
    mistakes = axes.imshow(np.where(wrong > 0, wrong, np.nan), cmap="Oranges", norm=norm, interpolation="nearest")
    right = np.where(np.eye(classes, dtype=bool) & (counts > 0), share, np.nan)
    agreed = axes.imshow(right, cmap="Blues", vmin=-0.2, vmax=1.6, interpolation="nearest")
    if classes <= MOST_NUMBERED:
        for row, column in zip(*np.nonzero(counts), strict=True):
            shades = agreed if row == column else mistakes
            shade = to_hex(tuple(shades.cmap(shades.norm(share[row, column]))))
            # Near black, not black, which a dark page would turn white.
            colour = "#111111" if ink(shade) == "#000000" else "#ffffff"
            axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", fontsize=8, color=colour)
        axes.set_xticks(range(classes))
        axes.set_yticks(range(classes))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(False)
    axes.set_xlabel("class given")
    axes.set_ylabel("true class")
    return figure


def goodness_histograms(positive: NDArray[Any], negative: NDArray[Any] | None, threshold: float | None) -> Figure:
    """Return a histogram a layer of goodness over the width.

    Parameters
    ----------
    positive : (layers, rows)
    negative : (layers, rows), optional
    threshold : float, optional
        Drawn, where the objective has one.
    """
    layers = chosen_layers(len(positive))
    across = min(4, len(layers))
    down = -(-len(layers) // across)
    figure, grid = blank(0.4 + 2.4 * down, across=across, down=down)
    for axes, layer in zip(grid, layers, strict=False):
        kinds = [("positive", positive, COLOURS[0])]
        kinds += [("negative", negative, COLOURS[4])] if negative is not None else []
        values = np.concatenate([of[layer - 1] for _, of, _ in kinds])
        # The few rows far out would press all others into one bar.
        low, high = np.quantile(values, [0.002, 0.998])
        edges = np.linspace(low, high if high > low else low + 1e-6, 41)
        for name, of, colour in kinds:
            label = name if negative is not None else "rows"
            kept = np.clip(of[layer - 1], edges[0], edges[-1])
            axes.hist(kept, edges.tolist(), color=colour, alpha=0.55, label=label, histtype="stepfilled")
        if threshold is not None:
            axes.axvline(threshold, color="#000000", linewidth=1, linestyle=":", label="threshold")
        axes.set_title(f"layer {layer}", loc="left", fontsize=10)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.tick_params(labelsize=8)
    for axes in grid[len(layers) :]:
        axes.set_axis_off()
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def compared_curves(histories: Sequence[tuple[str, xr.Dataset]]) -> Figure:
    """Return several runs' curves on the same axes: the last layer's error, and the head's in training, by chapter."""
    figure, (error, head) = blank(3.6, across=2)
    for number, (name, history) in enumerate(histories):
        # Runs of other numbers of chapters are as long as one another.
        done = 100 * (history["chapter"].values + 1) / max(history.sizes["chapter"], 1)
        look, label = _line(COLOURS[number % len(COLOURS)], len(done)), _as_it_is(name)
        for axes, curve in ((error, history["error"].isel(layer=-1)), (head, history["train_error"])):
            there = curve.notnull().values
            if there.any() or axes is error:
                axes.plot(done[there], 100 * curve.values[there], **look, label=label if axes is error else None)
    error.set_title("last layer's error, %", loc="left", fontsize=10)
    head.set_title("head's error in training, %", loc="left", fontsize=10)
    if not head.lines:
        head.annotate("no run has a head", (0.5, 0.5), xycoords="axes fraction", ha="center", color="#888888")
    for axes in (error, head):
        axes.set_ylim(bottom=0)
        axes.set_xlabel("training done, %")
    figure.legend(loc="outside lower center", ncols=min(4, len(histories)), frameon=False, fontsize=9)
    return figure
