"""What a graph leaves behind on a scheduler: nothing."""

from __future__ import annotations

import operator
import time
from functools import partial

from distributed import Client, LocalCluster

from ffdask.graph import let_go


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
