"""A run from its configuration to its folder: `fit`, and `Run` for what it left."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffdask import checkpoints, datasets, interrupts, machine, timeline
from ffdask.checkpoints import Checkpoint
from ffdask.cluster import Cluster, Slot, open_cluster, place_nodes
from ffdask.config import Config
from ffdask.datasets import Dataset
from ffdask.embedded import default_units, own_memory_limit
from ffdask.errors import BadInput
from ffdask.federation import expected, federate, roughly, shards_of
from ffdask.graph import Graph
from ffdask.history import history
from ffdask.job import Images, Labels
from ffdask.kernels import without_bfloat16
from ffdask.network import Network
from ffdask.plan import (
    Forecast,
    check_memory,
    check_schedule,
    checkpoint_rounds,
    costs_of_nodes,
    cut_rounds,
    default_look_ahead,
    forecast,
    schedule_of,
    text,
)
from ffdask.precision import settle
from ffdask.resolved import Resolved, resolve
from ffdask.resume import go_on, how_to_go_on
from ffdask.schedules.costs import Rates
from ffdask.shards import Federation
from ffdask.store import RunFolder, check_out, open_network, prepare
from ffdask.summary import figures_of, record_of, test, validate
from ffdask.training import Training
from ffdask.watchers import Watcher, Watchers

if TYPE_CHECKING:
    import xarray as xr
    from distributed import Client

Say = Callable[[str], None]


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
    resume: str | Path | None = None,
) -> Run:
    """Train a network by Forward-Forward on a Dask cluster; leave a run folder.

    Parameters
    ----------
    config : Config, optional
        From `ffdask.config.load`; the default graph if left out. Its ``data.dataset`` is a known name or a path; the
        `path` of a `Dataset`, such as `ffdask.from_arrays` returns, is one.
    client : distributed.Client, optional
        Of a cluster to use; left out, the one that the configuration names, or an embedded one.
    say : callable, optional
        Takes each line for the user: a download, a wait, a warning.
    watchers : sequence of Watcher, optional
        Told of the run as it goes; one that raises is named by `say`, and told no more.
    resume : path, optional
        The folder of a run that was stopped, to go on with from its last checkpoint, to the same bits; `config` is then
        what `stopped_run` returned.

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
    device = check_before_data(config, resume is not None)
    if client is None and config.cluster.scheduler is None:
        config = settle(config, _lacking_here, say)
    known, _ = _described(config)
    # A schedule of one's own is looked at before anything is fetched or started.
    check_schedule(resolve(config, known, default_units(config.cluster), roughly(config, known)))
    dataset = datasets.obtain(config.data.dataset, say)
    run = uuid.uuid4().hex[:8]
    with contextlib.ExitStack() as stack:
        interrupted = stack.enter_context(interrupts.remembered())
        # Held here too: the test set is evaluated in this process, in blocks on threads of our own.
        stack.enter_context(machine.one_thread())
        cluster = stack.enter_context(open_cluster(config.cluster, run, say, client))
        federation = federate(config, dataset, cluster, say)
        config = settle(config, partial(cluster.on_each_worker, without_bfloat16), say)
        resolved = resolve(config, dataset, cluster.units, federation)
        slots, ahead = place(resolved, cluster.slots)
        check_memory(ahead, *cluster.memory_limit())
        readers = _readers(cluster, dataset, _nobody if resolved.federation else say)
        record = record_of(resolved, cluster, device)
        folder, checkpoint = _begun(config, record) if resume is None else go_on(Path(resume), record, say)
        if federation is None:
            # What leaves a federated node goes through its connections, where it can be watched.
            stack.enter_context(cluster.sharing(run, config.cluster, say))
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
        told = Watchers(watchers, say)
        writer = checkpoints.Writer(folder.checkpoints, say)
        training = Training(
            graph,
            schedule_of(resolved)(resolved.plan),
            default_look_ahead(resolved.plan),
            told.record,
            checkpoint_rounds(resolved),
            writer.write,
            checkpoint,
            interrupted,
        )
        try:
            told.begin(resolved, cluster.dashboard)
            with cluster.report(config.run.report):
                network = training.run()
        except (Exception, KeyboardInterrupt) as error:
            error.add_note(how_to_go_on(folder.path, training.checkpoint_every > 0))
            raise
        finally:
            writer.close()
            told.end()
        records = list(training.records.values())
        folder.write_network(network)
        folder.write_records(records)
        kept = history(records, resolved.plan.calendar, resolved.plan.layers)
        folder.write_history(kept)
        figures = figures_of(resolved, cluster, records, device)
        title = (
            f"{config.schedule.name}: {figures['train_seconds']:.1f} s on {cluster.units} units, "
            f"{100 * figures['utilization']:.0f} % busy"
        )
        timeline.draw(records, folder.path / "timeline.png", title)
        tested = test(network, config.network.classifier, dataset, os.cpu_count() or 1)
        held_out = validate(network, config.network.classifier, resolved, os.cpu_count() or 1)
        figures = tested | held_out | figures | {"weights_sha256": network.sha256()}
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
    lines: list[str] = []
    ahead, where, limit, together = _ahead(config, lines.append)
    check_memory(ahead, limit, together)
    return "\n".join([*lines, text(ahead, where, together)])


