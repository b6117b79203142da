"""Values that stay in the process where they were made: a federated node's negatives, probabilities and activities.

Dask moves results as it sees fit: to a reader, off a worker that retires, to the client that asks. What is `Kept`
nobody can move, since it cannot be pickled; a reader in the same process gets it by reference.
"""

from __future__ import annotations

from typing import Any, NoReturn

from dask.sizeof import sizeof

from ffdask.errors import RunFailed

_stowed: dict[str, Kept] = {}


class Kept:
    """A value that does not leave its process.

    Parameters
    ----------
    value : object
    what : str
        For the message of whoever tries.
    """

    __slots__ = ("value", "what")

    def __init__(self, value: Any, what: str) -> None:
        self.value, self.what = value, what

    def __reduce__(self) -> NoReturn:
        raise RunFailed(f"{self.what} stays on its node: nothing but states and figures may leave it")

    def __sizeof__(self) -> int:
        # Dask asks, to know how full a worker is.
        return sizeof(self.value)


def stow(outcome: dict[str, Any], piece: str, name: str) -> bool:
    """Lay an outcome's piece aside in this process, under a name."""
    _stowed[name] = outcome[piece]
    return True


def recall(piece: str, name: str) -> dict[str, Any]:
    """Return what was stowed under a name, as an outcome, once: a task without ancestors.

    Raises
    ------
    RunFailed
        If it is not in this process, which was another one then.
    """
    kept = _stowed.pop(name, None)
    if kept is None:
        raise RunFailed(f"{name} was lost with its worker: what stays on a node has no copy elsewhere; start again")
    return {piece: kept}


def drop(prefix: str) -> None:
    """Forget whatever was stowed under a name that begins with `prefix` and was never recalled."""
    for name in [name for name in _stowed if name.startswith(prefix)]:
        del _stowed[name]
