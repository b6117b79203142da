"""One training step by shape, kernels, precision and optimiser, against PyTorch doing the same, and against the floor.

Positive and negative rows through a hidden layer: product, bias, ReLU, goodness, the loss's derivative, peer
normalisation, the weights' and the bias' moving average (or Adam), the normalised activities that are passed on; one
thread each, in turns. PyTorch's loop is written by hand (no autograd), in place, in float32 with the moving average
inside the gradient's product; and the same compiled. In bfloat16 it does what autocast does, with fewer casts: the two
products of bfloat16 factors and with bfloat16 results, from which it goes on; ours have float32 results. The floor is
the two products and one pass over weights, moments and gradient. PyTorch is not a dependency: `pip install torch`;
bfloat16 needs `pip install 'ffdask[bfloat16]'`.

python benchmarks/step.py --shapes 2000x2000x128 --optimizers momentum adam --precisions float32 bfloat16
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
from floor import Place
from side_by_side import arguments, median, show, where

from ffdask import machine
from ffdask.kernels import BACKENDS, Precision, named
from ffdask.layer import Activities, LayerRecipe, Optimizer, Trainee, initial_state
from ffdask.objectives import OBJECTIVES

SHAPES = ("1000x1000x200", "2000x2000x128", "2000x2000x200")
Step = Callable[[], Any]


def ours(shape: str, backend: str, optimizer: Optimizer, precision: Precision) -> Step:
    """Return a step of ffdask's own training code."""
    place, kernels = Place(shape), named(backend, precision)
    state = initial_state(0, 2, place.inputs, place.width, optimizer)
    trainee = Trainee(state, LayerRecipe(), optimizer, OBJECTIVES["goodness"], kernels)
    inputs = Activities(place.x)

    def step() -> None:
        y, goodness, _ = trainee.forward(inputs)
        kernels.normalise(y, goodness)
        trainee.learn(inputs, y, goodness, 1.0)

    return step


def theirs(shape: str, optimizer: Optimizer, precision: Precision, compiled: bool) -> Step:
    """Return the same step in PyTorch."""
    import torch

    place, recipe = Place(shape), LayerRecipe()
    state = initial_state(0, 2, place.inputs, place.width, optimizer)
    weights, bias, running = (torch.tensor(array) for array in (state.weights, state.bias, state.running_mean))
    moments = [torch.zeros_like(weights), torch.zeros_like(bias)]
    squares = [torch.zeros_like(weights), torch.zeros_like(bias)]
    x, n, theta = torch.tensor(place.x), place.rows // 2, float(place.width)
    rate, keep, decay = optimizer.learning_rate, optimizer.momentum, optimizer.weight_decay
    sign = torch.cat([-torch.ones(n), torch.ones(n)])
    at, rounds = {"step": 0}, precision == "bfloat16"

    def multiplied(a: Any, b: Any) -> Any:
        return a.bfloat16() @ b.bfloat16() if rounds else a @ b

    def before(x: Any, weights: Any, bias: Any, running: Any) -> tuple[Any, ...]:
        y = torch.relu(multiplied(x, weights) + bias.bfloat16() if rounds else torch.addmm(bias, x, weights))
        goodness = (y * y).sum(1, dtype=torch.float32)
        margin = sign * (goodness - theta)
        loss = torch.nn.functional.softplus(margin).sum() / n
        scale = sign * torch.sigmoid(margin) * (2 / n)
        moved = recipe.peer_momentum * running + (1 - recipe.peer_momentum) * y[:n].mean(0, dtype=torch.float32)
        peer = (moved - moved.mean()) * (recipe.peer / n)
        dz = torch.addcmul(peer.to(y.dtype), y, scale[:, None].to(y.dtype))
        h = y / ((goodness / theta).sqrt() + 1e-8)[:, None].to(y.dtype)
        return dz, dz.sum(0, dtype=torch.float32), moved, h, loss

    def average(weights: Any, moment: Any, gradient: Any, decay: float) -> None:
        if gradient is not None:
            moment.mul_(keep).add_(gradient, alpha=1 - keep)
        weights.mul_(1 - rate * decay).add_(moment, alpha=-rate)

    def adam(weights: Any, first: Any, second: Any, gradient: Any, decay: float, size: Any, correction: Any) -> None:
        first.mul_(0.9).add_(gradient, alpha=0.1)
        second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        weights.mul_(1 - rate * decay).sub_(size * first / ((second / correction).sqrt() + 1e-8))

    if compiled:
        before, average, adam = torch.compile(before), torch.compile(average), torch.compile(adam)

    def step() -> None:
        nonlocal running
        with torch.no_grad():
            dz, by_bias, running, _, loss = before(x, weights, bias, running)
            float(loss)  # the history needs it
            if optimizer.name == "momentum":
                if not rounds:
                    moments[0].addmm_(x.t(), dz, beta=keep, alpha=1 - keep)
                average(weights, moments[0], multiplied(x.t(), dz) if rounds else None, decay)
                average(bias, moments[1], by_bias, 0.0)
                return
            at["step"] += 1
            size = torch.tensor(rate / (1 - 0.9 ** at["step"]))
            correction = torch.tensor(1 - 0.999 ** at["step"])
            adam(weights, moments[0], squares[0], multiplied(x.t(), dz), decay, size, correction)
            adam(bias, moments[1], squares[1], by_bias, 0.0, size, correction)

    return step


