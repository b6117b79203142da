"""Clusters that somebody else started: a scheduler and workers, each a process with a folder of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path


@contextlib.contextmanager
def outside_cluster(
    folder: Path,
    workers: int = 2,
    nthreads: int = 2,
    extra: Sequence[str] = (),
    cache: Path | None = None,
    both: Sequence[str] = (),
    scheduler: Sequence[str] = (),
) -> Iterator[str]:
    """Run `dask scheduler` and `dask worker` processes; yield the address, end them all afterwards.

    `extra` are flags of the workers, `both` flags of the workers and the scheduler, `scheduler` of that alone.
    """
    started = []
    address_file = folder / "scheduler.json"
    try:
        command = ["scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0", *scheduler]
        started.append(_dask(folder, *command, "--scheduler-file", str(address_file), *both))
        address = _address(address_file)
        for index in range(workers):
            started.append(start_worker(address, folder, index, nthreads, [*extra, *both], cache))
        yield address
    finally:
        end(started)


def _address(file: Path, patience: float = 60) -> str:
    """Wait for the file in which a scheduler says where it listens; return its address."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return str(json.loads(file.read_text())["address"])
        except (FileNotFoundError, json.JSONDecodeError):  # the file is there before its text is
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def start_worker(
    address: str,
    folder: Path,
    index: int,
    nthreads: int = 2,
    extra: Sequence[str] = (),
    cache: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start one more `dask worker`, named after its folder; return its process, which its starter ends."""
    own, cache = folder / f"worker{index}", cache or folder / "cache-of-workers"
    own.mkdir(exist_ok=True)
    options = ["--name", own.name, "--nthreads", str(nthreads), "--no-dashboard", "--host", "127.0.0.1", *extra]
    return _dask(own, "worker", address, *options, FFDASK_CACHE=str(cache))


def end(started: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes, the last one first; those that do not heed it at once."""
    for process in reversed(started):
        process.terminate()
    for process in started:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


def _dask(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    command = [sys.executable, "-m", "dask", *arguments]
    return subprocess.Popen(command, cwd=folder, env=os.environ | environment, stdout=quiet, stderr=quiet)
