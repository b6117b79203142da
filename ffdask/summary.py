"""A run in figures: what its store records of it, its test errors, its summary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from ffdask import datasets, machine, timeline
from ffdask.cluster import Cluster
from ffdask.datasets import Dataset
from ffdask.job import Images, Labels
from ffdask.kernels import named
from ffdask.network import Network
from ffdask.plugins import sources
from ffdask.resolved import Resolved
from ffdask.shards import Federation

Record = dict[str, Any]


def record_of(resolved: Resolved, cluster: Cluster) -> dict[str, Any]:
    """Return the configuration with nothing left open, for the run's store."""
    plan, config = resolved.plan, resolved.config
    own = {
        "network.objective": config.network.objective,
        "network.negatives": config.network.negatives,
        "schedule.name": config.schedule.name,
    }
    return {
        "dataset": asdict(resolved.dataset),
        "layers": list(resolved.job.widths),
        "objective": str(config.network.objective),
        "negatives": str(config.network.negatives),
        "classifier": config.network.classifier,
        "schedule": str(config.schedule.name),
        **_shards(resolved.federation),
        "nodes": plan.nodes,
        "epochs": plan.calendar.epochs,
        "chapters": plan.calendar.chapters,
        "chunk": plan.calendar.chunk,
        "staleness": plan.staleness,
        "seed": plan.calendar.seed,
        **_devices(resolved),
        "precision": resolved.job.precision,
        "kernels": resolved.job.kernels,
        "fingerprint": machine.fingerprint(),
        "workers": cluster.fingerprints,
        **({"own": found} if (found := sources(own)) else {}),
    }


def _devices(resolved: Resolved) -> dict[str, Any]:
    """Return what computes: of a mixed run `device` is for all nodes but its GPU nodes."""
    training = resolved.config.training
    mixed = {"gpu_nodes": list(training.gpu_nodes)} if training.gpu_nodes else {}
    return {"device": training.device, **mixed}


def _shards(federation: Federation | None) -> dict[str, Any]:
    if federation is None:
        return {}
    return {"shards": asdict(federation.shards), "shard_rows": federation.rows, "shard_sha256": federation.sha256}


def test(network: Network, classifier: str, dataset: Dataset, threads: int) -> dict[str, Any]:
    """Return the test set's figures: of the chosen classifier, and of every one that the network has."""
    return test_rows(network, classifier, *datasets.load(dataset.path, "test"), threads)


def validate(network: Network, classifier: str, resolved: Resolved, threads: int) -> dict[str, Any]:
    """Return the same figures of the rows that were held out; none where none were."""
    rows = resolved.plan.calendar.held_out()
    if not len(rows):
        return {}
    images, labels = datasets.load(resolved.dataset.path, "train")
    return _figures(network, classifier, "validation", images[rows], labels[rows], threads)


def test_rows(network: Network, classifier: str, images: Images, labels: Labels, threads: int) -> dict[str, Any]:
    """Return the same figures as `test`, of other rows."""
    return {**_figures(network, classifier, "test", images, labels, threads), "classifier": classifier}


def own_dataset(recorded: Mapping[str, Any], say: Callable[[str], None] = print) -> Dataset:
    """Return the data set that a run learned from, wherever this machine has it; fetch it if it is a known one.

    Raises
    ------
    BadInput
        If it cannot be had.
    """
    dataset = Dataset(**recorded["dataset"])
    path = datasets.locate(dataset)
    return replace(dataset, path=path) if path is not None else datasets.obtain(dataset.name, say)


def _figures(
    network: Network, classifier: str, of: str, images: Images, labels: Labels, threads: int
) -> dict[str, float]:
    kernels = named("numpy")
    errors = {name: network.errors(images, labels, name, kernels, threads) for name in network.classifiers()}
    accuracy = {f"{of}_accuracy_{name}": 1 - wrong / len(labels) for name, wrong in errors.items()}
    chosen = {f"{of}_accuracy": accuracy[f"{of}_accuracy_{classifier}"], f"{of}_errors": errors[classifier]}
    return chosen | accuracy


def figures_of(resolved: Resolved, cluster: Cluster, records: Sequence[Record]) -> dict[str, Any]:
    """Return the figures of a run that its records, its configuration and its cluster tell."""
    plan, config = resolved.plan, resolved.config
    rounds = {record["round"] for record in records if record["kind"] == "train"}
    chapters = 1 + max(plan.calendar.chapter_of(round_) for round_ in rounds)
    looks = [record["stop"] - record["start"] for record in records if record["kind"] == "evaluate"]
    return {
        "train_seconds": timeline.training_seconds(records),
        "total_seconds": 0.0,
        **({"evaluate_seconds": sum(looks)} if looks else {}),
        "workers": len(cluster.slots),
        "nodes": plan.nodes,
        "threads": cluster.units,
        "schedule": config.schedule.name,
        "scale": config.training.scale,
        "layers": list(resolved.job.widths),
        "epochs": plan.calendar.epochs,
        "chapters": chapters,
        "chunk": plan.calendar.chunk,
        "staleness": plan.staleness,
        "utilization": timeline.utilization(records, cluster.units),
        "steps": len(records),
        "weights_sha256": "",
        "peak_memory_bytes": 0,
        "seed": plan.calendar.seed,
        "dataset": resolved.dataset.name,
        "dataset_sha256": resolved.dataset.sha256,
        **_devices(resolved),
        "precision": resolved.job.precision,
        "versions": machine.versions(),
        "fingerprint": machine.fingerprint(),
    }
