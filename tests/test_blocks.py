from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffdask import blocks
from ffdask.blocks import Gone, Published, Reference
from ffdask.errors import RunFailed

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="blocks are memfds, which this system lacks")

LARGE = (2000, 300)
READER = """
    import pickle, sys
    from ffdask import blocks

    def said(*words):
        print(*words, flush=True)

    value = pickle.loads(sys.stdin.buffer.read(int(sys.stdin.buffer.readline()))).value
    said(value.flags.writeable, float(value.sum()))
"""


@pytest.fixture(autouse=True)
def sharing():
    """This process shares; afterwards nothing is left, in memory or open."""
    blocks.probe()
    before = open_files()
    blocks.begin()
    yield
    blocks.end()
    gc.collect()
    assert not blocks._idle
    assert len(blocks._own) == 1
    assert open_files() == before


def open_files():
    return len(os.listdir("/proc/self/fd"))


class Reader:
    """Another process that has mapped an array, and does as it is told."""

    def __init__(self, array, *then):
        code = textwrap.dedent(READER) + "\n".join(f"sys.stdin.readline(); {line}" for line in then)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]
        )
        sent = pickle.dumps(Published(array))
        self.process.stdin.write(f"{len(sent)}\n".encode() + sent)
        self.process.stdin.flush()
        self.heard = self.hear()

    def hear(self):
        return self.process.stdout.readline().decode().strip()

    def tell(self):
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        return self.hear()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


def filled(value, shape=LARGE):
    (array,) = blocks.empty((shape, np.float32))
    array.fill(value)
    return array


def of(array):
    """The block that an array is in."""
    return blocks._memory_of(array)[1]


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 40), max_size=3), st.sampled_from(["u1", "f4", "f8", "i2"])), min_size=1)
)
def test_arrays_of_a_block_do_not_overlap_and_are_as_wanted(wanted):
    wanted = [*wanted, (LARGE, "f4")]
    arrays = blocks.empty(*wanted)
    assert [(array.shape, array.dtype) for array in arrays] == [(tuple(s), np.dtype(d)) for s, d in wanted]
    for number, array in enumerate(arrays):
        assert array.flags.writeable
        assert array.__array_interface__["data"][0] % 64 == 0
        array.fill(number)
    assert all((array == number).all() for number, array in enumerate(arrays))


def test_copies_are_private_writable_and_in_one_block():
    first, second = np.arange(300_000, dtype=np.float32), np.ones((3, 4))
    first.setflags(write=False)
    a, b = blocks.copied(first, second)
    assert (a == first).all()
    assert (b == second).all()
    assert of(a) is of(b)
    a[0], b[0] = 7, 7
    assert first[0] == 0
    assert second[0, 0] == 1


def test_small_arrays_and_those_of_a_process_that_does_not_share_are_ordinary():
    assert blocks._memory_of(blocks.empty(((10, 10), "f4"))[0]) is None
    blocks.end()
    assert blocks._memory_of(blocks.empty((LARGE, "f4"))[0]) is None
    blocks.begin()


def test_what_moves_is_where_an_array_is_and_the_same_process_gets_the_same_memory():
    array, small = filled(3), np.arange(5)
    sent = pickle.dumps(Published({"large": array, "small": small, "part": array[10:20], "turned": array.T}))
    # All but the turned one, which has an order of its own, and goes by value.
    assert 4 * array.size < len(sent) < 4 * array.size + 2000
    found = pickle.loads(sent).value
    assert np.shares_memory(found["large"], array)
    assert np.shares_memory(found["part"], array)
    assert (found["part"] == 3).all()
    assert (found["turned"] == 3).all()
    assert (found["small"] == small).all()


def test_another_process_maps_it_and_cannot_write():
    array = filled(2)
    with Reader(array, "value[0] = 1") as reader:
        assert reader.heard == f"False {2.0 * array.size}"
        reader.tell()
        assert reader.process.wait(30) == 1  # ValueError: read-only
    assert (array == 2).all()


def test_a_reader_hands_it_on(tmp_path):
    array, file = filled(5), tmp_path / "handed"
    dump = f"open({str(file)!r}, 'wb').write(pickle.dumps(blocks.Published(value))); said('done')"
    with Reader(array, dump) as reader:
        reader.tell()
        assert file.stat().st_size < 1000
        # By its token it is known to be a block of this process.
        assert np.shares_memory(pickle.loads(file.read_bytes()).value, array)


def test_a_block_is_used_again_once_nobody_reads_it():
    array = filled(1)
    file = of(array).file
    with Reader(array, "said(float(value.sum()))", "del value; said('gone')") as reader:
        del array
        other = filled(2)
        assert of(other).file != file
        assert reader.tell() == str(float(np.prod(LARGE)))
        assert reader.tell() == "gone"
        assert of(filled(3)).file == file


