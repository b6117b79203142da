"""The cluster that a configuration asks for, opened and closed: the embedded one, or a given scheduler's.

A given scheduler and its workers go on with settings of their own. One of these costs memory: by Dask's default each of
their connections remembers its last thousand messages of less than a megabyte, and layer states are among them: some
hundred MiB by and by. ``DASK_DISTRIBUTED__ADMIN__LOW_LEVEL_LOG_LENGTH=10`` in the environment of both ends that, as it
is ended in the embedded cluster. It is bounded, so that nobody is told at each run.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from distributed import Client, SpecCluster

from ffdask.cluster import Cluster, Say
from ffdask.embedded import configured, embedded_cluster, prompt, silenced
from ffdask.errors import RunFailed, told
from ffdask.joining import OneThread, check_versions, unregister
from ffdask.kept import is_kept
from ffdask.scheduler import connect, wait_for_workers
from ffdask.tables import ClusterTable

TRIES = 3
"""Times that workers are asked what they are, should one of them go meanwhile."""


@contextlib.contextmanager
def open_cluster(
    table: ClusterTable, run: str, say: Say, client: Client | None = None, gpu: bool = False
) -> Iterator[Cluster]:
    """Open the cluster that a configuration asks for; close what was opened here at the end.

    Parameters
    ----------
    table : ClusterTable
    run : str
        The run's id.
    say : callable
        Takes a line for the user.
    client : distributed.Client, optional
        A client to use as it is, in place of what `table` names; of a cluster that the process keeps, or of anybody's.
    gpu : bool
        Whether a worker with a GPU is needed.

    Raises
    ------
    BadInput
        If the scheduler does not answer, if there are too few workers or none with a GPU, or if workers lack ffdask or
        have another version of it (or, with `strict_bits`, other bits).
    RunFailed
        If an embedded cluster cannot be started, a scheduler goes, or workers go before they have answered.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(configured())
        stack.enter_context(silenced())
        embedded = is_kept(client) if client is not None else table.scheduler is None
        if client is None:
            made = _started(stack, table) if embedded else connect(table)
            # Not the default: a user's own Dask computations must not come here, while the run lasts or after it.
            client = stack.enter_context(Client(made, set_as_default=False) if embedded else made)
        if embedded:
            prompt(client)
        threads = embedded and not table.processes
        cluster = Cluster(client, [], embedded, threads, fingerprints={}, gpu=gpu)
        plugin, tries = OneThread(run), 0
        stack.callback(unregister, client, plugin.name)
        while not cluster.slots:
            workers = wait_for_workers(client, table, say, embedded, gpu and not embedded)
            try:
                if not embedded:
                    check_versions(client, workers)
                # Given workers get nothing of ours before their version is known.
                client.register_plugin(plugin)
                cluster.take(workers, table, say)
            except (OSError, KeyError) as error:
                # A worker that goes at this moment may be back soon.
                tries += 1
                if tries == TRIES or client.status != "running":
                    raise RunFailed(
                        f"cluster: its workers go before they have answered what they are ({told(error)}); see their "
                        "logs, and start again when they stay"
                    ) from error
                time.sleep(0.2)
        yield cluster


def _started(stack: contextlib.ExitStack, table: ClusterTable) -> SpecCluster:
    """Return an embedded cluster; a worker process that dies while it starts is tried once more."""
    for again in (True, False):
        try:
            return stack.enter_context(embedded_cluster(table))
        except RuntimeError as error:
            if not again:
                raise RunFailed(f"the embedded cluster could not be started: {told(error)}") from error
    raise AssertionError("the second time returns or raises")
