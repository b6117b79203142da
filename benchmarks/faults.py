"""The kinds of faults that are done to a run: each comes about before it returns, or raises."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np
import psutil
from scene import LAYOUTS, NotDoneError, Scene

from ffdask.shipping import ship

DONE, LATE, NOT_DONE = "done", "late", "not done"


def killed(scene: Scene, random: Random) -> None:
    _kill(scene, random.choice(scene.workers()))


def all_killed(scene: Scene, random: Random) -> None:
    for process in scene.workers():
        _kill(scene, process)


def _kill(scene: Scene, process: psutil.Process) -> None:
    process.kill()
    scene.comes_about(lambda: not process.is_running(), "the worker was gone", 10)


def stopped(scene: Scene, random: Random) -> None:
    process = random.choice(scene.workers())
    process.suspend()
    try:
        scene.lasts(random.uniform(0.5, 3))
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()


def out_of_memory(scene: Scene, random: Random) -> None:
    address = random.choice(list(scene.known_workers()))
    process = psutil.Process(scene.cluster().run(os.getpid, workers=[address])[address])
    # By value: a worker has no file of ours.
    scene.cluster().run(ship(_eat_aside, "eating memory"), workers=[address])
    scene.comes_about(lambda: not process.is_running(), "its nanny had killed the worker")


def _eat_aside() -> None:
    # On a thread of its own: `Client.run` would hold the worker's event loop.
    threading.Thread(target=_eat, daemon=True).start()


def _eat() -> None:
    eaten = []
    while True:
        eaten.append(np.ones(50_000_000 // 8))
        time.sleep(0.05)


def retired(scene: Scene, random: Random) -> None:
    if not scene.cluster().retire_workers([random.choice(list(scene.known_workers()))]):
        raise NotDoneError("no worker was retired")
    joined(scene, random)


def restarted(scene: Scene, random: Random) -> None:
    address = random.choice(list(scene.known_workers()))
    told = scene.cluster().restart_workers([address], timeout=30)
    if told[address] != "OK":
        raise NotDoneError(f"the worker was not restarted: {told[address]}")


def joined(scene: Scene, random: Random) -> None:
    name = scene.start_worker()
    scene.comes_about(lambda: name in scene.known_workers().values(), "the worker had joined")


def scheduler_killed(scene: Scene, random: Random) -> None:
    process = psutil.Process(scene.cluster().run_on_scheduler(os.getpid))
    process.kill()
    # The harness, whose child it is, waits for it at the end only: until then it is a zombie.
    scene.comes_about(lambda: process.status() == psutil.STATUS_ZOMBIE, "the scheduler was gone", 10)


def driver_killed(scene: Scene, random: Random) -> None:
    scene.driver.kill()
    if scene.driver.wait(30) != -signal.SIGKILL:
        raise NotDoneError("the run ended before it was killed")


def interrupted(scene: Scene, random: Random) -> None:
    os.killpg(scene.driver.pid, signal.SIGINT)


def interrupted_twice(scene: Scene, random: Random) -> None:
    interrupted(scene, random)
    scene.lasts(random.uniform(0.0, 0.3))
    interrupted(scene, random)


def terminated(scene: Scene, random: Random) -> None:
    os.kill(scene.driver.pid, signal.SIGTERM)


def disk_full(scene: Scene, random: Random) -> None:
    """Let no file of the driver's grow beyond a page, for a while."""
    _limited(scene, scene.driver.pid, resource.RLIMIT_FSIZE, 4096, random.uniform(0.3, 4))


def disk_gone(scene: Scene, random: Random) -> None:
    """Take the folder of the checkpoints away, and put a file in its place."""
    checkpoints = scene.out / "checkpoints"

    def taken() -> bool:
        # The run may make the folder again between the two.
        shutil.rmtree(checkpoints, ignore_errors=True)
        with contextlib.suppress(FileExistsError):
            checkpoints.touch(exist_ok=False)
        return checkpoints.is_file()

    scene.comes_about(scene.out.is_dir, "there was a run folder")
    scene.comes_about(taken, "the folder was gone", 10)


def folder_gone(scene: Scene, random: Random) -> None:
    scene.comes_about(scene.out.is_dir, "there was a run folder")
    scene.out.rename(scene.out.with_name("elsewhere"))
    scene.out.touch()


def no_memory(scene: Scene, random: Random) -> None:
    """Let the process that computes have no more memory than it has, for a moment."""
    process = psutil.Process(scene.driver.pid)
    with contextlib.suppress(NotDoneError):
        process = random.choice(scene.workers())
    _limited(scene, process.pid, resource.RLIMIT_AS, process.memory_info().vms, random.uniform(0.05, 0.5))


def _limited(scene: Scene, pid: int, kind: int, limit: int, seconds: float) -> None:
    before = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (limit, before[1]))
    scene.lasts(seconds)
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, kind, before)


@dataclass(frozen=True)
class Fault:
    """A kind of fault: how it is done, and in which layouts."""

    act: Callable[[Scene, Random], None]
    layouts: tuple[str, ...] = LAYOUTS


FAULTS = {
    "worker killed": Fault(killed, ("processes", "given")),
    "all workers killed": Fault(all_killed, ("processes", "given")),
    "worker stopped, continued": Fault(stopped, ("processes", "given")),
    "worker out of memory": Fault(out_of_memory, ("given",)),
    "worker retired, another joins": Fault(retired, ("given",)),
    "worker restarted": Fault(restarted, ("given",)),
    "worker joins": Fault(joined, ("given",)),
    "scheduler killed": Fault(scheduler_killed, ("given",)),
    "driver killed": Fault(driver_killed),
    "Ctrl-C": Fault(interrupted),
    "Ctrl-C twice": Fault(interrupted_twice),
    "SIGTERM": Fault(terminated),
    "disk full for a while": Fault(disk_full),
    "checkpoints gone": Fault(disk_gone),
    "run folder gone": Fault(folder_gone),
    "no memory for a moment": Fault(no_memory),
}


class Doing(threading.Thread):
    """Does a fault at its instant, on a thread of its own: no fault waits until another has come about.

    Attributes
    ----------
    became : str
        DONE; LATE if the run had ended by then; or NOT_DONE and why.
    """

    def __init__(self, kind: str, scene: Scene, instant: float, random: Random) -> None:
        super().__init__(daemon=True)
        self.kind, self.scene, self.instant, self.random = kind, scene, instant, random
        self.became = f"{NOT_DONE}: it has not come to an end"

    def run(self) -> None:
        """Wait, and do it."""
        if not self.scene.lasts(self.instant - time.monotonic()):
            self.became = LATE
            return
        try:
            FAULTS[self.kind].act(self.scene, self.random)
            self.became = DONE
        except Exception as error:
            # What is there to be disturbed may not have begun, or have gone just now.
            ended = self.scene.ended()
            self.became = LATE if ended else f"{NOT_DONE}: {error or type(error).__name__}"
