"""The names by which keys of the configuration are given: on the command line, and as keywords of `ffdask.fit`."""

from __future__ import annotations

FLAGS: dict[str, dict[str, str]] = {
    "data": {
        "--dataset": "data.dataset",
        "--chunk": "data.chunk",
        "--validation": "data.validation",
        "--overlay": "data.overlay",
        "--shards": "data.shards",
        "--alpha": "data.alpha",
    },
    "network": {
        "--layers": "network.layers",
        "--objective": "network.objective",
        "--negatives": "network.negatives",
        "--candidates": "network.candidates",
        "--classifier": "network.classifier",
        "--dropout": "layer.dropout",
    },
    "training": {
        "--epochs": "training.epochs",
        "--batch-size": "training.batch_size",
        "--shift": "training.shift",
        "--optimizer": "optimizer.name",
        "--learning-rate": "optimizer.learning_rate",
        "--seed": "training.seed",
        "--device": "training.device",
        "--gpu-nodes": "training.gpu_nodes",
        "--kernels": "training.kernels",
        "--precision": "training.precision",
        "--scale": "training.scale",
    },
    "schedule": {
        "--schedule": "schedule.name",
        "--nodes": "schedule.nodes",
        "--chapters": "schedule.chapters",
        "--staleness": "schedule.staleness",
        "--exchange": "schedule.exchange",
    },
    "cluster": {
        "--scheduler": "cluster.scheduler",
        "--tls-ca": "cluster.tls_ca",
        "--tls-cert": "cluster.tls_cert",
        "--tls-key": "cluster.tls_key",
        "--workers": "cluster.workers",
        "--units": "cluster.units",
        "--threads": "cluster.processes",
        "--processes": "cluster.processes",
        "--memory-limit": "cluster.memory_limit",
        "--strict-bits": "cluster.strict_bits",
    },
    "run": {
        "--out": "run.out",
        "--overwrite": "run.overwrite",
        "--evaluate-every": "run.evaluate_every",
        "--checkpoint-every": "run.checkpoint_every",
        "--checkpoint-seconds": "run.checkpoint_seconds",
        "--checkpoints": "run.checkpoints",
        "--report": "run.report",
        "--quiet": "run.quiet",
    },
}
"""Flags by group, each with its key; every other key is reached by ``--set``."""

TEXTS = frozenset(
    {
        *("data.dataset", "data.shards", "run.out", "run.report", "run.checkpoints"),
        *("cluster.scheduler", "cluster.memory_limit", "cluster.tls_ca", "cluster.tls_cert", "cluster.tls_key"),
    }
)
"""Keys whose flags are taken as text whatever they look like."""
