"""Images shifted by a few pixels [FF]: each row, each visit, by its own draw; zeros come in from the border."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def drawn(n: int, pixels: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return by how many pixels each of n images is shifted (2, n): up and to the left, from -`pixels` to `pixels`."""
    shifts: NDArray[np.int64] = generator.integers(0, 2 * pixels + 1, (2, n)) - pixels
    return shifts


def shifted(images: NDArray[Any], pixels: int, generator: np.random.Generator) -> NDArray[Any]:
    """Return images, each shifted by up to `pixels` in both directions, all shifts equally likely.

    Parameters
    ----------
    images : (n, height, width) or (n, height, width, channels)
    pixels : int
        0 returns `images` itself, with nothing drawn.
    generator : numpy.random.Generator
        Drawn from once for each direction.

    Examples
    --------
    >>> images = np.arange(1, 10).reshape(1, 3, 3)
    >>> shifted(images, 0, np.random.default_rng(0)) is images
    True
    >>> shifted(images, 1, np.random.default_rng(0)).shape
    (1, 3, 3)
    """
    if not pixels:
        return images
    n, height, width = images.shape[:3]
    down, right = drawn(n, pixels, generator) + pixels
    padded = np.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels), *[(0, 0)] * (images.ndim - 3)))
    out = np.empty_like(images)
    for top in range(2 * pixels + 1):
        for left in range(2 * pixels + 1):
            rows = np.flatnonzero((down == top) & (right == left))
            out[rows] = padded[rows, top : top + height, left : left + width]
    return out
