"""Nothing but states and figures leaves a federated node: every byte that a worker process sends is looked at."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import cloudpickle
import distributed
import numpy as np
import pytest
from distributed import Client
from distributed.protocol import to_serialize

from ffdask import datasets, schedules, work
from ffdask.augment import shifted
from ffdask.datasets import write_store
from ffdask.errors import BadInput, RunFailed
from ffdask.graph import Graph
from ffdask.kernels import reference
from ffdask.labels import Pixels
from ffdask.schedules import Entry
from ffdask.schedules.federated import federated
from ffdask.schedules.steps import Checker
from ffdask.shards import Shards
from ffdask.slots import workers_of
from ffdask.stay import Kept
from tests.system.conftest import outside_cluster, rows
from tests.system.frames import canaries, on_the_wire, read_frames

SIDE, WIDTHS, CLASSES = 16, (24, 32), 10
SHAPES = {
    *((SIDE * SIDE, 24), (24, 32), (24,), (32,)),
    *((24, CLASSES), (32, CLASSES)),
}
"""Of weights, biases, running means and heads."""


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A data set whose rows are all noise, so that any part of a line is found nowhere else."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(7)
    images = random.integers(1, 256, (400, SIDE, SIDE)).astype(np.uint8)
    labels = random.integers(0, 10, 400).astype(np.uint8)
    return write_store(folder / "noise.zarr", "noise", "made by the tests", images, labels, *rows(50, 2, SIDE))


@pytest.fixture
def go(planted, train, tmp_path, monkeypatch):
    """Train on two recorded worker processes; return what they sent."""

    def run(unguarded=False, **changed):
        folder = tmp_path / "frames"
        folder.mkdir()
        monkeypatch.setenv("FFDASK_TEST_FRAMES", str(folder))
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        if unguarded:
            monkeypatch.setenv("FFDASK_TEST_UNGUARDED", "1")
        keys = {
            "data__dataset": planted.path,
            "network__layers": list(WIDTHS),
            "schedule__name": "federated",
            "schedule__nodes": 2,
            "schedule__chapters": 6,
            "cluster__workers": 2,
            "data__chunk": 100,
            "training__shift": 1,
        }
        preload = ("--preload", "tests.system.recorded_worker")
        with outside_cluster(tmp_path, 2, 2, preload) as address, Client(address, set_as_default=False) as client:
            train(client, **(keys | changed))
        return read_frames(folder, SHAPES)

    return run


@pytest.fixture
def needles(planted):
    """Rows of each node as they would look on the wire."""
    images, labels = datasets.load(planted.path, "train")
    found = {}
    for node, members in enumerate(Shards("iid", 2, 1.0, 0).deal(np.arange(400), labels)):
        few = canaries(images[members[:5]], labels[members[:40]])
        found |= {f"node {node} {name}": needle for name, needle in few.items()}
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"network__negatives": "adaptive", "network__classifier": "goodness"},
        {"network__objective": "classifier", "network__negatives": "none", "network__classifier": "all-heads"},
    ],
    ids=["sampled", "adaptive by goodness", "classifier"],
)
def test_nothing_but_states_and_figures_leaves_a_node(go, needles, changed):
    sent = go(**changed)
    assert sent.states > 6, "states do go round"
    assert sent.records > 20, "and so do figures"
    assert sent.undeclared == []
    assert sent.found(needles) == []


def leaky(plan):
    """Federated, but the head of each chapter is trained on the next node, with this one's rows."""
    for step in federated(plan):
        yield replace(step, node=(step.node + 1) % plan.nodes) if getattr(step, "kind", "") == "head" else step


@pytest.fixture
def leaks(monkeypatch):
    monkeypatch.setitem(schedules.SCHEDULES, "federated", Entry(leaky, False, lambda layers, units: 2, sharded=True))


def test_a_schedule_that_leaks_is_refused_before_the_run(train, leaks, planted):
    keys = {"data__dataset": planted.path, "schedule__name": "federated", "schedule__nodes": 2}
    with pytest.raises(BadInput, match=r"head-chapter000 .*shard, which stays there"):
        train(**keys)


@pytest.mark.slow
def test_what_is_raw_cannot_be_sent_even_if_nobody_checks(go, leaks, monkeypatch):
    monkeypatch.setattr(Checker, "_check_shard", lambda self, step: None)
    with pytest.raises(RunFailed, match=r"neutral2 of push_head-chapter000 stays on its node"):
        go()


