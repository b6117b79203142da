"""Training written as plain loops over the package's product functions: what the two rules are held to, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ffdask import draws
from ffdask.augment import shifted
from ffdask.head import HeadRecipe, HeadTrainee, initial_head
from ffdask.kernels import BACKENDS, named
from ffdask.labels import Bare, Overlaid, Pixels
from ffdask.layer import Activities, LayerRecipe, Optimizer, Trainee, initial_state
from ffdask.negatives import random, sampled
from ffdask.network import climb_neutral
from ffdask.objectives import OBJECTIVES
from ffdask.objectives.classifier import classifier, softmax

Array = np.ndarray[Any, Any]
kernels = named(BACKENDS[0])


@dataclass
class Loop:
    """A run of the original loop (`streaming`) or of the chapter rule (`chapters`), with nothing left out or shared."""

    images: Array
    labels: Array
    widths: tuple[int, ...]
    chunk: int
    batch: int
    epochs: int
    staleness: int
    seed: int
    shift: int = 0
    objective: str = "goodness"
    negatives: str = "sampled"
    classifier: str = "softmax"
    overlay: str = "replace"
    dropout: float = 0.0
    candidates: int | None = None
    validation: int = 0

    def __post_init__(self) -> None:
        self.alone = self.objective == "classifier"
        if self.alone:
            self.overlay = "none"
        self.copies = 1 if self.alone else 2
        optimizer, inputs = Optimizer(learning_rate=0.02), self.images[0].size + 10 * (self.overlay == "append")
        self.layers = []
        for number, (below, width) in enumerate(zip((inputs, *self.widths), self.widths, strict=False), start=1):
            state = initial_state(self.seed, number, below, width, optimizer, classes=10 * self.alone)
            recipe, objective = LayerRecipe(dropout=self.dropout), OBJECTIVES[self.objective]
            self.layers.append(Trainee(state, recipe, optimizer, objective, kernels, HeadRecipe()))
        reads_head = self.negatives == "sampled" or (self.negatives, self.classifier) == ("adaptive", "softmax")
        with_head = reads_head or self.classifier == "softmax"
        self.head = HeadTrainee(initial_head(self.widths, 10), HeadRecipe(), kernels) if with_head else None
        self.read = [len(self.widths)] if len(self.widths) <= 2 else list(range(2, len(self.widths) + 1))
        rows = list(range(len(self.images)))
        held = draws.generator(self.seed, "validation").permutation(len(rows))[: self.validation].tolist()
        rows = np.array([row for row in rows if row not in held])
        self.n = len(rows)
        order = draws.generator(self.seed, "deal").permutation(self.n)
        self.dealt = [rows[order[start : start + self.chunk]] for start in range(0, self.n, self.chunk)]
        self.probabilities: dict[int, Array] = {}
        self.after: dict[int, list[tuple[Array, Array]]] = {}

    # --- what a visit is

    def draw(self, visit: int, purpose: str, *where: int) -> np.random.Generator:
        return draws.generator(self.seed, purpose, *divmod(visit, len(self.dealt)), *where)

    def rows(self, visit: int) -> tuple[Array, Array]:
        chosen = self.dealt[visit % len(self.dealt)]
        return shifted(self.images[chosen], self.shift, self.draw(visit, "shift")), self.labels[chosen]

    def minibatches(self, visit: int):
        """Where a minibatch's rows lie in the chunk, where they lie in the masks, and the rate's factor."""
        epoch, number = divmod(visit, len(self.dealt))
        count = len(self.dealt[number])
        order = self.draw(visit, "order").permutation(count)
        for start in range(0, count, self.batch):
            stop = min(start + self.batch, count)
            progress = (epoch * self.n + number * self.chunk + start) / (self.epochs * self.n)
            factor = 1.0 if progress < 0.5 else (1 - progress) / 0.5
            yield order[start:stop], slice(self.copies * start, self.copies * stop), factor

    def masks(self, visit: int) -> list[Array | None]:
        if not self.dropout:
            return [None] * len(self.widths)
        shapes = [(self.copies * len(self.dealt[visit % len(self.dealt)]), width) for width in self.widths]
        kept = [
            self.draw(visit, "dropout", number).random(shape, np.float32) >= self.dropout
            for number, shape in enumerate(shapes, start=1)
        ]
        return [each * np.float32(1 / (1 - self.dropout)) for each in kept]

    def entering(self, x: Array, y: Array, wrong: Array | None) -> tuple[Pixels, Bare | Overlaid]:
        pixels = Pixels.of(x, 10, np.dtype(np.float32), self.overlay, kernels=kernels)  # type: ignore[arg-type]
        return pixels, Bare(pixels) if wrong is None else Overlaid(pixels, np.concatenate([y, wrong]))

    # --- negatives

    def wrong(self, visit: int, newest: int, earlier: list[int]) -> Array | None:
        """The negative labels of a visit, from the states after `newest` and what was recorded at `earlier` visits."""
        _, y = self.rows(visit)
        generator = self.draw(visit, "negatives")
        if self.negatives == "none":
            return None
        if self.negatives == "random":
            return random(generator, y, 10, None)
        if self.negatives == "fixed":
            return random(self.draw(visit % len(self.dealt), "negatives"), y, 10, None)
        if self.negatives == "adaptive" and self.classifier == "goodness":
            return self.likeliest(visit, self.after[newest]) if newest in self.after else random(generator, y, 10, None)
        same = [old for old in earlier if (old - visit) % len(self.dealt) == 0]
        scores = self.probabilities[max(same)] if same else None
        if self.negatives == "sampled" or scores is None:
            return sampled(generator, y, 10, scores)
        return np.array([best(range(10), truth, row) for truth, row in zip(y, scores, strict=True)], np.uint8)

    def likeliest(self, visit: int, states: list[tuple[Array, Array]]) -> Array:
        """The wrong label of the largest goodness, the labels tried one after another."""
        (x, y), found = self.rows(visit), np.empty(len(self.rows(visit)[1]), np.uint8)
        for rows, _, _ in self.minibatches(visit):
            pixels, _ = self.entering(x[rows], y[rows], None)
            first, scores = np.empty((10, len(rows))), np.zeros((10, len(rows)), np.float32)
            weights = states[0][0]
            product = kernels.matmul(pixels.values, weights)
            for label in range(10):
                z = pixels.labelled(product, weights, np.full(len(rows), label), kernels)
                for number, (_, bias) in enumerate(states, start=1):
                    activities, goodness = kernels.activate(z, bias)
                    if number == 1:
                        first[label] = goodness
                    if number in self.read:
                        scores[label] += goodness / len(bias)
                    if number < len(states):
                        z = kernels.matmul(kernels.normalise(activities, goodness), states[number][0])
            for i, row in enumerate(rows):
                others = [label for label in range(10) if label != y[row]]
                tried = sorted(others, key=lambda label, i=i, first=first: -first[label, i])[: self.candidates]
                found[row] = best(sorted(tried), y[row], scores[:, i])
        return found

    # --- the two rules

    def streaming(self) -> Loop:
        """All layers on each minibatch, the head with them."""
        for visit in range(self.epochs * len(self.dealt)):
            last = visit - 1 - self.staleness
            wrong = self.wrong(visit, last, [old for old in self.probabilities if old <= last])
            (x, y), masks = self.rows(visit), self.masks(visit)
            self.probabilities[visit] = np.empty((len(y), 10), np.float32)
            for rows, where, factor in self.minibatches(visit):
                pixels, batch = self.entering(x[rows], y[rows], None if wrong is None else wrong[rows])
                neutral: list[Array] = []
                for layer, mask in zip(self.layers, masks, strict=True):
                    activities, goodness, product = layer.forward(batch)
                    if self.head:
                        weights = layer.now.weights
                        if neutral:
                            z = kernels.matmul(neutral[-1], weights)
                        else:
                            z = pixels.neutral(product, weights, kernels)
                        neutral.append(kernels.normalise(*kernels.activate(z, layer.now.bias)))
                    upward = kernels.normalise(activities, goodness)
                    upward = upward if mask is None else upward * mask[where]
                    self.learn(layer, batch, activities, goodness, factor, y[rows], mask, where)
                    batch = Activities(upward)
                if self.head:
                    self.teach(visit, rows, neutral, y[rows], factor)
            self.after[visit] = [(layer.now.weights.copy(), layer.now.bias.copy()) for layer in self.layers]
        return self

    def chapters(self, count: int) -> Loop:
        """Chapter after chapter, layer after layer, each on what the layers below let through at the chapter's end."""
        total = self.epochs * len(self.dealt)
        cuts = [chapter * total // count for chapter in range(count + 1)]
        for chapter in range(count):
            visits, last = range(cuts[chapter], cuts[chapter + 1]), chapter - 1 - self.staleness
            earlier = list(range(cuts[last + 1])) if last >= 0 else []
            wrong = {visit: self.wrong(visit, last, earlier) for visit in visits}
            for number, layer in enumerate(self.layers):
                for visit in visits:
                    (x, y), masks, chosen = self.rows(visit), self.masks(visit), wrong[visit]
                    for rows, where, factor in self.minibatches(visit):
                        _, batch = self.entering(x[rows], y[rows], None if chosen is None else chosen[rows])
                        for below, mask in zip(self.layers[:number], masks, strict=False):
                            upward = kernels.normalise(*below.forward(batch)[:2])
                            batch = Activities(upward if mask is None else upward * mask[where])
                        activities, goodness, _ = layer.forward(batch)
                        self.learn(layer, batch, activities, goodness, factor, y[rows], masks[number], where)
            for visit in visits if self.head else ():
                x, y = self.rows(visit)
                self.probabilities[visit] = np.empty((len(y), 10), np.float32)
                for rows, _, factor in self.minibatches(visit):
                    pixels, _ = self.entering(x[rows], y[rows], None)
                    neutral = climb_neutral([layer.now for layer in self.layers], pixels, kernels)
                    self.teach(visit, rows, neutral, y[rows], factor)
            self.after[chapter] = [(layer.now.weights.copy(), layer.now.bias.copy()) for layer in self.layers]
        return self

    def learn(self, layer: Trainee, batch: Any, y: Array, goodness: Array, factor: float, truth: Array, mask, where):
        if self.alone:
            layer.learn(batch, y, goodness, factor, truth, None if mask is None else mask[where])
        else:
            layer.learn(batch, y, goodness, factor)

    def teach(self, visit: int, rows: Array, neutral: list[Array], truth: Array, factor: float) -> None:
        assert self.head
        read = [neutral[number - 1] for number in self.read]
        logits = self.head.logits(read)
        self.probabilities[visit][rows] = softmax(logits)
        self.head.learn(read, classifier(logits, truth)[1], factor)

    def same_as(self, network: Any) -> None:
        """Raise AssertionError unless a network has these very bits."""
        for ours, theirs in zip(network.states, self.layers, strict=True):
            np.testing.assert_array_equal(ours.weights, theirs.now.weights)
            np.testing.assert_array_equal(ours.bias, theirs.now.bias)
            assert (ours.head is None) == (not self.alone)
            if ours.head is not None:
                np.testing.assert_array_equal(ours.head.weights, theirs.head.weights)
        assert (network.head is None) == (self.head is None)
        if self.head:
            np.testing.assert_array_equal(network.head.weights, self.head.weights)


def best(labels: Any, truth: int, scores: Array) -> int:
    """The wrong label of the largest score; the lowest of several."""
    return max((label for label in labels if label != truth), key=lambda label: scores[label])
