"""Whole runs in this thread: the rules of dependency held to plain loops, and to each other, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffdask import draws, machine
from ffdask.augment import shifted
from ffdask.calendar import Calendar
from ffdask.inline import train_inline
from ffdask.kernels import reference as kernels
from ffdask.labels import Overlaid, Pixels
from ffdask.layer import Activities, LayerRecipe, Optimizer, Trainee, initial_state
from ffdask.negatives import sampled
from ffdask.network import HeadRecipe, HeadTrainee, initial_head, layers_read
from ffdask.objectives import OBJECTIVES
from ffdask.schedules import SCHEDULES
from ffdask.schedules.steps import Plan
from ffdask.work import Data, Job


@pytest.fixture(autouse=True)
def _one_thread():
    machine.hold_one_thread()
    yield
    machine.let_go()


def rows(n, seed=0, side=6, classes=10):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, n).astype(np.uint8)
    images = random.integers(0, 60, (n, side, side)).astype(np.uint8)
    images[np.arange(n), 2 + labels // 5, labels % 5] = 255
    return images, labels


def run(name, widths=(20, 30), n=90, chunk=40, batch=15, epochs=3, chapters=4, nodes=2, staleness=1, **changed):
    entry = SCHEDULES[name]
    negatives = changed.pop("negatives", "sampled")
    head = changed.pop("head", True)
    seed = changed.pop("seed", 3)
    calendar = Calendar(n, chunk, batch, epochs, chapters, entry.by_visit, seed)
    optimizer = Optimizer(name=changed.pop("optimizer", "momentum"), learning_rate=0.02)
    job = Job(36, widths, 10, calendar, LayerRecipe(), optimizer, HeadRecipe(), "goodness", negatives, **changed)
    plan = Plan(len(widths), nodes, calendar, staleness, head or negatives == "sampled", negatives == "sampled")
    images, labels = rows(n)
    data = Data.of(calendar, (images, labels), lambda: rows(10))
    return train_inline(job, plan, entry.steps, data)


def original_loop(widths, n, chunk, batch, epochs, staleness, seed, shift):
    """The original FF loop: all layers on each minibatch, written plainly."""
    images, labels = rows(n)
    optimizer, objective = Optimizer(learning_rate=0.02), OBJECTIVES["goodness"]
    fan_ins = (36, *widths)
    layers = [
        Trainee(
            initial_state(seed, i, fan_ins[i - 1], widths[i - 1], optimizer),
            LayerRecipe(),
            optimizer,
            objective,
            kernels,
        )
        for i in range(1, len(widths) + 1)
    ]
    head, seen = HeadTrainee(initial_head(widths, 10), HeadRecipe(), kernels), {}
    dealt = np.array_split(draws.generator(seed, "deal").permutation(n), range(chunk, n, chunk))
    for visit in range(epochs * len(dealt)):
        epoch, number = divmod(visit, len(dealt))
        x, y = images[dealt[number]], labels[dealt[number]]
        x = shifted(x, shift, draws.generator(seed, "shift", epoch, number))
        old = [v for v in seen if v <= visit - 1 - staleness and v % len(dealt) == number]
        wrong = sampled(draws.generator(seed, "negatives", epoch, number), y, 10, seen[max(old)] if old else None)
        order = draws.generator(seed, "order", epoch, number).permutation(len(y))
        seen[visit] = np.empty((len(y), 10), np.float32)
        for start in range(0, len(y), batch):
            rows_ = order[start : start + batch]
            progress = (epoch * n + number * chunk + start) / (epochs * n)
            factor = 1.0 if progress < 0.5 else (1 - progress) / 0.5
            pixels = Pixels.of(x[rows_], 10, np.dtype(np.float32))
            paired, neutral, read = Overlaid(pixels, np.concatenate([y[rows_], wrong[rows_]])), None, []
            for layer in layers:
                weights, bias = layer.now.weights, layer.now.bias
                activities, goodness, product = layer.forward(paired)
                z = pixels.neutral(product, weights, kernels) if neutral is None else kernels.matmul(neutral, weights)
                neutral = kernels.normalise(*kernels.activate(z, bias))
                upward = Activities(kernels.normalise(activities, goodness))
                layer.learn(paired, activities, goodness, 0.02 * factor)
                paired = upward
                read.append(neutral)
            read = [read[layer - 1] for layer in layers_read(len(widths))]
            seen[visit][rows_], _ = head.learn(read, y[rows_], factor)
    return [layer.now for layer in layers], head.weights


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("widths", [(20,), (20, 30), (16, 24, 8)])
def test_streaming_is_the_original_loop_bit_for_bit(widths, shift):
    network, _ = run("streaming", widths, nodes=len(widths), staleness=2, shift=shift)
    layers, head = original_loop(widths, 90, 40, 15, 3, staleness=2, seed=3, shift=shift)
    for ours, theirs in zip(network.states, layers, strict=True):
        np.testing.assert_array_equal(ours.weights, theirs.weights)
        np.testing.assert_array_equal(ours.bias, theirs.bias)
    np.testing.assert_array_equal(network.head.weights, head)


@settings(max_examples=25, deadline=None)
@given(
    widths=st.lists(st.integers(3, 24), min_size=1, max_size=4).map(tuple),
    n=st.integers(30, 90),
    chunk=st.integers(15, 60),
    epochs=st.integers(1, 3),
    staleness=st.integers(0, 4),
    negatives=st.sampled_from(["random", "sampled"]),
    optimizer=st.sampled_from(["momentum", "adam"]),
    shift=st.integers(0, 1),
    seed=st.integers(0, 2**40),
    data=st.data(),
)
def test_sequential_and_all_layers_give_one_digest(
    widths, n, chunk, epochs, staleness, negatives, optimizer, shift, seed, data
):
    chapters = data.draw(st.integers(1, epochs * -(-n // chunk)))
    same = {
        "widths": widths,
        "n": n,
        "chunk": chunk,
        "epochs": epochs,
        "chapters": chapters,
        "staleness": staleness,
        "negatives": negatives,
        "optimizer": optimizer,
        "shift": shift,
        "seed": seed,
    }
    base, _ = run("sequential", nodes=1, **same)
    other, _ = run("all-layers", nodes=data.draw(st.integers(1, 5)), **same)
    assert other.sha256() == base.sha256()


def test_a_push_from_pixels_has_the_bits_of_one_that_goes_on():
    """Lost activations are pushed again from pixels: placing each layer elsewhere must change no bit."""
    from ffdask.schedules.rules import chapter_steps

    def by_layer(plan):
        newest = {}
        for chapter in range(plan.rounds):
            yield from chapter_steps(plan, lambda layer, chapter: (layer - 1) % plan.nodes, chapter, newest)

    entry = SCHEDULES["sequential"]
    calendar = Calendar(90, 40, 15, 3, 4, False, 3)
    job = Job(36, (20, 30, 25), 10, calendar, LayerRecipe(), Optimizer(), HeadRecipe(), "goodness", "sampled")
    plan = Plan(3, 3, calendar, 1, True, True)
    data = Data.of(calendar, rows(90), lambda: rows(10))
    assert train_inline(job, plan, by_layer, data)[0].sha256() == train_inline(job, plan, entry.steps, data)[0].sha256()


def test_another_seed_differs_and_the_same_one_does_not():
    digests = [run("streaming", seed=seed)[0].sha256() for seed in (3, 3, 4)]
    assert digests[0] == digests[1] != digests[2]


def test_staleness_is_part_of_the_result():
    assert run("sequential", staleness=0)[0].sha256() != run("sequential", staleness=3)[0].sha256()


def test_without_readers_no_head_is_trained():
    network, records = run("streaming", negatives="random", head=False)
    assert network.head is None
    assert not any(record["rows"] == 0 for record in records.values())
    assert not any(name.startswith("head") for name in records)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_it_learns(name):
    network, records = run(name, (60, 60), n=400, chunk=100, epochs=12, chapters=12, nodes=2)
    images, labels = rows(200, seed=9)
    for classifier in ("softmax", "goodness"):
        assert network.errors(images, labels, classifier, kernels) < 0.3 * len(labels)
    losses = [record["loss"] for key, record in records.items() if key.startswith("train_layer2")]
    assert losses[-1] < losses[0]


def test_a_layer_may_rest_for_as_many_chapters_as_a_schedule_likes():
    """Its newest state is kept, however old: greedy and frozen layers can be written as schedules."""
    from ffdask.schedules.rules import push, train

    def greedy(plan):
        newest = {}
        for chapter in range(plan.rounds):
            layer = 1 if chapter < plan.rounds - 1 and chapter != 1 else 2
            negatives = plan.negatives(chapter, 0)
            yield negatives
            below = push(plan, chapter, layer, 0, newest, negatives, None) if layer == 2 else None
            if below:
                yield below
            step = train(plan, chapter, layer, 0, newest, negatives, below)
            newest[layer] = step.name
            yield step

    calendar = Calendar(90, 40, 15, 3, 9, False, 3)
    job = Job(36, (20, 30), 10, calendar, LayerRecipe(), Optimizer(), HeadRecipe(), "goodness", "random")
    plan = Plan(2, 1, calendar, 0, False, False)
    network, records = train_inline(job, plan, greedy, Data.of(calendar, rows(90), lambda: rows(10)))
    assert [name for name in records if name.startswith("train_layer2")] == [
        "train_layer2-chapter001",
        "train_layer2-chapter008",
    ]
    batches = [sum(-(-r["rows"] // 15) for n, r in records.items() if n.startswith(f"train_layer{i}")) for i in (1, 2)]
    assert [state.steps for state in network.states] == batches
