"""A GPU: one training step by shape, against PyTorch with CUDA graphs; and the paper's largest runs at their full size.

A step is `step.py`'s: rows through a hidden layer, its loss, its update, the activities passed on. Ours is timed as a
run has it, recorded as a CUDA graph once and replayed, and launched kernel by kernel; PyTorch's, written by hand and
without autograd, is captured in a CUDA graph and replayed. Times are by the GPU's own events. Of the whole runs,
utilisation and memory are what `nvidia-smi` says twice a second. PyTorch is not a dependency: `pip install torch`, or
--without-torch.

python benchmarks/gpu.py --json gpu.json
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from side_by_side import arguments, median, show, train, where

from ffdask import machine
from ffdask.accelerator import described, unusable
from ffdask.kernels import DEVICE, Precision, named
from ffdask.layer import Activities, LayerRecipe, Optimizer, Trainee, initial_state
from ffdask.objectives import OBJECTIVES

SHAPES = ("1000x1000x200", "2000x2000x128", "2000x2000x200")
GRAPHS = Path(__file__).parents[1] / "graphs" / "paper" / "mnist"
RUNS = ("random-softmax-single-layer", "performance-optimised-all-heads")
STEPS = 100
Loop = Callable[[], Any]


def ours(shape: str, precision: Precision, recorded: bool) -> Loop:
    """Return `STEPS` steps of ffdask's own training code, as a CUDA graph or kernel by kernel."""
    inputs_, width, rows = map(int, shape.split("x"))
    kernels, optimizer = named(DEVICE, precision), Optimizer()
    trainee = Trainee(
        initial_state(0, 2, inputs_, width, optimizer), LayerRecipe(), optimizer, OBJECTIVES["goodness"], kernels
    )
    x = np.random.default_rng(0).standard_normal((rows, inputs_), dtype=np.float32)
    batch, rates = Activities(kernels.here(x)), kernels.rates([1.0] * STEPS, 0)
    (passed,) = kernels.empty(((rows, width), np.float32))

    def turn(rate: Any, out: Any) -> None:
        y, goodness, _ = trainee.forward(batch)
        kernels.normalise(y, goodness, out)
        trainee.learn(batch, y, goodness, rate)

    learn = trainee.repeated(turn) if recorded else turn

    def loop() -> None:
        for rate in rates:
            learn(rate, passed)

    return loop


def theirs(shape: str, precision: Precision) -> Loop:
    """Return the same in PyTorch: one step captured in a CUDA graph, and replayed."""
    import torch

    inputs, width, rows = map(int, shape.split("x"))
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    kind, n, recipe, optimizer = (
        torch.bfloat16 if precision == "bfloat16" else torch.float32,
        rows // 2,
        LayerRecipe(),
        Optimizer(),
    )
    rate, keep, decay = optimizer.learning_rate, optimizer.momentum, optimizer.weight_decay
    on = {"device": "cuda"}
    x, weights = torch.randn(rows, inputs, **on), torch.randn(inputs, width, **on) / inputs**0.5
    bias, running, sums = torch.zeros(width, **on), torch.full((width,), 0.5, **on), torch.zeros(4, **on)
    moment, moment_of_bias = torch.zeros_like(weights), torch.zeros_like(bias)
    sign = torch.cat([-torch.ones(n, **on), torch.ones(n, **on)])
    passed = torch.empty(rows, width, **on)

    def step() -> None:
        y = torch.relu((x.to(kind) @ weights.to(kind)).float() + bias)
        goodness = (y * y).sum(1)
        torch.div(y, ((goodness / width).sqrt() + 1e-8)[:, None], out=passed)
        margin = sign * (goodness - width)
        # What the history needs, added up where it is.
        sums[0] += torch.nn.functional.softplus(margin).sum()
        sums[1] += goodness[:n].sum()
        sums[2] += goodness[n:].sum()
        sums[3] += (margin > 0).sum()
        scale = sign * torch.sigmoid(margin) * (2 / n)
        running.mul_(recipe.peer_momentum).add_(y[:n].mean(0), alpha=1 - recipe.peer_momentum)
        dz = torch.addcmul((running - running.mean()) * (recipe.peer / n), y, scale[:, None])
        if kind == torch.float32:
            moment.addmm_(x.t(), dz, beta=keep, alpha=1 - keep)
        else:
            moment.mul_(keep).add_(x.t().to(kind) @ dz.to(kind), alpha=1 - keep)
        moment_of_bias.mul_(keep).add_(dz.sum(0), alpha=1 - keep)
        weights.mul_(1 - rate * decay).add_(moment, alpha=-rate)
        bias.add_(moment_of_bias, alpha=-rate)

    side = torch.cuda.Stream()
    with torch.no_grad(), torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        step()

    def loop() -> None:
        for _ in range(STEPS):
            graph.replay()

    return loop


