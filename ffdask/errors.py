"""The few exception types. Each message says what was given, what is allowed and what to do."""

from __future__ import annotations

import difflib
import os
import sysconfig
import traceback
from collections.abc import Iterable, Mapping
from types import MappingProxyType


class FFDaskError(Exception):
    """Base of what ffdask raises on purpose; `exit_code` is the command line's exit status."""

    exit_code = 1


class BadInput(FFDaskError, ValueError):
    """A value, a file or a cluster that ffdask cannot work with; raised before any work starts."""

    exit_code = 2


class Diverged(FFDaskError, ArithmeticError):
    """Training left the finite numbers; the message names the layer and the chapter."""

    exit_code = 3


class RunFailed(FFDaskError, RuntimeError):
    """A run that started could not be finished; the message says which step, and why."""


class Lost(RunFailed):
    """A worker is gone, or what it held: a run can go on from its last checkpoint, with who is there.

    Attributes
    ----------
    workers : tuple of str
        Those that are gone, by name.
    at_work : dict of str to tuple of str
        Worker that is gone -> the steps that it may have been doing.
    """

    workers: tuple[str, ...] = ()
    at_work: Mapping[str, tuple[str, ...]] = MappingProxyType({})


class StepFailed(RunFailed):
    """A step raised an exception; `step` is its name."""

    step: str = ""


def nearest(given: str, allowed: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the allowed name nearest to `given`, or an empty string.

    Examples
    --------
    >>> nearest("streeming", ["streaming", "sequential"])
    " (did you mean 'streaming'?)"
    """
    match = difflib.get_close_matches(str(given), [str(name) for name in allowed], n=1, cutoff=0.5)
    return f" (did you mean {match[0]!r}?)" if match else ""


def told(error: BaseException) -> str:
    """Return an exception in one line: its type, its message, and the last line of the user's own that led to it."""
    frames = traceback.extract_tb(error.__traceback__)
    others = (os.path.dirname(os.path.abspath(__file__)) + os.sep, sysconfig.get_path("stdlib") + os.sep, "<frozen")
    own = [
        frame
        for frame in frames
        if not frame.filename.startswith(others) and "site-packages" not in frame.filename.split(os.sep)
    ]
    message = " ".join(str(error).split())
    where = f" ({os.path.basename(own[-1].filename)}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}{': ' if message else ''}{message}{where}"


def reason(error: BaseException) -> str:
    """Return why something went wrong, in few words: the system's own where it was the system, else as `told`."""
    return error.strerror if isinstance(error, OSError) and error.strerror else told(error)