def floor(shape: str, optimizer: Optimizer, precision: Precision) -> Step:
    """Return the two products and the optimiser's pass, alone."""
    place, kernels = Place(shape, precision), named("numba")
    second = np.zeros_like(place.weights)

    def step() -> None:
        place.products()
        if optimizer.name == "momentum":
            place.passed()
        else:
            kernels.adam(place.weights, (place.moment, second), place.gradient, 0.01, 3, 0.002)

    return step


@contextlib.contextmanager
def one_thread(torch: bool) -> Iterator[None]:
    """Hold every library at one thread."""
    with machine.one_thread():
        if torch:
            import torch as library

            library.set_num_threads(1)
        yield


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="INPUTSxUNITSxROWS")
    parser.add_argument("--optimizers", nargs="+", default=["momentum"], choices=["momentum", "adam"])
    parser.add_argument("--precisions", nargs="+", default=["float32"], choices=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=9, help="turns; each is ten steps of every loop")
    parser.add_argument("--without-torch", action="store_true")
    given = parser.parse_args()
    rows: list[list[Any]] = []
    with one_thread(not given.without_torch):
        for shape in given.shapes:
            for name, precision in product(given.optimizers, given.precisions):
                optimizer = Optimizer(name=name)
                loops = {"floor": floor(shape, optimizer, precision)}
                loops |= {backend: ours(shape, backend, optimizer, precision) for backend in BACKENDS}
                if not given.without_torch:
                    loops["torch"] = theirs(shape, optimizer, precision, False)
                    loops["compiled"] = theirs(shape, optimizer, precision, True)
                rows.append([shape, name, precision, *compared(loops, given.rounds)])
    columns = ["shape", "optimizer", "precision", "floor, ms", *(f"{backend}, ms" for backend in BACKENDS)]
    columns += [] if given.without_torch else ["torch, ms", "torch.compile, ms"]
    columns += ["over the floor"] + ([] if given.without_torch else ["torch's best / ours"])
    show("one training step, one thread", columns, rows, where({"fingerprint": machine.fingerprint()}), given.json)


def compared(loops: dict[str, Step], rounds: int) -> list[Any]:
    """Return each loop's median milliseconds a step, ours over the floor, and PyTorch's best over ours."""
    times: dict[str, list[float]] = {name: [] for name in loops}
    for loop in loops.values():
        for _ in range(3):
            loop()
    for _ in range(rounds):
        for name, loop in loops.items():
            begun = time.perf_counter()
            for _ in range(10):
                loop()
            times[name].append((time.perf_counter() - begun) * 100)
    own = BACKENDS[0]
    figures: list[Any] = [median(each) for each in times.values()]
    figures.append(f"{median([a / b for a, b in zip(times[own], times['floor'], strict=True)]):.3f}")
    if "torch" in times:
        best = min(("torch", "compiled"), key=lambda name: median(times[name]))
        figures.append(f"{median([a / b for a, b in zip(times[best], times[own], strict=True)]):.3f}")
    return figures


if __name__ == "__main__":
    main()
