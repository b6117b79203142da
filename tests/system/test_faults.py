"""Workers that die, and what a run leaves on a cluster that is not its own."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest
from distributed import Client, LocalCluster

from ffdask import lost, work
from ffdask.cluster import _slot
from ffdask.errors import RunFailed
from tests.system.conftest import outside_cluster


class Killer:
    """Kills a worker's process when so many steps are done."""

    def __init__(self, after):
        self.after, self.count, self.killed = after, 0, []

    def begin(self, resolved, dashboard):
        pass

    def record(self, record):
        self.count += 1
        if self.count == self.after:
            self.kill()

    def end(self):
        pass


@pytest.mark.slow
def test_an_embedded_worker_that_is_killed_changes_no_bit(train):
    expected = train().summary["weights_sha256"]

    class KillChild(Killer):
        def kill(self):
            workers = [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]
            self.killed = workers[:1]
            workers[0].kill()

    killer = KillChild(after=30)
    run = train(watchers=[killer], cluster__processes=True, cluster__workers=2, cluster__units=2)
    assert killer.killed
    assert run.summary["weights_sha256"] == expected
    assert (run.path / "summary.json").exists()


@pytest.mark.slow
def test_a_given_worker_that_is_lost_ends_the_run_with_a_message(train, tmp_path, monkeypatch):
    monkeypatch.setattr(lost, "LOST_SECONDS", 3.0)
    with outside_cluster(tmp_path, extra=["--no-nanny"]) as address, Client(address, set_as_default=False) as client:

        class KillGiven(Killer):
            def kill(self):
                self.killed = list(client.run(os.getpid).values())[:1]
                os.kill(self.killed[0], signal.SIGKILL)

        with pytest.raises(RunFailed, match=r"(worker .* gone, and not back|was lost before it was read|cancelled)"):
            train(watchers=[KillGiven(after=20)], cluster__scheduler=address, cluster__workers=2)


@pytest.mark.slow
def test_a_value_whose_worker_is_gone_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(lost, "LOST_SECONDS", 3.0)
    with outside_cluster(tmp_path, extra=["--no-nanny"]) as address, Client(address, set_as_default=False) as client:
        client.wait_for_workers(2)
        known = client.scheduler_info(n_workers=-1)["workers"]
        slots = [_slot(client, worker, info) for worker, info in sorted(known.items())]
        here, there = (client.submit(bytes, 1000, pure=False, resources={slot.resource: 0}) for slot in slots)
        watch = lost.Watch(client, slots, ["/rows/of/0", "/rows/of/1"])
        assert watch.gather([here, there]) == [bytes(1000)] * 2
        pids = client.run(os.getpid)
        os.kill(pids[slots[1].address], signal.SIGKILL)
        assert watch.gather([here]) == [bytes(1000)]
        with pytest.raises(RunFailed, match=rf"worker {slots[1].name} \(node 1, with the rows of /rows/of/1\): gone, "):
            watch.gather([here, there])


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_of_a_run_stays_on_a_given_cluster(train, monkeypatch, fails):
    if fails:
        real = work._KINDS["head"]

        def late_failure(job, step, inputs, data):
            if step.round == 7:
                raise ZeroDivisionError
            return real(job, step, inputs, data)

        monkeypatch.setitem(work._KINDS, "head", late_failure)
    options = {"processes": False, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=1, threads_per_worker=2, **options) as cluster, Client(cluster) as client:
        if fails:
            with pytest.raises(RunFailed, match="head-visit007"):
                train(client=client)
        else:
            train(client=client)
        deadline = time.monotonic() + 10
        while cluster.scheduler.tasks and time.monotonic() < deadline:
            time.sleep(0.05)
        assert list(cluster.scheduler.tasks) == []
        assert not [name for name in cluster.scheduler.worker_plugins if "ffdask" in name]
