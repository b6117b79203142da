"""A trained network's answers to samples as they are given: labels, and a probability for each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffdask import machine
from ffdask.kernels import named
from ffdask.layer import LayerState
from ffdask.network import Network
from ffdask.objectives.classifier import softmax
from ffdask.treatment import Treatment


@dataclass(frozen=True)
class Predictor:
    """All that a worker needs to answer a block of samples.

    Attributes
    ----------
    network : Network
    classifier : str
        By which it answers.
    treatment : Treatment
    classes : (classes,)
        What the network's classes are called.
    """

    network: Network
    classifier: str
    treatment: Treatment
    classes: NDArray[Any]

    @classmethod
    def of(cls, network: Network, classifier: str, treatment: Treatment, classes: NDArray[Any]) -> Predictor:
        """Return the answers of `network`, without what only its training needs: half of the size, or less."""
        states = tuple(replace(state, moments=()) for state in network.states)
        return cls(replace(network, states=states), classifier, treatment, classes)

    def labels(self, samples: NDArray[Any]) -> NDArray[Any]:
        """Return the label (n,) of each sample: that of the largest score, the first of equal ones."""
        return np.asarray(self.classes[self._scores(samples).argmax(axis=1)])

    def probabilities(self, samples: NDArray[Any]) -> NDArray[np.float64]:
        """Return each class's probability (n, classes), rows summing to 1.

        By a head, or the mean of heads, they are its own; by goodness the softmax of the classes' scores.
        """
        scores = self._scores(samples)
        return np.asarray(softmax(scores) if self.classifier == "goodness" else scores)

    def _scores(self, samples: NDArray[Any]) -> NDArray[Any]:
        # In float64, so that what a sample is told does not depend on which others are asked about beside it.
        with machine.one_thread():
            return _wide(self.network).scores(self.treatment(samples), self.classifier, named("numpy"))


def _wide(network: Network) -> Network:
    """Return the network in float64."""

    def wide(state: Any) -> Any:
        if state is None:
            return None
        parts = {"weights": state.weights.astype(np.float64)}
        if isinstance(state, LayerState):
            parts |= {"bias": state.bias.astype(np.float64), "head": wide(state.head)}
        return replace(state, **parts)

    return replace(network, states=tuple(map(wide, network.states)), head=wide(network.head))
