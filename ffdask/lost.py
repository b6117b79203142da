"""Workers that are gone: noticed while a run waits, whether for a step to end or for a value to come here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, wait
from contextlib import contextmanager
from typing import Any

from distributed import Client, Future, KilledWorker
from distributed.comm import CommClosedError

from ffdask.errors import FFDaskError, Lost, RunFailed, StepFailed, told
from ffdask.slots import SCHEDULER_GONE, Slot, is_there, workers_of

LOOK_SECONDS = 0.5
"""Between two looks for the workers."""


@contextmanager
def telling_of_the_scheduler() -> Iterator[None]:
    """Raise RunFailed in the place of Dask's own exception where a connection to the scheduler breaks."""
    try:
        yield
    except CommClosedError as error:
        failed = RunFailed(SCHEDULER_GONE)
        for note in getattr(error, "__notes__", ()):
            failed.add_note(note)
        raise failed from error


class Watch:
    """Looks whether the workers on which nodes are placed are there.

    A task that is pinned to a worker's resource waits for ever when nobody offers that resource. One that is gone is
    not waited for: should its nanny bring it back, it is a worker that joins.

    Parameters
    ----------
    client : distributed.Client
    slots : sequence of Slot
        Of each node.
    shards : sequence of str
        Of each node, where its rows are; empty where nodes share the rows.
    """

    def __init__(self, client: Client, slots: Sequence[Slot], shards: Sequence[str] = ()) -> None:
        self.client, self.slots, self.shards = client, slots, shards
        self._looked = time.monotonic()

    def look(self) -> None:
        """Look, unless that was done a moment ago.

        Raises
        ------
        Lost
            If a worker is gone: it names the worker, its nodes, and what rows they had.
        RunFailed
            If the scheduler is gone.
        """
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        known = workers_of(self.client)
        self._looked = time.monotonic()
        gone = sorted({slot.name for slot in self.slots if not is_there(slot, known)})
        if gone:
            lost = Lost(f"{'; '.join(map(self._told, gone))} is gone")
            lost.workers = tuple(gone)
            raise lost

    def gather(self, futures: Sequence[Future]) -> list[Any]:
        """Return the futures' values; `Client.gather` itself would wait for ever for one whose worker is gone.

        Raises
        ------
        Lost
            If a worker is gone, or a value.
        StepFailed
            If one of the tasks raised: with the task's name, and why.
        RunFailed
            If the scheduler is gone; or as a task raised it.
        """
        coming = asyncio.run_coroutine_threadsafe(_gathered(self.client, futures), self.client.loop.asyncio_loop)
        try:
            while not wait([coming], timeout=LOOK_SECONDS).done:
                self.look()
            return coming.result()
        except FFDaskError:
            raise
        except Exception as error:
            failed = next((future for future in futures if future.status == "error"), None)
            # A task's own exception, of a kind that a connection may raise too, takes no worker away.
            if failed is not None and not isinstance(error, KilledWorker):
                # As it is called in every beginning of the run.
                name = str(failed.key).rpartition("-")[0]
                own = StepFailed(f"task {name} failed: {told(error)}")
                own.step = name
                raise own from error
            if isinstance(error, KilledWorker | CancelledError | OSError):
                raise Lost(f"a result was lost before it was read: {type(error).__name__}: {error}") from error
            raise
        finally:
            coming.cancel()

    def _told(self, worker: str) -> str:
        nodes = [node for node, slot in enumerate(self.slots) if slot.name == worker]
        rows = f", with the rows of {', '.join(self.shards[node] for node in nodes)}" if self.shards else ""
        return f"worker {worker} (node{'s' * (len(nodes) > 1)} {', '.join(map(str, nodes))}{rows})"


async def _gathered(client: Client, futures: Sequence[Future]) -> list[Any]:
    values: list[Any] = await client.gather(list(futures), asynchronous=True)
    return values
