from __future__ import annotations

import contextlib
import inspect
from types import SimpleNamespace

import pytest
from distributed import Client, Nanny, Worker

from ffdask import embedded
from ffdask.embedded import PAUSE, embedded_cluster, prompt
from ffdask.tables import ClusterTable


@pytest.mark.parametrize("processes", [True, False])
def test_worker_processes_are_given_a_gpu_each(monkeypatch, processes):
    seen = SimpleNamespace()

    @contextlib.contextmanager
    def cluster(workers, **given):
        seen.workers = workers
        yield

    monkeypatch.setattr(embedded, "SpecCluster", cluster)
    monkeypatch.setattr(embedded, "shared_out", lambda count: [{"CUDA_VISIBLE_DEVICES": str(n)} for n in range(count)])
    with embedded_cluster(ClusterTable(workers=2, units=2, processes=processes)):
        pass
    assert {worker["cls"] for worker in seen.workers.values()} == {Nanny if processes else Worker}
    given = [worker["options"].get("env") for worker in seen.workers.values()]
    assert given == ([{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}] if processes else [None, None])
    if processes:
        assert "env" in inspect.signature(Nanny).parameters


def test_messages_go_at_once():
    with embedded_cluster(ClusterTable(workers=2, units=2)) as cluster, Client(cluster, set_as_default=False) as client:
        assert {stream.interval for stream in cluster.scheduler.stream_comms.values()} == {PAUSE}
        assert client.scheduler_comm.interval > PAUSE
        prompt(client)
        assert client.scheduler_comm.interval == PAUSE
        # It is the figure that Dask reads: should it be another one some day, this shows it.
        assert "self.interval" in inspect.getsource(type(client.scheduler_comm))
