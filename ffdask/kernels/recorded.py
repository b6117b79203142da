"""A turn that is called again and again: recorded once, as a CUDA graph, and replayed.

Small kernels take longer to launch, one after the other from Python, than to run. The first call launches them as they
are: what is to be compiled is compiled, and the turn's memory is found. The second is recorded, which launches nothing,
and from then on a call is copies into arrays that stay, the graph, and copies out of others.

A graph knows its arrays by their addresses. So what a turn makes on its way lies in a pool of the graph's own, where
nothing else comes to lie, and which is filled by the first call: while recording, it has no more to give.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import cupy

from ffdask.errors import told
from ffdask.resident import moved

if TYPE_CHECKING:
    from ffdask.kernels import Turn

still = threading.Lock()
"""Held while something is recorded, and by who waits for the whole device: CUDA lets nobody do so meanwhile."""

_log = logging.getLogger(__name__)


TRIES = 3
"""To record a turn: what it takes of its pool may come to lie otherwise once, and then there is more to take."""


class _Lender:
    """Gives a graph's pool memory of the process's own pool, which has it back when the graph goes."""

    def __init__(self) -> None:
        self._more, self.closed = cupy.cuda.get_allocator(), False

    def __call__(self, size: int) -> Any:
        if self.closed:
            raise MemoryError("the minibatch took more memory than the one before it")
        return self._more(size)


class Repeated:
    """A turn, called for one minibatch after the other, on one stream.

    Parameters
    ----------
    turn : callable
        As `ffdask.kernels.Turn` has it.
    """

    def __init__(self, turn: Turn) -> None:
        self._turn, self._lender = turn, _Lender()
        self._pool = cupy.cuda.MemoryPool(self._lender)
        self._pattern: Any = None
        self._graph: Any = None
        self._read: list[Any] = []
        self._written: list[Any] = []
        self._tries = 0

    def __call__(self, given: Any, out: Any) -> None:
        """Do a turn: another shape than before, as of the last minibatch, is launched as it is."""
        (read, of_given), (written, of_out) = _parts(given), _parts(out)
        pattern = of_given, of_out
        if self._graph is None and self._tries < TRIES:
            if pattern == self._pattern:
                self._record(given, out)
            self._pattern = pattern
        if self._graph is None or pattern != self._pattern:
            with cupy.cuda.using_allocator(self._pool.malloc):
                self._turn(given, out)
        else:
            _copy(read, self._read)
            self._graph.launch()
            _copy(self._written, written)

    def _record(self, given: Any, out: Any) -> None:
        """Record the turn; where that cannot be, say so: nothing was launched, and all is as it was."""
        given, out = moved(given, _like), moved(out, _like)
        self._tries += 1
        try:
            self._graph = self._recorded(given, out)
        except Exception as error:
            # CUDA, cuBLAS and CuPy have many ways to refuse. What is wrong with the turn itself, its launches will say.
            if self._tries == TRIES:
                _log.warning("a layer's minibatches are launched kernel by kernel, not as a graph: %s", told(error))
        else:
            self._read, self._written = _parts(given)[0], _parts(out)[0]

    def _recorded(self, given: Any, out: Any) -> Any:
        stream = cupy.cuda.get_current_stream()
        with still, cupy.cuda.using_allocator(self._pool.malloc):
            self._lender.closed = True
            try:
                stream.begin_capture()
                self._turn(given, out)
                return stream.end_capture()
            except BaseException:
                # Until a capture has its end, nothing can be launched there.
                with suppress(Exception):
                    cupy.cuda.runtime.streamEndCapture(stream.ptr)
                raise
            finally:
                self._lender.closed = False


def _parts(value: Any) -> tuple[list[Any], Any]:
    """Return a value's arrays, and what else it is: equal for another value that can be treated alike."""
    found: list[Any] = []

    def part(array: Any) -> tuple[Any, ...]:
        found.append(array)
        return array.shape, array.dtype.str

    return found, moved(value, part)


def _like(array: Any) -> Any:
    return cupy.empty(array.shape, array.dtype)


def _copy(sources: list[Any], targets: list[Any]) -> None:
    for source, target in zip(sources, targets, strict=True):
        if not (source.flags.c_contiguous and target.flags.c_contiguous):
            target[...] = source
        elif source.nbytes:
            target.data.copy_from_device_async(source.data, source.nbytes)
