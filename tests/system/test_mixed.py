"""Whole runs of which some nodes are a GPU's: on given workers, one of which has the stand-in for CuPy and says so."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import standin
from device_host import COMPILER, LACKING
from distributed import Client

import ffdask
from ffdask import accelerator
from ffdask.conduct import conduct, dry_run
from ffdask.config import load
from ffdask.driver import Graphics
from ffdask.errors import BadInput, RunFailed
from ffdask.resume import stopped_run
from ffdask.slots import workers_of
from tests.system.conftest import _keys, outside_cluster, start_worker
from tests.system.test_faults import After, given, worker_pid

pytestmark = pytest.mark.skipif(not COMPILER, reason=LACKING)

PRELOAD = str(Path(__file__).with_name("stand_in_worker.py"))
SAYS = ["--resources", "GPU=1"]
HAS_GPU = [*SAYS, "--preload", PRELOAD]
MIXED = {"training__gpu_nodes": [1], "schedule__nodes": 3, "run__checkpoint_every": 1}


class Nodes(After):
    """Sees on which worker each node's steps were done."""

    def __init__(self, **things):
        super().__init__(**things)
        self.seen = set()

    def record(self, record):
        self.seen.add((record["node"], record["worker"]))
        super().record(record)


@contextlib.contextmanager
def alone(folder):
    """A scheduler whose workers are still to come, and a client to it that is not the run's."""
    with outside_cluster(folder, workers=0) as address, Client(address, set_as_default=False) as client:
        yield address, client


@contextlib.contextmanager
def gpu_worker(address, folder, index, extra=HAS_GPU):
    process = start_worker(address, folder, index, 2, ["--no-nanny", *extra])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def a_machine_with_a_gpu():
    """Have this process have the stand-in."""
    with pytest.MonkeyPatch.context() as patch, standin.in_the_place_of_cupy():
        patch.setattr(accelerator, "devices", lambda: Graphics(["Card 0"], (9, 0), 12040))
        patch.setattr(accelerator, "_wheels", lambda: ["numpy"])
        yield


@pytest.fixture(scope="module")
def digest(inline_digest):
    """The digest of a run in one thread, its GPU nodes by the stand-in."""

    def of(**changed):
        with a_machine_with_a_gpu():
            return inline_digest(**changed)

    return of


@pytest.mark.slow
def test_a_gpu_node_waits_for_a_gpu_and_goes_on_to_the_bits_of_a_run_in_one_thread(
    train, digest, tmp_path, monkeypatch
):
    expected = digest(**MIXED)
    said, watcher = [], Nodes()
    with given(tmp_path, workers=1) as (address, client), contextlib.ExitStack() as stack:
        stack.enter_context(gpu_worker(address, tmp_path, 1))
        client.wait_for_workers(2)
        pid = worker_pid(client, "worker1")
        left = []

        def come():
            left.extend(watcher.seen)
            monkeypatch.setenv("FFDASK_TEST_CARD", "Card 1")
            stack.enter_context(gpu_worker(address, tmp_path, 2))

        def kill():
            os.kill(pid, signal.SIGKILL)
            threading.Timer(3, come).start()

        watcher.things[30] = kill
        run = train(watchers=[watcher], say=said.append, cluster__scheduler=address, **MIXED)
    assert run.summary["weights_sha256"] == expected
    assert expected != digest(**MIXED | {"training__gpu_nodes": []}), "a GPU's bits are not a processor's"
    assert {worker for node, worker in left if node == 1} == {"worker1"}
    assert {worker for node, worker in watcher.seen if node == 1} == {"worker1", "worker2"}
    assert "worker0" in {worker for node, worker in watcher.seen if node != 1}
    assert "gpu nodes: 1 on worker1; the others by a CPU" in said
    assert "no worker with a GPU is left: waiting up to 60 s for one" in said
    assert any("worker worker1" in line and "is gone; going on after round" in line for line in said)
    card = f"CUDA 12.4, numpy {np.__version__}"
    assert f"the same bits are not promised: worker worker1: Card 0, {card}; worker worker2: Card 1, {card}" in said
    assert run.summary["gpu_nodes"] == run.recorded["gpu_nodes"] == [1]


@pytest.mark.slow
def test_a_worker_without_a_gpu_may_join_and_gets_nodes_of_processors_only(train, digest, tmp_path):
    changed = MIXED | {"training__epochs": 20, "schedule__name": "all-layers"}
    expected, said, watcher = digest(**changed), [], Nodes()
    with alone(tmp_path) as (address, client), contextlib.ExitStack() as stack:
        stack.enter_context(gpu_worker(address, tmp_path, 0))

        def join():
            stack.enter_context(gpu_worker(address, tmp_path, 1, ()))
            # Meanwhile the run waits, which would be over before: what is said of a step is said on its own thread.
            client.wait_for_workers(2)

        watcher.things[20] = join
        run = train(watchers=[watcher], say=said.append, cluster__scheduler=address, **changed)
        known = {info["name"]: info["resources"] for info in workers_of(client).values()}
    assert run.summary["weights_sha256"] == expected
    assert any(line.startswith("workers have joined; going on after round") for line in said)
    assert {worker for node, worker in watcher.seen if node == 1} == {"worker0"}
    assert {worker for node, worker in watcher.seen if node != 1} == {"worker0", "worker1"}
    # What a worker says of itself stays beside the resource that steps take.
    assert known == {"worker0": {"GPU": 1.0, "ffdask-worker0": 2.0}, "worker1": {"ffdask-worker1": 2.0}}


