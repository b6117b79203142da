"""Ctrl-C, remembered: Python raises it wherever the main thread is, and where that is a destructor it is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def remembered() -> Iterator[Callable[[], None]]:
    """Do what Ctrl-C does, and remember it.

    Yields
    ------
    callable
        Raises KeyboardInterrupt if Ctrl-C was pressed since; for a loop to call now and then. In a destructor, or a
        callback of the garbage collector, Python prints an exception and goes on.
    """
    before, pressed = signal.getsignal(signal.SIGINT), threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        pressed.set()
        assert callable(before)
        before(number, frame)

    def check() -> None:
        if pressed.is_set():
            raise KeyboardInterrupt

    # Only the main thread may set a handler; and who ignores Ctrl-C goes on ignoring it.
    heeds = callable(before) and threading.current_thread() is threading.main_thread()
    if heeds:
        signal.signal(signal.SIGINT, handle)
    try:
        yield check
    finally:
        if heeds:
            signal.signal(signal.SIGINT, before)
