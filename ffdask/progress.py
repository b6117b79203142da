"""A progress bar with the live training error; to a file or a pipe nothing is drawn."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ffdask.resolved import Resolved


class Bar:
    """Draws a run's progress on standard output: chapters done, training error, time left."""

    def __init__(self) -> None:
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
        self.calendar = resolved.plan.calendar
        states = resolved.plan.layers + resolved.plan.trains_head
        self.last = 0 if resolved.plan.trains_head else resolved.plan.layers
        self.task = self.progress.add_task("training", total=resolved.plan.rounds * states, error="")
        self.progress.start()

    def record(self, record: dict[str, Any]) -> None:
        """Move on by one trained state; show the error of the head, or of the last layer where there is none."""
        if record["kind"] not in ("train", "head") or record["again"] or not record["last"]:
            return
        self.progress.advance(self.task)
        if record["layer"] == self.last:
            chapter = self.calendar.chapter_of(record["round"]) + 1
            error = f"training error {100 * record['error']:.2f} %"
            self.progress.update(self.task, description=f"chapter {chapter}/{self.calendar.chapters}", error=error)

    def end(self) -> None:
        """Stop drawing."""
        self.progress.stop()
