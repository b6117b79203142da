"""Runs disturbed at random: each ends with the bits of the undisturbed run, or as promised, and resumes to them.

Kinds of faults, their instants and their number are drawn from the seed, each run's apart. A run is a process of its
own, `python -m ffdask.train`, in one of three layouts: threads, worker processes of its own, a given cluster.

python benchmarks/chaos.py --runs 50 --seed 0
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import psutil
from distributed import Client
from outside import end, outside_cluster, start_worker
from side_by_side import arguments, plain_environment, show, where

from ffdask.schedules import SCHEDULES

LAYOUTS = ("threads", "processes", "given")
LONGEST = 180.0
"""Seconds until a run counts as hung."""

MEMORY = 600
"""Megabytes that a given worker may take."""


@dataclass
class Scene:
    """A run that goes, and what there is to disturb."""

    driver: subprocess.Popen[str]
    out: Path
    random: Random
    client: Client | None = None
    folder: Path = Path()
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    later: list[threading.Timer] = field(default_factory=list)

    def processes(self) -> list[psutil.Process]:
        """Return the processes of the run's workers, each below its nanny."""
        parents = [psutil.Process(self.driver.pid)] if self.client is None else []
        parents += [psutil.Process(worker.pid) for worker in self.workers]
        if self.client is not None:
            parents += [psutil.Process(pid) for pid in _nannies(self.folder)]
        found = []
        for parent in parents:
            with contextlib.suppress(psutil.Error):
                found += [child for child in parent.children() if "spawn_main" in " ".join(child.cmdline())]
        return found

    def worker(self) -> psutil.Process:
        """Return one of them."""
        return self.random.choice(self.processes())

    def address(self) -> str:
        """Return a given worker's address."""
        assert self.client is not None
        return str(self.random.choice(sorted(self.client.scheduler_info(n_workers=-1)["workers"])))

    def after(self, seconds: float, act: Callable[[], Any]) -> None:
        """Do something later, unless the run has ended."""
        timer = threading.Timer(seconds, _quietly, [act])
        self.later.append(timer)
        timer.start()


def _quietly(act: Callable[[], Any]) -> None:
    with contextlib.suppress(Exception):
        act()


def _nannies(folder: Path) -> list[int]:
    return [process.pid for process in psutil.process_iter(["cmdline"]) if _of_worker(process, folder)]


def _of_worker(process: psutil.Process, folder: Path) -> bool:
    try:
        return "worker" in process.info["cmdline"] and Path(process.cwd()).parent == folder
    except (psutil.Error, TypeError):
        return False


def killed(scene: Scene) -> None:
    scene.worker().kill()


def all_killed(scene: Scene) -> None:
    for process in scene.processes():
        process.kill()


def stopped(scene: Scene) -> None:
    process = scene.worker()
    process.suspend()
    scene.after(scene.random.uniform(0.5, 3), process.resume)


def out_of_memory(scene: Scene) -> None:
    assert scene.client is not None
    scene.client.run(_eat, workers=[scene.address()], wait=False, on_error="ignore")


