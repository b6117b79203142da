"""The embedded cluster that a process keeps: started for its first `fit`, used again by the next, closed at its end."""

from __future__ import annotations

import atexit
import contextlib
import threading

from distributed import Client

from ffdask.embedded import configured, default_units, embedded_cluster, silenced
from ffdask.tables import ClusterTable

_kept: dict[tuple[object, ...], tuple[Client, contextlib.ExitStack]] = {}
_lock = threading.Lock()


def kept_client(table: ClusterTable) -> Client:
    """Return the client of the process's own cluster of such workers; it is started if there is none.

    Workers are threads, unless ``table.processes``. One that was closed, by whomever, is started anew.
    """
    key = (table.workers, default_units(table), table.processes, table.memory_limit)
    with _lock:
        client, stack = _kept.get(key, (None, None))
        if client is not None and client.status == "running":
            return client
        if stack is not None:
            with contextlib.suppress(Exception):
                stack.close()
        stack = contextlib.ExitStack()
        with configured(), silenced():
            cluster = stack.enter_context(embedded_cluster(table))
            # Not the default: a user's own Dask computations must not come here.
            client = stack.enter_context(Client(cluster, set_as_default=False))
        _kept[key] = client, stack
        return client


def is_kept(client: Client) -> bool:
    """Return whether a client is of such a cluster."""
    return any(client is kept for kept, _ in _kept.values())


@atexit.register
def close_kept() -> None:
    """Close them all."""
    with _lock, silenced():
        while _kept:
            _, (_, stack) = _kept.popitem()
            # Something may have closed it before.
            with contextlib.suppress(Exception):
                stack.close()
