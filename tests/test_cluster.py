"""Nodes placed on workers."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ffdask.slots import Slot, place_nodes


def slots(*units):
    return [Slot("", f"worker{index}", count) for index, count in enumerate(units)]


def names(costs, *units):
    return [slot.name for slot in place_nodes(costs, slots(*units))]


def test_costly_nodes_are_kept_apart():
    _, two, three = names([1, 5, 5], 1, 1)
    assert two != three


def test_work_goes_by_units():
    assert Counter(names([1] * 6, 1, 2)) == {"worker0": 2, "worker1": 4}


def test_nodes_of_unknown_cost_are_spread():
    """A dynamic schedule tells what a node costs only up to its first decision."""
    for costs in ([1.0] + [0.0] * 7, [0.0] * 8, [3.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0]):
        assert set(Counter(names(costs, *[1] * 8)).values()) == {1}


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=12), st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_no_worker_has_more_than_its_share_and_one_node(costs, units):
    placed = names(costs, *units)
    for index, count in enumerate(units):
        mine = [cost for cost, name in zip(costs, placed, strict=True) if name == f"worker{index}"]
        assert sum(mine) <= sum(costs) / sum(units) * count + max(costs) + 1e-9
