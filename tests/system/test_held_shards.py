"""Nodes whose rows are really their own: each worker has one store, in its own folder, that nobody else can read."""

from __future__ import annotations

import json
import os
import re

import numpy as np
import pytest
from distributed import Client

from ffdask import datasets
from ffdask.conduct import dry_run
from ffdask.config import load
from ffdask.datasets import write_store
from ffdask.errors import BadInput, RunFailed
from ffdask.on_worker import _obtained
from ffdask.slots import workers_of
from tests.system.conftest import outside_cluster, rows, start_worker

pytestmark = pytest.mark.slow

KEYS = {
    "data__shards": "shard{node}.zarr",
    "schedule__name": "federated",
    "schedule__nodes": 2,
    "schedule__chapters": 6,
}


@pytest.fixture
def shard(tiny):
    """Write a node's own store: as many rows as is said, drawn by the node's number."""

    def write(folder, node, count=200, name=None):
        folder.mkdir(exist_ok=True)
        path = folder / (name or f"shard{node}.zarr")
        return write_store(path, path.stem, "made by the tests", *rows(count, 10 + node), *rows(50, 2))

    return write


@pytest.fixture
def alone(train, shard, tmp_path, monkeypatch):
    """The digest of a run in one process that can read both shards."""
    both = tmp_path / "both"
    for node in range(2):
        shard(both, node)
    monkeypatch.chdir(both)
    digest = train(**KEYS).summary["weights_sha256"]
    monkeypatch.chdir(tmp_path)
    return digest


def test_a_node_works_where_its_shard_is(train, shard, alone, tmp_path):
    # Node 0's rows are with the second worker: where nobody looked, the first would do.
    for node in range(2):
        shard(tmp_path / f"worker{1 - node}", node)
    with outside_cluster(tmp_path) as address:
        run = train(cluster__scheduler=address, cluster__workers=2, **KEYS)
    assert run.summary["weights_sha256"] == alone
    records = [json.loads(line) for line in (run.path / "records.jsonl").read_text().splitlines()]
    # Looks at the test rows are not a node's own: they may be anywhere.
    where = {(record["node"], record["worker"]) for record in records if record["kind"] != "evaluate"}
    assert where == {(0, "worker1"), (1, "worker0")}


def test_a_worker_that_joins_with_the_shard_is_waited_for(train, shard, alone, tmp_path):
    for node in range(2):
        shard(tmp_path / f"worker{node}", node)
    said, more = [], []
    with outside_cluster(tmp_path, workers=1) as address:

        def say(line):
            said.append(line)
            if line.startswith("waiting up to 60 s for a worker that can read the shard of node 1"):
                more.append(start_worker(address, tmp_path, 1))

        try:
            run = train(say=say, cluster__scheduler=address, **KEYS)
        finally:
            for process in more:
                process.terminate()
                process.wait(20)
    assert more, said
    assert run.summary["weights_sha256"] == alone
    assert run.summary["workers"] == 2


def test_a_shard_that_nobody_has_ends_with_a_message(train, shard, tmp_path):
    shard(tmp_path / "worker0", 0)
    with (
        outside_cluster(tmp_path, workers=1) as address,
        pytest.raises(BadInput, match=r"no worker can read .* node 1"),
    ):
        train(cluster__scheduler=address, cluster__wait=10, **KEYS)


def test_shards_that_differ_between_workers_are_refused(train, shard, tmp_path):
    for worker in range(2):
        shard(tmp_path / f"worker{worker}", 0)
        shard(tmp_path / f"worker{worker}", 1, 200 + worker)
    with outside_cluster(tmp_path) as address, pytest.raises(BadInput, match="holds different rows on workers"):
        train(cluster__scheduler=address, cluster__workers=2, **KEYS)


def test_a_shard_whose_only_worker_dies_ends_with_a_message_that_names_it(train, shard, tmp_path):
    for node in range(2):
        shard(tmp_path / f"worker{node}", node)
    with outside_cluster(tmp_path, extra=["--no-nanny"]) as address, Client(address, set_as_default=False) as client:

        class Kill:
            done = False

            def begin(self, resolved, dashboard):
                pass

            def record(self, record):
                if not self.done and record["worker"] == "worker1":
                    self.done = True
                    info = workers_of(client)
                    (there,) = (one for one, known in info.items() if known["name"] == "worker1")
                    os.kill(client.run(os.getpid, workers=[there])[there], 9)

            def end(self):
                pass

        said = []
        with pytest.raises(RunFailed, match=r"no worker can read the shard of node 1 \(shard1.zarr\)"):
            train(
                watchers=[Kill()],
                say=said.append,
                cluster__scheduler=address,
                cluster__workers=2,
                cluster__wait=10,
                **KEYS,
            )
        lost = (
            r"(worker worker1 \(node 1, with the rows of shard1.zarr\) is gone|was lost before it was read|cancelled)"
        )
        assert any(re.search(lost, line) for line in said)


def test_a_plan_asks_the_workers_and_writes_nothing(tiny, shard, tmp_path):
    for node in range(2):
        folder = tmp_path / f"worker{node}"
        store = shard(folder, node, name="dealt.zarr")
        arrays = {f"{key}_{split}": value for split in ("train", "test") for key, value in _arrays(store.path, split)}
        np.savez(folder / f"shard{node}.npz", **arrays)
    keys = {key.replace("__", "."): value for key, value in KEYS.items()} | {
        "data.dataset": tiny.path,
        "data.chunk": 100,
        "data.shards": "shard{node}.npz",
        "network.layers": [24, 16],
        "training.epochs": 3,
    }
    with outside_cluster(tmp_path) as address:
        before = sorted(tmp_path.rglob("*.zarr"))
        plan = dry_run(load(None, keys | {"cluster.scheduler": address, "cluster.workers": 2}))
        assert "federated" in plan
        assert sorted(tmp_path.rglob("*.zarr")) == before


def _arrays(path, split):
    images, labels = datasets.load(path, split)
    return [("x", images), ("y", labels)]


def test_rows_that_were_changed_meanwhile_are_noticed(shard, tmp_path):
    path = shard(tmp_path, 0).path
    digest = datasets.obtain(path).sha256
    assert _obtained(path, digest) == path
    with pytest.raises(RunFailed, match="it held other rows when the run began"):
        _obtained(path, "0" * 64)
    _obtained.cache_clear()
    datasets.forget()
    for file in (tmp_path / "shard0.zarr").rglob("c/0*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(RunFailed, match=r"shard .*shard0.zarr: "):
        _obtained(path, digest)
