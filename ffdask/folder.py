"""A finished run's folder, read: its configuration, its figures, its history, its steps, and what it learned."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffdask import datasets
from ffdask.config import load
from ffdask.datasets import Dataset
from ffdask.errors import BadInput
from ffdask.network import Network
from ffdask.store import RunFolder, open_configuration, open_network

if TYPE_CHECKING:
    import xarray as xr

FIGURES = frozenset(
    {
        *("test_accuracy", "test_errors", "classifier", "train_seconds", "utilization", "threads", "nodes", "workers"),
        *("schedule", "layers", "epochs", "chapters", "steps", "weights_sha256", "peak_memory_bytes", "dataset"),
    }
)
"""What every summary has, and is read here."""


@dataclass(frozen=True)
class Folder:
    """What a finished run left; the large parts are read when they are asked for.

    Attributes
    ----------
    path : Path
    tables : dict
        The configuration as given: table -> key -> value.
    resolved : dict
        The same with nothing left open, with the data set's identity.
    summary : dict
        The figures in ``summary.json``.
    """

    path: Path
    tables: dict[str, dict[str, Any]]
    resolved: dict[str, Any]
    summary: dict[str, Any]

    @property
    def name(self) -> str:
        """Return the last part of the folder's path."""
        return self.path.resolve().name

    @cached_property
    def network(self) -> Network:
        """Return the trained network."""
        return open_network(self.path)[0]

    @cached_property
    def history(self) -> xr.Dataset:
        """Return the figures by chapter and layer, in memory.

        Raises
        ------
        BadInput
            If they cannot be read.
        """
        # Imported here: half a second that those who want only the summary should not wait for.
        import xarray as xr

        try:
            with (
                warnings.catch_warnings(action="ignore"),
                xr.open_zarr(RunFolder(self.path).zarr, group="history", consolidated=False, chunks=None) as opened,
            ):
                return opened.load()
        except Exception as error:
            raise BadInput(
                f"run folder: given {self.path}, whose history cannot be read: {type(error).__name__}: {error}"
            ) from None

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """Return what each step was, from when to when, in the order in which they ended.

        Raises
        ------
        BadInput
            If they cannot be read.
        """
        file = self.path / "records.jsonl"
        try:
            records = [json.loads(line) for line in file.read_text().splitlines()]
            if any(not {"kind", "layer", "node", "start", "stop"} <= record.keys() for record in records):
                raise ValueError("a line is no step's record")
            return records
        except (OSError, ValueError, AttributeError) as error:
            raise BadInput(f"run folder: given {self.path}, whose records.jsonl cannot be read: {error}") from None

    @cached_property
    def dataset(self) -> Dataset | None:
        """Return the data set that the run learned from, if it is on this machine; nothing is fetched."""
        recorded = Dataset(**self.resolved["dataset"])
        path = datasets.locate(recorded, fetch=False)
        return None if path is None else replace(recorded, path=path)

    @property
    def defaults(self) -> dict[str, dict[str, Any]]:
        """Return what the configuration's keys are when they are left out."""
        # What follows the objective follows this run's.
        objective = self.tables.get("network", {}).get("objective", "goodness")
        known = {} if ":" in str(objective) else {"network.objective": objective}
        tables = load(None, known).tables()
        tables["network"]["objective"] = load(None).network.objective
        return tables


def open_folder(path: str | Path) -> Folder:
    """Open a finished run's folder; nothing in it is executed or unpickled.

    Raises
    ------
    BadInput
        If it is no run's, or the run has not ended.
    """
    tables, resolved = open_configuration(path)
    try:
        summary = json.loads((Path(path) / "summary.json").read_text())
        missing = FIGURES - summary.keys() if isinstance(summary, dict) else FIGURES
        if missing:
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
    except FileNotFoundError:
        raise BadInput(f"run folder: given {path}, whose run has not ended: there is no summary.json in it") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"run folder: given {path}, whose summary.json cannot be read: {error}") from None
    return Folder(Path(path), tables, resolved, summary)