def _eat() -> None:
    eaten = []
    while True:
        eaten.append(np.ones(50_000_000 // 8))
        time.sleep(0.1)


def retired(scene: Scene) -> None:
    assert scene.client is not None
    scene.client.retire_workers([scene.address()])
    joined(scene)


def restarted(scene: Scene) -> None:
    assert scene.client is not None
    scene.client.restart_workers([scene.address()], timeout=30)


def joined(scene: Scene) -> None:
    assert scene.client is not None
    address, index = scene.client.scheduler.address, 10 + len(scene.workers)
    scene.workers.append(start_worker(address, scene.folder, index, 2, _limit()))


def scheduler_killed(scene: Scene) -> None:
    assert scene.client is not None
    os.kill(scene.client.run_on_scheduler(os.getpid), signal.SIGKILL)


def driver_killed(scene: Scene) -> None:
    scene.driver.kill()


def interrupted(scene: Scene) -> None:
    os.killpg(scene.driver.pid, signal.SIGINT)


def interrupted_twice(scene: Scene) -> None:
    interrupted(scene)
    scene.after(scene.random.uniform(0.0, 0.3), lambda: interrupted(scene))


def terminated(scene: Scene) -> None:
    scene.driver.terminate()


def disk_full(scene: Scene) -> None:
    """Let no file of the driver's grow beyond a page, for a while."""
    _limited(scene, scene.driver.pid, resource.RLIMIT_FSIZE, 4096, scene.random.uniform(0.3, 4))


def disk_gone(scene: Scene) -> None:
    """Take the folder of the checkpoints away, and put a file in its place."""
    checkpoints = scene.out / "checkpoints"
    shutil.rmtree(checkpoints, ignore_errors=True)
    checkpoints.touch()


def folder_gone(scene: Scene) -> None:
    scene.out.rename(scene.out.with_name("elsewhere"))
    scene.out.touch()


def no_memory(scene: Scene) -> None:
    """Let the process that computes have no more memory than it has, for a moment."""
    process = psutil.Process(scene.driver.pid)
    if scene.processes():
        process = scene.worker()
    _limited(scene, process.pid, resource.RLIMIT_AS, process.memory_info().vms, scene.random.uniform(0.05, 0.5))


def _limited(scene: Scene, pid: int, kind: int, limit: int, seconds: float) -> None:
    before = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (limit, before[1]))
    scene.after(seconds, lambda: resource.prlimit(pid, kind, before))


@dataclass(frozen=True)
class Fault:
    """A kind of fault: how it is done, and in which layouts."""

    act: Callable[[Scene], None]
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

SAME, RESUMED, LATE = "same bits", "resumed to the same bits", "after the end"
GOOD = (SAME, RESUMED, LATE)


@dataclass
class Disturbed:
    """A disturbed run: what it was, what was done to it, and what became of it."""

    number: int
    schedule: str
    layout: str
    faults: list[str]
    outcome: str = ""
    seconds: float = 0.0
    said: str = ""


def train_flags(schedule: str, data: Path) -> list[str]:
    """Return the flags of a run of some seconds."""
    keys = {
        "data.dataset": data,
        "data.chunk": 100,
        "network.layers": "24,32,16",
        "training.epochs": 30,
        "training.batch_size": 50,
        "schedule.name": schedule,
        "schedule.chapters": 64 if schedule == "federated" else 60,
        "cluster.wait": 30,
    }
    return [part for key, value in keys.items() for part in ("--set", f"{key}={value}")]


def command(*flags: str) -> list[str]:
    """Return the command line of a run."""
    return [sys.executable, "-m", "ffdask.train", *flags]


def _limit() -> list[str]:
    return ["--memory-limit", f"{MEMORY}MB"]


@contextlib.contextmanager
def scene(layout: str, flags: list[str], folder: Path, random: Random, mark: str) -> Iterator[Scene]:
    """Start a run; end whatever of it is left."""
    with contextlib.ExitStack() as stack:
        client = None
        if layout == "given":
            address = stack.enter_context(outside_cluster(folder, extra=_limit()))
            client = stack.enter_context(Client(address, set_as_default=False, timeout=30))
            client.wait_for_workers(2, timeout=60)
            flags = [*flags, "--scheduler", address]
        if layout == "processes":
            flags = [*flags, "--processes", "--workers", "2", "--units", "2"]
        out = folder / "run"
        driver = subprocess.Popen(
            command("--out", str(out), *flags),
            cwd=folder,
            env=plain_environment() | {"FFDASK_CHAOS": mark},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=_heeding,
        )
        made = Scene(driver, out, random, client, folder)
        try:
            yield made
        finally:
            for timer in made.later:
                timer.cancel()
                timer.join()
            driver.kill()
            driver.wait()
            end(made.workers)


def _heeding() -> None:
    # Whoever starts this in the background has SIGINT ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def disturb(run: Disturbed, data: Path, expected: str, wall: float, random: Random) -> None:
    """Do a run, its faults at random instants of it; write down what became of it."""
    begun = time.monotonic()
    mark = f"{os.getpid()}-{run.number}"
    with tempfile.TemporaryDirectory() as name:
        folder, flags = Path(name), train_flags(run.schedule, data)
        instants = sorted(random.uniform(0.0, 0.85) * wall for _ in run.faults)
        with scene(run.layout, flags, folder, random, mark) as made:
            _until_it_heeds(made.driver)
            started, late = time.monotonic(), 0
            out, err = [""], [""]
            reader = threading.Thread(target=_read, args=(made.driver, out, err))
            reader.start()
            for fault, instant in zip(run.faults, instants, strict=True):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    made.driver.wait(max(started + instant - time.monotonic(), 0.001))
                if made.driver.poll() is not None:
                    late += 1
                    continue
                # What is there to be disturbed may not have begun, or have gone just now.
                _quietly(lambda fault=fault: FAULTS[fault].act(made))  # type: ignore[misc]
            try:
                code: int | None = made.driver.wait(LONGEST)
            except subprocess.TimeoutExpired:
                code = None
                made.driver.send_signal(signal.SIGABRT)
            reader.join(LONGEST)
            run.said = err[0][-2000:]
            left = _left(mark) if code is not None else 0
        run.outcome = "hung" if code is None else _outcome(code, out[0], err[0], made.out, flags, expected)
        if left and run.outcome in GOOD:
            run.outcome = f"{left} processes left"
        if late == len(run.faults) and run.outcome == SAME:
            run.outcome = LATE
    run.seconds = time.monotonic() - begun


def _until_it_heeds(driver: subprocess.Popen[str], patience: float = 30.0) -> None:
    """Return when a driver has set its handler of SIGTERM: what Python does before that is not ours."""
    status, deadline = Path(f"/proc/{driver.pid}/status"), time.monotonic() + patience
    while driver.poll() is None and time.monotonic() < deadline:
        caught = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt:"))
        if int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.01)


