"""The one source of random numbers.

Every draw is named: (seed, purpose, where). A generator lives for one draw only, never across steps, so a draw
depends on its name and on nothing that ran before it, on whichever worker.
"""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, purpose: str, *where: int) -> np.random.Generator:
    """Return the counter-based generator of one named draw.

    Parameters
    ----------
    seed : int
        The run's seed.
    purpose : str
        What is drawn: ``"deal"``, ``"order"``, ``"negatives"``, ``"init"``...
    *where : int
        Which of them: (epoch, chunk), or (layer,).

    Returns
    -------
    numpy.random.Generator
        Philox, keyed by a hash of the name: equal names give equal draws on every machine.

    Examples
    --------
    >>> bool((generator(0, "order", 3, 7).permutation(5) == generator(0, "order", 3, 7).permutation(5)).all())
    True
    """
    name = "\x00".join([str(int(seed)), purpose, *(str(int(index)) for index in where)])
    key = hashlib.blake2b(name.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
