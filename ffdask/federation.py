"""Who can read which shard: asked of the workers, since the client need not be able to read any."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ffdask import datasets
from ffdask.calendar import held_out, kept_rows
from ffdask.cluster import Cluster, Say
from ffdask.config import Config
from ffdask.datasets import Dataset
from ffdask.errors import BadInput
from ffdask.plugins import entry_of
from ffdask.shards import Federation, Shards

LOOK_SECONDS = 1.0
"""Between two looks for a shard that no worker could read."""


def shards_of(config: Config) -> Shards | None:
    """Return where the nodes' shards come from; None for a schedule whose nodes share the rows."""
    entry = entry_of(config.schedule.name)
    if not entry.sharded:
        return None
    nodes = config.schedule.nodes or entry.nodes(len(config.network.layers), 1)
    return Shards(config.data.shards, nodes, config.data.alpha, config.training.seed)


def expected(config: Config, dataset: Dataset) -> Federation | None:
    """Return the federation as far as it is known without a worker and without reading labels."""
    shards = shards_of(config)
    if shards is None:
        return None
    if shards.held:
        return _held(shards, dataset, [_shard_at(shards.path(node), False) for node in range(shards.nodes)])
    if not dataset.path or not Path(dataset.path).exists():
        # Sizes that a Dirichlet deal will have are not known before the labels are: even ones stand in.
        return roughly(config, dataset)
    return _dealt(shards, config, dataset)


def roughly(config: Config, dataset: Dataset) -> Federation | None:
    """Return a federation of even shards, to check a configuration by before anything is asked or read."""
    shards = shards_of(config)
    if shards is None:
        return None
    rows = dataset.train_rows - config.data.validation
    return Federation(shards, tuple(rows // shards.nodes + (n < rows % shards.nodes) for n in range(shards.nodes)))


def federate(
    config: Config,
    dataset: Dataset,
    cluster: Cluster,
    say: Say,
    writes: bool = True,
    lacking: Callable[[], Mapping[str, Mapping[int, str]]] = dict,
) -> Federation | None:
    """Return the federation as the cluster's workers have it; those that join while a shard is waited for count.

    Parameters
    ----------
    config : Config
    dataset : Dataset
    cluster : Cluster
    say : callable
    writes : bool
        Whether a worker may put the store of a shard that is in another format into its cache.
    lacking : callable, optional
        Returns the worker -> node -> file that a checkpoint needs beside the node's shard and that this worker lacks:
        it is no reader of that shard then.

    Raises
    ------
    BadInput
        If a shard has no worker that can read it within the time that is waited for workers, and what is needed beside
        it, or the shards do not fit each other, or one is empty.
    Lost, StepFailed, RunFailed
        As `Cluster.on_each_worker`.
    """
    shards = shards_of(config)
    if shards is None:
        return None
    waited, deadline = False, time.monotonic() + (0 if cluster.embedded else config.cluster.wait)
    while True:
        found = _federation(shards, config, dataset, cluster, writes)
        lacks, readers = lacking(), _computing(found.readers or (), config, cluster)
        whole = tuple(
            frozenset(name for name in names if node not in lacks.get(name, ())) for node, names in enumerate(readers)
        )
        alone = [node for node, names in enumerate(whole) if not names]
        if not alone:
            return replace(found, readers=whole)
        node = alone[0]
        where = shards.path(node) if shards.held else dataset.path
        what, advice = f"the shard of node {', '.join(map(str, alone))}", f"({where}); start a worker where it is"
        if readers[node]:
            files = "; ".join(f"worker {name}: {lacks[name][node]}" for name in sorted(readers[node]))
            what, advice = f"what node {node} kept for the checkpoint", f"({files}); start a worker where it was kept"
        who = "worker with a GPU" if node in config.training.gpu_nodes else "worker"
        if time.monotonic() > deadline:
            raise BadInput(
                f"data.shards (--shards): no {who} can read {what} {advice}, or "
                f"{'put it there' if readers[node] else 'give a path that one can read'}"
            )
        if not waited:
            say(f"waiting up to {config.cluster.wait:g} s for a {who} that can read {what}")
            waited = True
        time.sleep(LOOK_SECONDS)
        cluster.take_stock(config.cluster, say)


def _computing(readers: Sequence[frozenset[str]], config: Config, cluster: Cluster) -> tuple[frozenset[str], ...]:
    """Return those of each node's readers that may compute it: nodes of a GPU take workers that have one."""
    gpus, with_gpu = config.training.gpu_nodes, frozenset(slot.name for slot in cluster.slots if slot.gpu)
    return tuple(names & with_gpu if node in gpus else names for node, names in enumerate(readers))


def _federation(shards: Shards, config: Config, dataset: Dataset, cluster: Cluster, writes: bool) -> Federation:
    if not shards.held:
        here = cluster.on_each_worker(datasets.locate, dataset)
        anywhere = frozenset(name for name, path in here.items() if path is not None)
        return Federation(shards, _dealt(shards, config, dataset).rows, (), (anywhere,) * shards.nodes)
    paths = [shards.path(node) for node in range(shards.nodes)]
    found = cluster.on_each_worker(_shards_at, paths, writes)
    readers = [frozenset(name for name, each in found.items() if each[node]) for node in range(shards.nodes)]
    if not all(readers):
        return Federation(shards, (), (), tuple(readers))
    first: list[Dataset | None] = [found[min(names)][node] for node, names in enumerate(readers)]
    for node, names in enumerate(readers):
        if len({found[name][node].sha256 for name in names}) > 1:
            raise BadInput(
                f"data.shards (--shards): {paths[node]} holds different rows on workers {', '.join(sorted(names))}; "
                "a node's shard must be the same wherever it can be read"
            )
    held = _held(shards, dataset, first)
    return Federation(shards, held.rows, held.sha256, tuple(readers))


def _shards_at(paths: Sequence[str], writes: bool) -> list[Dataset | None]:
    """Return what stands at each path on this worker: sizes and a digest, no row of it."""
    return [_shard_at(path, writes) for path in paths]


def _shard_at(path: str, writes: bool) -> Dataset | None:
    try:
        return datasets.obtain(path) if writes else datasets.describe(path)
    except BadInput:
        return None


def _held(shards: Shards, dataset: Dataset, found: Sequence[Dataset | None]) -> Federation:
    for node, one in enumerate(found):
        if one is None:
            raise BadInput(f"data.shards (--shards): node {node}'s shard, {shards.path(node)}, cannot be read here")
        if (one.shape, one.dtype) != (dataset.shape, dataset.dtype) or one.classes > dataset.classes:
            raise BadInput(
                f"data.shards (--shards): {shards.path(node)} has {one.dtype} samples of {one.shape} in {one.classes} "
                f"classes, {dataset.name} {dataset.dtype} ones of {dataset.shape} in {dataset.classes}; "
                "a shard's rows must be like those of data.dataset, whose test rows are looked at"
            )
    every = [one for one in found if one is not None]
    return Federation(shards, tuple(one.train_rows for one in every), tuple(one.sha256 for one in every))


def _dealt(shards: Shards, config: Config, dataset: Dataset) -> Federation:
    labels = datasets.load(dataset.path, "train")[1]
    rows = kept_rows(len(labels), held_out(config.training.seed, len(labels), config.data.validation))
    sizes = tuple(len(part) for part in shards.deal(rows, labels[rows]))
    if not all(sizes):
        raise BadInput(
            f"data.shards (--shards): {shards.kind} with alpha {shards.alpha:g} leaves node {sizes.index(0)} without a "
            "row; take a larger --alpha, fewer --nodes, or another --seed"
        )
    return Federation(shards, sizes)
