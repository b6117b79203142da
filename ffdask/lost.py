"""Workers that are gone: noticed while a run waits, whether for a step to end or for a value to come here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import TimeoutError as NotYet
from typing import Any

from distributed import Client, Future

from ffdask.cluster import Slot
from ffdask.errors import RunFailed

LOOK_SECONDS = 2.0
"""Between two looks for the workers, while nothing comes."""

LOST_SECONDS = 30.0
"""How long a worker may be gone: a nanny brings one back within a few seconds."""


class Watch:
    """Looks whether the workers on which nodes are placed are there.

    A task that is pinned to a worker's resource waits for ever when nobody offers that resource.

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
        self._since: float | None = None

    def begin(self) -> None:
        """Begin to wait: what was seen before does not count."""
        self._looked, self._since = time.monotonic(), None

    def look(self) -> None:
        """Look, unless that was done a moment ago.

        Raises
        ------
        RunFailed
            If a worker has been gone for too long: it names the worker, its nodes, and what rows they had.
        """
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked, lost = now, self._lost()
        self._since = (self._since or now) if lost else None
        if self._since and now - self._since > LOST_SECONDS:
            raise RunFailed(
                f"{'; '.join(map(self._told, lost))}: gone, and not back within {LOST_SECONDS:g} s; what was placed "
                "there cannot go on: start the run again"
            )

    def gather(self, futures: Sequence[Future]) -> list[Any]:
        """Return the futures' values; `Client.gather` itself would wait for ever for one whose worker is gone."""
        self.begin()
        coming = asyncio.run_coroutine_threadsafe(_gathered(self.client, futures), self.client.loop.asyncio_loop)
        try:
            while True:
                try:
                    return coming.result(timeout=LOOK_SECONDS)
                except NotYet:
                    if coming.done():
                        raise
                    self.look()
        finally:
            coming.cancel()

    def _lost(self) -> list[str]:
        """Return the names of our workers whose resource nobody offers now."""
        known = self.client.scheduler_info(n_workers=-1)["workers"].values()
        offered = {name for info in known for name in info["resources"]}
        return sorted({slot.name for slot in self.slots if slot.resource not in offered})

    def _told(self, worker: str) -> str:
        nodes = [node for node, slot in enumerate(self.slots) if slot.name == worker]
        rows = f", with the rows of {', '.join(self.shards[node] for node in nodes)}" if self.shards else ""
        return f"worker {worker} (node{'s' * (len(nodes) > 1)} {', '.join(map(str, nodes))}{rows})"


async def _gathered(client: Client, futures: Sequence[Future]) -> list[Any]:
    values: list[Any] = await client.gather(list(futures), asynchronous=True)
    return values
