"""A run from its configuration to its folder, conducted in the calling thread."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffdask import checkpoints, datasets, machine
from ffdask.changes import Change
from ffdask.checkpoints import Checkpoint
from ffdask.cluster import Cluster
from ffdask.config import Config
from ffdask.controls import Controls
from ffdask.datasets import Dataset
from ffdask.embedded import default_units, own_memory_limit
from ffdask.ending import Ended, leave
from ffdask.errors import BadInput
from ffdask.federation import expected, federate, roughly, shards_of
from ffdask.graph import Graph
from ffdask.interrupts import Interrupts, heeded
from ffdask.job import Job
from ffdask.lost import telling_of_the_scheduler
from ffdask.network import Network
from ffdask.opening import open_cluster
from ffdask.placement import (
    misplaced,
    place,
    place_anew,
    place_where_kept,
    readers_among,
    settle_down,
    where_gpu_nodes_are,
)
from ffdask.places import place_at
from ffdask.plan import (
    CHECKPOINT_REST,
    Forecast,
    check_memory,
    check_schedule,
    checkpoint_rounds,
    costs_of_nodes,
    cut_rounds,
    default_look_ahead,
    schedule_of,
    text,
)
from ffdask.precision import Ask, describing, lacking, note_gpus, settle
from ffdask.precision import here as asked_here
from ffdask.recovery import see_through
from ffdask.resolved import check_change, resolve
from ffdask.resume import go_on, how_to_go_on, run_of
from ffdask.shards import Federation
from ffdask.slots import Placement, Slot
from ffdask.store import RunFolder, check_out, prepare
from ffdask.summary import record_of
from ffdask.told import Announcement
from ffdask.training import Training
from ffdask.watchers import Watcher, Watchers

if TYPE_CHECKING:
    import xarray as xr
    from distributed import Client

Say = Callable[[str], None]


@dataclass(frozen=True)
class Finished:
    """A run that has come to its end.

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
    recorded : dict
        Its configuration with nothing left open, as its store has it.
    """

    path: Path
    summary: dict[str, Any]
    network: Network
    history: xr.Dataset
    recorded: dict[str, Any]


def _nobody(line: str) -> None:
    """Drop a line: who does not listen misses nothing that the summary lacks."""


def conduct(
    config: Config | None = None,
    *,
    client: Client | None = None,
    say: Say = _nobody,
    watchers: Sequence[Watcher] = (),
    resume: str | Path | None = None,
    controls: Controls | None = None,
) -> Finished:
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
    controls : Controls, optional
        By which another thread pauses, changes or stops the run.

    Returns
    -------
    Finished

    Raises
    ------
    BadInput
        Before any work starts.
    Diverged, RunFailed
        When training cannot go on.
    KeyboardInterrupt
        When it was stopped, by Ctrl-C or SIGTERM: behind a checkpoint, if that was asked for once and there is one.
    """
    begun = time.perf_counter()
    config = config or Config()
    check_before_data(config, resume is not None)
    if client is None and config.cluster.scheduler is None:
        config = settle(config, asked_here, say)
    known, _ = _described(config)
    # A schedule of one's own is looked at before anything is fetched or started.
    check_schedule(resolve(config, known, default_units(config.cluster), roughly(config, known)))
    dataset = datasets.obtain(config.data.dataset, say)
    # The run's, however often it is resumed; and of what this process has on the cluster, whatever another has left.
    run, here = uuid.uuid4().hex[:8] if resume is None else run_of(resume), uuid.uuid4().hex[:8]
    live, controls = controls is not None, controls or Controls()
    with contextlib.ExitStack() as stack:
        interrupts = stack.enter_context(heeded(controls.interrupts))
        # Held here too: the test set is evaluated in this process, in blocks on threads of our own.
        stack.enter_context(machine.one_thread())
        stack.enter_context(telling_of_the_scheduler())
        # A cluster of its own is begun whole, so that it can be ended.
        with interrupts.gently(client is None and config.cluster.scheduler is None):
            mixed = bool(config.training.gpu_nodes)
            cluster = stack.enter_context(open_cluster(config.cluster, here, say, client, mixed))
        interrupts.check()
        federation = federate(config, dataset, cluster, say)
        config = settle(config, *_asked(cluster, say))
        cluster.lacks, cluster.describes = lacking(config), describing(config)
        note_gpus(config, cluster.on_each_gpu if mixed else cluster.on_each_worker, cluster.fingerprints, say)
        resolved = resolve(config, dataset, cluster.units, federation)
        slots, ahead = place(resolved, cluster.slots)
        if mixed:
            say(where_gpu_nodes_are(slots, resolved.job.gpu_nodes))
        check_memory(ahead, *cluster.memory_limit())
        placement = settle_down(resolved, cluster, slots, _nobody if resolved.federation else say)
        record = {"run": run, **record_of(resolved, cluster)}
        folder, checkpoint = _begun(config, record, resume, say)
        # Whoever holds the run goes on meanwhile, perhaps to another folder.
        controls.path = folder.path = folder.path.absolute() if live else folder.path
        controls.training = config.training
        # Worked out when nodes are placed again, and then once.
        costs = cache(partial(costs_of_nodes, resolved))
        if federation and checkpoint:
            placement = place_where_kept(resolved, costs, cluster, say, checkpoint)
        every, attempts = checkpoint_rounds(resolved), itertools.count()
        stack.enter_context(_noted(how_to_go_on(folder.path, every > 0)))
        if federation is None:
            # What leaves a federated node goes through its connections, where it can be watched.
            stack.enter_context(cluster.sharing(here, config.cluster, say))
        told = Watchers([*watchers, Announcement(cluster.client, run or here)], say)
        writer = checkpoints.Writer(config.run.checkpoints or folder.checkpoints, say)
        done = checkpoint.records.values() if checkpoint else ()
        session = 1 + max((record["session"] for record in done), default=-1)
        # An iterator: they are told once, whichever beginning comes to it.
        before = iter(done)
        changes = controls.changes = list(config.training.changes)

        def job() -> Job:
            return replace(resolved.job, changes=tuple(changes))

        def changing(change: Change) -> Job:
            check_change(change, config, resolved.dataset, resolved.plan.calendar)
            # Written before it is made: who resumes the run makes it at the same chapter.
            folder.write_changes([*changes, change])
            changes.append(change)
            say(f"from chapter {change.chapter} on: {change}")
            return job()

        def keep(made: Checkpoint) -> None:
            writer.write(replace(made, run=run))
            told.settled(made.round)

        def begin(placement: Placement, checkpoint: Checkpoint | None) -> Training:
            # Of each beginning its own keys: what an earlier one has left in work is none of its business.
            keys, now = f"{run or here}.{here}.{next(attempts)}", replace(resolved, job=job())
            return Training(
                Graph(cluster.client, keys, now, placement, cut_rounds(resolved)),
                schedule_of(resolved)(resolved.plan),
                default_look_ahead(resolved.plan),
                told.record,
                every,
                config.run.checkpoint_seconds or math.inf,
                CHECKPOINT_REST if config.run.checkpoint_every is None else 0,
                lambda: writer.seconds,
                keep,
                checkpoint,
                session,
                say,
                lambda: writer.oldest,
                partial(_stopping, interrupts, say, []),
                partial(misplaced, resolved, costs, cluster, placement, say),
                controls,
                changing,
                before,
            )

        try:
            told.begin(resolved, cluster.dashboard)
            with cluster.report(config.run.report, say):
                network, training = see_through(
                    begin, placement, partial(place_anew, resolved, costs, cluster, say), checkpoint, interrupts, say
                )
        finally:
            writer.close()
            controls.close()
            told.end()
        ended = Ended(network, training.records, resolved, cluster, begun)
        with interrupts.gently():
            path, figures = leave(folder, ended, record, say)
        interrupts.ending()
        # A run that has ended is not gone on with: what nodes kept for that may go.
        if path == folder.path:
            with contextlib.suppress(Exception):
                training.graph.sweep_all()
        return Finished(path, figures, network, ended.history, dict(record))


