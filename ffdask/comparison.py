"""Finished runs side by side: in what their configurations differ, their figures, their curves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffdask import figures
from ffdask.config import dotted
from ffdask.errors import BadInput
from ffdask.folder import Folder, open_folder
from ffdask.pages import page, shown
from ffdask.svg import svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = (
    *("test_accuracy", "validation_accuracy", "train_seconds", "utilization", "peak_memory_bytes"),
    *("chapters", "steps", "weights_sha256"),
)
"""Figures that are compared, where any of the runs has them."""

NOT_COMPARED = frozenset({"run.out", "run.overwrite", "run.quiet", "run.report", "run.checkpoints"})
"""Keys that say where a run goes, not what it is."""


@dataclass(frozen=True)
class Comparison:
    """Finished runs side by side; in a notebook it shows itself.

    Attributes
    ----------
    folders : tuple of Folder
    names : tuple of str
        Of the runs, each another.
    """

    folders: tuple[Folder, ...]
    names: tuple[str, ...]

    @property
    def differences(self) -> dict[str, tuple[Any, ...]]:
        """Return each run's value of every key of the configuration, and of what bits depend on, in which they differ.

        A key that a run leaves open is None there. ``fingerprint.<name>`` is the processor, a version and so on.
        """
        flat = [_flat(folder) for folder in self.folders]
        keys = dict.fromkeys(key for one in flat for key in one)
        values = {key: tuple(one.get(key) for one in flat) for key in keys}
        return {key: found for key, found in values.items() if any(value != found[0] for value in found)}

    @property
    def same_weights(self) -> bool:
        """Return whether all runs ended with the same bits."""
        return len({folder.summary["weights_sha256"] for folder in self.folders}) == 1

    @property
    def table(self) -> list[dict[str, Any]]:
        """Return a row a run: its name and path, its figures, and the keys in which the runs differ.

        Made for ``pandas.DataFrame(comparison.table)``. A figure that a run does not have is None.
        """
        differences = self.differences
        there = [name for name in FIGURES if any(name in folder.summary for folder in self.folders)]
        return [
            {
                "run": name,
                "path": str(folder.path),
                **{figure: folder.summary.get(figure) for figure in there},
                **{key: values[number] for key, values in differences.items()},
            }
            for number, (name, folder) in enumerate(zip(self.names, self.folders, strict=True))
        ]

    def rows(self) -> list[tuple[str, list[str]]]:
        """Return the table to be read: what is compared, and each run's value as text."""
        table = self.table
        keys = [key for key in table[0] if key not in ("run", "path")]
        return [(_title(key), [_text(key, row[key]) for row in table]) for key in keys]

    def verdict(self) -> str:
        """Return in a sentence whether the runs computed the same."""
        if self.same_weights:
            return "All ended with the same weights, to the bit."
        return "They did not end with the same weights."

    def figure(self) -> Figure:
        """Return the runs' curves on the same axes: the last layer's error, and the head's in training."""
        return figures.compared_curves([(n, f.history) for n, f in zip(self.names, self.folders, strict=True)])

    def html(self) -> str:
        """Return the comparison as a page that holds all it shows."""
        return page("compare.html", **self._shown())

    def _repr_html_(self) -> str:
        return page("comparison.html", **self._shown())

    def _shown(self) -> dict[str, Any]:
        accuracies = [f"{row['run']} {_text('test_accuracy', row['test_accuracy'])}" for row in self.table]
        drawn = svg(
            self.figure(), "figure-comparison", f"Curves of error by training done. Right: {'; '.join(accuracies)}."
        )
        return {"names": self.names, "rows": self.rows(), "verdict": self.verdict(), "drawn": drawn}

    def _named(self) -> list[tuple[str, dict[str, Any]]]:
        return list(zip(self.names, self.table, strict=True))


def compare_runs(*runs: Any) -> Comparison:
    """Return finished runs side by side.

    Parameters
    ----------
    *runs : path or Run
        Two or more: their folders, or anything that has its folder as ``path``.

    Raises
    ------
    BadInput
        If there are fewer than two, or a folder is no finished run's.

    Examples
    --------
    >>> import ffdask
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> rows = rng.integers(0, 256, (60, 6, 6)), np.arange(60) % 3
    >>> keys = {"layers": 8, "epochs": 1, "chunk": 50, "batch_size": 10, "units": 1, "quiet": True}
    >>> runs = [ffdask.fit(rows, seed=seed, **keys).wait() for seed in (0, 1)]
    >>> both = ffdask.compare_runs(*runs)
    >>> both.differences
    {'training.seed': (0, 1)}
    >>> both.verdict()
    'They did not end with the same weights.'
    """
    if len(runs) < 2:
        raise BadInput(f"runs: given {len(runs)}; a comparison takes the folders of two finished runs or more")
    folders = tuple(open_folder(getattr(run, "path", run)) for run in runs)
    return Comparison(folders, _names([folder.path for folder in folders]))


def _names(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return a name for each path: as many of its last parts as it takes to tell them apart, else its number too."""
    parts = [path.resolve().parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = [os.path.join(*part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return tuple(names)
    return tuple(f"{part[-1]} ({number})" for number, part in enumerate(parts, start=1))


def _flat(folder: Folder) -> dict[str, Any]:
    prints = {f"fingerprint.{name}": value for name, value in folder.summary.get("fingerprint", {}).items()}
    return {key: value for key, value in (dotted(folder.tables) | prints).items() if key not in NOT_COMPARED}


def _title(key: str) -> str:
    if "." in key:
        return key
    return {"weights_sha256": "weights", "peak_memory_bytes": "peak memory"}.get(key, key.replace("_", " "))


def _text(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if key.endswith("_accuracy"):
        return f"{100 * value:.2f} %"
    if key == "utilization":
        return f"{100 * value:.0f} %"
    if key == "train_seconds":
        return f"{value:.1f} s"
    if key == "peak_memory_bytes":
        return f"{value / 2**30:.2f} GiB"
    if key == "weights_sha256":
        return str(value)[:12]
    return shown(value)
