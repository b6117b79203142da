"""States between processes of one host: mapped, not sent; the bits are the same, and nothing stays."""

from __future__ import annotations

import gc
import os

import psutil
import pytest

from ffdask import blocks
from tests.system.conftest import outside_cluster

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="blocks are memfds, which this system lacks")

WIDE = {"network__layers": [600, 600], "data__chunk": 200, "training__epochs": 2, "schedule__chapters": 6}
"""A hidden layer's state is 2.9 MB: large enough for a block."""

PROCESSES = {"cluster__processes": True, "cluster__workers": 2, "cluster__units": 2}


class Looker:
    """Counts the blocks of other processes that are mapped here, and may kill a worker."""

    def __init__(self, kill_after=0):
        self.mapped, self.kill_after, self.seen, self.killed = 0, kill_after, 0, []

    def begin(self, resolved, dashboard):
        pass

    def record(self, record):
        self.seen += 1
        self.mapped = max(self.mapped, mapped())
        if self.seen == self.kill_after:
            workers = [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]
            workers[0].kill()
            self.killed = workers[:1]

    def end(self):
        pass


def mapped():
    return len(blocks._roots)


@pytest.mark.parametrize("schedule", ["all-layers", pytest.param("streaming", marks=pytest.mark.slow)])
def test_states_of_worker_processes_are_mapped_and_the_bits_are_the_same(train, inline_digest, schedule):
    keys, looker = WIDE | {"schedule__name": schedule}, Looker()
    run = train(watchers=[looker], **keys, **PROCESSES)
    assert run.summary["weights_sha256"] == inline_digest(**keys)
    # Cuts and checkpoints bring states here.
    assert looker.mapped
    assert run.network.states[1].weights.base is not None
    del run
    gc.collect()
    assert mapped() == 0


@pytest.mark.slow
def test_those_of_given_workers_are_sent(train, inline_digest, tmp_path):
    looker, keys = Looker(), WIDE | {"schedule__name": "all-layers"}
    with outside_cluster(tmp_path) as address:
        run = train(watchers=[looker], cluster__scheduler=address, cluster__workers=2, **keys)
    assert not looker.mapped
    assert run.summary["weights_sha256"] == inline_digest(**keys)


@pytest.mark.slow
def test_who_wants_none_gets_none(train, inline_digest):
    looker, keys = Looker(), WIDE | {"schedule__name": "all-layers"}
    run = train(watchers=[looker], cluster__share=False, **keys, **PROCESSES)
    assert not looker.mapped
    assert run.summary["weights_sha256"] == inline_digest(**keys)


@pytest.mark.slow
def test_processes_that_cannot_map_each_other_send_states_and_it_is_said(train, inline_digest, monkeypatch):
    monkeypatch.setattr(blocks, "out_of_reach", lambda references: "no right to look into /proc/7")
    looker, keys, said = Looker(), WIDE | {"schedule__name": "all-layers"}, []
    run = train(say=said.append, watchers=[looker], **keys, **PROCESSES)
    assert not looker.mapped
    assert run.summary["weights_sha256"] == inline_digest(**keys)
    (line,) = [line for line in said if "shared memory" in line]
    assert line == (
        "states travel by Dask's connections, not by shared memory: this process: no right to look into /proc/7"
    )


@pytest.mark.slow
@pytest.mark.parametrize("kill_after", [8, 20])
def test_a_worker_that_is_killed_takes_no_state_along_that_is_still_needed(train, inline_digest, kill_after):
    looker, keys = Looker(kill_after), WIDE | {"schedule__name": "all-layers", "run__cut_every": 2}
    run = train(watchers=[looker], **keys, **PROCESSES)
    assert looker.killed
    assert run.summary["weights_sha256"] == inline_digest(**keys)