def dry_run(config: Config) -> str:
    """Check everything that `conduct` would check; return the plan as text. Nothing is downloaded or written.

    Raises
    ------
    BadInput
        As `conduct`.
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
        slots = [Slot("", f"worker{i}", units // count + (i < units % count), gpu=True) for i in range(count)]
        together = count if not config.cluster.processes else 1
        config = settle(config, asked_here, say)
        limit = own_memory_limit(config.cluster)
    else:
        with open_cluster(config.cluster, "dryrun", say, gpu=bool(config.training.gpu_nodes)) as cluster:
            shards = shards_of(config)
            if shards is not None and shards.held:
                federation = federate(config, dataset, cluster, say, writes=False)
            slots, (limit, together) = cluster.slots, cluster.memory_limit()
            config = settle(config, *_asked(cluster, say))
            if config.data.dataset not in datasets.KNOWN:
                # A known name may be fetched by the workers themselves; a plan fetches nothing.
                readers_among(cluster, dataset, say)
    federation = federation or expected(config, dataset)
    resolved = resolve(config, dataset, sum(slot.units for slot in slots), federation)
    placed, ahead = place(resolved, slots)
    if resolved.job.gpu_nodes:
        say(where_gpu_nodes_are(placed, resolved.job.gpu_nodes))
    return ahead, where, limit, together


def _asked(cluster: Cluster, say: Say) -> tuple[Ask, Say, Ask]:
    """Return what `settle` asks, says and asks of GPUs; workers that are threads of this process have what it has."""
    if cluster.threads:
        return asked_here, say, asked_here
    return cluster.on_each_worker, say, cluster.on_each_gpu


def check_before_data(config: Config, resumes: bool = False) -> None:
    """Check what needs neither data nor cluster.

    Raises
    ------
    BadInput
        If the run's folder, its report or its checkpoints' place cannot be had.
    """
    if not resumes:
        check_out(config.run.out, config.run.overwrite)
    if config.run.report is not None:
        folder = Path(config.run.report).absolute().parent
        if os.path.isdir(config.run.report):
            raise BadInput(f"run.report (--report): given {config.run.report}, which is a folder; give a file in it")
        if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
            raise BadInput(f"run.report (--report): given {config.run.report}, but {folder} is no folder to write to")
    if config.run.checkpoints is not None:
        if resumes:
            place_at(config.run.checkpoints)
        else:
            checkpoints.check_free(config.run.checkpoints)


@contextlib.contextmanager
def _noted(note: str) -> Iterator[None]:
    """Add a note to whatever is raised."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        error.add_note(note)
        raise


