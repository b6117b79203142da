"""Workers that die, stop, leave and come: a run goes on to the same bits, or ends with a message that says why."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

import psutil
import pytest
from distributed import Client, LocalCluster

from ffdask import lost, work
from ffdask.conduct import conduct
from ffdask.datasets import write_store
from ffdask.errors import Lost, RunFailed
from ffdask.joining import slot_of
from ffdask.resume import stopped_run
from ffdask.slots import workers_of
from tests.system.conftest import outside_cluster, rows, start_worker


class After:
    """Does something when so many steps are done: each thing once."""

    def __init__(self, **things):
        self.things = {int(number.removeprefix("step")): thing for number, thing in things.items()}
        self.count, self.workers = 0, []

    def begin(self, resolved, dashboard):
        pass

    def record(self, record):
        self.count += 1
        self.workers.append(record["worker"])
        if self.count in self.things:
            self.things.pop(self.count)()

    def end(self):
        pass


@contextlib.contextmanager
def given(folder, workers=2, extra=("--no-nanny",), **more):
    """A cluster of somebody else's, and a client to it that is not the run's."""
    with (
        outside_cluster(folder, workers=workers, extra=list(extra), **more) as address,
        Client(address, set_as_default=False) as client,
    ):
        client.wait_for_workers(workers)
        yield address, client


def worker_pid(client, name):
    known = workers_of(client)
    (address,) = (address for address, info in known.items() if info["name"] == name)
    return client.run(os.getpid, workers=[address])[address]


@pytest.mark.slow
def test_an_embedded_worker_that_is_killed_changes_no_bit(train, undisturbed):
    expected = undisturbed.summary["weights_sha256"]
    killed = []

    def kill():
        workers = [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]
        killed.append(workers[0])
        workers[0].kill()

    said = []
    run = train(
        watchers=[After(step30=kill)],
        say=said.append,
        cluster__processes=True,
        cluster__workers=2,
        cluster__units=2,
        run__checkpoint_every=1,
    )
    assert killed
    assert run.summary["weights_sha256"] == expected
    assert any("is gone; going on after round" in line for line in said)
    assert (run.path / "summary.json").exists()


FAULTS = ["killed", "retired", "stopped for a while"]


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_given_worker_that_goes_changes_no_bit(train, undisturbed, tmp_path, fault):
    expected = undisturbed.summary
    with given(tmp_path) as (address, client):
        pid = worker_pid(client, "worker1")

        def act():
            if fault == "killed":
                os.kill(pid, signal.SIGKILL)
            elif fault == "retired":
                client.retire_workers(names=["worker1"])
            else:
                os.kill(pid, signal.SIGSTOP)
                threading.Timer(3, os.kill, (pid, signal.SIGCONT)).start()

        said = []
        run = train(watchers=[After(step25=act)], say=said.append, cluster__scheduler=address, run__checkpoint_every=1)
    assert run.summary["weights_sha256"] == expected["weights_sha256"]
    assert run.summary["steps"] == expected["steps"]
    assert any("worker worker1" in line and "going on" in line for line in said) == (fault != "stopped for a while")


@pytest.mark.slow
def test_a_worker_that_joins_gets_work_and_changes_no_bit(train, tmp_path):
    expected = train(schedule__nodes=2, training__epochs=20).summary["weights_sha256"]
    with given(tmp_path, workers=1, nthreads=1) as (address, client):
        joined = []

        def join():
            joined.append(start_worker(address, tmp_path, 1, 1, ["--no-nanny"]))
            client.wait_for_workers(2)

        said, watcher = [], After(step20=join)
        try:
            run = train(
                watchers=[watcher],
                say=said.append,
                cluster__scheduler=address,
                schedule__nodes=2,
                training__epochs=20,
                run__checkpoint_every=1,
            )
        finally:
            for process in joined:
                process.terminate()
                process.wait()
    assert run.summary["weights_sha256"] == expected
    assert any(line.startswith("workers have joined; going on after round") for line in said)
    assert set(watcher.workers) == {"worker0", "worker1"}


@pytest.mark.slow
def test_with_no_worker_left_it_waits_then_says_how_to_go_on(train, undisturbed, tmp_path):
    expected = undisturbed.summary["weights_sha256"]
    out = str(tmp_path / "left")
    with given(tmp_path, workers=1) as (address, client):
        pid = worker_pid(client, "worker0")
        said = []
        with pytest.raises(RunFailed, match="no worker is left, and none came within 2 s") as caught:
            train(
                watchers=[After(step60=lambda: os.kill(pid, signal.SIGKILL))],
                say=said.append,
                run__out=out,
                run__checkpoint_every=1,
                cluster__scheduler=address,
                cluster__wait=2.0,
            )
    assert "no worker is left: waiting up to 2 s for one" in said
    assert any(out in note for note in caught.value.__notes__)
    run = conduct(stopped_run(out, {"cluster.scheduler": None}), resume=out)
    assert run.summary["weights_sha256"] == expected


@pytest.mark.slow
def test_a_scheduler_that_dies_ends_the_run_with_its_last_checkpoint(train, undisturbed, tmp_path):
    expected = undisturbed.summary["weights_sha256"]
    out = str(tmp_path / "left")
    with given(tmp_path) as (address, client):
        pid = client.run_on_scheduler(os.getpid)
        begun = time.monotonic()
        with pytest.raises(RunFailed, match="the scheduler is gone") as caught:
            train(
                watchers=[After(step60=lambda: os.kill(pid, signal.SIGKILL))],
                run__out=out,
                run__checkpoint_every=1,
                cluster__scheduler=address,
            )
        assert time.monotonic() - begun < 60
    assert any(out in note for note in caught.value.__notes__)
    said = []
    run = conduct(stopped_run(out, {"cluster.scheduler": None}), resume=out, say=said.append)
    assert any("going on after round" in line for line in said)
    assert run.summary["weights_sha256"] == expected


@pytest.mark.slow
@pytest.mark.parametrize("negatives", ["random", "adaptive"])
def test_a_federated_node_moves_to_a_worker_that_reads_its_shard(train, tmp_path, negatives):
    """Also where negatives read probabilities, which never leave the node but for a file beside its shard."""
    for node in range(2):
        write_store(tmp_path / f"shard{node}.zarr", "shard", "made by the tests", *rows(200, 10 + node), *rows(50, 2))
    changed = {
        "data__shards": str(tmp_path / "shard{node}.zarr"),
        "schedule__name": "federated",
        "schedule__nodes": 2,
        "schedule__chapters": 12,
        "training__epochs": 6,
        "network__negatives": negatives,
    }
    expected = train(**changed).summary["weights_sha256"]
    beside = []

    def kill():
        beside.extend(path.name for path in tmp_path.glob("shard*.zarr.ffdask/*"))
        os.kill(pid, signal.SIGKILL)

    with given(tmp_path) as (address, client):
        pid, said = worker_pid(client, "worker1"), []
        run = train(
            watchers=[After(step45=kill)],
            say=said.append,
            cluster__scheduler=address,
            run__checkpoint_every=1,
            **changed,
        )
    assert run.summary["weights_sha256"] == expected
    assert any("is gone; going on after round" in line for line in said)
    assert bool(beside) == (negatives == "adaptive")
    assert not list(tmp_path.glob("shard*.zarr.ffdask"))


def failing(monkeypatch, times):
    """Have one step fail so many times."""
    real, left = work._KINDS["head"], [times]

    def fails(job, step, inputs, data):
        if step.round == 7 and left[0]:
            left[0] -= 1
            raise OSError(5, "Input/output error")
        return real(job, step, inputs, data)

    monkeypatch.setitem(work._KINDS, "head", fails)


def test_a_step_that_fails_once_is_done_again(train, undisturbed, monkeypatch):
    expected = undisturbed.summary["weights_sha256"]
    failing(monkeypatch, 1)
    said = []
    run = train(say=said.append, run__checkpoint_every=1)
    assert run.summary["weights_sha256"] == expected
    assert any("step head-visit007 failed" in line and "going on after round" in line for line in said)


def test_a_step_that_fails_twice_ends_the_run_with_its_reason(train, monkeypatch):
    failing(monkeypatch, 2)
    with pytest.raises(RunFailed, match=r"step head-visit007 failed on worker \w+: OSError: .*Input/output error"):
        train(run__checkpoint_every=1)


KILLS = """
import multiprocessing, os

