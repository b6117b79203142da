"""Memory that processes of one host share: an array is written once, where it stays, and mapped by whoever reads it.

A block is a memfd: pages without a name in any folder. Nobody deletes it. The kernel frees its pages when the last
process that has it open lets go or dies, so a SIGKILL leaves nothing; and what bounds it is the memory of the machine
(or container), not the size of ``/dev/shm``, which Docker sets to 64 MB.

New pages cost more than writing to them, so a block whose arrays are gone is used again, unless somebody still reads
it. Two things see to that, both without a message between processes:

- A reader holds a shared lock on the block while it has it mapped; the kernel takes it back when the reader dies. The
  owner uses a block again only if it gets the lock alone.
- A block begins with a random token, new for each use. A reference carries it, and is void once it has changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import math
import mmap
import os
import pickle
import secrets
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ffdask.errors import RunFailed

Anything = NDArray[Any]

SMALLEST = 1 << 20
"""Bytes from which arrays get a block: smaller ones are as fast in a message."""

MOST = 128
"""Blocks of its own that a process has at a time; each is two open files."""

IDLE = 4
"""Blocks that are kept for their next use; two layers' turns overlap."""

_LINK = "/memfd:ffdask (deleted)"
_TOKEN = 16
_START = mmap.PAGESIZE
"""Where a block's arrays begin; the token is before them."""


class Gone(OSError):
    """A reference names a block that is not there any more: Dask asks again, and is given another."""


@dataclass(frozen=True)
class Reference:
    """What another process needs to map a block."""

    process: int
    file: int
    size: int
    token: bytes


class _Memory:
    """A block as this process has it mapped; closes its file in the end."""

    def __init__(self, file: int, size: int, writes: bool) -> None:
        self.file, self.size, self.token = file, size, b""
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writes else 0)
        options: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
        self.map = mmap.mmap(file, size, mmap.MAP_SHARED, access, **options)

    def __del__(self) -> None:
        # A reader in another process keeps the pages as long as it needs them.
        os.close(self.file)

    def root(self, then: Callable[[int, _Memory], None]) -> Anything:
        """Return the array of all bytes, of which the block's arrays are views; `then` is called when all are gone."""
        root = np.ndarray((self.size,), np.uint8, self.map)
        _roots[id(root)] = (weakref.ref(root), self)
        _by_token[self.token] = root
        weakref.finalize(root, then, id(root), self).atexit = False
        return root


_lock = threading.Lock()
_users = 0
_idle: list[_Memory] = []
_returned: deque[_Memory] = deque()
_own: weakref.WeakSet[_Memory] = weakref.WeakSet()
_roots: dict[int, tuple[weakref.ref[Anything], _Memory]] = {}
_by_token: weakref.WeakValueDictionary[bytes, Anything] = weakref.WeakValueDictionary()
_probe: _Memory | None = None


def begin() -> None:
    """Have this process put large arrays into blocks, until every `begin` has had its `end`."""
    global _users
    with _lock:
        _users += 1


def end() -> None:
    """Undo one `begin`; the last one lets go of the blocks that nothing uses."""
    global _users
    with _lock:
        _users -= 1
        if not _users:
            _collect()


def shared() -> bool:
    """Return whether this process shares."""
    return _users > 0


