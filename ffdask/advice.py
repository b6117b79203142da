"""What to try next: a few rules, each of which reads a run's figures and has one sentence to say, or nothing.

None of them knows better than a run does: each says what it saw, and what may be worth a try because of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ffdask import timeline

if TYPE_CHECKING:
    import xarray as xr

Array = NDArray[np.floating[Any]]

BUSY_ENOUGH = 0.75
"""Share of the time that units are busy from which nothing is said of idle ones."""

FEW_CHAPTERS = 8
"""Chapters below which curves are too short to say how they go."""


@dataclass(frozen=True)
class Seen:
    """What the rules read.

    Attributes
    ----------
    tables : mapping
        The configuration.
    summary : mapping
    history : xarray.Dataset or None
        None where it cannot be read.
    records : sequence of dict
        None at all where they cannot be read.
    images : bool
        Whether samples are images, which can be shifted.
    paired : bool
        Whether the objective compares positive with negative rows; else each layer answers by a head of its own.
    """

    tables: Mapping[str, Mapping[str, Any]]
    summary: Mapping[str, Any]
    history: xr.Dataset | None
    records: Sequence[Mapping[str, Any]]
    images: bool
    paired: bool


def idle_node(seen: Seen) -> str | None:
    """A node that does less than half of what the busiest does: the work is dealt badly."""
    busy: dict[int, float] = {}
    for record in seen.records:
        if record["kind"] != "evaluate":
            busy[record["node"]] = busy.get(record["node"], 0.0) + record["stop"] - record["start"]
    nodes, seconds = seen.summary["nodes"], timeline.training_seconds(list(map(dict, seen.records)))
    if nodes < 2 or not seconds:
        return None
    share = {node: busy.get(node, 0.0) / seconds for node in range(nodes)}
    least, most = min(share, key=lambda node: share[node]), max(share, key=lambda node: share[node])
    if share[least] >= share[most] / 2 or seen.summary["utilization"] >= BUSY_ENOUGH:
        return None
    return (
        f"Node {least} worked {_percent(share[least], 0)} of the time, node {most} {_percent(share[most], 0)}: the "
        "work is dealt unevenly. Fewer nodes (--nodes), layers of like widths (--layers), or a schedule whose nodes "
        "take turns with all layers (--schedule all-layers) may be as fast on less, or faster."
    )


def idle_units(seen: Seen) -> str | None:
    """Units that stand still most of the time, though no node is to blame."""
    used, units = seen.summary["utilization"], seen.summary["threads"]
    if units < 2 or used >= BUSY_ENOUGH or idle_node(seen):
        return None
    return (
        f"The {units} units were busy {_percent(used, 0)} of the time. Other work on the machine, steps too short to "
        "be worth their hand-over (a larger --chunk, wider layers), or a pipeline that fills for most of a short run "
        "(more --epochs) can be the reason; fewer units (--units) may be as fast."
    )


def learned_by_heart(seen: Seen) -> str | None:
    """Training error far below the error on rows that were not learned from."""
    training, other = _training_error(seen), _other_error(seen)
    if training is None or training > other / 2 or other - training < 0.005:
        return None
    layer, training_table = seen.tables["layer"], seen.tables["training"]
    ways = ["--shift 1"] if seen.images and not training_table["shift"] else []
    ways += ["--dropout 0.2"] if not layer["dropout"] else []
    ways += ["more data"]
    return (
        f"The error in training ({_percent(training)}) is far below that on other rows ({_percent(other)}): the "
        f"network knows its rows by heart. {' or '.join(ways)} may help; more epochs or units alone will not."
    )


def still_falling(seen: Seen) -> str | None:
    """Training error that falls up to the end, and is no lower than that on other rows."""
    if learned_by_heart(seen):
        return None
    curve = _curve(seen)
    if len(curve) < FEW_CHAPTERS or not (curve > 0).all():
        return None
    last, before = _late(curve, 0, 4), _late(curve, 1, 4)
    if last > 0.85 * before:
        return None
    return (
        f"The error in training fell by {_percent(1 - last / before, 0)} from the last quarter but one of the chapters "
        "to the last one, and is not yet far below that on other rows: more epochs (--epochs) may pay."
    )


def layers_that_stand_still(seen: Seen) -> str | None:
    """Layers whose error is no lower in the second half than in the first, and not low either."""
    if seen.history is None or seen.history.sizes["chapter"] < FEW_CHAPTERS:
        return None
    still = []
    for layer, curve in _by_layer(seen.history).items():
        late, early = _late(curve, 0, 2), _late(curve, 1, 2)
        if late > 0.02 and late > 0.98 * early:
            still.append(layer)
    if not still:
        return None
    return (
        f"The error of {_layers(still)} stands still: it is no lower in the second half of the chapters than in the "
        "first. Another rate (--learning-rate), another threshold (--set layer.threshold=...) or fewer layers may do "
        "as well in less time."
    )


def last_layers_add_little(seen: Seen) -> str | None:
    """Layers at the top whose error is above that of a layer below them."""
    if seen.history is None or seen.history.sizes["layer"] < 2:
        return None
    errors = np.array([curve[-1] if len(curve) else np.inf for curve in _by_layer(seen.history).values()])
    best = int(errors.argmin())
    if not np.isfinite(errors).all() or errors[-1] < 1.1 * errors[best] or errors[-1] < 0.01:
        return None
    above = list(range(best + 2, len(errors) + 1))
    return (
        f"Layer {best + 1} ends with the smallest error ({_percent(errors[best])}); {_layers(above)} above it "
        f"{'ends' if len(above) == 1 else 'end'} with more ({_percent(errors[-1])} at the top). A network without "
        f"{'it' if len(above) == 1 else 'them'} may be as good; compare the two (python -m ffdask.compare)."
    )


def another_classifier(seen: Seen) -> str | None:
    """A classifier that this network has and that answers better."""
    kind = "validation" if "validation_accuracy" in seen.summary else "test"
    chosen, prefix = seen.summary["classifier"], f"{kind}_accuracy_"
    right = {key.removeprefix(prefix): value for key, value in seen.summary.items() if key.startswith(prefix)}
    best = max(right, key=lambda name: right[name], default=chosen)
    if chosen not in right or right[best] < right[chosen] + 0.002:
        return None
    return (
        f"{best} answers better than {chosen} ({_percent(right[best])} right against {_percent(right[chosen])} of the "
        f"{kind} rows): --classifier {best} costs nothing in training."
    )


def chosen_by_the_test_set(seen: Seen) -> str | None:
    """Looks at the test set while training: what is chosen by it is no longer tested by it."""
    if not seen.tables["run"].get("evaluate_every") or seen.tables["data"].get("validation"):
        return None
    return (
        "The test set was looked at while training went on. To choose between settings by such looks, hold rows out "
        "(--validation 10000): the test set can then still say how good the choice is."
    )


RULES: tuple[Callable[[Seen], str | None], ...] = (
    learned_by_heart,
    still_falling,
    layers_that_stand_still,
    last_layers_add_little,
    another_classifier,
    idle_node,
    idle_units,
    chosen_by_the_test_set,
)
"""In the order in which they are said."""


def advice(seen: Seen) -> list[str]:
    """Return what the rules have to say."""
    return [said for rule in RULES if (said := rule(seen)) is not None]


def _training_error(seen: Seen) -> float | None:
    """Return the share of wrong answers in training over the last chapter; None where no answer is given in it."""
    curve = _curve(seen)
    return float(curve[-1]) if len(curve) else None


def _curve(seen: Seen) -> Array:
    """Return the share of wrong answers in training by chapter: of the head, or of the last layer's own."""
    if seen.history is None:
        return np.empty(0)
    head = seen.history["train_error"].values
    if seen.paired or np.isfinite(head).any():
        return head[np.isfinite(head)]
    return list(_by_layer(seen.history).values())[-1]


def _by_layer(history: xr.Dataset) -> dict[int, Array]:
    """Return each layer's error by chapter, of the chapters in which it was trained."""
    errors = history["error"].transpose("layer", "chapter").values
    return {int(n): e[np.isfinite(e)] for n, e in zip(history["layer"].values, errors, strict=True)}


def _other_error(seen: Seen) -> float:
    """Return the share of wrong answers, by who answers in training, on rows held out; else on the test set."""
    kind = "validation" if "validation_accuracy" in seen.summary else "test"
    who = "softmax" if seen.paired else "last-head"
    return 1 - float(seen.summary.get(f"{kind}_accuracy_{who}", seen.summary[f"{kind}_accuracy"]))


def _late(curve: Array, back: int, parts: int) -> float:
    """Return the mean of the last of so many equal parts of a curve, or of the one so many parts `back`."""
    size = len(curve) // parts
    if not size:
        return 0.0
    end = len(curve) - back * size
    return float(np.mean(curve[end - size : end]))


def _layers(numbers: Sequence[int]) -> str:
    return f"layer{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


def _percent(share: float, digits: int = 2) -> str:
    return f"{100 * share:.{digits}f} %"