def deadly(generator, labels, classes, scores):
    # Not where it is tried before the run.
    if multiprocessing.parent_process() is not None:
        os._exit(1)
    return (labels + 1) % classes
"""


@pytest.mark.slow
def test_a_step_that_kills_its_worker_twice_ends_the_run(train, tmp_path, monkeypatch):
    (tmp_path / "deadly_module_of_tests.py").write_text(KILLS)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunFailed, match=r"was lost while it did step negatives-visit000, as another was before"):
        train(
            network__negatives="deadly_module_of_tests:deadly",
            cluster__processes=True,
            cluster__workers=2,
            cluster__units=2,
        )


@pytest.mark.slow
def test_a_value_whose_worker_is_gone_is_not_waited_for_for_ever(tmp_path):
    with given(tmp_path) as (_, client):
        known = workers_of(client)
        slots = [slot_of(client, worker, info) for worker, info in sorted(known.items())]
        here, there = (client.submit(bytes, 1000, pure=False, resources={slot.resource: 0}) for slot in slots)
        watch = lost.Watch(client, slots, ["/rows/of/0", "/rows/of/1"])
        assert watch.gather([here, there]) == [bytes(1000)] * 2
        pids = client.run(os.getpid)
        os.kill(pids[slots[1].address], signal.SIGKILL)
        with pytest.raises(
            Lost, match=rf"(worker {slots[1].name} \(node 1, with the rows of /rows/of/1\) is gone|was lost before)"
        ):
            watch.gather([here, there])
        time.sleep(2 * lost.LOOK_SECONDS)
        with pytest.raises(Lost, match=rf"worker {slots[1].name} .* is gone") as caught:
            watch.look()
        assert caught.value.workers == (slots[1].name,)


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_of_a_run_stays_on_a_given_cluster(train, monkeypatch, fails):
    if fails:
        failing(monkeypatch, 2)
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
