"""Whose memory a GPU's arrays lie in: RMM's, where RAPIDS' memory manager is installed, else the driver's.

Either way CuPy pools it: asking for an array costs nothing then, whatever resource RMM is set to (its own default asks
the driver each time), and while a graph is recorded RMM is not asked.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import cupy


class _OfRmm:
    """A pool's source: when RMM has no more, the pool gives back what it keeps, and RMM is asked again."""

    def __init__(self, allocator: Any) -> None:
        self._allocator, self.pool = allocator, cupy.cuda.MemoryPool(self)

    def __call__(self, size: int) -> Any:
        try:
            return self._allocator(size)
        except MemoryError:
            # CuPy does so itself if the driver has no more, which says it in another way.
            self.pool.free_all_blocks()
            return self._allocator(size)


@cache
def settled() -> str:
    """Have CuPy's arrays lie in RMM's memory, if it is installed and nobody has set CuPy's allocator; say whose it is.

    Raises
    ------
    ImportError
        If RMM is installed, and lacks something.
    """
    if cupy.cuda.get_allocator() != cupy.get_default_memory_pool().malloc:
        return "an allocator that this process has set"
    try:
        rmm, allocators = (importlib.import_module(name) for name in ("rmm", "rmm.allocators.cupy"))
    except ModuleNotFoundError as error:
        if error.name != "rmm":
            raise
        return "CuPy's pool"
    cupy.cuda.set_allocator(_OfRmm(allocators.rmm_cupy_allocator).pool.malloc)
    return f"RMM {rmm.__version__}, pooled by CuPy"
