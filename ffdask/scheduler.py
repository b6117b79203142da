"""A scheduler that others started: connected to, and its workers waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from distributed import Client
from distributed.security import Security

from ffdask.errors import BadInput
from ffdask.slots import in_order, says_gpu, workers_of
from ffdask.tables import ClusterTable

CONNECT_SECONDS = 15
"""How long a given scheduler may take to answer."""


def connect(table: ClusterTable) -> Client:
    """Return a client of the scheduler that a configuration names, which is not the default one.

    Raises
    ------
    BadInput
        If it does not answer, or the files for TLS are none.
    """
    address, security = str(table.scheduler), None
    try:
        if table.tls_ca is not None:
            files = {"tls_ca_file": table.tls_ca, "tls_client_cert": table.tls_cert, "tls_client_key": table.tls_key}
            security = Security(**files, require_encryption=True)
            # Read here, for a file that is no certificate is not the scheduler's fault.
            security.get_connection_args("client")
    except (OSError, ValueError) as error:
        raise BadInput(
            f"cluster (--tls-ca, --tls-cert, --tls-key): given {table.tls_ca}, {table.tls_cert} and {table.tls_key}, "
            f"which are no authority, certificate and its key in PEM format ({error})"
        ) from None
    try:
        return Client(address, timeout=CONNECT_SECONDS, set_as_default=False, security=security)
    except TypeError:
        # Dask's own complaint, at a tls:// address for which it has no certificate.
        raise BadInput(
            f"cluster.scheduler (--scheduler): given {address!r}, which takes --tls-ca, --tls-cert and --tls-key, or "
            "the same in Dask's configuration (distributed.comm.tls)"
        ) from None
    except (OSError, ValueError, TimeoutError, RuntimeError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(
            f"cluster.scheduler (--scheduler): given {address!r}, which does not answer within {CONNECT_SECONDS} s "
            f"({why}); start one with `dask scheduler` and give its address, such as tcp://host:8786"
        ) from None


def wait_for_workers(
    client: Client, table: ClusterTable, say: Callable[[str], None], embedded: bool, gpu: bool = False
) -> dict[str, dict[str, Any]]:
    """Return the workers to use (address -> what the scheduler knows), in a fixed order.

    With `gpu`, one of them says that it has a GPU; if there are more than are wanted, those that say so come first.

    Raises
    ------
    BadInput
        If they do not come within the time that is waited for them.
    RunFailed
        If the scheduler is gone.
    """
    wanted, started, said = table.workers or 1, time.monotonic(), False
    while True:
        known = workers_of(client)
        lacks_gpu = gpu and not any(map(says_gpu, known.values()))
        if len(known) >= wanted and not lacks_gpu:
            chosen = in_order(known, gpu)
            return {address: known[address] for address in (chosen[:wanted] if table.workers else chosen)}
        if time.monotonic() - started > table.wait:
            if len(known) >= wanted:
                raise BadInput(
                    f"training.gpu_nodes (--gpu-nodes): none of {len(known)} workers says that it has a GPU, after "
                    f"{table.wait:g} s (cluster.wait); start one with `dask worker {client.scheduler.address} "
                    "--resources GPU=1`"
                )
            raise BadInput(
                f"cluster: {len(known)} of {wanted} workers after {table.wait:g} s (cluster.wait); start them with "
                f"`dask worker {client.scheduler.address}`"
            )
        if not (said or embedded):
            one = ", none that says it has a GPU (--resources GPU=1)" if lacks_gpu else ""
            say(f"waiting up to {table.wait:g} s for workers: {len(known)} of {wanted} so far{one}")
            said = True
        time.sleep(0.2)