def milliseconds(loop: Loop, torch_: bool, rounds: int) -> float:
    """Return the median time of a step, by the GPU's events."""
    if torch_:
        import torch as library

        def event() -> Any:
            return library.cuda.Event(enable_timing=True)

        def between(first: Any, last: Any) -> float:
            return float(first.elapsed_time(last))
    else:
        import cupy as library

        event, between = library.cuda.Event, library.cuda.get_elapsed_time
    times = []
    with nullcontext() if torch_ else named(DEVICE).working():
        loop()
        for _ in range(rounds):
            first, last = event(), event()
            first.record()
            loop()
            last.record()
            last.synchronize()
            times.append(between(first, last) / STEPS)
    return median(times)


class Watched:
    """What ``nvidia-smi`` says of the first GPU meanwhile: mean utilisation in percent, most memory in MiB."""

    def __enter__(self) -> Watched:
        self.seen: list[tuple[float, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        asked = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits", "--id=0"]
        while not self._stop.wait(0.5):
            said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
            used, memory = map(float, said.split(","))
            self.seen.append((used, memory))

    def figures(self) -> tuple[float, float]:
        """Return both; zeros if the run was over before it was asked."""
        used = [each for each, _ in self.seen] or [0.0]
        return sum(used) / len(used), max([memory for _, memory in self.seen], default=0.0)


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--shapes", nargs="*", default=SHAPES, metavar="INPUTSxUNITSxROWS")
    parser.add_argument(
        "--precisions", nargs="+", default=["float32", "tf32", "bfloat16"], choices=["float32", "tf32", "bfloat16"]
    )
    parser.add_argument("--runs", nargs="*", default=RUNS, help="graphs under graphs/paper/mnist")
    parser.add_argument("--scale", type=float, default=1.0, help="of the runs' widths and epochs")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each step's loop")
    parser.add_argument("--without-torch", action="store_true")
    given = parser.parse_args()
    if why := unusable():
        print(f"benchmarks/gpu.py: {why}", file=sys.stderr)
        raise SystemExit(2)
    rows: list[list[Any]] = []
    for shape in given.shapes:
        for precision in given.precisions:
            with named(DEVICE).working():
                loops = [ours(shape, precision, recorded) for recorded in (True, False)]
            own, launched = (milliseconds(loop, False, given.rounds) for loop in loops)
            other = None if given.without_torch else milliseconds(theirs(shape, precision), True, given.rounds)
            rows.append([f"step, {shape}", precision, f"{own:.4f}", f"{launched:.4f}", *_beside(own, other)])
    note = f"{described()}; {where({'fingerprint': machine.fingerprint()})}"
    columns = ["step", "precision", "ffdask, ms", "kernel by kernel, ms", "PyTorch, graph, ms", "PyTorch / ffdask"]
    show("one training step on a GPU", columns, rows, note, given.json)
    runs: list[list[Any]] = []
    for name in given.runs:
        for precision in given.precisions:
            flags = ["--device", "gpu", "--precision", precision, "--scale", str(given.scale)]
            with Watched() as watched:
                summary = train(str(GRAPHS / f"{name}.toml"), *flags)
            used, memory = watched.figures()
            accuracy, seconds = f"{100 * summary['test_accuracy']:.2f}", f"{summary['train_seconds']:.1f}"
            runs.append([name, precision, accuracy, seconds, f"{used:.0f}", f"{memory:.0f}"])
    columns = ["run", "precision", "test accuracy, %", "train seconds", "GPU busy, %", "GPU memory, MiB"]
    to = given.json.with_stem(f"{given.json.stem}-runs") if given.json else None
    show(f"whole runs, scale {given.scale:g}", columns, runs, note, to)


def _beside(own: float, other: float | None) -> list[str]:
    return ["", ""] if other is None else [f"{other:.4f}", f"{other / own:.2f}"]


if __name__ == "__main__":
    main()
