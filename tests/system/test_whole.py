"""Whole runs on real MNIST: the figures that the main job is held to. `pytest -m whole` runs them."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from ffdask import datasets, timeline
from ffdask.conduct import conduct
from ffdask.config import load
from tests.system.conftest import outside_cluster

pytestmark = [pytest.mark.whole, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def mnist():
    return datasets.obtain("mnist")


def train(out, watchers=(), **keys):
    keys = {key.replace("__", "."): value for key, value in keys.items()} | {"run.out": str(out)}
    return conduct(load(None, keys), watchers=watchers).summary


def by_command(out, *flags):
    """Train as a user does, in a process of its own: its memory is the run's, and not that of tests before it."""
    call = [sys.executable, "-m", "ffdask.train", "--out", out, "--json", *flags]
    return json.loads(subprocess.run(list(map(str, call)), check=True, capture_output=True, text=True).stdout)


def test_default_job_on_three_seeds(tmp_path, mnist):
    """At least 98.3 % each and 98.4 % in the mean, a range of at most 0.3 points, at most 2 GiB.

    The time is not asserted here: it is a benchmark's matter, and the machine's. It is printed.
    """
    runs = [by_command(tmp_path / str(seed), "--seed", seed) for seed in (1, 2, 3)]
    shown = ("seed", "test_accuracy", "test_accuracy_goodness", "train_seconds", "peak_memory_bytes", "utilization")
    print(json.dumps([{key: run[key] for key in shown} for run in runs], indent=1))
    accuracy = [run["test_accuracy"] for run in runs]
    assert min(accuracy) >= 0.983
    assert sum(accuracy) / 3 >= 0.984
    assert max(accuracy) - min(accuracy) <= 0.003
    assert max(run["peak_memory_bytes"] for run in runs) <= 2 << 30


def test_sorted_by_class_trains_as_well(tmp_path, mnist):
    images, labels = datasets.load(mnist.path, "train")
    order = np.argsort(labels, kind="stable")
    store = datasets.write_store(
        tmp_path / "sorted.zarr",
        "sorted",
        "MNIST by class",
        images[order],
        labels[order],
        *datasets.load(mnist.path, "test"),
    )
    keys = {"training__epochs": 4}
    shuffled = train(tmp_path / "shuffled", **keys)
    sorted_ = train(tmp_path / "sorted", data__dataset=store.path, **keys)
    print(f"shuffled {shuffled['test_accuracy']}, sorted {sorted_['test_accuracy']}")
    assert abs(shuffled["test_accuracy"] - sorted_["test_accuracy"]) <= 0.003


class Keeper:
    """Keeps every record."""

    def __init__(self):
        self.records = []

    def begin(self, resolved, dashboard):
        pass

    def record(self, record):
        self.records.append(record)

    def end(self):
        pass


def test_an_outside_cluster_does_the_same_job(tmp_path, mnist):
    """`dask scheduler` and two `dask worker`: the embedded run's bits, and layers that overlap."""
    embedded = train(tmp_path / "embedded", training__epochs=1)
    keeper = Keeper()
    with outside_cluster(tmp_path, nthreads=2, cache=datasets.cache_folder()) as address:
        keys = {"training__epochs": 1, "cluster__scheduler": address, "cluster__workers": 2}
        outside = train(tmp_path / "outside", [keeper], **keys)
    assert outside["weights_sha256"] == embedded["weights_sha256"]
    workers = {record["worker"] for record in keeper.records if record["kind"] == "train"}
    assert len(workers) == 2
    trained = [r for r in keeper.records if r["kind"] == "train" and r["layer"] == 2]
    seconds = sum(r["stop"] - r["start"] for r in trained)
    together = timeline.overlap(keeper.records, 2, 3)
    print(f"layers 2 and 3 at the same time for {together:.1f} of layer 2's {seconds:.1f} s")
    assert together > 0.25 * seconds


def test_chapters_on_real_data_give_one_digest(tmp_path, mnist):
    keys = {"training__epochs": 1, "schedule__chapters": 4, "cluster__workers": 2}
    one = train(tmp_path / "one", schedule__name="sequential", **keys)
    other = train(tmp_path / "other", schedule__name="all-layers", schedule__nodes=4, cluster__processes=True, **keys)
    assert one["weights_sha256"] == other["weights_sha256"]
