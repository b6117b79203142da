"""What a graph leaves behind on a scheduler: nothing; and how it is cut."""

from __future__ import annotations

import operator
import time
from functools import partial

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster

from ffdask.errors import Lost
from ffdask.graph import let_go
from ffdask.stay import recall


def until(true):
    deadline = time.monotonic() + 10
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert true()


def test_what_is_let_go_of_is_forgotten_also_around_what_nobody_holds():
    options = {"processes": False, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=1, threads_per_worker=1, **options) as cluster, Client(cluster) as client:
        tasks, submit = cluster.scheduler.tasks, partial(client.submit, pure=False)
        first = submit(time.sleep, 1)
        between = submit(operator.not_, first)
        last = submit(operator.not_, between)
        until(lambda: last.key in tasks)
        key = between.key
        del between
        until(lambda: not tasks[key].who_wants)
        let_go([first, last])
        until(lambda: not tasks)
        assert client.status == "running"
        assert client.submit(str, 3).result(timeout=10) == "3"


ARRAY = np.arange(300_000.0)


def outcome():
    return {"state": ARRAY, "record": {}}


@pytest.mark.parametrize("spills", [False, True], ids=["in memory", "on the disk"])
def test_a_cut_takes_a_piece_out_of_its_workers_store_and_has_no_ancestors(spills):
    memory = {"target": 0.002, "spill": 0.002} if spills else {"target": False, "spill": False}
    options = {"processes": False, "dashboard_address": "127.0.0.1:0", "memory_limit": "1 GB"}
    with (
        dask.config.set({f"distributed.worker.memory.{key}": value for key, value in memory.items()}),
        LocalCluster(n_workers=1, threads_per_worker=1, **options) as cluster,
        Client(cluster) as client,
    ):
        submit, (worker,) = partial(client.submit, pure=False), cluster.workers.values()
        held = submit(outcome, key="step")
        held.result()
        assert ("step" in getattr(worker.data, "disk", {})) == spills
        cut = submit(recall, "step", "state", key="load")
        taken = cut.result()
        assert taken.keys() == {"state"}
        assert (taken["state"] is ARRAY) != spills
        np.testing.assert_array_equal(taken["state"], ARRAY)
        assert not cluster.scheduler.tasks["load"].dependencies
        del held
        until(lambda: "step" not in cluster.scheduler.tasks)
        with pytest.raises(Lost, match="step was lost with the worker"):
            submit(recall, "step", "state").result()
