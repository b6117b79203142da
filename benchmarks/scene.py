"""A run that is to be disturbed: a process of its own in one of three layouts, and all that belongs to it.

Whatever a run starts has its working folder below the scene's: so its processes are found, and what is left of them.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from distributed import Client
from outside import end, outside_cluster, start_worker
from side_by_side import plain_environment

from ffdask.slots import workers_of

LAYOUTS = ("threads", "processes", "given")
"""Threads of the run's own process, worker processes of its own, a cluster that it is given."""

MEMORY = 600
"""Megabytes that a given worker may take."""

Port = tuple[str, int]


class NotDoneError(Exception):
    """A fault that did not come about; the message says why."""


@dataclass
class Scene:
    """A run that goes, and what there is to disturb.

    Attributes
    ----------
    driver : Popen
        The process of the run.
    folder : Path
        Below which all of it is.
    client : Client or None
        Of the cluster that the run was given.
    ports : set of (str, int)
        On which any of its processes was seen to listen.
    """

    driver: subprocess.Popen[str]
    folder: Path
    client: Client | None = None
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)
    ports: set[Port] = field(default_factory=set)

    @property
    def out(self) -> Path:
        """The run's folder."""
        return self.folder / "run"

    def ended(self) -> bool:
        """Return whether the run has ended."""
        return self.driver.poll() is not None

    def lasts(self, seconds: float) -> bool:
        """Wait so long, or until the run has ended; return whether it still goes."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.driver.wait(max(seconds, 0.001))
        return not self.ended()

    def comes_about(self, happened: Callable[[], bool], what: str, patience: float = 30.0) -> None:
        """Return when something has happened.

        Raises
        ------
        NotDoneError
            If the run ends first, or it takes too long.
        """
        deadline = time.monotonic() + patience
        while not happened():
            if not self.lasts(0.05):
                raise NotDoneError(f"the run ended before {what}")
            if time.monotonic() > deadline:
                raise NotDoneError(f"not within {patience:g} s: {what}")

    def workers(self) -> list[psutil.Process]:
        """Return the processes of the run's workers, each below its nanny; one at least.

        Raises
        ------
        NotDoneError
            If there is none.
        """
        parents = [psutil.Process(self.driver.pid)]
        if self.client is not None:
            parents = [process for process in processes_below(self.folder) if "worker" in _words(process)]
        found = []
        for parent in parents:
            with contextlib.suppress(psutil.Error):
                found += [child for child in parent.children() if "spawn_main" in " ".join(_words(child))]
        if not found:
            raise NotDoneError("there is no worker process")
        return found

    def cluster(self) -> Client:
        """Return the client of the cluster that the run was given."""
        assert self.client is not None
        return self.client

    def known_workers(self) -> dict[str, str]:
        """Return the given workers that the scheduler knows: address -> name; one at least.

        Raises
        ------
        NotDoneError
            If there is none.
        """
        known = workers_of(self.cluster())
        if not known:
            raise NotDoneError("the scheduler knows no worker")
        return {address: str(known[address]["name"]) for address in sorted(known)}

    def start_worker(self) -> str:
        """Start one more given worker; return its name."""
        index = 10 + len(self.started)
        self.started.append(start_worker(self.cluster().scheduler.address, self.folder, index, 2, _limit()))
        return f"worker{index}"

    def look(self) -> None:
        """Note on which ports the run's processes listen."""
        for process in processes_below(self.folder):
            with contextlib.suppress(psutil.Error):
                self.ports |= {tuple(one.laddr) for one in process.net_connections("inet") if one.status == "LISTEN"}


def command(*flags: str) -> list[str]:
    """Return the command line of a run."""
    return [sys.executable, "-m", "ffdask.train", *flags]


def _limit() -> list[str]:
    return ["--memory-limit", f"{MEMORY}MB"]


@contextlib.contextmanager
def scene(layout: str, flags: list[str], folder: Path) -> Iterator[Scene]:
    """Start a run below a folder; end whatever of it is left."""
    own, temporary = folder / "driver", folder / "temporary"
    own.mkdir()
    temporary.mkdir()
    with contextlib.ExitStack() as stack:
        client = None
        if layout == "given":
            address = stack.enter_context(outside_cluster(folder, extra=_limit()))
            client = stack.enter_context(Client(address, set_as_default=False, timeout=30))
            client.wait_for_workers(2, timeout=60)
            flags = [*flags, "--scheduler", address]
        if layout == "processes":
            flags = [*flags, "--processes", "--workers", "2", "--units", "2"]
        driver = subprocess.Popen(
            command("--out", str(folder / "run"), *flags),
            cwd=own,
            env=plain_environment() | {"TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=_heeding,
        )
        made = Scene(driver, folder, client)
        try:
            _until_it_heeds(made)
            yield made
        finally:
            driver.kill()
            driver.wait()
            for pipe in (driver.stdout, driver.stderr):
                assert pipe is not None
                pipe.close()
            end(made.started)


def _heeding() -> None:
    # Whoever starts this in the background has SIGINT ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _until_it_heeds(made: Scene, patience: float = 30.0) -> None:
    """Return when a run has set its handler of SIGTERM: what Python does before that is not ours."""
    status, deadline = Path(f"/proc/{made.driver.pid}/status"), time.monotonic() + patience
    while made.lasts(0.01) and time.monotonic() < deadline:
        caught = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt:"))
        if int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            return


def processes_below(folder: Path) -> list[psutil.Process]:
    """Return the processes whose working folder is a folder, or below it."""
    return [process for process in psutil.process_iter() if _is_below(process, folder)]


def _is_below(process: psutil.Process, folder: Path) -> bool:
    try:
        return Path(process.cwd()).is_relative_to(folder) and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):
        return False


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def left(folder: Path, ports: Set[Port] = frozenset(), patience: float = 20.0) -> list[str]:
    """Return what is still there after a while of the processes below a folder, and of the ports that they held.

    The processes are killed then: the next run is to find nothing of this one.
    """
    deadline = time.monotonic() + patience
    while (processes := processes_below(folder)) and time.monotonic() < deadline:
        time.sleep(0.2)
    found = [f"process left: {' '.join(_words(process))[:100]}" for process in processes]
    found += [f"port held: {address}:{port}" for address, port in sorted(_held(ports, folder))]
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    return found


def _held(ports: Set[Port], folder: Path) -> set[Port]:
    """Return the ports on which somebody listens who is not known to be another's process."""
    found = set()
    for one in psutil.net_connections("inet"):
        if one.status == "LISTEN" and tuple(one.laddr) in ports:
            with contextlib.suppress(psutil.NoSuchProcess):
                if one.pid is None or _is_below(psutil.Process(one.pid), folder):
                    found.add(tuple(one.laddr))
    return found
