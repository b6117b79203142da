"""The default job written in PyTorch, three ways, each meant to win: what `run.py` compares ffdask with.

The same recipe: positive, negative (sampled) and neutral rows, peer normalisation, a head on the layers above the
first, images shifted by a pixel, the rate cooled down; by hand, in place, without autograd, the moving average inside
the gradient's product, layer one's product and its gradient's shared between the kinds of rows. PyTorch has all
cores. Random draws are PyTorch's own, so the bits are not ffdask's, but the mathematics is. In bfloat16 the factors of
the large products are, and their results, as under autocast, with no more casts than needed; all else is float32.

- `together`: all layers on each minibatch, the original loop [FF]. Above layer one all kinds of rows are one product.
- `compiled`: the same, what lies between the products compiled by `torch.compile`.
- `chapters`: layer after layer, chapter by chapter [PFF]; the activities are kept, and pushed in large blocks.

python benchmarks/torch_loops.py together --epochs 12
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from ffdask import datasets, machine
from ffdask.head import HeadState
from ffdask.kernels import named
from ffdask.layer import LayerState
from ffdask.network import Network

Tensor = torch.Tensor

RATE, KEEP, DECAY, PEER, EPSILON = 0.01, 0.9, 0.002, 0.03, 1e-8
HEAD_RATE, HEAD_DECAY = 0.1, 0.003
BLOCK = 3000
"""Rows that `chapters` pushes at a time."""


def between(z: Tensor, bias: Tensor, running: Tensor, sign: Tensor, pairs: int) -> tuple[Tensor, ...]:
    """Return what lies between a layer's two products: of rows positive, negative, and perhaps neutral.

    (derivative by the pre-activations of the first 2 `pairs` rows, its sum, running mean, all rows normalised)
    """
    width = z.shape[1]
    y = torch.relu(z + bias)
    goodness = (y * y).sum(1)
    h = y / ((goodness / width).sqrt() + EPSILON)[:, None]
    scale = sign * torch.sigmoid(sign * (goodness[: 2 * pairs] - width)) * (2 / pairs)
    running = 0.9 * running + 0.1 * y[:pairs].mean(0)
    dz = torch.addcmul((running - running.mean()) * (PEER / pairs), y[: 2 * pairs], scale[:, None])
    # In the products' own precision, for the next ones: no cast of theirs is needed.
    return dz.to(z.dtype), dz.sum(0), running, h.to(z.dtype)


def normalised(z: Tensor, bias: Tensor) -> Tensor:
    """Return a layer's normalised activities."""
    y = torch.relu(z + bias)
    return (y / (((y * y).sum(1) / y.shape[1]).sqrt() + EPSILON)[:, None]).to(z.dtype)


def overlaid(product: Tensor, table: Tensor, labels: Tensor, squares: Tensor, share: Tensor) -> Tensor:
    """Return layer one's pre-activations of positive, negative and neutral rows, from the pixels' one product."""
    neutral = table.mean(0)
    true, mild = ((squares + 1) / 784).sqrt() + EPSILON, ((squares + share) / 784).sqrt() + EPSILON
    pairs = (product.repeat(2, 1) + table[labels]) / true.repeat(2)[:, None]
    return torch.cat([pairs, (product + neutral) / mild[:, None]]).to(product.dtype)


def moved(weights: Tensor, moment: Tensor, rate: float, decay: float) -> None:
    """Move weights by the moving average of their gradient."""
    weights.mul_(1 - rate * decay).add_(moment, alpha=-rate)


def moved_in_one(weights: Tensor, moment: Tensor, rate: Tensor, decay: float) -> None:
    """Move weights as `moved`, to be compiled: a rate that is a number would be compiled in, anew for each."""
    weights.mul_(1 - rate * decay).sub_(rate * moment)


