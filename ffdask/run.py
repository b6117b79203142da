"""What a program calls: `fit` begins a run, `Run` is live while it trains, `open_run` opens what one left."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ffdask import machine, timeline
from ffdask.changes import PLACES, Change
from ffdask.conduct import Finished
from ffdask.config import Config, dotted, load
from ffdask.errors import BadInput, RunFailed
from ffdask.folder import open_folder
from ffdask.history import history
from ffdask.images import as_images
from ffdask.kernels import named
from ffdask.keywords import config_of, keys_of
from ffdask.live import Callback, Live, Say, printed, unsaid
from ffdask.network import Network
from ffdask.resume import stopped_run
from ffdask.schedules.steps import Plan
from ffdask.shown import shown
from ffdask.summary import own_dataset, test, test_rows
from ffdask.watchers import Watcher

if TYPE_CHECKING:
    import xarray as xr
    from distributed import Client
    from matplotlib.figure import Figure


def fit(
    data: Any = None,
    client: Client | None = None,
    *,
    graph: str | Path | None = None,
    callbacks: Sequence[Callback | Watcher] = (),
    say: Say | None = None,
    resume: str | Path | None = None,
    **configuration: Any,
) -> Run:
    """Begin to train a network by Forward-Forward; return the run, which is live while it trains.

    Everything is checked before this returns, and the data are there; what fails later is raised by `Run.wait`. A
    script that ends waits for its runs.

    Parameters
    ----------
    data : str, Path, Dataset, sequence of arrays, or Config, optional
        A known name (the default graph's is ``mnist``), a path, ``(images, labels)``, of which a sixth is held out, or
        ``(train_images, train_labels, test_images, test_labels)``: NumPy, dask.array, xarray or Zarr. A whole
        configuration, of `ffdask.load`, is changed by the keywords.
    client : distributed.Client, optional
        Left out: the one that is current, if there is one; else that of an embedded cluster of threads, which the
        process keeps and uses again.
    graph : path, optional
        A TOML file, such as ``graphs/mnist.toml``.
    callbacks : sequence
        Functions ``f(run, record)``, called as each step ends, or watchers; one that raises is named by `say` and
        called no more.
    say : callable, optional
        Takes each line for the user; left out, they are printed, unless ``quiet=True``.
    resume : path, optional
        The folder of a run that was stopped, to go on with, to the same bits. Keywords may be the cluster's only.
    **configuration
        Flags of ``python -m ffdask.train`` with underscores: ``layers=(500, 500), epochs=3``; or, as
        ``**{"optimizer.momentum": 0.8}``, any key.

    Returns
    -------
    Run

    Raises
    ------
    BadInput
        Before any work starts.
    RunFailed
        If the cluster goes before the run has begun.

    Examples
    --------
    >>> import ffdask
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> images, labels = rng.integers(0, 256, (120, 6, 6)), np.arange(120) % 4
    >>> keys = {"layers": (16, 16), "epochs": 2, "chunk": 50, "batch_size": 10, "units": 1, "quiet": True}
    >>> run = ffdask.fit((images, labels), out="runs/first", **keys).wait()
    >>> run
    <Run ended, 100 %: .../runs/first>
    >>> run.predict(images[:3]).shape
    (3,)
    >>> dict(run.history.sizes)
    {'chapter': 4, 'layer': 2}
    """
    lines: list[str] = []
    if resume is not None:
        if data is not None or graph is not None:
            raise BadInput("fit: given data or a graph with resume; a stopped run goes on as it was configured")
        config = stopped_run(resume, keys_of(configuration))
    else:
        config = config_of(data, graph, configuration, lines.append)
    if say is None:
        say = unsaid if config.run.quiet else printed
    for line in lines:
        say(line)
    live = Live(config, client, say, resume)
    run = Run(live.ended, live)
    live.start(run, callbacks)
    return run


def open_run(path: str | Path) -> Run:
    """Open a finished run.

    Parameters
    ----------
    path : path
        The run's folder.

    Returns
    -------
    Run

    Raises
    ------
    BadInput
        If the folder is no run's, the run did not end, or what it holds is damaged.

    Examples
    --------
    >>> import ffdask
    >>> import numpy as np
    >>> rows, labels = np.random.default_rng(0).random((60, 5)), np.arange(60) % 3
    >>> few = dict(layers=8, epochs=1, chunk=50, batch_size=10, shift=0, overlay="append", quiet=True)
    >>> left = ffdask.fit((rows, labels), out="runs/left", **few).wait().path
    >>> run = ffdask.open_run(left)
    >>> run.status, run.predict(rows[:2]).shape, [weights.shape for weights in run.weights]
    ('ended', (2,), [(8, 8)])
    """
    folder = open_folder(path)
    ended: Future[Finished] = Future()
    ended.set_result(Finished(folder.path, folder.summary, folder.network, folder.history, folder.resolved))
    return Run(ended)


class Run:
    """A run: live while it trains, and what it left when it has ended.

    `history`, `progress`, `status`, `weights`, `snapshot` and `timeline` say how far it is; `network`, `summary`,
    `predict`, `scores` and `evaluate` are of the trained network, and wait for it. ``await run`` waits, too. Made by
    `fit` and `open_run`.
    """

    def __init__(self, ended: Future[Finished], live: Live | None = None) -> None:
        self._ended, self._live = ended, live

    @property
    def path(self) -> Path:
        """The run's folder."""
        if self._live is not None and not self._whole:
            assert self._live.controls.path is not None
            return self._live.controls.path
        return self._ended.result().path

    @property
    def status(self) -> str:
        """``training``, ``paused``, ``stopping``, or how it ended: ``ended``, ``stopped``, ``failed``."""
        if self._ended.done():
            error = self._ended.exception()
            return "ended" if error is None else "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
        controls = self._training.controls
        return "stopping" if controls.interrupts.asked else "paused" if controls.paused else "training"

    @property
    def progress(self) -> float:
        """How much of the training is done: 0 to 1, in trained states."""
        return 1.0 if self._whole else self._training.tally.done / max(1, self._training.tally.total)

    @property
    def _whole(self) -> bool:
        return self._ended.done() and self._ended.exception() is None

    @property
    def _training(self) -> Live:
        assert self._live is not None
        return self._live

    @property
    def history(self) -> xr.Dataset:
        """By (chapter, layer), as far as it is; see `ffdask.history.history`."""
        if self._whole:
            return self._ended.result().history
        return history(self._training.records.values(), self.plan.calendar, self.plan.layers)

    @property
    def configuration(self) -> Config:
        """What the run computes, with what was changed while it went: `fit` of it has the same bits."""
        return load(None, dotted(open_folder(self.path).tables)) if self._live is None else self._live.configuration

    @property
    def plan(self) -> Plan:
        """Its layers, nodes and calendar (chapters, rounds), of a run that was begun here."""
        if self._live is None:
            raise RunFailed(f"the run in {self.path} was opened, not begun here: only its records say how it went")
        return self._live.resolved.plan

    def wait(self, timeout: float | None = None) -> Run:
        """Wait until the run has ended; Ctrl-C meanwhile stops it, as `stop` does.

        Parameters
        ----------
        timeout : float, optional
            In seconds.

        Returns
        -------
        Run
            This one.

        Raises
        ------
        TimeoutError
            If it has not ended by then; it goes on.
        Diverged, RunFailed
            If training could not go on.
        """
        if self._live is not None and not self._live.wait(timeout):
            raise TimeoutError(f"the run has not ended within {timeout} s; it goes on")
        error = self._ended.exception()
        if error is not None and not isinstance(error, KeyboardInterrupt):
            raise error
        return self

    def __await__(self) -> Generator[Any, None, Run]:
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        self._ended.add_done_callback(lambda ended: loop.call_soon_threadsafe(done.set))
        yield from done.wait().__await__()
        return self.wait()

    def stop(self) -> None:
        """End the run behind the steps in work, with a checkpoint; the second time at once. It returns before that."""
        if self._live is not None:
            self._live.controls.stop()

    def pause(self) -> None:
        """Submit no further steps until `go_on`; those that are in work are finished."""
        self._controlled().paused = True

    def go_on(self) -> None:
        """Go on after `pause`."""
        self._controlled().paused = False

    def change(self, **values: Any) -> int:
        """Change something from the first chapter on that is not in work yet.

        Written into the run's folder first: resumed, or done again from `configuration`, the run makes the same change
        at the same chapter.

        Parameters
        ----------
        **values
            Of `ffdask.changes.PLACES`: ``learning_rate``, ``momentum``, ``weight_decay``, ``head_rate``, ``dropout``,
            ``threshold``, ``shift``, ``negatives``.

        Returns
        -------
        int
            The number of that chapter, from 0, as in `history`.

        Raises
        ------
        BadInput
            For another name or value, or if the run's last chapter is in work.
        RunFailed
            If the run has ended.
        """
        try:
            asked = Change(chapter=0, **values)
        except (ValidationError, TypeError) as error:
            problems = error.errors() if isinstance(error, ValidationError) else []
            said = "; ".join(f"given {p['loc'][0]}={p['input']!r}: {p['msg']}" for p in problems) or str(error)
            raise BadInput(f"change: {said}; what may change is {', '.join(PLACES)}") from None
        controls = self._controlled()
        chapter: int = controls.ask(lambda training: training.change(asked.values())).result()
        return chapter

    def finish(self) -> int:
        """End the run behind the chapters in work, as if there were no more: with a network, a summary, a history.

        Returns
        -------
        int
            How many chapters it has; recorded, as by `change`.

        Raises
        ------
        RunFailed
            If it has ended.
        """
        self._controlled()
        try:
            return self.change(ends=True)
        except BadInput:
            # All of them are in work.
            return self.plan.calendar.chapters

    def _controlled(self) -> Any:
        if self._live is None or self._ended.done():
            raise RunFailed(f"the run in {self.path} has {self.status}: nothing in it can be changed")
        return self._live.controls

    def snapshot(self) -> Network:
        """Return the network at the newest checkpoint, all layers after one chapter; at the end the trained one."""
        if not self._ended.done():
            try:
                network: Network = self._training.controls.ask(lambda training: training.snapshot()).result()
                return network
            except RunFailed:
                # It ended meanwhile.
                pass
        return self.network

    @property
    def weights(self) -> list[NDArray[np.floating[Any]]]:
        """Each layer's weights (fan_in, width) float32, of `snapshot`."""
        return [state.weights for state in self.snapshot().states]

    def _finished(self) -> Finished:
        self.wait()
        if isinstance(self._ended.exception(), KeyboardInterrupt):
            raise RunFailed(f"the run was stopped before its end; go on with it: ffdask.fit(resume={str(self.path)!r})")
        return self._ended.result()

    @property
    def network(self) -> Network:
        """The trained network."""
        return self._finished().network

    @property
    def summary(self) -> dict[str, Any]:
        """The figures in its ``summary.json``."""
        return self._finished().summary

    def scores(self, images: Any, classifier: str | None = None) -> NDArray[np.floating[Any]]:
        """Return class scores (n, classes) of images (n, ...), by the run's own classifier or another that it has.

        Raises
        ------
        BadInput
            If the images are not such as the run learned from, or it has no such classifier.
        """
        finished = self._finished()
        data = finished.recorded["dataset"]
        rows = as_images(images, tuple(data["shape"]), data["dtype"])
        with machine.one_thread():
            return finished.network.scores(rows, self._classifier(classifier), named("numpy"), os.cpu_count() or 1)

    def predict(self, images: Any, classifier: str | None = None) -> NDArray[np.intp]:
        """Return each image's most likely label (n,); see `scores`."""
        return self.scores(images, classifier).argmax(axis=1)

    def evaluate(self, images: Any = None, labels: Any = None, classifier: str | None = None) -> dict[str, Any]:
        """Return accuracy (0 to 1) and errors, on images and labels or on the run's own test set.

        Returns
        -------
        dict
            ``test_accuracy``, ``test_errors``, ``test_accuracy_<classifier>`` of each that it has, ``classifier``.

        Raises
        ------
        BadInput
            As `scores`; or if the run's data set is no longer on this machine and cannot be had.
        """
        finished, chosen = self._finished(), self._classifier(classifier)
        recorded, threads = finished.recorded, os.cpu_count() or 1
        with machine.one_thread():
            if images is None:
                return test(finished.network, chosen, own_dataset(recorded), threads)
            rows = as_images(images, tuple(recorded["dataset"]["shape"]), recorded["dataset"]["dtype"])
            truth = np.asarray(labels)
            if truth.shape != (len(rows),):
                raise BadInput(f"labels: given an array of shape {truth.shape} for {len(rows)} images; give one each")
            return test_rows(finished.network, chosen, rows, truth, threads)

    def _classifier(self, given: str | None) -> str:
        finished = self._finished()
        allowed = finished.network.classifiers()
        chosen = given or str(finished.recorded["classifier"])
        if chosen not in allowed:
            raise BadInput(f"classifier: given {chosen!r}; this run has {', '.join(allowed)}")
        return chosen

    def timeline(self) -> Figure:
        """Return the timeline so far, a figure of matplotlib's: one row a node, one bar a step, coloured by layer."""
        return timeline.picture(list(self._records()), f"{self.path}: {self.status}")

    def report(self, out: str | Path | None = None) -> Path:
        """Write the run's report, a page of HTML that holds all that it shows; return its path. It waits for the end.

        Parameters
        ----------
        out : path, optional
            Left out: ``report.html`` in the run's folder.

        Raises
        ------
        BadInput
            If it cannot be written.
        """
        # Imported here: pictures and templates, which training does without.
        from ffdask import pages

        folder = self._finished().path
        return pages.write_page(pages.report(folder), out or folder / "report.html", "out")

    def _records(self) -> Any:
        return open_folder(self.path).records if self._live is None else self._live.records.values()

    def __repr__(self) -> str:
        return f"<Run {self.status}, {100 * self.progress:.0f} %: {self.path}>"

    def _repr_html_(self) -> str:
        figures: dict[str, Any] = {"status": self.status}
        if self._whole:
            summary = self._ended.result().summary
            figures |= {
                "test accuracy": f"{100 * summary['test_accuracy']:.2f} % ({summary['classifier']})",
                "training": f"{summary['train_seconds']:.1f} s, {100 * summary['utilization']:.0f} % busy",
                "schedule": f"{summary['schedule']}, {summary['nodes']} nodes on {summary['threads']} units",
                "layers": ", ".join(map(str, summary["layers"])),
            }
        else:
            tally = self._training.tally
            figures["chapter"] = f"{tally.chapter} of {tally.chapters}"
            if not math.isnan(tally.error):
                figures["training error"] = f"{100 * tally.error:.2f} %"
        records = list(self._records())
        return shown(str(self.path), self.progress, figures, timeline.picture(records, "") if records else None)