def test_of_what_is_kept_only_its_name_is_pickled_by_anyone():
    secret = np.arange(1000, dtype=np.float32)
    for dump in (pickle.dumps, cloudpickle.dumps, distributed.protocol.pickle.dumps):
        for _ in range(2):  # what is away may be moved on
            sent = dump(Kept(secret, "labels of negatives-chapter000"))
            assert len(sent) < 200
            assert secret[7:20].tobytes() not in sent
            away = pickle.loads(dump(pickle.loads(sent)))
            with pytest.raises(RunFailed, match="labels of negatives-chapter000 stays on its node"):
                _ = away.value


@pytest.mark.slow
def test_a_worker_that_retires_hands_on_names_alone(tmp_path, monkeypatch):
    (tmp_path / "frames").mkdir()
    monkeypatch.setenv("FFDASK_TEST_FRAMES", str(tmp_path / "frames"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    preload = ("--preload", "tests.system.recorded_worker")
    with outside_cluster(tmp_path, 2, 1, preload) as address, Client(address) as client:
        client.wait_for_workers(2)
        workers = sorted(workers_of(client))
        kept = client.submit(lambda: Kept(SECRET, "bytes"), workers=[workers[0]], allow_other_workers=True, pure=False)
        distributed.wait(kept, timeout=20)
        client.retire_workers(client.who_has([kept])[kept.key])
        away = kept.result(timeout=20)
        with pytest.raises(RunFailed, match="bytes stays on its node"):
            _ = away.value
    sent = read_frames(tmp_path / "frames", SHAPES)
    assert sent.messages > 5
    assert sent.found({"bytes": SECRET}) == []


SECRET = b"nobody else may see this"


def test_the_message_of_a_step_that_fails_stays_on_its_node(train, monkeypatch):
    def fails(*args):
        raise ValueError(f"the third row is {SECRET!r}")

    monkeypatch.setitem(work._KINDS, "train", fails)
    with pytest.raises(
        RunFailed, match=r"train_layer1-chapter000 failed on .*: ValueError; its message stays"
    ) as error:
        train(schedule__name="federated", schedule__nodes=2)
    found, seen = error.value, set()
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        assert SECRET.decode() not in repr(found)
        found = found.__cause__ or found.__context__


@pytest.mark.slow
def test_the_frames_show_a_leak_where_nothing_guards(go, leaks, needles, monkeypatch):
    monkeypatch.setattr(Checker, "_check_shard", lambda self, step: None)
    monkeypatch.setattr(Graph, "_input", lambda self, placed, need, slot: self.picked(placed, need.piece))
    sent = go(unguarded=True)
    assert any("float32 (100, 32)" in one for one in sent.undeclared), "the neutral rows' activities"


@pytest.mark.parametrize("figure", [[1, 2, 3], "x" * 3000, np.arange(3)])
def test_a_record_that_holds_more_than_figures_is_noticed(tmp_path, figure):
    record = {"kind": "train", "round": 0, "node": 0, "rows": figure}
    (tmp_path / "message").write_bytes(on_the_wire({"record": record}))
    assert read_frames(tmp_path, SHAPES).undeclared


@pytest.mark.parametrize("shift", [0, 1])
def test_a_canary_is_found_in_every_encoding(tmp_path, planted, needles, shift):
    images, labels = datasets.load(planted.path, "train")
    members = Shards("iid", 2, 1.0, 0).deal(np.arange(400), labels)[0][:5]
    moved = shifted(images[members], shift, np.random.default_rng(0))
    bare, laid, more = (
        Pixels.of(moved, 10, np.dtype(np.float32), kind, kernels=reference) for kind in ("none", "replace", "append")
    )
    encodings = {
        "bytes": moved,
        "scaled": bare.values,
        "cleared": laid.values,
        "padded": more.values,
        "labels": labels[Shards("iid", 2, 1.0, 0).deal(np.arange(400), labels)[0][:40]].astype(np.int64),
    }
    if not shift:
        # A shifted image has another length: it is known by its raw forms, and by its shape.
        encodings["normalised"] = laid.values / laid.length(1.0)[:, None]
    for name, encoded in encodings.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "message").write_bytes(on_the_wire({"x": to_serialize(encoded)}))
        sent = read_frames(folder, SHAPES)
        assert sent.found(needles), name
        assert sent.undeclared, name
