"""How values on a device leave their process: to another device where the connection can, else by the host."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
import standin
from distributed.protocol import deserialize, serialize, to_serialize
from distributed.protocol.core import dumps, loads
from distributed.protocol.cuda import cuda_deserialize, cuda_serialize
from test_resident import on_a_device, state

from ffdask.blocks import Published, plain
from ffdask.carried import FAMILIES, Resident
from ffdask.layer import LayerState
from ffdask.resident import on_device


@cuda_serialize.register(standin.ndarray)
def _written(x):
    """As Dask does with CuPy's arrays: their bytes, where they are."""
    return {"shape": x.shape, "dtype": x.dtype.str}, [x.reshape(-1).view(np.uint8)]


@cuda_deserialize.register(standin.ndarray)
def _read(header, frames):
    return frames[0].view(np.dtype(header["dtype"])).reshape(header["shape"])


@pytest.fixture
def untouched():
    standin.waits.clear()
    yield
    assert not standin.waits, "a value went by way of the host"


def outcome():
    """A step's pieces, as a worker has them."""
    passed = on_a_device([np.arange(6, dtype=np.float32).reshape(2, 3), np.ones((0, 3), np.float32)])
    pieces = {"state": on_a_device(state()), "activities": passed, "rows": [np.arange(3), "host"]}
    return {piece: Resident(value) for piece, value in pieces.items()} | {"record": {"rows": 2}}


def the_same(found, of_device: bool):
    """Whether these are the pieces of `outcome`."""
    assert isinstance(found["state"], LayerState)
    assert found["state"].steps == 0
    arrays = [*found["state"].arrays().values(), *found["activities"]]
    assert {on_device(array) for array in arrays} == {of_device}
    expected = [*state().arrays().values(), np.arange(6, dtype=np.float32).reshape(2, 3), np.ones((0, 3), np.float32)]
    for array, one in zip(arrays, expected, strict=True):
        np.testing.assert_array_equal(array.get() if of_device else array, one, strict=True)
    assert found["rows"][0].tolist() == [0, 1, 2]
    assert found["rows"][1] == "host"


def values(pieces):
    assert pieces["record"] == {"rows": 2}
    return {piece: value for piece, value in pieces.items() if piece != "record"}


def test_over_a_connection_of_devices_arrays_go_as_they_are(untouched):
    """As a worker answers another one: pieces in a message, its frames sent one by one."""
    frames = dumps({"data": to_serialize(outcome())}, serializers=FAMILIES)
    sent = [frame for frame in frames if on_device(frame)]
    assert len(sent) == len(state().arrays()) + 2
    found = values(loads(frames, deserializers=FAMILIES)["data"])
    standin.waits.clear()
    assert all(type(value) is Resident for value in found.values())
    the_same({piece: value.value for piece, value in found.items()}, of_device=True)
    standin.waits.clear()


def test_what_came_goes_on_in_the_same_way(untouched):
    found = Resident(on_a_device(state()))
    for _ in range(3):
        header, frames = serialize(found, serializers=FAMILIES)
        assert header["serializer"] == "cuda"
        found = deserialize(header, frames, deserializers=FAMILIES)
    assert on_device(found.value.weights)


def test_over_any_other_connection_they_are_the_hosts():
    frames = dumps({"data": to_serialize(outcome())}, serializers=("dask", "pickle"))
    assert not [frame for frame in frames if on_device(frame)]
    the_same(values(loads(frames, deserializers=("dask", "pickle"))["data"]), of_device=False)


def test_whoever_is_sent_one_can_read_it(untouched):
    """A worker that has done no step yet has imported nothing of ours: the header alone must do."""
    header, _ = serialize(Resident({"rows": [np.arange(3)]}), serializers=FAMILIES)
    _, frames = serialize(Resident({"rows": [np.arange(3)]}), serializers=FAMILIES)
    text = "import pickle, sys; from distributed.protocol import deserialize; "
    text += "print(deserialize(*pickle.load(sys.stdin.buffer)).value)"
    given = pickle.dumps((header, [bytes(frame) for frame in frames]))
    found = subprocess.run([sys.executable, "-c", text], input=given, capture_output=True, check=True)
    assert found.stdout.decode().strip() == "{'rows': [array([0, 1, 2])]}"


def test_a_resident_value_is_itself_here_and_the_hosts_elsewhere():
    value = on_a_device(state())
    resident = Resident(value)
    assert resident.value is value
    assert isinstance(resident, Published)
    sent = pickle.loads(pickle.dumps(resident))
    for found in (sent, plain(resident)):
        assert isinstance(found, LayerState)
        for name, array in state().arrays().items():
            assert isinstance(found.arrays()[name], np.ndarray)
            np.testing.assert_array_equal(found.arrays()[name], array, strict=True)
