"""That a layer's minibatches are recorded once and replayed, on a stand-in that refuses what CUDA does meanwhile."""

from __future__ import annotations

import importlib
import inspect
import logging
import re

import device_host
import numpy as np
import pytest
import standin
import standin_memory
import test_device
from test_device import CASES, trained
from test_inline import TRIPLES

from ffdask import learning, machine
from ffdask.kernels import DEVICE, named
from ffdask.objectives import Paired
from ffdask.objectives.goodness import goodness

pytestmark = pytest.mark.skipif(not device_host.COMPILER, reason=device_host.LACKING)
LONG = {"n": 75, "chunk": 75, "batch": 15, "epochs": 2, "chapters": 2}


@pytest.fixture(autouse=True)
def _one_thread():
    machine.hold_one_thread()
    yield
    machine.let_go()


@pytest.fixture
def recorded():
    with standin.in_the_place_of_cupy():
        yield importlib.import_module("ffdask.kernels.recorded")


@pytest.fixture
def stream():
    with standin.Stream() as found:
        yield found


def launched_one_by_one(monkeypatch, *args, **keys):
    device = importlib.import_module("ffdask.kernels.device")
    with monkeypatch.context() as patch:
        patch.setattr(device, "Repeated", lambda turn: turn)
        return trained(DEVICE, *args, **keys)


def assert_same_bits(monkeypatch, *args, **keys):
    network, records = launched_one_by_one(monkeypatch, *args, **keys)
    assert not standin.graphs
    replayed, others = trained(DEVICE, *args, **keys)
    assert replayed.sha256() == network.sha256()
    assert others == records
    assert [state.steps for state in replayed.states] == [state.steps for state in network.states]
    graphs = dict(standin.graphs)
    assert graphs["begun"] == graphs["ended"] > 0, "a recording was refused"
    return graphs


@pytest.mark.parametrize("rule", ["streaming", "all-layers"])
@pytest.mark.parametrize("keys", CASES.values(), ids=CASES)
def test_what_is_replayed_is_what_is_launched_one_by_one(recorded, monkeypatch, rule, keys):
    graphs = assert_same_bits(monkeypatch, rule, **LONG | keys)
    # Of a visit's five minibatches, the first is launched as it is, and all others are replayed.
    assert graphs["launched"] == 4 * graphs["begun"]


@pytest.mark.parametrize(("objective", "negatives", "classifier"), TRIPLES[::2])
def test_whatever_the_objective(recorded, monkeypatch, objective, negatives, classifier):
    keys = {"objective": objective, "negatives": negatives, "classifier": classifier, "dropout": 0.2, "shift": 1}
    assert_same_bits(monkeypatch, "all-layers", **LONG | keys)


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_whatever_the_precision(recorded, monkeypatch, precision):
    keys = {"widths": (40, 48), "n": 90, "chunk": 90, "batch": 32, "epochs": 2, "chapters": 2}
    assert_same_bits(monkeypatch, "streaming", precision, **keys)


def test_a_last_shorter_minibatch_is_launched_as_it_is(recorded, monkeypatch):
    graphs = assert_same_bits(monkeypatch, "all-layers", **LONG | {"n": 70, "chunk": 70})
    assert graphs["launched"] == 3 * graphs["begun"]


def test_an_objective_that_is_asked_on_the_host_is_never_recorded(recorded, monkeypatch):
    learn, turns = learning._learn, []

    def watched(*given):
        turns.append(standin_memory.recording() is not None)
        learn(*given)

    monkeypatch.setattr(learning, "_learn", watched)
    trained(DEVICE, "streaming", own=Paired(goodness), **LONG)
    assert len(turns) == 2 * 2 * 5
    assert not any(turns)
    assert standin.graphs["begun"] == standin.graphs["ended"] == 2, "the head's"


def test_a_replay_reads_nothing_on_the_host(recorded):
    waits = []

    def watch(step, record):
        waits.append((step.kind, standin.waits["get"], standin.waits["synchronize"]))
        standin.waits.clear()

    trained(DEVICE, "all-layers", watch=watch, **LONG)
    counts = [found for kind, *found in waits if kind == "train"]
    assert counts[1:] == [[1, 1]] * (len(counts) - 1)
    assert standin.graphs["launched"] > 10


