"""A run from its configuration to its folder: `fit`, and `Run` for what it left."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import xarray as xr

from ffdask import datasets, machine, timeline
from ffdask.cluster import Cluster, Slot, open_cluster, place_nodes
from ffdask.config import Config, Resolved
from ffdask.datasets import Dataset
from ffdask.embedded import default_units, own_memory_limit
from ffdask.errors import BadInput
from ffdask.graph import Graph
from ffdask.history import history
from ffdask.network import Network
from ffdask.plan import Forecast, check_memory, costs_of_nodes, default_look_ahead, forecast, text
from ffdask.schedules.evaluated import evaluated
from ffdask.store import check_out, open_network, prepare
from ffdask.summary import figures_of, record_of, test
from ffdask.training import Training
from ffdask.work import Images, Labels

if TYPE_CHECKING:
    from distributed import Client

Record = dict[str, Any]
Say = Callable[[str], None]


class Watcher(Protocol):
    """Told what happens in a run; raises nothing."""

    def begin(self, resolved: Resolved, dashboard: str) -> None:
        """Hear what is about to be computed."""

    def record(self, record: Record) -> None:
        """Hear of a finished step."""

    def end(self) -> None:
        """Hear that no step follows, whether the run succeeded or not."""


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes
    ----------
    path : Path
        The run's folder.
    summary : dict
        The figures in its ``summary.json``.
    network : Network
        The trained network.
    history : xarray.Dataset
        By chapter and layer.
    """

    path: Path
    summary: dict[str, Any]
    network: Network
    history: xr.Dataset


def _nobody(line: str) -> None:
    """Drop a line: who does not listen misses nothing that the summary lacks."""


def fit(
    config: Config | None = None,
    *,
    client: Client | None = None,
    say: Say = _nobody,
    watchers: Sequence[Watcher] = (),
) -> Run:
    """Train a network by Forward-Forward on a Dask cluster; leave a run folder.

    Parameters
    ----------
    config : Config, optional
        From `ffdask.config.load`; the default graph if left out.
    client : distributed.Client, optional
        Of a cluster to use; left out, the one that the configuration names, or an embedded one.
    say : callable, optional
        Takes each line for the user: a download, a wait, a warning.
    watchers : sequence of Watcher, optional
        Told of the run as it goes.

    Returns
    -------
    Run

    Raises
    ------
    BadInput
        Before any work starts.
    Diverged, RunFailed
        When training cannot go on.
    """
    begun = time.perf_counter()
    config = config or Config()
    device = check_before_data(config)
    known, _ = _described(config)
    config.resolve(known, default_units(config.cluster))
    dataset = datasets.obtain(config.data.dataset, say)
    run = uuid.uuid4().hex[:8]
    with contextlib.ExitStack() as stack:
        # Held here too: the test set is evaluated in this process, in blocks on threads of our own.
        stack.enter_context(machine.one_thread())
        cluster = stack.enter_context(open_cluster(config.cluster, run, say, client))
        resolved = config.resolve(dataset, cluster.units)
        slots, ahead = place(resolved, cluster.slots)
        check_memory(ahead, *cluster.memory_limit())
        readers = _readers(cluster, dataset, say)
        folder = prepare(config.run.out, config.run.overwrite)
        folder.write_configuration(config.tables(), record_of(resolved, cluster, device))
        graph = Graph(
            cluster.client,
            run,
            resolved.job,
            resolved.plan,
            dataset,
            slots,
            rows_to_send(resolved, readers, cluster),
            readers,
            cut_rounds(resolved),
        )
        training = _training(graph, resolved, watchers)
        for watcher in watchers:
            watcher.begin(resolved, cluster.dashboard)
        try:
            with cluster.report(config.run.report):
                network = training.run()
        finally:
            for watcher in watchers:
                watcher.end()
        records = list(training.records.values())
        folder.write_network(network)
        kept = history(records, resolved.plan.calendar, resolved.plan.layers)
        folder.write_history(kept)
        figures = figures_of(resolved, cluster, records, device)
        title = (
            f"{config.schedule.name}: {figures['train_seconds']:.1f} s on {cluster.units} units, "
            f"{100 * figures['utilization']:.0f} % busy"
        )
        timeline.draw(records, folder.path / "timeline.png", title)
        tested = test(network, config.network.classifier, dataset, os.cpu_count() or 1)
        figures = tested | figures | {"weights_sha256": network.sha256()}
        figures["peak_memory_bytes"] = cluster.peak_memory()
        figures["total_seconds"] = time.perf_counter() - begun
        folder.write_summary(figures)
    return Run(folder.path, figures, network, kept)


