"""One reading of a file under watch: what came of it, and whether it kept its limits, whatever it caught.

A reader may catch anything, and call it bad input. So time and memory are looked at behind each reading: the clock, the
peak of the address space, and whether a MemoryError led to what was raised.
"""

from __future__ import annotations

import faulthandler
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ffdask.errors import BadInput

SECONDS = 10.0
"""That a reader may take."""

HUNG = 60.0
"""Seconds after which its process ends, wherever it is."""

MEMORY = 1 << 30
"""Bytes that a reader may take more than its process has once an undamaged file was read."""

STOPS_AT = 8 * MEMORY
"""Bytes beyond which it gets no more: far above what it may take, so that it is seen to take that."""


class Late(BaseException):
    """Raised where a reader is too late; no ``except Exception`` catches it."""


class Watch:
    """Watches a process's readings, from now on."""

    def __init__(self) -> None:
        self.most = _status("VmSize") + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (self.most - MEMORY + STOPS_AT,) * 2)
        signal.signal(signal.SIGALRM, _late)

    @property
    def over(self) -> bool:
        """Whether the process has taken too much memory: that is seen once."""
        return _status("VmPeak") > self.most

    def outcome(self, read: Callable[[Path], Any], path: Path, place: Path, canary: Path) -> str:
        """Have a file read; return ``read``, ``refused``, or what was wrong.

        Parameters
        ----------
        read : callable
        path : Path
        place : Path
            The folder in which nothing may change.
        canary : Path
            In it, what is there if a pickle was executed.
        """
        before, begun = _listed(place), time.monotonic()
        outcome = self._read(read, path)
        wrong = []
        if canary.exists():
            wrong.append("executed")
        if _listed(place) != before:
            wrong.append("wrote or removed files")
        if time.monotonic() - begun > SECONDS:
            wrong.append(f"longer than {SECONDS:g} s")
        if self.over:
            wrong.append(f"more than {MEMORY >> 20} MiB")
        return ", ".join([*wrong, outcome])

    def _read(self, read: Callable[[Path], Any], path: Path) -> str:
        faulthandler.dump_traceback_later(HUNG, exit=True, file=sys.__stderr__)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            read(path)
            return "read"
        except BadInput as error:
            if _led_to(error, MemoryError):
                return f"refused for want of memory: {error}"
            return "refused" if str(error) else "refused without a word"
        except BaseException as error:
            return f"{type(error).__name__}: {error}"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            faulthandler.cancel_dump_traceback_later()


def _late(*_: object) -> None:
    raise Late(f"longer than {SECONDS:g} s")


def _led_to(error: BaseException | None, kind: type[BaseException]) -> bool:
    # ``from None`` hides what led to an error, and keeps it.
    return error is not None and (
        isinstance(error, kind) or _led_to(error.__cause__, kind) or _led_to(error.__context__, kind)
    )


def _listed(place: Path) -> dict[str, int]:
    return {str(each): each.stat().st_size for each in place.rglob("*") if each.is_file()}


def _status(name: str) -> int:
    """Return one of this process's sizes, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))