def _read(driver: subprocess.Popen[str], out: list[str], err: list[str]) -> None:
    out[0], err[0] = driver.communicate()


def _left(mark: str, patience: float = 20.0) -> int:
    """Return how many processes of a run are still there after a while."""
    deadline = time.monotonic() + patience
    while True:
        marked = [process for process in psutil.process_iter() if _environment(process).get("FFDASK_CHAOS") == mark]
        if not marked or time.monotonic() > deadline:
            return len(marked)
        time.sleep(0.2)


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


def _outcome(code: int, out: str, err: str, folder: Path, flags: list[str], expected: str) -> str:
    """Return what became of a run that ended with an exit code; one that stopped is resumed first."""
    if "Traceback" in err:
        return "a traceback"
    if code == 0:
        # The folder may also have been taken away when all was written, while the cluster closed.
        moved = folder.with_name("elsewhere")
        other = [line.rpartition(" ")[2] for line in out.splitlines() if "what was trained goes to" in line]
        other += [str(moved)] if (moved / "summary.json").exists() else []
        return SAME if _digest(Path(other[-1]) if other else folder) == expected else "different bits"
    if code not in (1, 130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT):
        return f"exit code {code}"
    moved = folder.with_name("elsewhere")
    if moved.exists():
        folder.unlink(missing_ok=True)
        moved.rename(folder)
    if (folder / "checkpoints").is_file():
        (folder / "checkpoints").unlink()
    begun = (folder / "run.zarr" / "zarr.json").exists()
    if begun and code in (1, 130) and "--resume" not in err:
        return f"exit code {code}, and no word how to go on"
    shutil.rmtree(folder, ignore_errors=True) if not begun else None
    going_on = ("--resume", str(folder)) if begun else ("--out", str(folder), *flags)
    again = subprocess.run(
        # On threads of its own, whatever it ran on before.
        command(*going_on, *(("--scheduler", "none", "--threads") if begun else ())),
        env=plain_environment(),
        capture_output=True,
        text=True,
        timeout=LONGEST,
        cwd=folder.parent,
    )
    if again.returncode:
        return f"not resumed: {again.stderr.strip()[-300:]}"
    return RESUMED if _digest(folder) == expected else "different bits when resumed"


