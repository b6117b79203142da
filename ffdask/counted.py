"""A context of the whole process that several threads may be in at a time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any


class Counted:
    """Entered with the first who enters, left with the last: in between nobody restores what another still needs.

    Parameters
    ----------
    make : callable
        Returns the context.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[Any]]) -> None:
        self.make, self.inside = make, 0
        self._lock, self._stack = threading.Lock(), contextlib.ExitStack()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Be inside."""
        with self._lock:
            if not self.inside:
                self._stack.enter_context(self.make())
            self.inside += 1
        try:
            yield
        finally:
            with self._lock:
                self.inside -= 1
                if not self.inside:
                    self._stack.close()
