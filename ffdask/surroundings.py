"""Where a call comes from: inside a task of Dask's, or beside a client that is to be used."""

from __future__ import annotations

from distributed import Client, get_worker


def in_task() -> bool:
    """Return whether this thread runs a task of a Dask worker.

    Who waits there for a cluster waits for the thread that it holds itself.
    """
    try:
        get_worker()
    except ValueError:
        return False
    return True


def current_client() -> Client | None:
    """Return the client that Dask would use here, None if there is none that can be waited for.

    That of a worker in this process is not meant, nor one that is being closed.
    """
    try:
        client = Client.current()
    except ValueError:
        return None
    usable = client.status == "running" and not client.asynchronous and not client.id.startswith("Client-worker-")
    return client if usable else None