def _digest(folder: Path) -> str:
    return str(json.loads((folder / "summary.json").read_text())["weights_sha256"])


def make_data(path: Path, rows: int = 600) -> None:
    """Write small images whose bright pixel tells the class."""
    random, split = np.random.default_rng(0), {}
    for name, count in (("train", rows), ("test", 200)):
        labels = random.integers(0, 10, count).astype(np.uint8)
        images = random.integers(0, 60, (count, 8, 8)).astype(np.uint8)
        images[np.arange(count), 2 + labels // 5, labels % 5] = 255
        split |= {f"x_{name}": images, f"y_{name}": labels}
    np.savez(path, **split)


def undisturbed(schedule: str, data: Path, folder: Path) -> tuple[dict[str, Any], float]:
    """Return the summary of a run that nobody disturbs, and the seconds of its whole process."""
    out, begun = folder / f"undisturbed-{schedule}", time.monotonic()
    call = command("--out", str(out), "--quiet", *train_flags(schedule, data))
    subprocess.run(call, check=True, env=plain_environment(), cwd=folder)
    wall = time.monotonic() - begun
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary, wall


def draw(number: int, seed: int, schedules: list[str], kinds: list[str]) -> tuple[Disturbed, Random]:
    """Return a run that was drawn, and what its instants are drawn from."""
    random = Random(f"{seed}/{number}")
    # Each kind has its turn, in one of its layouts, with others beside it.
    first = kinds[number % len(kinds)]
    layout = random.choice(FAULTS[first].layouts)
    fitting = [kind for kind in kinds if layout in FAULTS[kind].layouts]
    faults = [first, *(random.choice(fitting) for _ in range(random.choice((0, 0, 1, 2))))]
    random.shuffle(faults)
    return Disturbed(number, schedules[number % len(schedules)], layout, faults), random


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--first", type=int, default=0, help="number of the first run, to do one again")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--schedules", nargs="+", default=list(SCHEDULES), choices=list(SCHEDULES))
    parser.add_argument("--kinds", nargs="+", default=list(FAULTS), choices=list(FAULTS))
    given = parser.parse_args()
    # Of the clusters that are disturbed, what their clients here have to say is known.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    runs: list[Disturbed] = []
    summaries: dict[str, tuple[dict[str, Any], float]] = {}
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "rows.npz"
        make_data(data)
        for number in range(given.first, given.first + given.runs):
            run, random = draw(number, given.seed, given.schedules, given.kinds)
            if run.schedule not in summaries:
                summaries[run.schedule] = undisturbed(run.schedule, data, Path(name))
            summary, wall = summaries[run.schedule]
            disturb(run, data, summary["weights_sha256"], wall, random)
            runs.append(run)
            what = f"{run.number:3} {run.schedule}, {run.layout}: {', '.join(run.faults)}: {run.outcome}"
            print(f"{what} ({run.seconds:.0f} s)", flush=True)
            if run.outcome not in GOOD:
                print(run.said, flush=True)
    outcomes = {kind: Counter(run.outcome for run in runs if kind in run.faults) for kind in given.kinds}
    rows = [
        [kind, found.total(), *(found[outcome] for outcome in GOOD), found.total() - sum(found[o] for o in GOOD)]
        for kind, found in [*outcomes.items(), ("all runs", Counter(run.outcome for run in runs))]
    ]
    title = f"{len(runs)} disturbed runs, seed {given.seed}"
    show(title, ["fault", "runs", *GOOD, "otherwise"], rows, where(next(iter(summaries.values()))[0]), given.json)
    sys.exit(any(run.outcome not in GOOD for run in runs))


if __name__ == "__main__":
    main()
