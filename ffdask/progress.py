"""A progress bar with the live training error; to a file or a pipe nothing is drawn."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ffdask.resolved import Resolved
from ffdask.watchers import Tally


class Bar:
    """Draws a run's progress on standard output: chapters done, training error, time left."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[error]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(file=sys.stdout),
            disable=not sys.stdout.isatty(),
            transient=True,
        )

    def begin(self, resolved: Resolved, dashboard: str) -> None:
        """Start drawing; say where Dask's dashboard is."""
        print(f"dashboard  {dashboard}", flush=True)
        self.tally.begin(resolved, dashboard)
        self.task = self.progress.add_task("training", total=self.tally.total, error="")
        self.progress.start()

    def record(self, record: dict[str, Any]) -> None:
        """Move on by one trained state; show the error of the head, or of the last layer where there is none."""
        self.tally.record(record)
        said: dict[str, Any] = {}
        if self.tally.chapter:
            said = {
                "description": f"chapter {self.tally.chapter}/{self.tally.chapters}",
                "error": f"training error {100 * self.tally.error:.2f} %",
            }
        self.progress.update(self.task, completed=self.tally.done, **said)

    def end(self) -> None:
        """Stop drawing."""
        self.progress.stop()