# --- turns of other kinds


def array(*values: float) -> standin.ndarray:
    return standin.asarray(np.array(values, np.float32))


def twice(given, out):
    (one,) = out
    more = given["x"] + given["x"]
    one[...] = more * np.float32(1)


def called(repeated, count: int, size: int = 3, start: int = 0) -> list[list[float]]:
    """What a turn gives for arrays of `size` numbers, each its own."""
    found = []
    for number in range(start, start + count):
        out = standin.empty(size, np.float32)
        repeated({"x": array(*range(number, number + size)), "name": "x"}, [out])
        found.append(out)
    return [out.get().tolist() for out in found]


def doubles(count: int, size: int = 3, start: int = 0) -> list[list[float]]:
    return [[2.0 * (number + k) for k in range(size)] for number in range(start, start + count)]


def test_each_call_reads_and_writes_its_own_arrays(recorded, stream):
    repeated = recorded.Repeated(twice)
    assert called(repeated, 5) == doubles(5)
    assert standin.graphs == {"begun": 1, "ended": 1, "launched": 4}
    assert called(repeated, 2, size=2) == doubles(2, size=2)
    assert called(repeated, 2, start=7) == doubles(2, start=7)
    assert standin.graphs == {"begun": 1, "ended": 1, "launched": 6}


def test_what_is_not_an_array_is_part_of_the_recording(recorded, stream):
    seen = []

    def turn(given, out):
        seen.append(given["name"])
        twice(given, out)

    repeated = recorded.Repeated(turn)
    for name in ("a", "a", "a", "b", "a"):
        out = standin.empty(1, np.float32)
        repeated({"x": array(4.0), "name": name}, [out])
        assert out.get().tolist() == [8.0]
    assert seen == ["a", "a", "b"]


def test_arrays_that_do_not_lie_row_by_row_are_copied_too(recorded, stream):
    repeated, table = recorded.Repeated(twice), standin.asarray(np.arange(12, dtype=np.float32).reshape(3, 4))
    into = standin.empty((3, 4), np.float32)
    for column in range(4):
        repeated({"x": table[:, column]}, [into[:, column]])
    assert into.get().tolist() == (2 * table.get()).tolist()
    assert standin.graphs["launched"] == 3


def test_nothing_else_comes_to_lie_where_a_recording_works(recorded, stream):
    """Arrays made between replays keep what is in them; in the process's pool they would not."""
    repeated = recorded.Repeated(twice)
    called(repeated, 2)
    kept = [array(*[number] * 3) for number in range(9)]
    called(repeated, 3)
    assert [one.get().tolist() for one in kept] == [[number] * 3 for number in range(9)]
    graph = repeated._graph
    with standin_memory.using_allocator(repeated._pool.malloc):
        spoilt = [array(-1.0, -1.0, -1.0) for _ in range(2)]
    graph.launch()
    assert [one.get().tolist() for one in spoilt] != [[-1.0] * 3] * 2


def test_a_recordings_memory_goes_back_to_the_process(recorded, stream, monkeypatch):
    asked = []
    pool = standin_memory.MemoryPool(lambda size: asked.append(size) or standin_memory.malloc(size))
    monkeypatch.setattr(standin_memory, "_everywhere", [pool.malloc])
    for _ in range(3):
        called(recorded.Repeated(twice), 4)
        first, asked[:] = asked or [0], []
    assert first == [0], "each time memory is asked of the driver again"


def test_a_turn_that_waits_is_not_recorded_and_that_is_said(recorded, stream, caplog):
    def waits(given, out):
        twice(given, out)
        given["x"].get()

    with caplog.at_level(logging.WARNING, "ffdask"):
        assert called(recorded.Repeated(waits), 6) == doubles(6)
    assert (standin.graphs["launched"], standin.graphs["spoilt"]) == (0, recorded.TRIES)
    (said,) = caplog.messages
    assert "kernel by kernel" in said
    assert "a value is read on the host" in said
    assert not stream.is_capturing(), "nothing could be launched there any more"