def _stopping(interrupts: Interrupts, say: Say, said: list[bool]) -> bool:
    """Return whether the run is to stop; say so once. Raise KeyboardInterrupt if it is to stop at once."""
    interrupts.check()
    if interrupts.asked and not said:
        said.append(True)
        say("stopping behind the steps in work, with a checkpoint; once more stops at once, at the checkpoint before")
    return interrupts.asked


def _described(config: Config) -> tuple[Dataset, str]:
    """Return the data set as far as it is known without a download, and where it is."""
    name = config.data.dataset
    found = datasets.describe(name)
    if found is not None:
        return found, f"in {found.path}"
    known = datasets.KNOWN[name]
    sizes = (known.train_rows, known.test_rows, known.shape, known.classes)
    return Dataset(name, "", known.sha256, *sizes, source="not here yet"), "not on this machine: it would be fetched"


def _begun(
    config: Config, record: Mapping[str, Any], resume: str | Path | None, say: Say
) -> tuple[RunFolder, Checkpoint | None]:
    """Return a new run's folder, its configuration written; or that of a run to go on with, and its checkpoint."""
    if resume is not None:
        return go_on(Path(resume), record, config.run.checkpoints, say)
    folder = prepare(config.run.out, config.run.overwrite)
    folder.write_configuration(config.tables(), record)
    return folder, None