def foresee(config: Config, say: Say = _nobody) -> Forecast:
    """Return the forecast of a run: on the embedded cluster's units without starting it, or on a given scheduler's.

    Raises
    ------
    BadInput
        If the configuration does not fit its data, or the scheduler does not answer.
    """
    return _ahead(config, say)[0]


def _ahead(config: Config, say: Say) -> tuple[Forecast, str, int, int]:
    """Return the forecast, where the data are, a worker process's bytes, and how many workers share a process."""
    dataset, where = _described(config)
    federation: Federation | None = None
    if config.cluster.scheduler is None:
        units = default_units(config.cluster)
        count = config.cluster.workers or 1
        slots = [Slot("", f"worker{i}", units // count + (i < units % count)) for i in range(count)]
        together = count if not config.cluster.processes else 1
        config = settle(config, _lacking_here, say)
        limit = own_memory_limit(config.cluster)
    else:
        with open_cluster(config.cluster, "dryrun", say) as cluster:
            shards = shards_of(config)
            if shards is not None and shards.held:
                federation = federate(config, dataset, cluster, say, writes=False)
            slots, (limit, together) = cluster.slots, cluster.memory_limit()
            config = settle(config, partial(cluster.on_each_worker, without_bfloat16), say)
            if config.data.dataset not in datasets.KNOWN:
                # A known name may be fetched by the workers themselves; a plan fetches nothing.
                _readers(cluster, dataset, say)
    federation = federation or expected(config, dataset)
    resolved = resolve(config, dataset, sum(slot.units for slot in slots), federation)
    return place(resolved, slots)[1], where, limit, together


def open_run(path: str | Path) -> tuple[Network, dict[str, Any]]:
    """Open a finished run's network and its recorded configuration; see `ffdask.store.open_network`."""
    return open_network(path)


def check_before_data(config: Config, resumes: bool = False) -> str:
    """Check what needs neither data nor cluster; return the device that ``auto`` means here."""
    if not resumes:
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


def place(resolved: Resolved, workers: Sequence[Slot], rates: Rates | None = None) -> tuple[list[Slot], Forecast]:
    """Return each node's slot, and the forecast of the run on them."""
    readers = resolved.federation.readers if resolved.federation else None
    slots = place_nodes(costs_of_nodes(resolved), workers, readers)
    worker_of = [list(workers).index(slot) for slot in slots]
    return slots, forecast(resolved, worker_of, [worker.units for worker in workers], rates)


def _lacking_here() -> dict[str, str]:
    return {"this machine": without_bfloat16()}


def _described(config: Config) -> tuple[Dataset, str]:
    """Return the data set as far as it is known without a download, and where it is."""
    name = config.data.dataset
    found = datasets.describe(name)
    if found is not None:
        return found, f"in {found.path}"
    known = datasets.KNOWN[name]
    sizes = (known.train_rows, known.test_rows, known.shape, known.classes)
    return Dataset(name, "", known.sha256, *sizes, source="not here yet"), "not on this machine: it would be fetched"


def _readers(cluster: Cluster, dataset: Dataset, say: Say) -> frozenset[str]:
    """Return the names of the workers that can read the very same data themselves; say who cannot."""
    found = cluster.on_each_worker(datasets.locate, dataset)
    others = sorted(name for name, path in found.items() if path is None)
    if others:
        say(f"rows are sent from here, once each: {', '.join(others)} cannot read {dataset.path}")
    return frozenset(found) - frozenset(others)


def rows_to_send(resolved: Resolved, readers: frozenset[str], cluster: Cluster) -> Mapping[int, tuple[Images, Labels]]:
    """Return the rows that workers which cannot read them are sent, by chunk (-1: those that are looked at)."""
    if len(readers) == len(cluster.slots):
        return {}
    path = resolved.dataset.path
    images, labels = datasets.load(path, "train")
    dealt = resolved.plan.calendar.deal()
    # A federated node reads its shard itself, or is not placed.
    sharded = resolved.federation is not None
    chunks = {} if sharded else {number: (images[rows], labels[rows]) for number, rows in enumerate(dealt)}
    if not resolved.config.run.evaluate_every:
        return chunks
    held = resolved.plan.calendar.held_out()
    return chunks | {-1: (images[held], labels[held]) if len(held) else datasets.load(path, "test")}


def _begun(config: Config, record: Mapping[str, Any]) -> tuple[RunFolder, Checkpoint | None]:
    """Return a new run's folder, its configuration written."""
    folder = prepare(config.run.out, config.run.overwrite)
    folder.write_configuration(config.tables(), record)
    return folder, None
