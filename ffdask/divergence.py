"""Training that leads nowhere, told by a step's figures: what is not finite, a dead layer, goodness that explodes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ffdask.errors import Diverged
from ffdask.schedules.steps import Step

LARGEST_GOODNESS = 1e6
"""In units of the width: activities a thousand times as large as those that a layer is handed."""

FIGURES = ("loss", "goodness_positive", "goodness_negative")


def check(step: Step, record: Mapping[str, Any], learning_rate: float) -> None:
    """Look at a finished step's figures.

    Parameters
    ----------
    step : Step
    record : mapping
        Its record, as `ffdask.work.perform` gives it.
    learning_rate : float
        For the message.

    Raises
    ------
    Diverged
        That names the layer, the round, the figure, and what to try.
    """
    what = f"layer {step.layer}" if step.layer else "the head"
    where, rate = f"{what} in {step.word} {step.round}", f"--learning-rate, now {learning_rate:g}"
    for figure in FIGURES:
        value = record.get(figure, 0.0)
        named = figure.replace("_", " of ").replace("positive", "positive data").replace("negative", "negative data")
        if not math.isfinite(value):
            raise Diverged(f"{where}: the {named} is {value}; try a smaller learning rate ({rate})")
        if figure != "loss" and value > LARGEST_GOODNESS:
            raise Diverged(
                f"{where}: the {named} is {value:.3g}, in units of its width; try a smaller learning rate ({rate}), or "
                "decay the weights (optimizer.weight_decay)"
            )
    if step.kind == "train" and not any(record.get(figure, 1.0) for figure in FIGURES[1:]):
        raise Diverged(
            f"{where}: no unit is active on any row, goodness is 0: it is dead, and learns no more; try a smaller "
            f"learning rate ({rate}), another --seed, or peer normalisation (layer.peer)"
        )