def test_a_reader_that_is_killed_lets_go():
    array = filled(1)
    file = of(array).file
    with Reader(array) as reader:
        os.kill(reader.process.pid, signal.SIGKILL)
        reader.process.wait()
    del array
    assert of(filled(2)).file == file


def test_what_a_killed_process_wrote_stays_for_its_readers_and_then_goes(tmp_path):
    sent = tmp_path / "sent"
    code = f"""
        import pickle, time, numpy as np
        from ffdask import blocks
        blocks.begin()
        array, = blocks.empty(({LARGE}, np.float32))
        array.fill(4)
        open({str(sent)!r}, "wb").write(pickle.dumps(blocks.Published(array)))
        print("ready", flush=True)
        time.sleep(60)
    """
    writer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE)
    assert writer.stdout.readline() == b"ready\n"
    array = pickle.loads(sent.read_bytes()).value
    writer.kill()
    writer.communicate()
    assert (array == 4).all()
    # As long as it is mapped here, its reference leads here; after that nowhere.
    assert np.shares_memory(pickle.loads(sent.read_bytes()).value, array)
    del array
    with pytest.raises(Gone, match=f"a block of process {writer.pid} is gone"):
        pickle.loads(sent.read_bytes())


def test_a_reference_is_void_once_its_block_is_used_for_something_else():
    array = filled(1)
    sent, file = pickle.dumps(Published(array)), of(array).file
    del array
    again = filled(2)
    assert of(again).file == file
    with pytest.raises(Gone, match="used for something else"):
        pickle.loads(sent)


def test_nothing_but_a_block_is_opened(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    file = os.open(pipe, os.O_RDWR)
    try:
        for number in (file, 99_999):
            with pytest.raises(Gone):
                blocks.attach(Reference(os.getpid(), number, 4096, bytes(16)))
    finally:
        os.close(file)


def test_memory_that_can_never_be_mapped_fails_the_step_that_reads_it(monkeypatch):
    array = filled(1)
    sent = pickle.dumps(Published(array))
    blocks._by_token.clear()

    def refused(*_):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refused)
        found = pickle.loads(sent)
    with pytest.raises(RunFailed, match=r"cannot be mapped: .*Permission denied"):
        _ = found.value
    with pytest.raises(RunFailed, match="cannot be mapped"):
        _ = pickle.loads(pickle.dumps(found)).value


def test_no_files_left_means_ordinary_memory(monkeypatch):
    def none_left(*_, **__):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(blocks.mmap, "mmap", none_left)
    assert blocks._memory_of(filled(1)) is None


def test_a_child_process_does_not_use_what_its_parent_has():
    array = filled(1)
    number = os.fstat(of(array).file).st_ino
    del array
    child = os.fork()
    if not child:
        blocks.begin()
        os._exit(10 + (os.fstat(of(filled(9)).file).st_ino == number))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 10
    assert os.fstat(of(filled(2)).file).st_ino == number


def test_a_block_cannot_shrink_under_its_readers():
    array = filled(1)
    with pytest.raises(PermissionError):
        os.ftruncate(of(array).file, 0)


def test_no_more_blocks_than_files_allow(monkeypatch):
    monkeypatch.setattr(blocks, "MOST", len(blocks._own) + 2)
    arrays = [filled(n) for n in range(4)]
    assert [blocks._memory_of(array) is not None for array in arrays] == [True, True, False, False]
    assert all((array == n).all() for n, array in enumerate(arrays))
    # By value, then.
    assert (pickle.loads(pickle.dumps(Published(arrays[3]))).value == 3).all()


def test_few_are_kept_for_their_next_use():
    arrays = [filled(n) for n in range(blocks.IDLE + 5)]
    del arrays
    # At once, not with the next block: a worker that Dask has paused for its memory makes none.
    assert len(blocks._own) == 1 + blocks.IDLE


def test_who_can_map_what():
    own = blocks.probe()
    assert own == blocks.probe()
    assert blocks.out_of_reach([own]) == ""
    assert "can make no memfd" in blocks.out_of_reach([own, None])
    far = Reference(1, own.file, own.size, bytes(16))
    assert blocks.out_of_reach([own, far])


def test_a_system_without_memfd_goes_without(monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    assert blocks._memory_of(filled(1)) is None


def test_dockers_limit_does_not_hold_for_it():
    code = "from ffdask import blocks as b; b.begin(); b.empty(((8 << 20,), 'u1'))[0][:] = 1; print(len(b._own))"
    small = "mount -t tmpfs -o size=1m tmpfs /dev/shm 2>/dev/null || exit 77"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{small}; exec "{sys.executable}" -c "{code}"'], capture_output=True, text=True
    )
    if done.returncode == 77 or "Operation not permitted" in done.stderr:
        pytest.skip("no right to mount another /dev/shm here")
    assert done.stdout.strip() == "1"
