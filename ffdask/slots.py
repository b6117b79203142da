"""Nodes placed on workers by resources.

A worker carries one resource of its own name with as many units as it has compute threads; a step takes one unit of
the worker on which its node is placed. One thread more is for small helpers, which take no unit.

A given worker that has a GPU says so by Dask's usual resource for that, ``--resources GPU=1``. It is read and no more:
no step takes any of it, since tasks that wait for two kinds of resources block each other.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any

from distributed import Client

from ffdask.embedded import resource_name
from ffdask.errors import RunFailed
from ffdask.job import Images, Labels

SCHEDULER_GONE = "the scheduler is gone: it does not answer, and what its workers held is lost"

GPU = "GPU"
"""The resource by which a worker says that it has a GPU."""

TRIES = 3
"""Times that a scheduler is asked before it counts as gone."""


@dataclass(frozen=True)
class Slot:
    """A worker as a run uses it.

    Attributes
    ----------
    address, name : str
        The name is the resource's.
    units : int
        How many steps it does at a time.
    gpu : bool
        Whether nodes that a GPU computes may be placed on it.
    """

    address: str
    name: str
    units: int
    gpu: bool = False

    @property
    def resource(self) -> str:
        """Return the resource that a step on this worker takes a unit of."""
        return resource_name(self.name)


@dataclass(frozen=True)
class Placement:
    """A run on workers.

    Attributes
    ----------
    slots : list of Slot
        Of each node.
    readers : frozenset of str
        Names of the workers that read the rows themselves.
    rows : mapping
        What the others are sent, by chunk (-1: the rows that are looked at).
    """

    slots: list[Slot]
    readers: frozenset[str]
    rows: Mapping[int, tuple[Images, Labels]]


def workers_of(client: Client) -> dict[str, dict[str, Any]]:
    """Return what the scheduler knows of each worker, by its address now.

    Raises
    ------
    RunFailed
        If the scheduler does not answer.
    """
    for _ in range(TRIES):
        # Of one that is gone the client knows it soon; one that is only busy is asked again.
        if client.status != "running":
            break
        try:
            # Not `Client.scheduler_info`: what it returns, the client may have refreshed meanwhile, without workers.
            known: dict[str, dict[str, Any]] = client.sync(client.scheduler.identity, n_workers=-1)["workers"]
            return known
        except (OSError, TimeoutError, CancelledError, KeyError, AttributeError):
            # One that ends answers with less.
            time.sleep(0.3)
    raise RunFailed(SCHEDULER_GONE)


def is_there(slot: Slot, known: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether a slot's worker is among those known, and the same process: another has no resource of ours."""
    return slot.address in known and slot.resource in known[slot.address]["resources"]


def addresses_of(client: Client, slots: Sequence[Slot]) -> list[str]:
    """Return the addresses that workers have now.

    By name: a worker that came back after a loss has another address, and one that did not is left out.
    """
    names, known = {slot.name for slot in slots}, workers_of(client)
    return [address for address, info in known.items() if str(info["name"]) in names]


def says_gpu(info: Mapping[str, Any]) -> bool:
    """Return whether a given worker, by what the scheduler knows of it, says that it has a GPU."""
    return bool(info["resources"].get(GPU, 0) > 0)


def in_order(known: Mapping[str, Mapping[str, Any]], gpus_first: bool = False) -> list[str]:
    """Return the addresses of workers in the order in which a run takes them: by name, or those with a GPU first."""
    return sorted(known, key=lambda at: (gpus_first and not says_gpu(known[at]), str(known[at]["name"]), at))


def place_nodes(
    costs: Sequence[float],
    slots: Sequence[Slot],
    allowed: Sequence[frozenset[str]] | None = None,
    gpu_nodes: Collection[int] = (),
) -> list[Slot]:
    """Return each node's slot: the costliest node first, always to where the work per unit stays least.

    Nodes that a GPU computes come before all others, since these can make way.

    Parameters
    ----------
    costs : sequence of float
        Of each node's steps together, in any unit; 0 where it is not known.
    slots : sequence of Slot
    allowed : sequence of frozenset of str, optional
        Names of the workers that each node may be placed on; any if left out.
    gpu_nodes : collection of int
        Nodes that are placed on slots with a GPU only; there must be one.
    """
    # A dynamic schedule does not tell what its nodes will cost: those unknown count as the mean of the known.
    known = [cost for cost in costs if cost] or [1.0]
    costs = [cost or sum(known) / len(known) for cost in costs]
    load = [0.0] * len(slots)
    placed: list[Slot] = [slots[0]] * len(costs)
    for node in sorted(range(len(costs)), key=lambda node: (node not in gpu_nodes, -costs[node], node)):
        open_ = [
            i
            for i, slot in enumerate(slots)
            if (allowed is None or slot.name in allowed[node]) and (slot.gpu or node not in gpu_nodes)
        ]
        best = min(open_, key=lambda i: ((load[i] + costs[node]) / slots[i].units, i))
        load[best] += costs[node]
        placed[node] = slots[best]
    return placed
