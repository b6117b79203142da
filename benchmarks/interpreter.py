"""Who holds Python's interpreter while a run goes: py-spy looks some times a second which thread does, and where.

Numerical kernels let go of it; Dask's scheduler, its connections and what workers and client do about a task do not. It
is one for all threads of a process, so a table of its holders says what a process is saturated with.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RATE = 20
"""Looks a second: the process stands still for each, the longer the more threads it has."""

COLUMNS = ["holds the interpreter", "share of the time, %"]

_FRAME = re.compile(r"(\S+) \((\S+?)(?::\d+)?\)$")


class Holders:
    """What py-spy saw of this process.

    Attributes
    ----------
    seconds : float
        For how long it looked.
    held : Counter
        (thread's kind, module) -> looks at which it held the interpreter.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.held: Counter[tuple[str, str]] = Counter()

    def read(self, stacks: str) -> None:
        """Take in py-spy's raw stacks: frames from the outermost on, and a count, in each line."""
        for line in stacks.splitlines():
            frames, _, count = line.rpartition(" ")
            thread, *called = frames.split(";")
            files = [found.group(2) for frame in called if (found := _FRAME.search(frame))]
            # What a library does it does for the innermost module of ours or of Dask's.
            ours = [file for file in files if file.startswith(("ffdask/", "distributed/", "dask/"))]
            self.held[kind_of(thread), ours[-1] if ours else "elsewhere"] += int(count)

    def rows(self, most: int = 12) -> list[list[Any]]:
        """Return the rows of a table: the whole, and the places that hold it longest."""
        looks = max(1.0, self.seconds * RATE)
        every = [["all threads together", 100 * self.held.total() / looks]]
        return every + [
            [f"{thread}: {module}", 100 * count / looks] for (thread, module), count in self.held.most_common(most)
        ]


def kind_of(thread: str) -> str:
    """Return a thread's name without what tells it from others of its kind."""
    return re.sub(r"[-_ ]*[0-9].*$", "", thread.partition(": ")[2] or thread)


@contextlib.contextmanager
def watched() -> Iterator[Holders]:
    """Have py-spy look at this process meanwhile.

    Raises
    ------
    SystemExit
        If py-spy is not installed, or may not look.
    """
    holders = Holders()
    with tempfile.TemporaryDirectory() as folder:
        out, log = Path(folder) / "stacks", Path(folder) / "log"
        # Beside this Python, whose folder need not be on the path.
        here = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        found = shutil.which("py-spy", path=here)
        if found is None:
            raise SystemExit("py-spy is not installed: pip install py-spy")
        command = [found, "record", "--gil", "--threads", "--format", "raw", "--rate", str(RATE)]
        command += ["--output", str(out), "--pid", str(os.getpid())]
        # A file: a pipe that nobody empties would have it stand still.
        with log.open("w") as said:
            spy = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        # It says so once it looks, or why it may not.
        while "Sampling" not in log.read_text():
            if spy.poll() is not None:
                raise SystemExit(f"py-spy may not look at this process: {log.read_text().strip()}")
            time.sleep(0.05)
        begun = time.perf_counter()
        try:
            yield holders
        finally:
            holders.seconds = time.perf_counter() - begun
            spy.send_signal(signal.SIGINT)
            spy.wait()
            holders.read(out.read_text())
