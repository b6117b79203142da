"""Whole runs of which some nodes are a GPU's: on given workers, one of which has the stand-in for CuPy and says so."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path

import pytest
import standin
from device_host import COMPILER, LACKING

from ffdask import accelerator
from ffdask.driver import Graphics
from tests.system.conftest import start_worker
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
def test_a_gpu_node_waits_for_a_gpu_and_goes_on_to_the_bits_of_a_run_in_one_thread(train, digest, tmp_path):
    expected = digest(**MIXED)
    said, watcher = [], Nodes()
    with given(tmp_path, workers=1) as (address, client), contextlib.ExitStack() as stack:
        stack.enter_context(gpu_worker(address, tmp_path, 1))
        client.wait_for_workers(2)
        pid = worker_pid(client, "worker1")
        left = []

        def come():
            left.extend(watcher.seen)
            stack.enter_context(gpu_worker(address, tmp_path, 2))

        def kill():
            os.kill(pid, signal.SIGKILL)
            threading.Timer(3, come).start()

        watcher.things[30] = kill
        run = train(watchers=[watcher], say=said.append, cluster__scheduler=address, **MIXED)
    assert run.summary["weights_sha256"] == expected
    assert expected != digest(**MIXED | {"training__gpu_nodes": []}), "a GPU's bits are not a processor's"
    print(said)
    assert {worker for node, worker in left if node == 1} == {"worker1"}
    assert {worker for node, worker in watcher.seen if node == 1} == {"worker1", "worker2"}
    assert "worker0" in {worker for node, worker in watcher.seen if node != 1}
    assert "gpu nodes: 1 on worker1; the others by a CPU" in said
    assert "no worker with a GPU is left: waiting up to 60 s for one" in said
    assert any("worker worker1" in line and "is gone; going on after round" in line for line in said)
    assert run.summary["gpu_nodes"] == run.recorded["gpu_nodes"] == [1]
