"""Objectives: a layer's own loss, and its derivative by what the layer says of each row. Two kinds.

`Paired`: ``loss(positive, negative, threshold) -> (loss, derivative)``, on goodness.

- positive, negative (n,): goodness of the positive and of the negative rows.
- threshold (float): the layer's theta.
- loss (float): summed over each kind's rows, divided by the number n of positive rows.
- derivative (2n,): of the loss, by the positive rows' goodness, then the negative rows'.

`Scored`: ``loss(logits, labels) -> (loss, derivative)``, on the class scores of the layer's own softmax head.

- logits (n, classes).
- labels (n,): true classes.
- loss (float): mean over the rows.
- derivative (n, classes): of the loss, by the logits.

A new objective is one file here and one line in `OBJECTIVES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffdask.objectives.classifier import classifier
from ffdask.objectives.goodness import goodness
from ffdask.objectives.symba import symba

Array = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Paired:
    """An objective that compares positive with negative rows.

    Attributes
    ----------
    loss : callable
    by_threshold : bool
        Whether a row is wrong on the wrong side of the threshold, rather than on the wrong side of its partner.
    device : str
        The kernel that computes it on a device; empty: there it is computed on the host, minibatch by minibatch.
    """

    loss: Callable[[Array, Array, float], tuple[float, Array]]
    by_threshold: bool = True
    device: str = ""


@dataclass(frozen=True)
class Scored:
    """An objective that needs no negative rows: each layer has a softmax head of its own."""

    loss: Callable[[Array, Labels], tuple[float, Array]]


Objective = Paired | Scored

OBJECTIVES: dict[str, Objective] = {
    "goodness": Paired(goodness, device="pairs_goodness"),
    "symba": Paired(symba, by_threshold=False, device="pairs_symba"),
    "classifier": Scored(classifier),
}
"""Objectives by the name that the configuration uses."""
