from __future__ import annotations

import contextlib
import inspect
from types import SimpleNamespace

import pytest
from distributed import Nanny, Worker

from ffdask import embedded
from ffdask.embedded import embedded_cluster
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
