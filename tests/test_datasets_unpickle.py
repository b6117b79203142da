from __future__ import annotations

import builtins
import io
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffdask.datasets import pickle_scan, unpickle
from ffdask.errors import BadInput

ARRAY = np.arange(12, dtype=np.uint8).reshape(3, 4)


def load(content: bytes):
    return unpickle.load(content, "batch")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i4", "<u8", ">i8"])
@pytest.mark.parametrize("protocol", range(5))
def test_arrays_come_back(protocol, dtype, order):
    array = np.array(ARRAY.astype(dtype), order=order)
    got = load(pickle.dumps({b"data": array, "more": [1, "a", b"\xff", None, (2, -3)]}, protocol=protocol))
    np.testing.assert_array_equal(got["data"], array)
    assert got["data"].dtype == array.dtype
    assert got["more"] == [1, "a", b"\xff", None, (2, -3)]


class Calls:
    """Pickles to a call of anything."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
@pytest.mark.parametrize(
    "call", [os.system, builtins.eval, builtins.exec, builtins.getattr, subprocess.call, io.open, np.load]
)
def test_no_call_is_made(tmp_path, call, protocol):
    sprung = tmp_path / "sprung"
    argument = {io.open: str(sprung), np.load: str(sprung)}.get(call, f"open({str(sprung)!r}, 'w')")
    content = pickle.dumps({b"data": Calls(call, argument, *(["w"] if call is io.open else []))}, protocol=protocol)
    with pytest.raises(
        BadInput, match=r"batch is not a batch of CIFAR-10 \(it asks for .*, which is no part of an array\)"
    ):
        load(content)
    assert not sprung.exists()


NDARRAY = b"cnumpy\nndarray\n"
MADE = b"cnumpy.core.multiarray\n_reconstruct\n(" + NDARRAY + b"K\x00\x85U\x01btR"
U1 = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
BIG = b"\x8a\x08" + struct.pack("<q", 2**40)


def state(shape=b"K\x04\x85", dtype=U1, content=b"U\x04abcd", version=b"K\x01"):
    return MADE + b"(" + version + shape + dtype + b"\x89" + content + b"tb"


def in_dict(value: bytes) -> bytes:
    return b"\x80\x02}(U\x04data" + value + b"u."


def test_the_attacks_below_differ_from_a_good_pickle_in_one_thing():
    np.testing.assert_array_equal(load(in_dict(state()))["data"], np.frombuffer(b"abcd", np.uint8))


ATTACKS = {
    "reconstruct of terabytes": in_dict(MADE.replace(b"K\x00\x85", BIG + b"\x85") + b"0N"),
    "shape of terabytes": in_dict(state(BIG + b"\x85")),
    "shape that overflows": in_dict(state((b"\x8a\x08" + struct.pack("<q", 2**62)) * 3 + b"\x87")),
    "shape below zero": in_dict(state(b"J\xfc\xff\xff\xff\x85")),
    "two below zero": in_dict(state(b"J\xfe\xff\xff\xffJ\xfe\xff\xff\xff\x86")),
    "shape of nothing": in_dict(state(b")")),
    "shape of flags": in_dict(state(b"\x88\x85", content=b"U\x01a")),
    "shape of many": in_dict(state(b"(" + b"K\x01" * 65 + b"t", content=b"U\x01a")),
    "shape that is a list": in_dict(state(b"](K\x04e")),
    "content that is text": in_dict(state(content=b"X\x04\x00\x00\x00abcd")),
    "content that is a list": in_dict(state(content=b"](K\x01e")),
    "objects": in_dict(state(dtype=U1.replace(b"U\x02u1", b"U\x02O8"))),
    "a huge type": in_dict(state(dtype=U1.replace(b"U\x02u1", b"U\x0aV999999999"))),
    "fields": in_dict(state(dtype=U1.replace(b"U\x02u1", b"U\x05u1,u1"))),
    "type that is a string": in_dict(state(dtype=b"U\x02u1")),
    "byte order": in_dict(state(dtype=U1.replace(b"U\x01|", b"U\x01O"))),
    "state of an array that is short": in_dict(MADE + b"(K\x01tb"),
    "state of a name": in_dict(NDARRAY + b"}(U\x04nameU\x06encodeub"),
    "slots of a name": in_dict(NDARRAY + b"N}(U\x04nameU\x06encodeu\x86b"),
    "state of a dictionary": in_dict(b"}}(U\x05clearK\x01ub"),
    "the array's class called": in_dict(NDARRAY + BIG + b"\x85R"),
    "an array called": in_dict(MADE + b")R"),
    "another encoding": in_dict(b"c_codecs\nencode\n(X\x01\x00\x00\x00aU\x03hextR"),
    "encoding of bytes": in_dict(b"c_codecs\nencode\n(U\x01aU\x06latin1tR"),
    "encode without arguments": in_dict(b"c_codecs\nencode\n)R"),
    "a name below an allowed one": in_dict(b"\x8c\x05numpy\x8c\x0fndarray.__new__\x93"),
    "names put together": in_dict(b"U\x02osU\x06system\x93"),
    "instance": b"(S'true'\nios\nsystem\n.",
    "new object": in_dict(NDARRAY + b")\x81"),
    "object": in_dict(b"(" + NDARRAY + b"o"),
    "persistent": in_dict(b"Pname\n"),
    "extension": in_dict(b"\x82\x01"),
    "frozen set and sets": in_dict(b"\x8f"),
    "duplicates": in_dict(b"K\x01" + b"2" * 10),
    "a long of megabytes": in_dict(b"\x8b" + struct.pack("<i", 2**20) + b"\xff" * 2**20),
    "memo bomb": b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b".",
    "memo bomb in text": b"}p4294967295\n.",
    "memo below zero": b"}p-1\n.",
    "memo of nothing": b"\x80\x02h\x09.",
    "bytes of terabytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"a.",
    "string of gigabytes": b"\x80\x02T" + struct.pack("<i", 2**31 - 1) + b"a.",
    "string below zero": b"\x80\x02T" + struct.pack("<i", -1) + b"a.",
    "frame of terabytes": b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"}.",
    "protocol of the future": b"\x80\x63}.",
    "number of a million digits": b"I" + b"9" * 10**6 + b"\n.",
    "tuples in tuples": b"\x80\x02)" + b"\x85" * 10**5 + b".",
    "tuples in tuples as a key": b"\x80\x02})" + b"\x85" * 10**5 + b"K\x01s.",
    "lists in lists": b"\x80\x02}(U\x04data" + b"]" * 10**5 + b"a" * (10**5 - 1) + b"u.",
    "calls in calls": b"\x80\x02" + (NDARRAY + b")") * 2000 + b"R" * 2000 + b".",
    "too many parts": b"\x80\x02](" + b"K\x01" * (pickle_scan.MOST_OPCODES + 10) + b"e.",
    "no dictionary": b"\x80\x02].",
    "key that is no text": b"\x80\x02}(K\x01K\x02u.",
    "key that is not ASCII": b"\x80\x02}(U\x01\xffK\x02u.",
    "key without hash": b"\x80\x02}(]K\x02u.",
    "end missing": b"\x80\x02}",
    "something after the end": b"\x80\x02}.}.",
    "stack empty": b"\x80\x02u.",
    "nothing": b"",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_refused_and_take_no_memory(name):
    content = ATTACKS[name]
    tracemalloc.start()
    try:
        with pytest.raises(BadInput, match="batch is not a batch of CIFAR-10") as caught:
            load(content)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**24 + 20 * len(content)
    assert len(str(caught.value)) < 500


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                *[value[2:-1] for value in ATTACKS.values() if len(value) < 200],
                state(),
                U1,
                MADE,
                b"(",
                b"t",
                b"b",
                b"R",
                b"u",
                b"s",
                b"0",
                b".",
            ]
        )
        | st.binary(max_size=6),
        max_size=8,
    )
)
def test_whatever_bytes_come_nothing_but_bad_input_is_raised(parts):
    try:
        found = load(b"\x80\x02" + b"".join(parts))
    except BadInput:
        return
    assert type(found) is dict


def test_a_batch_of_the_published_size_is_read():
    # Python 3 writes each file name of bytes as a call: thousands of them, none nested.
    images, labels = np.zeros((10_000, 32, 32, 3), np.uint8), [3] * 10_000
    got = load(pickle.dumps({b"data": images, b"labels": labels, b"filenames": [b"%d" % i for i in range(10**4)]}, 2))
    assert (got["data"].shape, len(got["labels"]), len(got["filenames"])) == ((10_000, 32, 32, 3), 10**4, 10**4)


def test_one_attack_leaves_the_next_pickle_as_it_was():
    for content in ATTACKS.values():
        if len(content) < 10**4:
            with pytest.raises(BadInput):
                load(content)
    np.testing.assert_array_equal(load(pickle.dumps({"data": ARRAY}, protocol=2))["data"], ARRAY)
    assert unpickle.Called.__slots__ == ("name",)


def test_many_tuples_deep_do_not_end_the_process():
    # In a process of its own: what is looked for here is a crash, not an exception.
    code = (
        "import sys; from ffdask.datasets import unpickle; from ffdask.errors import BadInput\n"
        "for depth in (40, 10**6):\n"
        "    for end in (b'.', b'K\\x01s.'):\n"
        "        try: unpickle.load(b'\\x80\\x02})' + b'\\x85' * depth + end, 'x')\n"
        "        except BadInput: print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, ["refused"] * 4), done.stderr