def dry_run(config: Config) -> str:
    """Check everything that `fit` would check; return the plan as text. Nothing is downloaded or written.

    Raises
    ------
    BadInput
        As `fit`.
    """
    check_before_data(config)
    dataset, where = _described(config)
    lines: list[str] = []
    if config.cluster.scheduler is None:
        units = default_units(config.cluster)
        count = config.cluster.workers or 1
        slots = [Slot("", f"worker{i}", units // count + (i < units % count)) for i in range(count)]
        together = count if not config.cluster.processes else 1
        limit = own_memory_limit(config.cluster)
    else:
        with open_cluster(config.cluster, "dryrun", lines.append) as cluster:
            slots, (limit, together) = list(cluster.slots), cluster.memory_limit()
            if config.data.dataset not in datasets.KNOWN:
                # A known name may be fetched by the workers themselves; a plan fetches nothing.
                _readers(cluster, dataset, lines.append)
    resolved = config.resolve(dataset, sum(slot.units for slot in slots))
    _, ahead = place(resolved, slots)
    check_memory(ahead, limit, together)
    return "\n".join([*lines, text(ahead, where, together)])


def open_run(path: str | Path) -> tuple[Network, dict[str, Any]]:
    """Open a finished run's network and its recorded configuration; see `ffdask.store.open_network`."""
    return open_network(path)


def check_before_data(config: Config) -> str:
    """Check what needs neither data nor cluster; return the device that ``auto`` means here."""
    check_out(config.run.out, config.run.overwrite)
    if config.run.report is not None:
        folder = Path(config.run.report).absolute().parent
        if os.path.isdir(config.run.report):
            raise BadInput(f"run.report (--report): given {config.run.report}, which is a folder; give a file in it")
        if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
            raise BadInput(f"run.report (--report): given {config.run.report}, but {folder} is no folder to write to")
    if config.cluster.device == "gpu":
        raise BadInput(
            "cluster.device (--device): given 'gpu', but this version of ffdask has kernels for the CPU only; "
            "give cpu or auto"
        )
    return "cpu"


def place(resolved: Resolved, workers: Sequence[Slot]) -> tuple[list[Slot], Forecast]:
    """Return each node's slot, and the forecast of the run on them."""
    slots = place_nodes(costs_of_nodes(resolved), workers)
    worker_of = [list(workers).index(slot) for slot in slots]
    return slots, forecast(resolved, worker_of, [worker.units for worker in workers])


def _described(config: Config) -> tuple[Dataset, str]:
    """Return the data set as far as it is known without a download, and where it is."""
    name = config.data.dataset
    found = datasets.describe(name)
    if found is not None:
        return found, f"in {found.path}"
    known = datasets.KNOWN[name]
    sizes = (known.train_rows, known.test_rows, known.height, known.width, known.classes)
    return Dataset(name, "", known.sha256, *sizes, source="not here yet"), "not on this machine: it would be fetched"


def _readers(cluster: Cluster, dataset: Dataset, say: Say) -> frozenset[str]:
    """Return the names of the workers that can read the very same data themselves; say who cannot."""
    found = cluster.on_each_worker(datasets.locate, dataset)
    others = sorted(name for name, path in found.items() if path is None)
    if others:
        say(f"rows are sent from here, once each: {', '.join(others)} cannot read {dataset.path}")
    return frozenset(found) - frozenset(others)


def rows_to_send(resolved: Resolved, readers: frozenset[str], cluster: Cluster) -> Mapping[int, tuple[Images, Labels]]:
    """Return the rows that workers which cannot read them are sent, by chunk (-1: the test set)."""
    if len(readers) == len(cluster.slots):
        return {}
    path = resolved.dataset.path
    images, labels = datasets.load(path, "train")
    dealt = resolved.plan.calendar.deal()
    chunks = {number: (images[rows], labels[rows]) for number, rows in enumerate(dealt)}
    return chunks | ({-1: datasets.load(path, "test")} if resolved.config.run.evaluate_every else {})


def cut_rounds(resolved: Resolved) -> int:
    """Return after how many rounds the graph is cut: the configured chapters, in rounds."""
    plan = resolved.plan
    return max(1, resolved.config.run.cut_every * plan.rounds // plan.calendar.chapters)


def _training(graph: Graph, resolved: Resolved, watchers: Sequence[Watcher]) -> Training:
    schedule = resolved.entry.steps
    if resolved.config.run.evaluate_every:
        schedule = evaluated(schedule, resolved.config.run.evaluate_every)

    def heard(record: Record) -> None:
        for watcher in watchers:
            watcher.record(record)

    plan = resolved.plan
    return Training(graph, schedule(plan), default_look_ahead(plan), heard)
