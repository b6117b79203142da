"""Which workers may have which federated node."""

from __future__ import annotations

import pytest

from ffdask import datasets
from ffdask.config import load
from ffdask.errors import BadInput
from ffdask.federation import federate
from ffdask.slots import Slot

SLOTS = [Slot("", "a", 1), Slot("", "b", 1, gpu=True), Slot("", "c", 1, gpu=True)]


class Workers:
    """A cluster's workers, of which some can read the data."""

    embedded = False

    def __init__(self, readers):
        self.slots, self.readers, self.looks = SLOTS, readers, 0

    def on_each_worker(self, function, *args):
        return {slot.name: "/here" if slot.name in self.readers else None for slot in self.slots}

    def take_stock(self, table, say):
        self.looks += 1


@pytest.fixture
def found(tiny):
    def of(readers, gpu_nodes, say=print):
        keys = {
            "data.dataset": str(tiny),
            "data.chunk": 100,
            "schedule.name": "federated",
            "schedule.nodes": 2,
            "training.gpu_nodes": gpu_nodes,
            "cluster.wait": 0.01,
        }
        return federate(load(None, keys), datasets.describe(str(tiny)), Workers(readers), say)

    return of


def test_a_gpus_node_takes_a_reader_that_has_one(found):
    assert found("ab", []).readers == (frozenset("ab"), frozenset("ab"))
    assert found("ab", [1]).readers == (frozenset("ab"), frozenset("b"))


def test_where_no_reader_has_a_gpu_it_is_waited_for_then_said(found, monkeypatch):
    monkeypatch.setattr("ffdask.federation.LOOK_SECONDS", 0.02)
    said = []
    with pytest.raises(BadInput, match=r"no worker with a GPU can read the shard of node 1 \(.*; start a worker"):
        found("a", [1], said.append)
    assert said == ["waiting up to 0.01 s for a worker with a GPU that can read the shard of node 1"]
    with pytest.raises(BadInput, match="no worker can read the shard of node 0, 1 "):
        found("", [])
