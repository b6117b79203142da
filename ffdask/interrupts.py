"""Ctrl-C and SIGTERM: what is in work may end first, and what is asked twice happens at once.

Remembered, too: Python raises an interrupt wherever the main thread is, and where that is a destructor it is lost.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupts:
    """How often a stop was asked for; `asked` is for a loop to look at now and then."""

    def __init__(self) -> None:
        self.times = 0
        self._gently = self._ending = False

    @property
    def asked(self) -> bool:
        """Whether a stop was asked for."""
        return self.times > 0

    def check(self) -> None:
        """Raise KeyboardInterrupt if a stop was asked for that may not wait.

        In a destructor, or a callback of the garbage collector, Python prints an exception and goes on.
        """
        if self.times > self._gently:
            self._ending = True
            raise KeyboardInterrupt

    @contextmanager
    def gently(self, gently: bool = True) -> Iterator[None]:
        """Have the first request raise nothing while this lasts: whoever looks at `asked` comes to an end by itself."""
        self._gently = gently
        try:
            yield
        finally:
            self._gently = False
            self._ending = self._ending or self.asked

    def ending(self) -> None:
        """Have requests raise nothing any more: what is asked for is happening, and only a third breaks it off."""
        self._ending = True

    def heard(self) -> None:
        """Count a request; raise KeyboardInterrupt if it may not wait."""
        self.times += 1
        if not self._ending or self.times > 2:
            self.check()


@contextmanager
def heeded(interrupts: Interrupts | None = None) -> Iterator[Interrupts]:
    """Take Ctrl-C and SIGTERM as requests to stop, in the main thread; in another, only what is asked of `interrupts`.

    Who ignores one goes on ignoring it, and a handler of the caller's own for SIGTERM stays.
    """
    interrupts = interrupts or Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return

    def handle(number: int, frame: FrameType | None) -> None:
        interrupts.heard()

    def unraisable(what: Any) -> None:
        # Lost in a destructor, but counted: nothing to print.
        if not issubclass(what.exc_type, KeyboardInterrupt):
            told(what)

    told, sys.unraisablehook = sys.unraisablehook, unraisable
    before = dict[signal.Signals, Any]()
    if callable(signal.getsignal(signal.SIGINT)):
        before[signal.SIGINT] = signal.signal(signal.SIGINT, handle)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        before[signal.SIGTERM] = signal.signal(signal.SIGTERM, handle)
    try:
        yield interrupts
    finally:
        sys.unraisablehook = told
        for number, handler in before.items():
            signal.signal(number, handler)
