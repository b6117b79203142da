"""A run in a thread of its own: begun, heard, waited for."""

from __future__ import annotations

import atexit
import math
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffdask.conduct import Finished, check_before_data, conduct
from ffdask.config import Config
from ffdask.controls import Controls
from ffdask.errors import BadInput, told
from ffdask.kept import kept_client
from ffdask.records import Records
from ffdask.resolved import Resolved
from ffdask.surroundings import current_client, in_task
from ffdask.watchers import Record, Tally, Watcher

if TYPE_CHECKING:
    from distributed import Client

ENDS_WITHOUT_THREADS = (3, 12) <= sys.version_info < (3, 12, 3)
"""Whether this Python begins no thread once a script has ended, as a run must (python/cpython#113964)."""

Callback = Callable[[Any, Record], Any]
"""Called with the run and each step's record, in the order in which steps end."""

Say = Callable[[str], None]

_alive: set[Live] = set()


class Live:
    """A run while it goes.

    Parameters
    ----------
    config : Config
    client : distributed.Client or None
        None: the cluster that the configuration names.
    say : callable
        Takes a line for the user.
    resume : path or None
        As `ffdask.conduct.conduct`.

    Attributes
    ----------
    ended : Future of Finished
    controls : Controls
    records : Records
        Of each step that has ended.
    tally : Tally
    resolved : Resolved
        Once it has begun.
    """

    resolved: Resolved

    def __init__(self, config: Config, client: Client | None, say: Say, resume: str | Path | None) -> None:
        self.config, self.say, self.resume = config, say, resume
        # Asked here: only in this thread is it known whether it does a task.
        self.client, self.keeps = keeps(config, client)
        self.ended: Future[Finished] = Future()
        self.controls, self.records, self.tally = Controls(), Records(), Tally()
        self._begun, self._done = threading.Event(), threading.Event()

    @property
    def configuration(self) -> Config:
        """The configuration, with what was settled and what was changed."""
        training = replace(self.controls.training or self.config.training, changes=tuple(self.controls.changes))
        return replace(self.config, training=training)

    def start(self, run: object, callbacks: Sequence[Callback | Watcher]) -> None:
        """Return when everything is checked and the first step may be submitted.

        `run` is what callbacks are called with.

        Raises
        ------
        BadInput, RunFailed
            As `ffdask.conduct.conduct`, if the run has not begun by then.
        """
        check_before_data(self.config, self.resume is not None)
        watchers = [self, *(each if hasattr(each, "begin") else _Calls(run, each) for each in callbacks)]
        thread = threading.Thread(target=self._train, args=(watchers,), name="ffdask-run")
        _alive.add(self)
        thread.start()
        self._wait(self._begun, None)
        if not hasattr(self, "resolved"):
            self.ended.result()

    def _train(self, watchers: Sequence[Any]) -> None:
        try:
            finished = conduct(
                self.config,
                client=kept_client(self.config.cluster) if self.keeps else self.client,
                say=self.say,
                watchers=watchers,
                resume=self.resume,
                controls=self.controls,
            )
            self.ended.set_result(finished)
        except BaseException as error:
            self.ended.set_exception(error)
        finally:
            self.controls.close()
            _alive.discard(self)
            self._begun.set()
            self._done.set()

    def begin(self, resolved: Resolved, dashboard: str) -> None:
        """Hear what is computed; say where Dask's dashboard is."""
        self.resolved = resolved
        self.tally.begin(resolved, dashboard)
        self.say(f"dashboard  {dashboard}")
        self._begun.set()

    def record(self, record: Record) -> None:
        """Hear of a finished step."""
        self.records[record["name"]] = record
        self.tally.record(record)

    def end(self) -> None:
        """Hear that no step follows."""

    def wait(self, timeout: float | None = None) -> bool:
        """Return whether the run has ended within `timeout` seconds; Ctrl-C meanwhile stops it.

        Raises
        ------
        KeyboardInterrupt
            Once it has stopped.
        """
        return self._wait(self._done, timeout)

    def _wait(self, event: threading.Event, timeout: float | None) -> bool:
        deadline, stopped = math.inf if timeout is None else time.monotonic() + timeout, False
        while True:
            try:
                # By the second: on some systems a lock that is waited for hears no Ctrl-C.
                if event.wait(max(0.0, min(1.0, deadline - time.monotonic()))):
                    break
                if time.monotonic() >= deadline:
                    return False
            except KeyboardInterrupt:
                event, deadline, stopped = self._done, math.inf, True
                self.controls.stop()
        error = self.ended.exception() if stopped else None
        if isinstance(error, KeyboardInterrupt):
            raise error
        return True


class _Calls:
    """A function as a watcher."""

    def __init__(self, run: object, function: Callback) -> None:
        self.run, self.function = run, function

    def begin(self, resolved: Resolved, dashboard: str) -> None:
        """Nothing to do."""

    def record(self, record: Record) -> None:
        """Call it."""
        self.function(self.run, record)

    def end(self) -> None:
        """Close what it has open."""
        getattr(self.function, "end", bool)()


def printed(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def unsaid(line: str) -> None:
    """Print nothing."""


def keeps(config: Config, client: Client | None) -> tuple[Client | None, bool]:
    """Return the client to use, if there is one already, and whether it is else that of the process's own cluster.

    Raises
    ------
    BadInput
        For a client that is asynchronous.
    """
    if client is not None and client.asynchronous:
        raise BadInput("client: given an asynchronous one; give one that is not, and await the run")
    if client is not None or config.cluster.scheduler is not None:
        return client, False
    # In a task, the threads of its own cluster are not to be waited for.
    current = None if in_task() else current_client()
    return current, current is None


def _finish() -> None:
    """Have a process that ends wait for its runs; an interpreter that somebody types into stops them."""
    typed = hasattr(sys, "ps1") or "IPython" in sys.modules
    for live in list(_alive):
        if ENDS_WITHOUT_THREADS:
            version = ".".join(map(str, sys.version_info[:3]))
            what = "a script under it ends with run.wait(); Python 3.12.3 needs none"
            print(f"ffdask: Python {version} begins no thread once a script has ended: {what}", file=sys.stderr)
        if typed:
            live.controls.stop()
        try:
            live.wait()
            error = live.ended.exception()
        except KeyboardInterrupt as stop:
            error = stop
        if error is not None:
            notes = "; ".join(getattr(error, "__notes__", []))
            print(
                f"ffdask: {'stopped' if isinstance(error, KeyboardInterrupt) else told(error)}; {notes}",
                file=sys.stderr,
            )


# Before the pools of threads close, on which a run that still goes needs to start work: hooks of `atexit` come later,
# and no public way is as early.
getattr(threading, "_register_atexit", atexit.register)(_finish)
