"""Callbacks for `ffdask.fit`: functions ``f(run, record)``, called as each step ends, and some that are ready to use.

One of one's own is as small as ``lambda run, record: print(record["name"])``. What a record holds is what
``records.jsonl`` holds. A callback that raises is named, and called no more; the run goes on.
"""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffdask.config import dotted
from ffdask.errors import BadInput
from ffdask.history import LAYER_FIGURES

if TYPE_CHECKING:
    from ffdask.run import Run

Record = Mapping[str, Any]

FIGURES = (*LAYER_FIGURES, "seconds")


class Chapters:
    """Adds records up to figures of whole chapters, a layer each, as the layers come to their ends."""

    def __init__(self) -> None:
        self._sums: dict[tuple[int, int], dict[str, float]] = {}
        self._left: dict[tuple[int, int], int] = {}
        self._rounds: Counter[int] = Counter()

    def add(self, run: Run, record: Record) -> Iterator[dict[str, Any]]:
        """Yield ``chapter``, ``layer`` (0: the head) and their figures, if `record` is the last that belongs to them.

        The figures are means over the rows learned from: ``loss``, ``error`` and, of a layer, its goodness on positive
        and on negative data; and ``seconds``.
        """
        if record["kind"] not in ("train", "head") or record["again"]:
            return
        calendar = run.plan.calendar
        self._rounds = self._rounds or Counter(map(calendar.chapter_of, range(calendar.rounds)))
        key = calendar.chapter_of(record["round"]), record["layer"]
        sums = self._sums.setdefault(key, {"rows": 0.0, "seconds": 0.0})
        sums["rows"] += record["rows"]
        sums["seconds"] += record["stop"] - record["start"]
        for name in LAYER_FIGURES:
            if name in record:
                sums[name] = sums.get(name, 0.0) + record[name] * record["rows"]
        if record["last"]:
            self._left[key] = self._left.get(key, self._rounds[key[0]]) - 1
            if not self._left[key]:
                figures = {name: value / sums["rows"] for name, value in sums.items() if name in LAYER_FIGURES}
                yield {"chapter": key[0], "layer": key[1], **figures, "seconds": sums["seconds"]}
                del self._sums[key], self._left[key]


class EarlyStopping:
    """Finishes a run whose training error stands still: the head's, or the last layer's where there is none.

    Parameters
    ----------
    patience : int
        Chapters without a smaller error, after which the run is finished: it has its network and its summary, and the
        chapter is recorded, as by `Run.finish`.
    least : float
        By how much an error (0 to 1) is smaller.
    """

    def __init__(self, patience: int = 3, least: float = 0.0) -> None:
        if patience < 1:
            raise BadInput(f"EarlyStopping: given patience {patience}; it takes a number of chapters from 1")
        self.patience, self.least = patience, least
        self._best, self._still, self._chapters = math.inf, 0, Chapters()

    def __call__(self, run: Run, record: Record) -> None:
        """Look at the error of each chapter."""
        for figures in self._chapters.add(run, record):
            if figures["layer"] != (0 if run.plan.trains_head else run.plan.layers):
                continue
            if figures["error"] < self._best - self.least:
                self._best, self._still = figures["error"], 0
            else:
                self._still += 1
            if self._still == self.patience:
                run.finish()


class JsonLines:
    """Writes each step's record to a file as it comes, a line of JSON each.

    Parameters
    ----------
    path : path
        Begun anew.
    """

    def __init__(self, path: str | Path) -> None:
        self._file = _opened(path)

    def __call__(self, run: Run, record: Record) -> None:
        """Write one."""
        self._file.write(json.dumps(dict(record)) + "\n")
        self._file.flush()

    def end(self) -> None:
        """Close the file."""
        self._file.close()


class Csv:
    """Writes a row for each chapter and layer as it is done (layer 0 is the head): its figures, by the header's names.

    Parameters
    ----------
    path : path
        Begun anew.
    """

    def __init__(self, path: str | Path) -> None:
        self._file, self._chapters = _opened(path), Chapters()
        self._rows = csv.DictWriter(self._file, ["chapter", "layer", *FIGURES], restval="")
        self._rows.writeheader()

    def __call__(self, run: Run, record: Record) -> None:
        """Write what is done."""
        for figures in self._chapters.add(run, record):
            self._rows.writerow(figures)
            self._file.flush()

    def end(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoard:
    """Writes each chapter's figures for TensorBoard, by layer; takes ``pip install tensorboardX`` (or PyTorch's).

    Parameters
    ----------
    folder : path
        Of the event files.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise BadInput("TensorBoard: tensorboardX is not installed; pip install tensorboardX") from None
        self._writer, self._chapters = SummaryWriter(str(folder)), Chapters()

    def __call__(self, run: Run, record: Record) -> None:
        """Write what is done."""
        for figures in self._chapters.add(run, record):
            for name, value in _named(figures):
                self._writer.add_scalar(name, value, figures["chapter"])

    def end(self) -> None:
        """Close the event files."""
        self._writer.close()


class MLflow:
    """Logs the configuration and each chapter's figures to MLflow's run; takes ``pip install mlflow-skinny``.

    The active run, or one that is begun here and ended with the training.
    """

    def __init__(self) -> None:
        try:
            import mlflow
        except ImportError:
            raise BadInput("MLflow: mlflow is not installed; pip install mlflow-skinny") from None
        self._client, self._chapters = mlflow.MlflowClient(), Chapters()
        active = mlflow.active_run()
        self._own = active is None
        # By the run's id: what is active is a matter of the thread, and callbacks are called in another.
        self._run = active or mlflow.start_run()
        self._told = False
        if self._own:
            mlflow.end_run("RUNNING")

    def __call__(self, run: Run, record: Record) -> None:
        """Log what is done."""
        if not self._told:
            self._told = True
            for key, value in dotted(run.configuration.tables()).items():
                self._client.log_param(self._run.info.run_id, key, value)
        for figures in self._chapters.add(run, record):
            for name, value in _named(figures):
                self._client.log_metric(self._run.info.run_id, name, value, step=figures["chapter"])

    def end(self) -> None:
        """End the run, if it was begun here."""
        if self._own:
            self._client.set_terminated(self._run.info.run_id)


class Progress:
    """Draws the command line's progress bar."""

    def __init__(self) -> None:
        from ffdask.progress import Bar

        bar = Bar()
        self.begin, self.record, self.end = bar.begin, bar.record, bar.end


def _named(figures: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    where = f"layer{figures['layer']}" if figures["layer"] else "head"
    return ((f"{where}/{name}", figures[name]) for name in FIGURES if name in figures)


def _opened(path: str | Path) -> Any:
    try:
        return Path(path).open("w", newline="")
    except OSError as error:
        raise BadInput(f"given {path}, which cannot be written ({error.strerror}); give another file") from None
