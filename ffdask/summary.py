"""A run in figures: what its store records of it, its test errors, its summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ffdask import datasets, machine, timeline
from ffdask.cluster import Cluster
from ffdask.config import Resolved
from ffdask.datasets import Dataset
from ffdask.kernels import KERNELS
from ffdask.network import Network

Record = dict[str, Any]


def record_of(resolved: Resolved, cluster: Cluster, device: str) -> dict[str, Any]:
    """Return the configuration with nothing left open, for the run's store."""
    plan = resolved.plan
    return {
        "dataset": asdict(resolved.dataset),
        "layers": list(resolved.job.widths),
        "objective": resolved.job.objective,
        "negatives": resolved.job.negatives,
        "classifier": resolved.config.network.classifier,
        "schedule": resolved.config.schedule.name,
        "nodes": plan.nodes,
        "epochs": plan.calendar.epochs,
        "chapters": plan.calendar.chapters,
        "chunk": plan.calendar.chunk,
        "staleness": plan.staleness,
        "seed": plan.calendar.seed,
        "device": device,
        "precision": "float32",
        "kernels": resolved.job.kernels,
        "fingerprint": machine.fingerprint(),
        "workers": cluster.fingerprints,
    }


def test(network: Network, classifier: str, dataset: Dataset, threads: int) -> dict[str, Any]:
    """Return the test set's figures: of the chosen classifier, and of every one that the network has."""
    images, labels = datasets.load(dataset.path, "test")
    kernels = KERNELS["numpy"]
    errors = {name: network.errors(images, labels, name, kernels, threads) for name in network.classifiers()}
    accuracy = {f"test_accuracy_{name}": 1 - wrong / len(labels) for name, wrong in errors.items()}
    chosen = {"test_accuracy": accuracy[f"test_accuracy_{classifier}"], "test_errors": errors[classifier]}
    return chosen | accuracy | {"classifier": classifier}


def figures_of(resolved: Resolved, cluster: Cluster, records: Sequence[Record], device: str) -> dict[str, Any]:
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
        "device": device,
        "precision": "float32",
        "versions": machine.versions(),
        "fingerprint": machine.fingerprint(),
    }
