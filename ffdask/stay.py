"""Values that stay where they were made.

A federated node's negatives, probabilities and activities never leave its process. Dask moves results as it sees fit:
to a reader, off a worker that retires, to the client that asks. Of what is `Kept` only its name moves: a reader in the
same process gets the value, by reference; any other finds that it is `Away`.

Where the graph is cut, any worker's outcome stays, too: `recall` takes it out of the worker's own store, to be handed
out again.
"""

from __future__ import annotations

from typing import Any

from dask.sizeof import sizeof
from distributed import get_worker

from ffdask.errors import Lost


class Kept:
    """A value that does not leave its process.

    Parameters
    ----------
    value : object
    what : str
        Its name, for the message of whoever reads it elsewhere.
    """

    __slots__ = ("value", "what")

    def __init__(self, value: Any, what: str) -> None:
        self.value, self.what = value, what

    def __reduce__(self) -> tuple[type[Away], tuple[str]]:
        # Not an error: Dask would try again for ever, and a worker that retires would never be let go.
        return Away, (self.what,)

    def __sizeof__(self) -> int:
        # Dask asks, to know how full a worker is.
        return sizeof(self.value)


class Away:
    """What is left of a kept value in any other process: its name.

    Parameters
    ----------
    what : str
    """

    __slots__ = ("what",)

    def __init__(self, what: str) -> None:
        self.what = what

    @property
    def value(self) -> Any:
        """Raise Lost: the value is not here."""
        raise Lost(f"{self.what} stays on its node: nothing but states and figures may leave it")

    def __reduce__(self) -> tuple[type[Away], tuple[str]]:
        return Away, (self.what,)


async def recall(key: str, piece: str) -> dict[str, Any]:
    """Return one piece of an outcome that this worker has under a key, as an outcome: a task without ancestors.

    By reference, and nothing of it goes anywhere. As a coroutine, so that it runs where Dask itself looks after the
    worker's results.

    Raises
    ------
    Lost
        If this worker has it no more: it is another one, under the same name.
    """
    outcome = get_worker().data.get(key)
    if outcome is None:
        raise Lost(f"{key} was lost with the worker that had it")
    return {piece: outcome[piece]}
