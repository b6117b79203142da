"""The few exception types. Each message says what was given, what is allowed and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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


def nearest(given: str, allowed: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the allowed name nearest to `given`, or an empty string."""
    match = difflib.get_close_matches(str(given), [str(name) for name in allowed], n=1, cutoff=0.5)
    return f" (did you mean {match[0]!r}?)" if match else ""
