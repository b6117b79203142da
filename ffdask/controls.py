"""What whoever holds a run asks of it while it goes, from another thread: to pause, to change, to stop.

Asked for here, done by the training's own thread when it looks: nothing of a run is ever touched from outside.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from ffdask.changes import Change
from ffdask.errors import RunFailed
from ffdask.interrupts import Interrupts

Question = Callable[[Any], Any]
"""Called with the training, in its thread."""


class Controls:
    """A run's controls; every method may be called from any thread.

    Attributes
    ----------
    interrupts : Interrupts
        Which Ctrl-C and SIGTERM count in too.
    paused : bool
        Whether no further step is to be submitted.
    path : Path or None
        The run's folder, once it has one.
    training : TrainingTable or None
        Of the configuration, what ``auto`` means in it settled, once it is.
    changes : list of Change
        That were made to the configuration, or that it began with.
    """

    def __init__(self) -> None:
        self.interrupts = Interrupts()
        self.paused = False
        self.path: Path | None = None
        self.training: Any = None
        self.changes: list[Change] = []
        self._asked: queue.SimpleQueue[tuple[Question, Future[Any]]] = queue.SimpleQueue()
        self._training: Any = None
        self._thread: int | None = None
        self._lock, self._closed = threading.Lock(), False

    def stop(self) -> None:
        """Ask the run to end behind a checkpoint; the second time at once."""
        self.interrupts.times += 1

    def ask(self, question: Question) -> Future[Any]:
        """Have a question answered between two steps; return the answer's future."""
        answer: Future[Any] = Future()
        if threading.get_ident() == self._thread:
            # Asked by a callback, for which the training waits: it is between two steps.
            self._answer(question, answer)
            return answer
        with self._lock:
            if self._closed:
                answer.set_exception(RunFailed("the run has ended"))
            else:
                self._asked.put((question, answer))
        return answer

    def serve(self, training: Any) -> None:
        """Hear who answers from now on, in this thread."""
        self._training, self._thread = training, threading.get_ident()

    def answer(self) -> None:
        """Answer what was asked; what a question raises is its answer."""
        while not self._asked.empty():
            self._answer(*self._asked.get())

    def _answer(self, question: Question, answer: Future[Any]) -> None:
        try:
            answer.set_result(question(self._training))
        except Exception as error:
            answer.set_exception(error)

    def close(self) -> None:
        """Tell whoever still waits for an answer that there will be none."""
        with self._lock:
            self._closed, self._thread = True, None
        while not self._asked.empty():
            self._asked.get()[1].set_exception(RunFailed("the run ended before it could answer"))
