"""How fast the kernels of this machine train: steps of a layer of a standard shape, on one thread and on all."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ffdask import draws
from ffdask.head import HeadRecipe
from ffdask.kernels import Backend, Precision, named
from ffdask.layer import Activities, LayerRecipe, Optimizer, Trainee, initial_state
from ffdask.objectives import OBJECTIVES

WIDTH, PAIRS = 1000, 100
"""Of the layer, and of its minibatch: the default graph's second layer."""

FLOPS = 2 * 2.0 * 2 * PAIRS * WIDTH * WIDTH
"""Of a step's products: forward and by weights, a multiplication and an addition each."""


@dataclass(frozen=True)
class Speed:
    """What was measured.

    Attributes
    ----------
    steps : int
    seconds : float
    threads : int
    """

    steps: int
    seconds: float
    threads: int

    @property
    def gflops(self) -> float:
        """Return GFLOP/s of the products, of all threads together."""
        return self.steps * FLOPS / self.seconds / 1e9


def measure(seconds: float, threads: int, kernels: Backend, precision: Precision = "float32") -> Speed:
    """Train a layer on each of `threads` threads for about so many `seconds`; return how far they came.

    Raises
    ------
    ArithmeticError
        If what was trained is not finite.
    """
    trainers = [_Trainer(number, kernels, precision) for number in range(threads)]
    for trainer in trainers:
        # What is compiled or loaded at the first step is not the speed.
        trainer.step()
    begun = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        steps = sum(pool.map(lambda trainer: trainer.until(begun + seconds), trainers))
    taken = time.perf_counter() - begun
    for trainer in trainers:
        now = trainer.trainee.now
        if not (np.isfinite(now.weights).all() and np.isfinite(now.bias).all()):
            raise ArithmeticError("a step's weights are not finite")
    return Speed(steps, taken, threads)


class _Trainer:
    """A layer in training on rows of noise."""

    def __init__(self, number: int, kernels: Backend, precision: Precision) -> None:
        rows = draws.generator(0, "speed", number).standard_normal((2 * PAIRS, WIDTH), dtype=np.float32)
        self.inputs, optimizer = Activities(np.abs(rows)), Optimizer()
        state = initial_state(0, 1, WIDTH, WIDTH, optimizer)
        self.trainee = Trainee(
            state, LayerRecipe(), optimizer, OBJECTIVES["goodness"], named(kernels, precision), HeadRecipe()
        )

    def step(self) -> None:
        y, goodness, _ = self.trainee.forward(self.inputs)
        self.trainee.learn(self.inputs, y, goodness, 1.0)

    def until(self, end: float) -> int:
        steps = 0
        while time.perf_counter() < end or not steps:
            self.step()
            steps += 1
        return steps
