"""Where a run's nodes are on the workers that are there, and which of these read the rows themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from ffdask import datasets
from ffdask.beside import lacking
from ffdask.checkpoints import Checkpoint
from ffdask.cluster import Cluster, Say
from ffdask.datasets import Dataset
from ffdask.errors import BadInput, RunFailed
from ffdask.federation import federate
from ffdask.job import Images, Labels
from ffdask.pieces import Beside
from ffdask.plan import Forecast, costs_of_nodes, forecast
from ffdask.resolved import Resolved
from ffdask.schedules.costs import Rates
from ffdask.slots import Placement, Slot, place_nodes

Costs = Callable[[], Sequence[float]]


def place(resolved: Resolved, workers: Sequence[Slot], rates: Rates | None = None) -> tuple[list[Slot], Forecast]:
    """Return each node's slot, and the forecast of the run on them."""
    readers = resolved.federation.readers if resolved.federation else None
    slots = place_nodes(costs_of_nodes(resolved), workers, readers, resolved.job.gpu_nodes)
    worker_of = [list(workers).index(slot) for slot in slots]
    return slots, forecast(resolved, worker_of, [worker.units for worker in workers], rates)


def settle_down(resolved: Resolved, cluster: Cluster, slots: list[Slot], say: Say) -> Placement:
    """Return the run on its nodes' slots; say who is sent rows.

    Raises
    ------
    Lost, StepFailed, RunFailed
        As `Cluster.on_each_worker`.
    """
    readers = readers_among(cluster, resolved.dataset, say)
    return Placement(slots, readers, rows_to_send(resolved, readers, cluster))


def place_anew(
    resolved: Resolved, costs: Costs, cluster: Cluster, say: Say, checkpoint: Checkpoint | None = None
) -> Placement:
    """Return the run on the workers that are there now; wait while there is none.

    Parameters
    ----------
    resolved : Resolved
    costs : callable
        Returns each node's nominal seconds.
    cluster : Cluster
    say : callable
    checkpoint : Checkpoint or None
        To go on from: a federated node goes where what it kept for that is, beside its rows.

    Raises
    ------
    RunFailed
        If no worker comes, or none with a GPU, where one is needed, or none that can read a federated node's rows.
    Lost
        If a worker goes meanwhile.
    """
    cluster.take_stock(resolved.config.cluster, say)
    try:
        return place_where_kept(resolved, costs, cluster, say, checkpoint)
    except BadInput as error:
        raise RunFailed(str(error)) from error


def place_where_kept(
    resolved: Resolved, costs: Costs, cluster: Cluster, say: Say, checkpoint: Checkpoint | None
) -> Placement:
    """Return the run as `place_anew`, on the workers that are taken in.

    Raises
    ------
    BadInput
        If none can read a federated node's rows, and what it kept beside them.
    Lost, StepFailed, RunFailed
        As `Cluster.on_each_worker`; or if the rows are not what they were.
    """
    kept = _kept(checkpoint)
    ask = partial(cluster.on_each_worker, lacking, resolved.job, resolved.dataset, kept)
    federation = federate(resolved.config, resolved.dataset, cluster, say, lacking=ask if kept else dict)
    before = resolved.federation
    if federation and before and (federation.rows, federation.sha256) != (before.rows, before.sha256):
        raise RunFailed("the nodes' shards are not what they were when the run began")
    # No forecast, which takes seconds: whether memory suffices for more nodes than before, the run will show.
    slots = place_nodes(costs(), cluster.slots, federation.readers if federation else None, resolved.job.gpu_nodes)
    return settle_down(resolved, cluster, slots, lambda line: None)


def _kept(checkpoint: Checkpoint | None) -> dict[int, list[str]]:
    """Return the names of the files that each node has kept beside its shard for a checkpoint."""
    kept: dict[int, list[str]] = {}
    for need, value in (checkpoint.pieces if checkpoint else {}).items():
        if checkpoint and isinstance(value, Beside):
            kept.setdefault(checkpoint.records[need.step]["node"], []).append(value.name)
    return kept


def misplaced(resolved: Resolved, costs: Costs, cluster: Cluster, placement: Placement, say: Say) -> bool:
    """Return whether nodes would be placed otherwise, now that others have joined: these are taken in.

    Raises
    ------
    RunFailed
        As `Cluster.take_stock`.
    """
    before = len(cluster.slots)
    cluster.take_stock(resolved.config.cluster, say)
    if len(cluster.slots) <= before:
        return False
    # Which shards a new worker reads is asked when nodes are placed.
    gpus = resolved.job.gpu_nodes
    return bool(resolved.federation) or place_nodes(costs(), cluster.slots, gpu_nodes=gpus) != placement.slots


def where_gpu_nodes_are(slots: Sequence[Slot], gpu_nodes: Sequence[int]) -> str:
    """Return which nodes a GPU computes, and where each is, as a line for the user."""
    where = [f"{node} on {slots[node].name}" for node in gpu_nodes]
    others = "" if len(where) == len(slots) else "; the others by a CPU"
    return f"gpu nodes: {', '.join(where)}{others}"


def readers_among(cluster: Cluster, dataset: Dataset, say: Say) -> frozenset[str]:
    """Return the names of the workers that can read the very same data themselves; say who cannot.

    Raises
    ------
    Lost, StepFailed, RunFailed
        As `Cluster.on_each_worker`.
    """
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
