"""The parts of a run's report: each of its figures, with what it shows in words; or why it is not there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ffdask import datasets, figures, machine, tiles, timeline
from ffdask.advice import Seen, advice
from ffdask.answers import Answers, goodness_of
from ffdask.calendar import held_out
from ffdask.errors import BadInput
from ffdask.folder import Folder
from ffdask.kernels import named
from ffdask.objectives import OBJECTIVES, Paired
from ffdask.svg import svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_MISTAKES = 24

NO_DATA = "The data set is no longer on this machine (nothing is fetched for a report), so this part is left out."
NO_IMAGES = "Samples are not images, so there is nothing to look at."


class Left(Exception):
    """A part that cannot be made; its message says why."""


@dataclass(frozen=True)
class Drawing:
    """A figure as an SVG element, with its caption."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Tile:
    """A small picture by its address, empty if there is none; what it shows in words; lines below it."""

    address: str
    shows: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """A part of a report; `left_out` says why there is nothing in it."""

    name: str
    title: str
    drawings: list[Drawing] = field(default_factory=list)
    sheet: Tile | None = None
    tiles: list[Tile] = field(default_factory=list)
    points: list[str] = field(default_factory=list)
    left_out: str = ""


@dataclass(frozen=True)
class Material:
    """A run, and what is worked out of it once for several parts.

    Attributes
    ----------
    folder : Folder
    """

    folder: Folder

    @property
    def paired(self) -> bool:
        """Return whether the layers compare positive with negative rows."""
        # An objective of one's own is known by its network alone: a report executes nothing of a run's.
        return self.folder.network.overlay != "none"

    @property
    def threshold(self) -> float | None:
        """Return theta over the width; None if the objective looks at none."""
        objective = OBJECTIVES.get(self.folder.resolved["objective"])
        if not self.paired or (isinstance(objective, Paired) and not objective.by_threshold):
            return None
        return float(self.folder.tables["layer"]["threshold"])

    @property
    def images(self) -> bool:
        """Return whether samples can be drawn."""
        return tiles.drawable(tuple(self.folder.resolved["dataset"]["shape"]))

    @cached_property
    def test_set(self) -> tuple[Any, Any]:
        """Return the test set's images and labels, if they are on this machine."""
        return self._rows("test")

    def _rows(self, split: Any) -> tuple[Any, Any]:
        if self.folder.dataset is None:
            raise Left(NO_DATA)
        return datasets.load(self.folder.dataset.path, split)

    @cached_property
    def unseen(self) -> tuple[Any, Any, str]:
        """Return images, labels and the name of rows that were not learned from: those held out, or the test set."""
        rows = int(self.folder.tables["data"].get("validation") or 0)
        if not rows:
            return *self.test_set, "test rows"
        images, labels = self._rows("train")
        chosen = held_out(self.folder.resolved["seed"], len(labels), rows)
        return images[chosen], labels[chosen], "rows held out"

    @cached_property
    def answers(self) -> Answers:
        """Return the run's answers to the test set."""
        images, labels = self.test_set
        classifier = self.folder.resolved["classifier"]
        with machine.one_thread():
            scores = self.folder.network.scores(images, classifier, named("numpy"), os.cpu_count() or 1)
        return Answers(scores, labels)


def sections(material: Material) -> Iterator[Section]:
    """Yield every part, in the order in which they are read; one that cannot be made says why, the others follow."""
    for make, name, title in PARTS:
        try:
            yield Section(name, title, **make(material))
        except (Left, BadInput) as error:
            yield Section(name, title, left_out=str(error))


def _drawn(figure: Figure, name: str, shows: str, caption: str) -> dict[str, Any]:
    return {"drawings": [Drawing(svg(figure, f"figure-{name}", shows), caption)]}


def _timeline(material: Material) -> dict[str, Any]:
    summary, records = material.folder.summary, material.folder.records
    shows = (
        f"Timeline: {summary['nodes']} nodes, {len(records)} steps in {summary['train_seconds']:.1f} s of training, "
        f"units {100 * summary['utilization']:.0f} % busy."
    )
    caption = "One row a node, one bar a step, coloured by layer; steps of a node at the same time share its row."
    return _drawn(timeline.picture(records), "timeline", shows, caption)


def _learning(material: Material) -> dict[str, Any]:
    history, threshold = material.folder.history, material.threshold
    chosen = figures.chosen_layers(history.sizes["layer"])
    errors = {n: history["error"].sel(layer=n).dropna("chapter").values for n in chosen}
    ends = [f"layer {n} {100 * curve[-1]:.2f} %" for n, curve in errors.items() if len(curve)]
    shows = f"Curves of loss, error and goodness by chapter. Error at the end: {', '.join(ends)}."
    caption = "Means over the rows learned from, before each minibatch's update. "
    if material.paired:
        side = "of their partner" if threshold is None else "of the threshold"
        caption += f"Error: rows on the wrong side {side}. Goodness of positive rows is solid, of negative rows dashed."
    else:
        caption += "Error: wrong answers of the layer's own head."
    if len(chosen) < history.sizes["layer"]:
        caption += f" {len(chosen)} of {history.sizes['layer']} layers are shown."
    return _drawn(figures.learning_curves(history, threshold, material.paired), "learning", shows, caption)


