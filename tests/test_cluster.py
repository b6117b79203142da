"""Nodes placed on workers, and which workers are taken for that."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffdask.cluster import Cluster
from ffdask.errors import RunFailed
from ffdask.slots import Slot, in_order, place_nodes, says_gpu
from ffdask.tables import ClusterTable


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


COSTS = st.lists(st.floats(0, 10), min_size=1, max_size=12)
MIXED = st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=5)


def mixed(workers):
    """A slot a worker, of so many units, with a GPU or without."""
    return [Slot("", f"worker{index}", units, gpu) for index, (units, gpu) in enumerate(workers)]


@given(COSTS, MIXED.filter(lambda workers: any(gpu for _, gpu in workers)), st.data())
def test_a_gpu_node_is_never_placed_where_there_is_no_gpu(costs, workers, data):
    nodes = data.draw(st.sets(st.integers(0, len(costs) - 1)))
    placed = place_nodes(costs, mixed(workers), gpu_nodes=nodes)
    assert all(placed[node].gpu for node in nodes)
    assert len(placed) == len(costs)


@given(COSTS, MIXED, st.data())
def test_without_gpu_nodes_it_does_not_matter_who_has_a_gpu(costs, workers, data):
    every = frozenset(f"worker{index}" for index in range(len(workers)))
    allowed = data.draw(st.none() | st.lists(st.just(every), min_size=len(costs), max_size=len(costs)))
    alike = [(units, False) for units, _ in workers]
    placed = [place_nodes(costs, mixed(which), allowed) for which in (workers, alike)]
    assert [slot.name for slot in placed[0]] == [slot.name for slot in placed[1]]


def test_gpu_nodes_have_their_place_before_others_that_could_make_way():
    slots = mixed([(1, True), (1, False), (1, False)])
    placed = place_nodes([1, 5, 4], slots, gpu_nodes=[0])
    assert [slot.name for slot in placed] == ["worker0", "worker1", "worker2"]
    # Where only a worker without a GPU can read a node's rows, it is not placed.
    with pytest.raises(ValueError, match="empty"):
        place_nodes([1], slots, [frozenset({"worker1"})], gpu_nodes=[0])


def info(name, **resources):
    return {"name": name, "resources": resources}


WORKERS = {
    "tcp://1": info("a", ffdask=2),
    "tcp://2": info("b", GPU=1.0),
    "tcp://3": info("c", GPU=0),
    "tcp://4": info("d", **{"GPU": 2.0, "ffdask-d": 3}),
}


def test_a_worker_says_that_it_has_a_gpu_by_a_resource():
    assert [address for address, each in WORKERS.items() if says_gpu(each)] == ["tcp://2", "tcp://4"]
    assert in_order(WORKERS) == ["tcp://1", "tcp://2", "tcp://3", "tcp://4"]
    assert in_order(WORKERS, gpus_first=True) == ["tcp://2", "tcp://4", "tcp://1", "tcp://3"]


def cluster(*slots, gpu, embedded=False):
    return Cluster(None, list(slots), embedded, False, {}, gpu=gpu)


@pytest.mark.parametrize(
    ("slots", "gpu", "workers", "known", "taken"),
    [
        # Whoever comes, as long as no number is asked for.
        ((), True, None, "123", "213"),
        ((), False, None, "123", "123"),
        # Of more than are asked for those with a GPU, where one is needed.
        ((), True, 2, "1234", "24"),
        ((), False, 2, "1234", "12"),
        # The last place is kept for one with a GPU until there is one.
        ((), True, 2, "13", "1"),
        ((), True, 1, "13", ""),
        ((Slot("tcp://1", "a", 2),), True, 2, "13", ""),
        ((Slot("tcp://1", "a", 2),), True, 2, "1234", "2"),
        ((Slot("tcp://2", "b", 2, True),), True, 2, "123", "1"),
        ((Slot("tcp://1", "a", 2),), False, 2, "13", "3"),
    ],
)
def test_who_is_taken_in(slots, gpu, workers, known, taken):
    there = {f"tcp://{number}": WORKERS[f"tcp://{number}"] for number in known}
    found = cluster(*slots, gpu=gpu)._to_take(there, ClusterTable(workers=workers))
    assert found == [f"tcp://{number}" for number in taken]


@pytest.mark.parametrize(("gpu", "who"), [(True, "no worker with a GPU"), (False, "no worker")])
def test_with_no_gpu_left_it_waits_as_with_no_worker_left(monkeypatch, gpu, who):
    slot = Slot("tcp://1", "a", 2)
    there = {"tcp://1": info("a", **{"ffdask-a": 2})} if gpu else {}
    monkeypatch.setattr("ffdask.cluster.workers_of", lambda client: there)
    said, one = [], cluster(slot, gpu=gpu)
    with pytest.raises(RunFailed, match=rf"{who} is left, and none came within 0.1 s \(cluster.wait\)"):
        one.take_stock(ClusterTable(wait=0.1), said.append)
    assert said == [f"{who} is left: waiting up to 0.1 s for one"]
    assert one.slots == ([slot] if gpu else [])


def test_workers_of_a_runs_own_cluster_say_nothing_and_are_asked():
    assert cluster(gpu=True, embedded=True)._has_gpu(info("worker0"))
    assert not cluster(gpu=True)._has_gpu(info("worker0"))
