"""The history of a run: its steps' records, as an `xarray.Dataset` by chapter and layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ffdask.calendar import Calendar

if TYPE_CHECKING:
    import xarray as xr

LAYER_FIGURES = ("loss", "goodness_positive", "goodness_negative", "error")
"""Of each layer and chapter: means over the rows learned from, before each minibatch's update."""


def history(records: Iterable[Mapping[str, Any]], calendar: Calendar, layers: int) -> xr.Dataset:
    """Return a run's history.

    Parameters
    ----------
    records : iterable of mappings
        The steps' records, in any order.
    calendar : Calendar
    layers : int

    Returns
    -------
    xarray.Dataset
        By (chapter, layer): ``loss``, ``goodness_positive`` and ``goodness_negative`` (over the width), ``error``
        (share of positive and negative rows on the wrong side of the threshold), ``seconds`` (inside train and push
        steps). By chapter: ``head_loss``, ``train_error`` (the head's, before its updates), ``head_seconds``,
        ``rows``. After a look at held-out rows also ``validation_errors_<classifier>``, or at the test set where there
        are none ``test_errors_<classifier>``. NaN where there was nothing.
    """
    # Imported here: half a second that the first step should not wait for.
    import xarray as xr

    records = list(records)
    chapters = 1 + max((calendar.chapter_of(record["round"]) for record in records), default=-1)
    figures = {name: np.zeros((chapters, layers)) for name in (*LAYER_FIGURES, "seconds")}
    rows = np.zeros((chapters, layers))
    head = {name: np.zeros(chapters) for name in ("head_loss", "train_error", "head_seconds", "rows")}
    looks: dict[str, np.ndarray] = {}
    for record in records:
        chapter, layer = calendar.chapter_of(record["round"]), record["layer"] - 1
        seconds = record["stop"] - record["start"]
        if record["kind"] == "train":
            rows[chapter, layer] += record["rows"]
            for name in LAYER_FIGURES:
                figures[name][chapter, layer] += record[name] * record["rows"]
        elif record["kind"] == "head":
            head["rows"][chapter] += record["rows"]
            head["head_loss"][chapter] += record["loss"] * record["rows"]
            head["train_error"][chapter] += record["error"] * record["rows"]
        elif record["kind"] == "evaluate":
            for name in (key for key in record if "_errors_" in key):
                looks.setdefault(name, np.full(chapters, np.nan))[chapter] = record[name]
        if layer >= 0:
            figures["seconds"][chapter, layer] += seconds
        elif record["kind"] in ("head", "push_head"):
            head["head_seconds"][chapter] += seconds
    with np.errstate(invalid="ignore"):
        for name in LAYER_FIGURES:
            figures[name] /= rows
        for name in ("head_loss", "train_error"):
            head[name] /= head["rows"]
    head["rows"] = rows.max(axis=1, initial=0)
    return xr.Dataset(
        {name: (("chapter", "layer"), values) for name, values in figures.items()}
        | {name: (("chapter",), values) for name, values in (head | looks).items()},
        coords={"chapter": np.arange(chapters), "layer": np.arange(1, layers + 1)},
    )
