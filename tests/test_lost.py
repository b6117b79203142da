"""What becomes of values that do not come: lost with a worker, or never made."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from distributed import Client, KilledWorker, LocalCluster
from distributed.comm import CommClosedError

from ffdask.cluster import Cluster
from ffdask.embedded import resource_name
from ffdask.errors import Lost, RunFailed, StepFailed
from ffdask.lost import Watch
from ffdask.slots import Slot, workers_of


@pytest.fixture(scope="module")
def cluster():
    options = {"processes": False, "dashboard_address": "127.0.0.1:0", "resources": {resource_name(0): 1}}
    with LocalCluster(n_workers=1, threads_per_worker=1, **options) as local, Client(local) as client:
        (address,) = client.scheduler_info()["workers"]
        yield Cluster(client, [Slot(address, "0", 1)], True, True, {})


def raising(error):
    raise error


OWN = [PermissionError(13, "Permission denied"), TimeoutError("a disk"), ValueError("an odd row"), MemoryError("none")]


@pytest.mark.parametrize("error", OWN, ids=lambda error: type(error).__name__)
def test_what_a_task_raises_is_no_lost_worker(cluster, error):
    future = cluster.client.submit(raising, error, key=f"keep-negatives-chapter003-{type(error).__name__}.0")
    said = rf"^task keep-negatives-chapter003 failed: {type(error).__name__}: [^(]*( \(test_lost.py:\d+\))?$"
    with pytest.raises(StepFailed, match=said) as caught:
        Watch(cluster.client, cluster.slots).gather([future])
    assert caught.value.step == "keep-negatives-chapter003"
    assert type(caught.value.__cause__) is type(error)


def test_what_a_worker_cannot_answer_names_it(cluster):
    with pytest.raises(StepFailed, match=r"^task raising-0 failed: PermissionError: "):
        cluster.on_each_worker(raising, OWN[0])
    assert cluster.on_each_worker(str, 3) == {"0": "3"}


@pytest.mark.parametrize("error", [StepFailed("the shard is gone"), Lost("away"), RunFailed("so it is")])
def test_what_is_raised_on_purpose_stays_what_it_is(cluster, error):
    future = cluster.client.submit(raising, error, pure=False)
    with pytest.raises(type(error), match=f"^{error}$"):
        Watch(cluster.client, cluster.slots).gather([future])


def test_a_task_that_takes_its_workers_along_is_lost(cluster):
    future = cluster.client.submit(raising, KilledWorker("step", SimpleNamespace(address="tcp://x"), 3), pure=False)
    with pytest.raises(Lost, match="a result was lost before it was read: KilledWorker"):
        Watch(cluster.client, cluster.slots).gather([future])


def test_a_task_that_is_cancelled_is_lost(cluster):
    future = cluster.client.submit(str, 3, resources={"nobody has it": 1}, pure=False)
    future.cancel()
    with pytest.raises(Lost, match="a result was lost before it was read"):
        Watch(cluster.client, cluster.slots).gather([future])


def test_a_connection_that_breaks_is_a_loss(cluster, monkeypatch):
    async def breaks(client, futures):
        raise CommClosedError("in the midst of it")

    future = cluster.client.submit(str, 3, pure=False)
    monkeypatch.setattr("ffdask.lost._gathered", breaks)
    with pytest.raises(Lost, match="CommClosedError: in the midst of it"):
        Watch(cluster.client, cluster.slots).gather([future])


def test_workers_are_known_whatever_the_client_refreshes_meanwhile(cluster, monkeypatch):
    """A client asks for the scheduler every two seconds, without workers, and keeps the answer where it keeps all."""

    async def without_workers(self, n_workers=0):
        self._scheduler_identity = {"workers": {}}

    monkeypatch.setattr(Client, "_update_scheduler_info", without_workers)
    Watch(cluster.client, cluster.slots).look()
    assert [slot.address for slot in cluster.slots] == list(workers_of(cluster.client))