@pytest.mark.slow
def test_a_worker_that_says_gpu_and_cannot_use_it_is_refused_and_one_that_says_nothing_is_no_gpus(train, tmp_path):
    keys = {"cluster__wait": 2.0, **MIXED}
    with alone(tmp_path) as (address, client), contextlib.ExitStack() as stack:
        # It has one, and does not say so.
        stack.enter_context(gpu_worker(address, tmp_path, 0, ["--preload", PRELOAD]))
        client.wait_for_workers(1)
        with pytest.raises(BadInput, match=r"none of 1 workers says that it has a GPU, after 2 s .*--resources GPU=1`"):
            train(cluster__scheduler=address, **keys)
        # Where all compute on GPUs nobody need say so.
        assert train(cluster__scheduler=address, training__device="gpu").summary["device"] == "gpu"
        stack.enter_context(gpu_worker(address, tmp_path, 1, SAYS))
        client.wait_for_workers(2)
        with pytest.raises(BadInput, match=r"--gpu-nodes\): given 1, but worker1: no NVIDIA driver is installed"):
            train(cluster__scheduler=address, **keys)
        stack.enter_context(gpu_worker(address, tmp_path, 2))
        client.wait_for_workers(3)
        # One that can be used comes first, and two are enough: the other that says so is still asked.
        with pytest.raises(BadInput, match="given 1, but worker1: no NVIDIA driver"):
            train(cluster__scheduler=address, cluster__workers=2, **keys)
    assert [path.name for path in tmp_path.glob("run*")] == ["run1"], "nothing is left of what was refused"


@pytest.mark.slow
def test_a_plan_on_given_workers_says_where_gpu_nodes_would_be(tiny, tmp_path):
    with given(tmp_path, workers=1) as (address, client), gpu_worker(address, tmp_path, 1):
        client.wait_for_workers(2)
        config = load(None, _keys(tiny, {"cluster__scheduler": address, **MIXED, "training__gpu_nodes": [0, 2]}))
        assert "gpu nodes: 0 on worker1, 2 on worker1; the others by a CPU" in dry_run(config).splitlines()


def test_a_plan_for_here_says_it_too(tiny):
    config = load(None, _keys(tiny, MIXED | {"training__gpu_nodes": [0, 1, 2]}))
    with a_machine_with_a_gpu():
        assert "gpu nodes: 0 on worker0, 1 on worker0, 2 on worker0" in dry_run(config).splitlines()
    with pytest.raises(BadInput, match="given 0, 1, 2, but this machine: no NVIDIA driver"):
        dry_run(config)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["streaming", "all-layers", "worst-layer"])
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_of_ones_own_are_asked_and_say_nothing(train, digest, name, workers):
    changed = MIXED | {"schedule__name": name, "run__evaluate_every": 1, "network__negatives": "adaptive"}
    expected = digest(**changed)
    with a_machine_with_a_gpu():
        run = train(cluster__workers=workers, **changed)
    assert run.summary["weights_sha256"] == expected
    prints = [worker["gpu"] for worker in run.recorded["workers"].values()]
    assert prints == [f"Card 0, CUDA 12.4, numpy {np.__version__}"] * workers
    assert (run.recorded["device"], run.recorded["kernels"]) == ("cpu", "numba")
    # Where there is no GPU it is read, and answers.
    opened = ffdask.open_run(run.path)
    assert opened.network.sha256() == expected
    assert opened.predict(np.zeros((3, 8, 8), np.uint8)).shape == (3,)


@pytest.mark.slow
def test_federated_nodes_of_both_kinds(train):
    changed = {"schedule__name": "federated", "schedule__nodes": 2, "network__negatives": "sampled"}
    with a_machine_with_a_gpu():
        runs = [
            train(cluster__workers=workers, training__gpu_nodes=nodes, **changed)
            for workers, nodes in [(1, [1]), (2, [1]), (1, [])]
        ]
    one, two, without = (run.summary["weights_sha256"] for run in runs)
    assert one == two != without


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_the_same_nodes_elsewhere(train, digest, tmp_path):
    expected, out = digest(**MIXED), str(tmp_path / "left")
    with alone(tmp_path) as (address, client), gpu_worker(address, tmp_path, 0):
        client.wait_for_workers(1)
        pid = worker_pid(client, "worker0")
        with pytest.raises(RunFailed, match="no worker is left, and none came within 1 s"):
            train(
                watchers=[After(step60=lambda: os.kill(pid, signal.SIGKILL))],
                run__out=out,
                cluster__scheduler=address,
                cluster__wait=1.0,
                **MIXED,
            )
    config = stopped_run(out, {"cluster.scheduler": None})
    assert config.training.gpu_nodes == (1,)
    with pytest.raises(BadInput, match="given 1, but this machine: no NVIDIA driver"):
        conduct(config, resume=out)
    with pytest.raises(BadInput, match=r"training\.gpu_nodes too; a run goes on as it was configured"):
        stopped_run(out, {"training.gpu_nodes": [0]})
    with a_machine_with_a_gpu():
        run = conduct(config, resume=out)
    assert run.summary["weights_sha256"] == expected