def _accuracy(material: Material) -> dict[str, Any]:
    history, summary = material.folder.history, material.folder.summary
    rows = {
        "test": material.folder.resolved["dataset"]["test_rows"],
        "validation": material.folder.tables["data"].get("validation"),
    }
    looks: dict[str, Any] = {}
    for key, right in summary.items():
        kind, found, classifier = key.partition("_accuracy_")
        if not found:
            continue
        errors = history.get(f"{kind}_errors_{classifier}")
        curve = np.full(history.sizes["chapter"], np.nan) if errors is None else 1 - errors.values / rows[kind]
        # What the run ended with: a schedule may do another step after the last look.
        looks[f"{kind}, {classifier}"] = np.append(curve[:-1], right)
    training = 1 - history["train_error"].values
    ends = [f"{name} {100 * curve[-1]:.2f} %" for name, curve in looks.items()]
    shows = f"Accuracy by chapter. At the end: {', '.join(ends)}."
    caption = "Where it was looked at (--evaluate-every), and at the end."
    if np.isfinite(training).any():
        caption += " The head's own in training is before its updates, of rows shifted and dropped out as configured."
    return _drawn(figures.accuracy_curves(looks, training), "accuracy", shows, caption)


def _confusion(material: Material) -> dict[str, Any]:
    answers = material.answers
    counts = answers.confusion()
    wrong = counts * ~np.eye(len(counts), dtype=bool)
    caption = f"{wrong.sum()} of {counts.sum()} test rows are wrong. Blue is right, orange wrong."
    if wrong.any():
        truth, given = np.unravel_index(wrong.argmax(), wrong.shape)
        caption += f" Most often {truth} is taken for {given}: {wrong[truth, given]} times."
    return _drawn(figures.confusion_matrix(counts), "confusion", f"Confusion matrix. {caption}", caption)


def _goodness(material: Material) -> dict[str, Any]:
    images, labels, of = material.unseen
    with machine.one_thread():
        seed = material.folder.resolved["seed"]
        positive, negative = goodness_of(material.folder.network, images, labels, named("numpy"), seed)
    theta = material.threshold
    caption = f"Of the trained network, on {positive.shape[1]} {of}"
    if negative is None:
        caption += "; this objective has no negative data."
        means = [f"layer {n} {a:.2f}" for n, a in enumerate(positive.mean(axis=1), 1)]
    else:
        caption += " under their true label (positive) and under a wrong one drawn at random (negative)."
        both = zip(positive.mean(axis=1), negative.mean(axis=1), strict=True)
        means = [f"layer {n} {a:.2f} and {b:.2f}" for n, (a, b) in enumerate(both, 1)]
    shows = f"Histograms of goodness by layer. Means: {', '.join(means[: figures.MOST_LINES])}."
    return _drawn(figures.goodness_histograms(positive, negative, theta), "goodness", shows, caption)


def _weights(material: Material) -> dict[str, Any]:
    if not material.images:
        raise Left(NO_IMAGES)
    sheet, count = tiles.receptive_fields(material.folder.network, tuple(material.folder.resolved["dataset"]["shape"]))
    colours = "colours about grey" if material.folder.resolved["dataset"]["shape"][2:] == [3] else "red up, blue down"
    line = f"The {count} units of the first layer that are most active, each on a scale of its own: {colours}."
    return {"sheet": Tile(tiles.data_uri(sheet), f"Weights as images. {line}", (line,))}


def _mistakes(material: Material) -> dict[str, Any]:
    answers, (images, _) = material.answers, material.test_set
    hardest = answers.hardest(MOST_MISTAKES)
    if not len(hardest):
        return {"points": ["No test row is put in a wrong class."]}
    shape = tuple(material.folder.resolved["dataset"]["shape"])
    made = []
    for row in hardest:
        truth, given = int(answers.truth[row]), int(answers.given[row])
        lines = (
            f"{given} ({_score(answers.scores[row, given])})",
            f"is {truth} ({_score(answers.scores[row, truth])})",
        )
        address = tiles.data_uri(tiles.sample(images[row].reshape(shape))) if material.images else ""
        made.append(Tile(address, f"Test row {row}: a {truth}, taken for {given}.", (*lines, f"row {row}")))
    return {
        "tiles": made,
        "points": [
            f"The {len(made)} test rows in which the class given is farthest above the true one: the class given, the "
            f"true class, each with its score by {material.folder.resolved['classifier']}."
        ],
    }


def _score(score: float) -> str:
    return f"{score:.3g}" if score >= 0.001 else "<0.001"


def _next(material: Material) -> dict[str, Any]:
    said = advice(seen_of(material))
    return {"points": said or ["Nothing in these figures asks for a change."]}


def seen_of(material: Material) -> Seen:
    """Return what the rules of advice read; what cannot be read of the folder is left out."""
    folder = material.folder
    try:
        history = folder.history
    except BadInput:
        history = None
    try:
        records = folder.records
    except BadInput:
        records = []
    return Seen(folder.tables, folder.summary, history, records, material.images, material.paired)


PARTS: tuple[tuple[Callable[[Material], dict[str, Any]], str, str], ...] = (
    (_timeline, "timeline", "Timeline"),
    (_learning, "learning", "Learning, layer by layer"),
    (_accuracy, "accuracy", "Accuracy"),
    (_confusion, "confusion", "Which class is taken for which"),
    (_goodness, "goodness", "Goodness of positive and negative data"),
    (_weights, "weights", "What the first layer looks for"),
    (_mistakes, "mistakes", "Hardest mistakes"),
    (_next, "next", "What to try next"),
)
"""How each part is made, its name in the page, its title."""
