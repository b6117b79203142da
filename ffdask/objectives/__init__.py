"""Objectives: a layer's own loss, and its derivative by the goodness of each row.

An objective is a function ``(positive, negative, threshold) -> (loss, derivative)``:

positive, negative : (n,)
    Goodness of the positive and of the negative rows.
threshold : float
    The layer's theta.
loss : float
    Summed over each kind's rows, divided by the number n of positive rows.
derivative : (2n,)
    Of the loss, by the positive rows' goodness, then the negative rows'.

A new objective is one file here and one line in `OBJECTIVES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffdask.objectives.goodness import goodness

Array = NDArray[np.floating[Any]]
Objective = Callable[[Array, Array, float], tuple[float, Array]]

OBJECTIVES: dict[str, Objective] = {"goodness": goodness}
"""Objectives by the name that the configuration uses."""