class Net:
    """Layers, head and data; each method is a piece of a loop."""

    def __init__(self, layers: list[int], given: argparse.Namespace, epochs: int, compiled: bool) -> None:
        dataset = datasets.obtain("mnist")
        images, labels = datasets.load(dataset.path, "train")
        self.dataset, self.generator = dataset, torch.Generator().manual_seed(given.seed)
        self.images, self.labels = torch.from_numpy(np.array(images)), torch.from_numpy(np.array(labels)).long()
        self.n, self.epochs, self.batch = len(self.labels), epochs, given.batch
        self.kind = getattr(torch, given.precision)
        sizes = zip((784, *layers), layers, strict=False)
        self.weights = [torch.randn(a, b, generator=self.generator) / math.sqrt(a) for a, b in sizes]
        self.biases = [torch.zeros(width) for width in layers]
        self.moments = [torch.zeros_like(weights) for weights in self.weights]
        self.bias_moments = [torch.zeros_like(bias) for bias in self.biases]
        self.running = [torch.full((width,), 0.5) for width in layers]
        self.read = list(range(min(1, len(layers) - 1), len(layers)))
        self.head = torch.zeros(sum(layers[i] for i in self.read), 10)
        self.head_moment = torch.zeros_like(self.head)
        self.probabilities = torch.full((self.n, 10), 0.1)
        self.between, self.overlaid, self.normalised = between, overlaid, normalised
        self.moved: Callable[..., None] = moved
        self.as_rate: Callable[[float], Any] = float
        if compiled:
            self.between, self.overlaid = torch.compile(between), torch.compile(overlaid)
            self.moved, self.as_rate = torch.compile(moved_in_one), torch.tensor

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """Return a product in the loop's precision."""
        return a.to(self.kind) @ b.to(self.kind)

    def pull(self, layer: int, a: Tensor, dz: Tensor) -> None:
        """Move a layer's moment by the gradient, a product too."""
        if self.kind == torch.float32:
            self.moments[layer].addmm_(a.t(), dz, beta=KEEP, alpha=1 - KEEP)
        else:
            self.moments[layer].mul_(KEEP).add_(self.product(a.t(), dz), alpha=1 - KEEP)

    def negatives(self, rows: Tensor) -> Tensor:
        """Return wrong labels, drawn in proportion to what the head gave the rows last."""
        weights = self.probabilities[rows].scatter_(1, self.labels[rows][:, None], 0) + 1e-20
        return torch.multinomial(weights, 1, generator=self.generator)[:, 0]

    def shifted(self, rows: Tensor) -> Tensor:
        """Return images (n, 784), each shifted by up to a pixel, in [0, 1], the label's place cleared."""
        padded = torch.nn.functional.pad(self.images[rows], (1, 1, 1, 1))
        down, right = torch.randint(0, 3, (2, len(rows), 1, 1), generator=self.generator)
        i, j = torch.arange(28)[None, :, None], torch.arange(28)[None, None, :]
        x = padded[torch.arange(len(rows))[:, None, None], down + i, right + j].reshape(len(rows), 784).float() / 255
        x[:, :10] = 0
        return x

    def factor(self, seen: int) -> float:
        """Return what the rate is of its first value after so many rows."""
        return min(1.0, 2 * (1 - seen / (self.n * self.epochs)))

    def minibatches(self, first: int, count: int) -> Iterator[tuple[Tensor, float]]:
        """Yield rows and the rate's factor of `count` rows from row `first` of all that the run sees."""
        for start in range(first, first + count, self.batch):
            epoch, within = divmod(start, self.n)
            if start == first or within == 0:
                order = torch.randperm(self.n, generator=torch.Generator().manual_seed(epoch))
            yield order[within : within + self.batch], self.factor(start)

    def enter(self, x: Tensor, truth: Tensor, wrong: Tensor) -> Tensor:
        """Return layer one's pre-activations of all three kinds of rows."""
        product, labels = self.product(x, self.weights[0]), torch.cat([truth, wrong])
        return self.overlaid(product, self.weights[0][:10], labels, (x * x).sum(1), torch.tensor(0.1))

    def first_gradient(self, x: Tensor, dz: Tensor, labels: Tensor) -> None:
        """Move layer one's moment: the pixels of both kinds of rows are the same, the labels are ten rows."""
        n = len(x)
        scaled = dz.float() / (((x * x).sum(1) + 1) / 784).sqrt().add_(EPSILON).repeat(2)[:, None]
        self.pull(0, x, scaled[:n] + scaled[n:])
        self.moments[0][:10].index_add_(0, labels, scaled, alpha=1 - KEEP)

    def update(self, layer: int, by_bias: Tensor, factor: float) -> None:
        """Move a layer by its moments."""
        self.bias_moments[layer].mul_(KEEP).add_(by_bias, alpha=1 - KEEP)
        rate = self.as_rate(RATE * factor)
        self.moved(self.weights[layer], self.moments[layer], rate, DECAY)
        self.moved(self.biases[layer], self.bias_moments[layer], rate, 0.0)

    def teach(self, read: Tensor, rows: Tensor, factor: float) -> None:
        """Train the head on neutral rows; record what it gave them before."""
        read = read.float()
        p = torch.softmax(read @ self.head, 1)
        self.probabilities[rows] = p
        p[torch.arange(len(rows)), self.labels[rows]] -= 1
        self.head_moment.addmm_(read.t(), p, beta=KEEP, alpha=(1 - KEEP) / len(rows))
        self.head_moment.add_(self.head, alpha=(1 - KEEP) * HEAD_DECAY)
        self.head.add_(self.head_moment, alpha=-HEAD_RATE * factor * self.weights[-1].shape[1] / 1000)

    def network(self) -> Network:
        """Return the network as ffdask evaluates it."""
        states = [
            LayerState(w.numpy(), b.numpy(), (m.numpy(), d.numpy()), r.numpy())
            for w, b, m, d, r in zip(
                self.weights, self.biases, self.moments, self.bias_moments, self.running, strict=True
            )
        ]
        return Network(tuple(states), HeadState(self.head.numpy(), self.head_moment.numpy()), 10)


