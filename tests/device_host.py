"""The text of the GPU's kernels, built for the host: what stands in for a GPU in tests."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import re
import shutil
import subprocess
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
LACKING = "the GPU's kernels are built for the host, and there is no C++ compiler: apt-get install g++"
TEXT = Path(__file__).parent.parent / "ffdask" / "kernels" / "device.cu"
SHIM = Path(__file__).with_name("device_host.h")

MOST_THREADS = 64
"""Of a block: all of them must run at once, to wait for each other."""

_one_launch = threading.Lock()
_threads = ThreadPoolExecutor(MOST_THREADS, "block")


@functools.cache
def library(real: str) -> ctypes.CDLL:
    """Return the kernels for `real`, float or double; built once for a text, and kept among temporary files."""
    assert COMPILER, LACKING
    mark = hashlib.sha256(TEXT.read_bytes() + SHIM.read_bytes()).hexdigest()[:16]
    built = Path(tempfile.gettempdir()) / f"ffdask-device-{mark}-{real}.so"
    if not built.exists():
        draft = built.with_suffix(f".{threading.get_ident()}")
        options = ["-std=c++17", "-O1", "-shared", "-fPIC", "-pthread", f"-DREAL={real}", "-include", str(SHIM)]
        # No fused multiply-add, and nothing reordered: what is compared is the arithmetic as it is written.
        options += ["-ffp-contract=off", "-x", "c++", str(TEXT), "-o", str(draft)]
        subprocess.run([COMPILER, *options], check=True, capture_output=True, text=True)
        draft.replace(built)
    return ctypes.CDLL(str(built))


def launch(real: str, name: str, blocks: int, threads: int, given: tuple) -> None:
    """Run a kernel as a GPU would: of arrays it gets the address, of NumPy's scalars the value.

    A GPU would take whatever it is given: here numbers and types must be those of the kernel's text.
    """
    assert blocks >= 1 <= threads <= MOST_THREADS, f"{name}: {blocks} blocks of {threads} threads"
    shared, wanted = library(real), parameters(real)[name]
    assert len(given) == len(wanted), f"{name} takes {len(wanted)} arguments, not {len(given)}"
    arguments = [_argument(name, one, *kind) for one, kind in zip(given, wanted, strict=True)]
    kernel = getattr(shared, name)
    kernel.restype = None

    def run(block: int, thread: int) -> None:
        shared.host_enter(block, thread)
        kernel(*arguments)

    with _one_launch:
        shared.host_launch(blocks, threads)
        for block in range(blocks):
            if threads == 1:
                run(block, 0)
            else:
                list(_threads.map(functools.partial(run, block), range(threads)))


_TYPES = {
    "int": (np.int32, ctypes.c_int32),
    "long long": (np.int64, ctypes.c_int64),
    "float": (np.float32, ctypes.c_float),
    "double": (np.float64, ctypes.c_double),
    "unsigned": (np.float32, None),  # float32 by its bits
    "unsigned short": (np.uint16, None),
    "unsigned char": (np.uint8, None),
}


@functools.cache
def parameters(real: str) -> dict[str, list[tuple[str, bool]]]:
    """Return each kernel's parameters, by its name: the type, and whether a pointer."""
    found = {}
    for name, text in re.findall(r"^KERNEL (\w+)\(([^)]*)\)", TEXT.read_text(), re.MULTILINE):
        kinds = [re.fullmatch(r"\s*(?:const )?([\w ]+?)(\*?) \w+", one) for one in text.split(",")]
        assert all(kinds), text
        found[name] = [(real if kind[1] == "real" else kind[1], bool(kind[2])) for kind in kinds if kind]
    return found


def _argument(name: str, one: object, kind: str, pointer: bool) -> object:
    dtype, scalar = _TYPES[kind]
    if not pointer:
        # As CuPy does: a float of Python's is a double, an int is 64 bits wide.
        is_ = np.dtype({float: np.float64, int: np.int64}.get(type(one), getattr(one, "dtype", object)))
        assert is_ == dtype, f"{name}: {is_} for {kind}"
        assert scalar is not None
        return scalar(one.item() if isinstance(one, np.generic) else one)
    if isinstance(one, np.uint64):
        assert one == 0, f"{name}: an address by its number"
        return ctypes.c_void_p(None)
    assert one.dtype == dtype, f"{name}: an array of {one.dtype} for {kind}*"
    assert one.flags.c_contiguous, f"{name}: an array that does not lie row by row"
    return ctypes.c_void_p(one.data.ptr)
