"""The embedded cluster: a scheduler and workers on this machine, for one run, on loopback only."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import warnings
from collections.abc import Iterator
from multiprocessing import resource_tracker

import dask
from dask.system import CPU_COUNT
from dask.utils import parse_bytes
from distributed import Client, Nanny, Scheduler, SpecCluster, Worker
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.system import MEMORY_LIMIT

from ffdask.counted import Counted
from ffdask.dashboard import Follower
from ffdask.driver import shared_out
from ffdask.tables import ClusterTable

SETTINGS = {
    # A node's steps go where its state is: stealing would move them for nothing.
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.allowed-failures": 10,
    # A state travels inside a `load` task where a run goes on from a checkpoint.
    "distributed.admin.large-graph-warning-threshold": "1GiB",
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.client.direct-to-workers": True,
    # Dask's profiler and its watch over the event loop wake it some two hundred times a second, and take the
    # interpreter's lock from the steps beside it.
    "distributed.worker.profile.interval": "100ms",
    "distributed.admin.tick.interval": "200ms",
    # Each connection remembers so many messages, for debugging; a state that a task brings lives as long.
    "distributed.admin.low-level-log-length": 10,
    # And so many looks at the machine, two a second of some forty figures: an hour of them by default.
    "distributed.admin.system-monitor.log-length": 240,
    # Who asks a dead worker for a piece learns of it by this time-out, and the run stands still until then.
    "distributed.comm.timeouts.connect": "5s",
}
"""Dask's configuration while ffdask runs; of given workers only the client's part acts."""


# Dask sets levels of their own for some.
LOGGERS = ("distributed", "distributed.client", "bokeh", "tornado", "tornado.application", "asyncio")

SILENT = logging.CRITICAL + 1


PAUSE = 0.001
"""Seconds between two messages on a connection of the embedded cluster; Dask's own are 5 ms to a worker, 10 ms from a
client."""


class Prompt(SchedulerPlugin):
    """Has the scheduler send workers what they are to do next when it is known.

    Dask gathers messages for some milliseconds, for the sake of thousands of tasks a second. Nodes that work in step
    end their steps at the same moment, a few dozen a second, and each would wait that long for its next one.
    """

    name = "ffdask-prompt"

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Shorten the pause between messages to a worker."""
        scheduler.stream_comms[worker].interval = PAUSE


def prompt(client: Client) -> None:
    """Have a client of the embedded cluster send what it submits at once, too."""
    client.scheduler_comm.interval = PAUSE


def resource_name(worker: object) -> str:
    """Return the name of a worker's own resource; no run is named in it, so that runs take turns."""
    return f"ffdask-{worker}"


def default_units(table: ClusterTable) -> int:
    """Return the embedded cluster's compute units: one a core, and at least one a worker."""
    return max(table.units or CPU_COUNT, table.workers or 1)


def own_memory_limit(table: ClusterTable) -> int:
    """Return the bytes that a worker process of the embedded cluster may take: the machine's, if none is set."""
    return parse_bytes(table.memory_limit) if table.processes and table.memory_limit else machine_memory()


def machine_memory() -> int:
    """Return the bytes of memory that this process may take."""
    return int(MEMORY_LIMIT)


@contextlib.contextmanager
def embedded_cluster(table: ClusterTable) -> Iterator[SpecCluster]:
    """Start a scheduler and workers on this machine, on loopback only; units are divided among the workers."""
    count, units = table.workers or 1, default_units(table)
    limit = parse_bytes(table.memory_limit) if table.memory_limit else 0
    workers, environments = {}, shared_out(count) if table.processes else []
    for index in range(count):
        share = units // count + (index < units % count)
        name = f"worker{index}"
        workers[name] = {
            "cls": Nanny if table.processes else Worker,
            "options": {
                "nthreads": share + 1,
                "resources": {resource_name(name): share},
                # Several workers in one process would each measure the whole process.
                "memory_limit": limit if table.processes else 0,
                "dashboard": False,
                # Without pages of its own a worker still has a small web server, which listens everywhere if not told.
                "dashboard_address": "127.0.0.1:0",
                "silence_logs": SILENT,
                **(
                    {"host": "127.0.0.1", "preload": ["ffdask.preloaded"], "env": environments[index]}
                    if table.processes
                    else {}
                ),
            },
        }
    scheduler = {
        "cls": Scheduler,
        "options": {
            "protocol": "tcp://" if table.processes else "inproc://",
            "dashboard": True,
            "plugins": [Follower(), Prompt()],
            "dashboard_address": f"127.0.0.1:{_dashboard_port()}",
            **({"host": "127.0.0.1"} if table.processes else {}),
        },
    }
    with contextlib.ExitStack() as stack:
        with _ctrl_c_waits(), warnings.catch_warnings():
            # Somebody may have taken the port since it was looked at; the scheduler then takes another.
            warnings.filterwarnings("ignore", r"Port \d+ is already in use")
            cluster = stack.enter_context(SpecCluster(workers=workers, scheduler=scheduler, silence_logs=SILENT))
        yield cluster


@contextlib.contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Have Ctrl-C wait while a cluster starts, and be blocked in the processes that are started.

    It reaches the whole process group, and these must not heed it. Threads and processes inherit what is blocked, so
    that a worker has it blocked from its first instruction on, also one that a nanny brings back later.
    """
    # Started by the first process that is, it would unblock what is blocked in that thread.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _dashboard_port() -> int:
    """Return Dask's usual port, or 0 (any free one) if somebody listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 8787))
        except OSError:
            return 0
    return 8787


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(SILENT)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


silenced = Counted(_silence)
"""Keeps Dask's log lines off the terminal: what matters reaches the user as a message of ours."""

configured = Counted(lambda: dask.config.set(SETTINGS))
"""Dask as ffdask has it."""