def test_a_turn_that_takes_more_than_before_is_recorded_later(recorded, stream):
    turns = iter([1, 4, 4, 4, 4])

    def grows(given, out):
        more = [given["x"] + given["x"] for _ in range(next(turns))]
        out[0][...] = more[-1]

    assert called(recorded.Repeated(grows), 4) == doubles(4)
    assert standin.graphs == {"begun": 2, "ended": 1, "launched": 2}


def test_a_turn_that_is_wrong_fails_as_it_would_one_by_one(recorded, stream):
    numbers = iter(range(9))

    def wrong(given, out):
        if next(numbers):
            raise ZeroDivisionError("the turn's own")
        twice(given, out)

    repeated = recorded.Repeated(wrong)
    called(repeated, 1)
    with pytest.raises(ZeroDivisionError, match="the turn's own"):
        called(repeated, 1)
    assert not stream.is_capturing()


def test_nobody_waits_for_the_whole_device_while_something_is_recorded(recorded, stream, monkeypatch):
    def held(given, out):
        seen.append((stream.record is not None, recorded.still.locked()))
        twice(given, out)

    seen = []
    called(recorded.Repeated(held), 2)
    assert seen == [(False, False), (True, True)]
    monkeypatch.setattr(standin.Device, "synchronize", lambda: seen.append(recorded.still.locked()))
    for number in range(3):
        named(DEVICE).gatherer(np.full((2, 2, 2), number, np.uint8))
    assert seen[2:] == [True]


@pytest.mark.parametrize(
    ("ours", "of", "names"),
    [
        (standin_memory.Stream, "Stream", ["begin_capture", "end_capture", "is_capturing", "synchronize"]),
        (standin_memory.Graph, "Graph", ["launch"]),
        (standin_memory.MemoryPool, "MemoryPool", ["malloc", "free_all_blocks"]),
        (standin.Memory, "MemoryPointer", ["copy_from_device_async"]),
    ],
)
def test_cupy_takes_what_the_stand_in_takes(ours, of, names):
    cupy = pytest.importorskip("cupy", reason=test_device.LACKING)
    for name in names:
        # The first line of what a compiled method says of itself is its signature.
        said = getattr(getattr(cupy.cuda, of), name).__doc__.partition("\n")[0]
        inside = re.search(r"\((.*)\)", said)
        theirs = re.findall(r"(\w+)(?:=\w+)?(?:,|$)", inside[1])
        taken = list(inspect.signature(getattr(ours, name)).parameters)
        assert theirs[: len(taken)] == taken, said
        assert "=" in said or len(theirs) == len(taken), said


@pytest.mark.parametrize(
    "refused",
    [
        lambda there: there.get(),
        lambda there: bool(there[0] > 0),
        lambda there: standin.asarray(np.ones(2)),
        lambda there: np.concatenate([there] * 9),
        lambda there: standin_memory.current().synchronize(),
        lambda there: standin.Device.synchronize(),
        lambda there: standin_memory.malloc(8),
    ],
)
def test_the_stand_in_refuses_what_cuda_does(stream, refused):
    there = array(1.0)
    refused(there)
    # Its memory is there then.
    there.copy()
    stream.begin_capture()
    made = there + there
    with pytest.raises(standin_memory.CUDARuntimeError, match="StreamCaptureUnsupported"):
        refused(there)
    with pytest.raises(RuntimeError, match="Invalidated"):
        made.copy()
    with pytest.raises(RuntimeError, match="invalidated"):
        stream.end_capture()
    with pytest.raises(RuntimeError, match="Invalidated"):
        standin_memory.end_capture_of(stream.ptr)
    assert (there + there).get() == 2


def test_the_stand_in_does_nothing_until_it_is_launched(stream):
    there, out = array(1.0, 2.0), array(0.0, 0.0)
    there.copy()
    stream.begin_capture()
    out[...] = there + there
    graph = stream.end_capture()
    assert out.get().tolist() == [0.0, 0.0]
    there[...] = 5
    graph.launch()
    assert out.get().tolist() == [10.0, 10.0]
