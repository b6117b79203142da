"""Workers with caches of their own: a federated node goes on where what it kept for a checkpoint is."""

from __future__ import annotations

import contextlib

import pytest
from distributed import Client, LocalCluster, get_worker

from ffdask import beside
from ffdask.conduct import conduct
from ffdask.errors import BadInput, RunFailed
from ffdask.resume import stopped_run
from tests.system.test_faults import failing
from tests.system.test_resume import halted, stop_after

pytestmark = pytest.mark.slow

__all__ = ["stop_after"]

KEYS = {
    "schedule__name": "federated",
    "schedule__nodes": 2,
    "schedule__chapters": 8,
    "network__negatives": "adaptive",
    "cluster__wait": 1.0,
}


@contextlib.contextmanager
def two_workers():
    options = {"processes": False, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=2, threads_per_worker=2, **options) as cluster, Client(cluster) as client:
        yield client


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Worker -> the folder in which it has the rows that all shards are dealt from; for a test to change."""
    where = {0: tmp_path / "one", 1: tmp_path / "two"}
    monkeypatch.setattr(
        beside, "folder_of", lambda job, dataset, node: where.get(get_worker().name, tmp_path / "alone")
    )
    return where


def test_a_resumed_run_is_placed_where_its_files_are(train, stop_after, tmp_path, caches):
    whole = train(**{key: value for key, value in KEYS.items() if "wait" not in key})
    with two_workers() as client:
        out = halted(train, stop_after, tmp_path, 3, client=client, **KEYS)
    assert all(list(folder.iterdir()) for folder in caches.values())
    # By its costs alone each node would be placed where the other one was.
    caches[0], caches[1] = caches[1], caches[0]
    said = []
    with two_workers() as client:
        run = conduct(stopped_run(out, {}), client=client, resume=out, say=said.append)
    assert any("going on after round" in line for line in said)
    assert run.summary["weights_sha256"] == whole.summary["weights_sha256"]


def test_where_no_worker_has_them_they_are_named_before_any_step(train, stop_after, tmp_path, caches):
    with two_workers() as client:
        out = halted(train, stop_after, tmp_path, 3, client=client, **KEYS)
    kept = sorted(path.name for path in caches[0].iterdir())
    caches[0] = caches[1] = tmp_path / "elsewhere"
    said = []
    with two_workers() as client, pytest.raises(BadInput, match="what node 0 kept for the checkpoint") as caught:
        conduct(stopped_run(out, {}), client=client, resume=out, say=said.append)
    assert any(
        f"worker 1: {tmp_path / 'elsewhere' / name}); start a worker where" in str(caught.value) for name in kept
    )
    assert "waiting up to 1 s for a worker that can read what node 0 kept for the checkpoint" in said


def test_a_run_that_goes_on_is_placed_where_its_files_are(train, monkeypatch, caches):
    """Workers have changed their caches by the time that nodes are placed again."""
    whole = train(**{key: value for key, value in KEYS.items() if "wait" not in key})

    said = []

    def say(line):
        said.append(line)
        if len(said) == 1:
            caches[0], caches[1] = caches[1], caches[0]

    failing(monkeypatch, 1)
    with two_workers() as client:
        run = train(client=client, say=say, run__checkpoint_every=1, **KEYS)
    assert [line.partition(" on worker")[0] for line in said] == ["step head-chapter007 failed"]
    assert run.summary["weights_sha256"] == whole.summary["weights_sha256"]


def test_a_run_whose_files_are_gone_ends_with_their_names(train, monkeypatch, caches, tmp_path):
    def say(line):
        if "going on after round" in line:
            caches[0] = caches[1] = tmp_path / "elsewhere"

    failing(monkeypatch, 1)
    with two_workers() as client, pytest.raises(RunFailed, match=r"no worker can read what node \d kept .*\.npz"):
        train(client=client, say=say, run__checkpoint_every=1, **KEYS)
