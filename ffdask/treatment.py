"""What a classifier does to samples before a network sees them: vectors are standardised, images stay as they are.

A network sees only the direction of its input, since rows are normalised to one length. So a vector gets one more
value, 1, the deviation of any other: then the direction tells the whole vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffdask.datasets.rows import stored_type, taken
from ffdask.errors import BadInput

FARTHEST = 1e6
"""Standard deviations at which a value is cut: the square of one much farther out is no float32."""

ROWS = 4096
"""That are standardised at a time, in float64."""


@dataclass(frozen=True)
class Treatment:
    """What is done to samples; small, picklable, and in need of NumPy only.

    Attributes
    ----------
    shape : tuple of int
        Of one sample: (features,), (height, width) or (height, width, channels).
    dtype : str
        Of what a network gets: ``"float32"``, or for images of integers ``"uint8"``.
    mean, scale : (features,) float64 or None
        Of vectors; None for images.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    mean: NDArray[np.float64] | None = None
    scale: NDArray[np.float64] | None = None

    @property
    def shape_after(self) -> tuple[int, ...]:
        """The shape of a sample as a network gets it."""
        return self.shape if self.mean is None else (self.shape[0] + 1,)

    @classmethod
    def of_images(cls, shape: tuple[int, ...], dtype: Any) -> Treatment:
        """Return the treatment of images of `shape`: integers 0 to 255, or floats as they are."""
        return cls(tuple(map(int, shape)), _stored(dtype))

    @classmethod
    def of_vectors(cls, mean: NDArray[Any], scale: NDArray[Any]) -> Treatment:
        """Return the treatment of vectors with these means and standard deviations (features,)."""
        return cls(mean.shape, "float32", np.array(mean, np.float64), np.array(scale, np.float64))

    def __call__(self, samples: NDArray[Any]) -> NDArray[Any]:
        """Return samples (n, *shape) as a network takes them: (n, *shape_after) of `dtype`.

        Raises
        ------
        BadInput
            If a value is not finite, or no pixel; or images are of integers where those learned from were of floats, or
            the other way round.
        """
        if self.mean is not None and self.scale is not None:
            after = np.ones((len(samples), *self.shape_after), np.float32)
            for start in range(0, len(samples), ROWS):
                block = slice(start, start + ROWS)
                standard = taken((samples[block] - self.mean) / self.scale, "X", "value", start)
                np.clip(standard, -FARTHEST, FARTHEST, out=after[block, :-1])
            return after
        if _stored(samples.dtype) != self.dtype:
            learned = "integers 0 to 255" if self.dtype == "uint8" else "floats"
            raise BadInput(
                f"X holds images of type {samples.dtype}, but those learned from were of {learned}: convert them"
            )
        return taken(samples.astype(np.float32) if samples.dtype.kind == "b" else samples, "X", "pixel")


def _stored(dtype: Any) -> str:
    # Of two levels: as floats, so that they are not 0 and 1 of 255.
    return "float32" if np.dtype(dtype).kind == "b" else str(stored_type(dtype))