def together(net: Net) -> None:
    """Train all layers on each minibatch."""
    for rows, factor in net.minibatches(0, net.n * net.epochs):
        n, read = len(rows), []
        sign = torch.cat([-torch.ones(n), torch.ones(n)])
        x, truth = net.shifted(rows), net.labels[rows]
        labels = torch.cat([truth, net.negatives(rows)])
        z, below = net.enter(x, truth, labels[n:]), x
        for layer in range(len(net.weights)):
            if layer:
                z = net.product(below, net.weights[layer])
            dz, by_bias, net.running[layer], h = net.between(z, net.biases[layer], net.running[layer], sign, n)
            if layer:
                net.pull(layer, below[: 2 * n], dz)
            else:
                net.first_gradient(x, dz, labels)
            net.update(layer, by_bias, factor)
            below = h
            if layer in net.read:
                read.append(h[2 * n :])
        net.teach(torch.cat(read, 1), rows, factor)


def chapters(net: Net, an_epoch: int = 2) -> None:
    """Train layer after layer on each chapter, with the activities of the layer below kept for all its rows."""
    count, top = net.n // an_epoch, len(net.weights) - 1
    for chapter in range(net.epochs * an_epoch):
        batches = list(net.minibatches(chapter * count, count))
        places = [slice(at, at + net.batch) for at in range(0, count, net.batch)]
        every = torch.cat([rows for rows, _ in batches])
        x, truth, wrong = net.shifted(every), net.labels[every], net.negatives(every)
        below, read = list[Tensor](), list[Tensor]()  # below: positive, negative, neutral
        for layer, weights in enumerate(net.weights):
            for here, (rows, factor) in zip(places, batches, strict=True):
                n = len(rows)
                sign = torch.cat([-torch.ones(n), torch.ones(n)])
                if layer:
                    into = torch.cat([below[0][here], below[1][here]])
                    z = net.product(into, weights)
                else:
                    z = net.enter(x[here], truth[here], wrong[here])[: 2 * n]
                dz, by_bias, net.running[layer], _ = net.between(z, net.biases[layer], net.running[layer], sign, n)
                if layer:
                    net.pull(layer, into, dz)
                else:
                    net.first_gradient(x[here], dz, torch.cat([truth[here], wrong[here]]))
                net.update(layer, by_bias, factor)
            # The whole chapter in large blocks through what was just trained; what the top layer gives, the head alone
            # reads.
            pushed = [
                torch.empty(count, weights.shape[1], dtype=net.kind) if layer < top or kind == 2 else None
                for kind in range(3)
            ]
            for at in range(0, count, BLOCK):
                here = slice(at, at + BLOCK)
                first = () if layer else net.enter(x[here], truth[here], wrong[here]).chunk(3)
                for kind, out in enumerate(pushed):
                    if out is not None:
                        z = net.product(below[kind][here], weights) if layer else first[kind]
                        out[here] = net.normalised(z, net.biases[layer])
            below = [torch.empty(0) if out is None else out for out in pushed]
            if layer in net.read:
                read.append(below[2])
        for here, (rows, factor) in zip(places, batches, strict=True):
            net.teach(torch.cat([each[here] for each in read], 1), rows, factor)


LOOPS: dict[str, Callable[[Net], None]] = {"together": together, "compiled": together, "chapters": chapters}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("loop", choices=LOOPS)
    parser.add_argument("--layers", default="1000,1000,1000")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with torch.no_grad():
        layers = [int(width) for width in given.layers.split(",")]
        net = Net(layers, given, given.epochs, given.loop == "compiled")
        if given.loop == "compiled":
            # Compilation is not training: a few minibatches of a network that is thrown away.
            warm = Net(layers, given, 1, True)
            warm.n = 20 * given.batch
            together(warm)
        begun = time.perf_counter()
        LOOPS[given.loop](net)
        seconds = time.perf_counter() - begun
    with machine.one_thread():
        images, labels = datasets.load(net.dataset.path, "test")
        errors = net.network().errors(images, labels, "softmax", named("numba"))
    print(json.dumps({"train_seconds": seconds, "test_accuracy": 1 - errors / len(labels), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
