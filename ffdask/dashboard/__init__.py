"""A page of our own on Dask's dashboard: ``/forward-forward``.

Embedded clusters have it. Another's scheduler gets it as it starts, by ``dask scheduler --preload ffdask.dashboard``,
or later, by `add_to`; ffdask must be installed there. The scheduler hears of a run what its steps and its client tell
as events anyway, and shows it to whoever opens the page; no run waits for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ffdask.dashboard.follower import Follower

if TYPE_CHECKING:
    from distributed import Client, Scheduler

__all__ = ["Follower", "add_to", "dask_setup"]


def dask_setup(scheduler: Scheduler) -> None:
    """Add the page to a scheduler that starts; what ``--preload`` calls."""
    scheduler.add_plugin(Follower(), idempotent=True)


def add_to(client: Client) -> None:
    """Add the page to a scheduler that is running, such as a `LocalCluster`'s; for runs that begin from now on."""
    client.register_plugin(Follower())
