"""Schedules: small pure generators of steps. A rule of dependency and a placement on nodes each [PFF]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ffdask.schedules.all_layers import all_layers
from ffdask.schedules.federated import federated
from ffdask.schedules.sequential import sequential
from ffdask.schedules.single_layer import single_layer
from ffdask.schedules.steps import Plan, Schedule
from ffdask.schedules.streaming import streaming
from ffdask.schedules.until_still import until_still
from ffdask.schedules.worst_layer import worst_layer


@dataclass(frozen=True)
class Entry:
    """A schedule, by the name that the configuration uses.

    Attributes
    ----------
    steps : callable
        ``steps(plan) -> generator of Step``.
    by_visit : bool
        Whether its rounds are visits (streaming rule) rather than chapters.
    nodes : callable
        ``nodes(layers, units) -> int``: how many it takes when the configuration does not say.
    sharded : bool
        Whether each node has rows of its own, which nothing but states and figures may leave.
    """

    steps: Callable[[Plan], Schedule]
    by_visit: bool
    nodes: Callable[[int, int], int]
    sharded: bool = False


SCHEDULES: dict[str, Entry] = {
    "sequential": Entry(sequential, False, lambda layers, units: 1),
    "single-layer": Entry(single_layer, False, lambda layers, units: layers),
    "all-layers": Entry(all_layers, False, lambda layers, units: units),
    "federated": Entry(federated, False, lambda layers, units: 4, sharded=True),
    "streaming": Entry(streaming, True, lambda layers, units: layers),
    "until-still": Entry(until_still, False, lambda layers, units: units),
    "worst-layer": Entry(worst_layer, False, lambda layers, units: units),
}
"""Schedules by name; a new one is one file here and one line in this table."""
