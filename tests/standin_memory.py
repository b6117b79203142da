"""The stand-in's memory: what a driver would give, pools over it, and what is being recorded.

A pool gives the same bytes again, as CuPy's do, so that what was promised to nobody is overwritten. While a stream
records, launches are kept instead of done, and whatever CUDA refuses then raises, and spoils the recording.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import threading
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

UNIT = 512
"""Bytes that a pool's pieces are multiples of."""

graphs: Counter[str] = Counter()
"""Recordings begun, spoilt and ended, and graphs launched."""
_blocks: weakref.WeakValueDictionary[int, np.ndarray] = weakref.WeakValueDictionary()
_numbers = itertools.count(1)


class CUDARuntimeError(RuntimeError):
    """What the driver says."""


class _Thread(threading.local):
    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.allocator: Any = None


_thread = _Thread()


class Stream:
    """A stream that is done with each launch at once, or records it."""

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        self.ptr, self.record, self.spoilt = next(_numbers), None, False

    def __enter__(self) -> Stream:
        _thread.streams.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        _thread.streams.pop()

    def synchronize(self) -> None:
        waits["synchronize"] += 1
        refused("a stream is waited for")

    def is_capturing(self) -> bool:
        if self.spoilt:
            raise RuntimeError("the stream was capturing, but an error has invalidated the capture sequence")
        return self.record is not None

    def begin_capture(self, mode: Any = None) -> None:
        assert not self.is_capturing()
        assert self is current(), "CuPy launches in the current stream"
        graphs["begun"] += 1
        self.record = []
        _streams[self.ptr] = self

    def end_capture(self) -> Graph:
        if not self.is_capturing():
            raise RuntimeError("the stream is not capturing")
        record, self.record = self.record, None
        graphs["ended"] += 1
        return Graph(record)


_streams: weakref.WeakValueDictionary[int, Stream] = weakref.WeakValueDictionary()


class Graph:
    """Launches, done again each time."""

    def __init__(self, record: list[Callable[[], None]]) -> None:
        self._record = record

    def launch(self, stream: Any = None) -> None:
        refused("a graph is launched")
        graphs["launched"] += 1
        for launch in self._record:
            launch()


def end_capture_of(stream: int) -> None:
    found = _streams[stream]
    found.record, found.spoilt = None, False
    raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated: operation failed due to a previous error during capture")


def current() -> Stream | None:
    """The thread's stream."""
    return _thread.streams[-1] if _thread.streams else None


def recording() -> Any:
    """What the thread's stream records; None if it does not."""
    stream = current()
    if stream is not None and stream.spoilt:
        raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated")
    return stream.record if stream is not None else None


def refused(what: str) -> None:
    """Spoil what is being recorded, if anything is: CUDA does not do this meanwhile."""
    if recording() is not None:
        current().spoilt = True
        graphs["spoilt"] += 1
        raise CUDARuntimeError(f"cudaErrorStreamCaptureUnsupported: {what} while a stream is capturing")


def refused_anywhere(what: str) -> None:
    """The same for what concerns the whole device, and so what every thread records."""
    capturing = [stream for stream in list(_streams.values()) if stream.record is not None]
    for stream in capturing:
        stream.spoilt = True
    if capturing:
        raise CUDARuntimeError(f"cudaErrorStreamCaptureUnsupported: {what} while a stream is capturing")


# --- memory


class MemoryPointer:
    """Some bytes of a block, as long as this or an array over them is there."""

    def __init__(self, block: np.ndarray, back: Callable[[], None] | None = None) -> None:
        self.block, self.ptr = block, block.ctypes.data
        self.lease = (ctypes.c_char * len(block)).from_buffer(block)
        if back is not None:
            weakref.finalize(self.lease, back).atexit = False

    @property
    def mem(self) -> MemoryPointer:
        return self


def malloc(size: int) -> MemoryPointer:
    """The driver's own: it may wait for the whole device."""
    refused("memory is asked of the driver")
    block = np.empty(max(size, 1), np.uint8)
    _blocks[block.ctypes.data] = block
    return MemoryPointer(block)


class MemoryPool:
    """Pieces of the same size are used again, on the stream that had them."""

    def __init__(self, allocator: Any = malloc) -> None:
        self._allocator, self._free = allocator, defaultdict(list)

    def malloc(self, size: int) -> MemoryPointer:
        key = getattr(current(), "ptr", 0), max(1, -(-size // UNIT)) * UNIT
        try:
            below = self._free[key].pop()
        except IndexError:
            below = self._allocator(key[1]).mem
        return MemoryPointer(below.block, lambda: self._free[key].append(below))

    def free_all_blocks(self) -> None:
        self._free.clear()


pool = MemoryPool()
_everywhere: list[Any] = [pool.malloc]


def get_allocator() -> Any:
    return _thread.allocator or _everywhere[0]


def set_allocator(allocator: Any = None) -> None:
    _everywhere[0] = allocator or malloc


@contextlib.contextmanager
def using_allocator(allocator: Any = None) -> Iterator[None]:
    before, _thread.allocator = _thread.allocator, allocator or malloc
    try:
        yield
    finally:
        _thread.allocator = before


def unwritten(shape: Any, dtype: Any, order: str = "C") -> np.ndarray:
    """An array in memory of the current allocator, NaN where nobody has written."""
    dtype = np.dtype(dtype)
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    size = int(np.prod(shape, dtype=int)) * dtype.itemsize
    pointer = get_allocator()(size)
    host = np.frombuffer(pointer.lease, np.uint8)[:size].view(dtype).reshape(shape, order=order)
    do(lambda into: into.fill(np.nan if dtype.kind == "f" else 171), host)
    return host


def lasting(host: np.ndarray) -> np.ndarray:
    """The same bytes, which are not held against their pool: as a graph knows them, by their address."""
    address = host.ctypes.data
    for start, block in list(_blocks.items()):
        if start <= address < start + len(block):
            return np.ndarray(host.shape, host.dtype, block, address - start, host.strides)
    return host


def do(launch: Callable[..., None], *hosts: np.ndarray) -> None:
    """Launch something that reads and writes arrays: now, or when what is being recorded is launched."""
    record = recording()
    if record is None:
        launch(*hosts)
    else:
        kept = [lasting(host) for host in hosts]
        record.append(lambda: launch(*kept))


waits: Counter[str] = Counter()