def empty(*wanted: tuple[Sequence[int], DTypeLike]) -> list[Anything]:
    """Return new arrays of the shapes and dtypes `wanted`: in one block if this process shares and they are large."""
    sizes = [math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in wanted]
    places = np.cumsum([0, *(-(-size // 64) * 64 for size in sizes)])
    root = _block(_START + int(places[-1])) if _users and places[-1] >= SMALLEST else None
    if root is None:
        return [np.empty(shape, dtype) for shape, dtype in wanted]
    parts = (root[_START + place :][:size] for place, size in zip(places, sizes, strict=False))
    return [part.view(dtype).reshape(shape) for part, (shape, dtype) in zip(parts, wanted, strict=True)]


def copied(*arrays: Anything) -> list[Anything]:
    """Return writable copies of arrays, in one block if this process shares and they are large."""
    copies = empty(*((array.shape, array.dtype) for array in arrays))
    for copy, array in zip(copies, arrays, strict=True):
        np.copyto(copy, array)
    return copies


class Published:
    """A value whose arrays may be in blocks: what moves to another process is where they are.

    Parameters
    ----------
    value : object
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Any, tuple[Any]]:
        written = io.BytesIO()
        _Pickler(written, pickle.HIGHEST_PROTOCOL).dump(self.value)
        return _read, (written.getvalue(),)

    def plain(self) -> Any:
        """Return the value itself."""
        return self.value


class _Unreadable(Published):
    """A published value that this process cannot map, and never will: asking again would be of no use."""

    __slots__ = ("why",)

    def __init__(self, why: str) -> None:
        self.why = why

    @property
    def value(self) -> Any:
        """Raise RunFailed: the value is not here."""
        raise RunFailed(f"shared memory of another process cannot be mapped: {self.why}")

    def __reduce__(self) -> tuple[Any, tuple[Any]]:
        return _Unreadable, (self.why,)


def plain(value: Any) -> Any:
    """Return a value itself, whether it is published or not."""
    return value.plain() if isinstance(value, Published) else value


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        """Write an array that is in a block as where it is."""
        found = _memory_of(value) if isinstance(value, np.ndarray) else None
        if found is None:
            return NotImplemented
        base, memory = found
        offset = value.__array_interface__["data"][0] - base.__array_interface__["data"][0]
        reference = Reference(os.getpid(), memory.file, memory.size, memory.token)
        return _array, (reference, offset, value.shape, value.dtype)


def _read(written: bytes) -> Published:
    try:
        return Published(pickle.loads(written))
    except Gone:
        raise
    except OSError as error:
        # Too many files, no memory, no right. Dask would take it for a lost connection, and try for ever.
        return _Unreadable(str(error))


def _array(reference: Reference, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Anything:
    size = math.prod(shape) * dtype.itemsize
    array = attach(reference)[offset : offset + size].view(dtype).reshape(shape)
    array.setflags(write=False)
    return array


def attach(reference: Reference) -> Anything:
    """Return all bytes of a block, read-only unless it is this process's own.

    Raises
    ------
    Gone
        If it is not there, or used for something else by now.
    OSError
        If this process cannot map it.
    """
    root = _by_token.get(reference.token)
    if root is not None:
        return root
    path = f"/proc/{reference.process}/fd/{reference.file}"
    try:
        # Looked at before it is opened: another file under this number might be a device, or wait for a writer.
        if os.readlink(path) != _LINK:
            raise Gone(f"{path} is no block")
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise Gone(f"a block of process {reference.process} is gone: {error}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        # Until the token has been seen it might be any block, of any size.
        if os.fstat(file).st_size != reference.size or os.pread(file, _TOKEN, 0) != reference.token:
            raise Gone("it is used for something else")
    except OSError as error:
        os.close(file)
        raise Gone(f"a block of process {reference.process} is gone: {error}") from error
    memory = _Memory(file, reference.size, writes=False)
    memory.token = reference.token
    return memory.root(_forget)


def probe() -> Reference | None:
    """Return a reference to a small block of this process, kept for good: who can map it can map the others."""
    global _probe
    with _lock:
        if _probe is None:
            made = _new(_START)
            if made is None:
                return None
            _use(made)
            _probe = made
        return Reference(os.getpid(), _probe.file, _probe.size, _probe.token)


def out_of_reach(references: Sequence[Reference | None]) -> str:
    """Return why this process cannot map one of `references`, empty if it can map them all."""
    for reference in references:
        if reference is None:
            return "a process can make no memfd"
        try:
            attach(reference)
        except OSError as error:
            return str(error)
    return ""


def _memory_of(array: Anything) -> tuple[Anything, _Memory] | None:
    base = array.base if isinstance(array.base, np.ndarray) else array
    seen, memory = _roots.get(id(base), (None, None))
    # Another array may have the id of one that is gone; and an order of its own is not written down.
    if seen is None or memory is None or seen() is not base or not array.flags.c_contiguous:
        return None
    return base, memory


def _block(size: int) -> Anything | None:
    """Return all bytes of a block that nobody uses, None if there can be no more."""
    with _lock:
        _collect()
        for index, memory in enumerate(_idle):
            if memory.size == size and _alone(memory):
                del _idle[index]
                break
        else:
            made = _new(size)
            if made is None:
                return None
            memory = made
        _use(memory)
        return memory.root(_return)


def _new(size: int) -> _Memory | None:
    if len(_own) >= MOST:
        return None
    try:
        file = os.memfd_create("ffdask", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except (OSError, AttributeError):
        # Not Linux, or no more files.
        return None
    try:
        os.ftruncate(file, size)
        # A block that could shrink could kill its readers.
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    except OSError:
        os.close(file)
        return None
    try:
        memory = _Memory(file, size, writes=True)
    except OSError:
        # It has closed its file.
        return None
    _own.add(memory)
    return memory


def _use(memory: _Memory) -> None:
    """Begin a block's next use: every reference to the one before is void."""
    memory.token = secrets.token_bytes(_TOKEN)
    memory.map[:_TOKEN] = memory.token


def _alone(memory: _Memory) -> bool:
    """Return whether nobody else has a block mapped."""
    try:
        fcntl.flock(memory.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    # A reader that comes now finds another token.
    memory.map[:_TOKEN] = bytes(_TOKEN)
    fcntl.flock(memory.file, fcntl.LOCK_UN)
    return True


def _return(root: int, memory: _Memory) -> None:
    # At any moment, on any thread, perhaps one that holds the lock: only noted here.
    _roots.pop(root, None)
    if _users:
        _returned.append(memory)
        with contextlib.suppress(IndexError):
            while len(_returned) > IDLE:
                _returned.popleft()


def _forget(root: int, memory: _Memory) -> None:
    _roots.pop(root, None)


def _forked() -> None:
    """Leave a child process nothing to use again: it is its parent's."""
    global _users, _probe, _lock
    _users, _probe, _lock = 0, None, threading.Lock()
    _idle.clear()
    _returned.clear()
    _own.clear()


os.register_at_fork(after_in_child=_forked)


def _collect() -> None:
    """Take back what was returned; keep the newest few."""
    while _returned:
        _idle.append(_returned.popleft())
    del _idle[: -IDLE if _users else None]
