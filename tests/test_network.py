from __future__ import annotations

from dataclasses import replace

import numpy as np
import plain
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffdask import machine
from ffdask.head import HeadRecipe, HeadState, HeadTrainee, initial_head, layers_read, logits
from ffdask.kernels import reference
from ffdask.labels import Pixels
from ffdask.layer import LayerState, Optimizer, initial_state
from ffdask.network import (
    EVALUATION_BLOCK,
    Network,
    climb,
    climb_neutral,
)
from ffdask.objectives.classifier import classifier, softmax

quick = settings(deadline=None, max_examples=15)
CLASSES = 10


def network(seed: int, widths: tuple[int, ...], dtype: type = np.float64, side: int = 4) -> Network:
    rng = np.random.default_rng([seed, *widths])
    states = []
    for layer, (fan_in, width) in enumerate(zip((side * side, *widths[:-1]), widths, strict=True), start=1):
        state = initial_state(seed, layer, fan_in, width, Optimizer(), dtype)
        states.append(replace(state, bias=(0.2 * rng.standard_normal(width)).astype(dtype)))
    head = initial_head(widths, CLASSES, dtype)
    weights = rng.standard_normal(head.weights.shape).astype(dtype)
    return Network(tuple(states), HeadState(weights, head.moment), CLASSES)


networks = st.builds(network, st.integers(0, 10**6), st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple))


def some_images(n: int, side: int = 4) -> np.ndarray:
    images = plain.images(np.random.default_rng([n, side]), n, side)
    images.setflags(write=False)
    return images


def test_layers_read_are_all_but_the_first():
    assert list(layers_read(1)) == [1]
    assert list(layers_read(2)) == [2]
    assert list(layers_read(4)) == [2, 3, 4]
    assert initial_head((7,), 10).weights.shape == (7, 10)
    assert initial_head((7, 5, 3), 10).weights.shape == (8, 10)


def test_a_head_begins_at_zero_and_read_only():
    for array in initial_head((7, 5), 10).arrays().values():
        assert array.dtype == np.float32
        assert not array.any()
        assert not array.flags.writeable


@quick
@given(networks, st.integers(1, 4))
def test_goodness_is_the_plain_sum_of_each_rows_goodness_over_the_width(net, n):
    images = some_images(n)
    scores = net.scores(images, "goodness", reference)
    assert scores.shape == (n, CLASSES)
    for image, found in zip(images, scores, strict=True):
        for label in range(CLASSES):
            passed = list(plain.climb(plain.row(image, label, CLASSES), net.states))
            read = passed if len(passed) == 1 else passed[1:]
            expected = sum(goodness / len(activity) for activity, goodness in read)
            assert found[label] == pytest.approx(expected, rel=1e-8, abs=1e-12)


@quick
@given(networks, st.integers(1, 4))
def test_softmax_is_the_plain_head_on_each_row_with_the_neutral_label(net, n):
    images = some_images(n)
    scores = net.scores(images, "softmax", reference)
    for image, found in zip(images, scores, strict=True):
        passed = list(plain.climb(plain.row(image, None, CLASSES), net.states))
        read = passed if len(passed) == 1 else passed[1:]
        x = np.concatenate([activity for activity, _ in read])
        np.testing.assert_allclose(found, plain.softmax(x @ net.head.weights), rtol=1e-7, atol=1e-12)


@quick
@given(networks, st.integers(1, 4))
def test_climbing_neutral_gives_each_layers_activities(net, n):
    images = some_images(n)
    found = climb_neutral(net.states, Pixels.of(images, CLASSES, np.dtype(np.float64), kernels=reference), reference)
    for i, image in enumerate(images):
        expected = plain.climb(plain.row(image, None, CLASSES), net.states)
        for activities, (activity, _) in zip(found, expected, strict=True):
            np.testing.assert_allclose(activities[i], activity, rtol=1e-8, atol=1e-10)


@quick
@given(networks, st.integers(1, 4))
def test_climbing_gives_each_layers_activities_and_goodness(net, n):
    rows = plain.rows(some_images(n), None, CLASSES)
    found = climb(net.states, rows @ net.states[0].weights, reference)
    for i, row in enumerate(rows):
        for (activities, goodness), expected in zip(found, plain.climb(row, net.states), strict=True):
            np.testing.assert_allclose(activities[i], expected[0], rtol=1e-8, atol=1e-10)
            assert goodness[i] == pytest.approx(expected[1], rel=1e-8, abs=1e-12)


def test_errors_count_the_rows_whose_largest_score_is_another_class():
    net, images = network(0, (6, 5)), some_images(30)
    labels = np.random.default_rng(0).integers(0, CLASSES, 30)
    for name in ("goodness", "softmax"):
        scores = net.scores(images, name, reference)
        wrong = sum(
            max(range(CLASSES), key=lambda k, row=row: row[k]) != y for row, y in zip(scores, labels, strict=True)
        )
        assert net.errors(images, labels, name, reference) == wrong
        assert net.errors(images, scores.argmax(axis=1), name, reference) == 0


def test_ties_go_to_the_lowest_class():
    net, images = network(1, (6, 5)), some_images(12)
    nothing = tuple(replace(s, weights=0 * s.weights, bias=0 * s.bias) for s in net.states)
    blank = Network(nothing, HeadState(0 * net.head.weights, net.head.moment), CLASSES)
    for name in ("goodness", "softmax"):
        assert blank.errors(images, np.zeros(12, int), name, reference) == 0
        assert blank.errors(images, np.ones(12, int), name, reference) == 12
    # The larger of two classes that share the largest score never wins.
    first = np.zeros((16, 3))
    first[[3, 7]] = 1
    one = replace(net.states[0], weights=first, bias=np.zeros(3))
    head = np.zeros((3, CLASSES))
    tied = Network((one,), HeadState(head, head), CLASSES)
    assert tied.errors(images, np.full(12, 3), "goodness", reference) == 0
    head[:, [3, 7]] = 1
    assert tied.errors(images, np.full(12, 3), "softmax", reference) == 0


@pytest.fixture
def _one_blas_thread():
    machine.hold_one_thread()
    yield
    machine.let_go()


@pytest.mark.usefixtures("_one_blas_thread")
@pytest.mark.parametrize("name", ["goodness", "softmax"])
def test_blocks_and_threads_do_not_change_a_bit(name):
    net, images = network(2, (8, 6), np.float32), some_images(2 * EVALUATION_BLOCK + 300)
    scores = net.scores(images, name, reference)
    assert scores.dtype == np.float32
    assert scores.shape == (len(images), CLASSES)
    for threads in (2, 5):
        np.testing.assert_array_equal(net.scores(images, name, reference, threads), scores)
    # A block's bits do not depend on the blocks beside it.
    for start in range(0, len(images), EVALUATION_BLOCK):
        block = slice(start, start + EVALUATION_BLOCK)
        np.testing.assert_array_equal(net.scores(images[block], name, reference), scores[block])


@pytest.mark.parametrize("block", [1, 7, 100])
def test_blocks_cover_every_row_in_order(monkeypatch, block):
    net, images = network(3, (8, 6)), some_images(20)
    expected = {name: net.scores(images, name, reference) for name in net.classifiers()}
    monkeypatch.setattr("ffdask.network.EVALUATION_BLOCK", block)
    for name, scores in expected.items():
        for threads in (1, 2):
            np.testing.assert_allclose(net.scores(images, name, reference, threads), scores, rtol=1e-9)


def test_a_network_without_a_head_has_no_softmax():
    net = replace(network(4, (3, 2)), head=None)
    assert set(net.classifiers()) == {"goodness"}
    with pytest.raises(ValueError, match="head"):
        net.softmax_scores(Pixels.of(some_images(1), CLASSES, np.dtype(np.float64), kernels=reference), reference)


@quick
@given(st.integers(1, 5), st.integers(2, 6), st.integers(0, 10**6), st.sampled_from([1.0, 30.0, 1e5]))
def test_softmax(n, classes, seed, size):
    values = size * np.random.default_rng(seed).standard_normal((n, classes))
    values.setflags(write=False)
    found = softmax(values)
    for row, logit in zip(found, values, strict=True):
        np.testing.assert_allclose(row, plain.softmax(logit), rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(softmax(values + 7), found, rtol=1e-6, atol=1e-12)


def test_logits_need_a_layer():
    with pytest.raises(ValueError, match="layer"):
        logits(np.zeros((0, 10)), [], reference)


def head_case(seed: int, n: int, widths: list[int]):
    rng = np.random.default_rng([seed, n, *widths])
    activities = [rng.standard_normal((n, width)) for width in widths]
    weights, moment = rng.standard_normal((2, sum(widths), 4))
    labels = rng.integers(0, 4, n)
    for array in (*activities, weights, moment, labels):
        array.setflags(write=False)
    return HeadState(weights, moment), activities, labels


head_cases = st.builds(
    head_case, st.integers(0, 10**6), st.integers(1, 5), st.lists(st.integers(1, 4), min_size=1, max_size=3)
)


def cross_entropy(weights: np.ndarray, activities: list[np.ndarray], labels: np.ndarray) -> float:
    rows = np.concatenate(activities, axis=1)
    return sum(-np.log(plain.softmax(row @ weights)[label]) for row, label in zip(rows, labels, strict=True))


def rates(activities: list[np.ndarray], rate: float) -> np.ndarray:
    """The rate of each row of the head's weights: in proportion to the width of the layer that it reads."""
    return np.concatenate([np.full(x.shape[1], rate * x.shape[1] / 1000) for x in activities])[:, None]


def head_learned(trainee: HeadTrainee, activities, labels, factor: float) -> tuple[np.ndarray, float]:
    """Let a head learn as a step does; return the probabilities before, and the mean loss."""
    scores = trainee.logits(activities)
    loss, derivative = classifier(scores, labels)
    trainee.learn(activities, derivative, factor)
    return softmax(scores), loss


@quick
@given(head_cases)
def test_the_heads_gradient_is_the_slope_of_the_cross_entropy(case):
    state, activities, labels = case
    trainee = HeadTrainee(state, HeadRecipe(rate=1000.0, decay=0.0, momentum=0.0), reference)
    head_learned(trainee, activities, labels, 0.5)
    gradient = (state.weights - trainee.state().weights) / (0.5 * rates(activities, 1000))
    slopes = plain.slopes(lambda w: cross_entropy(w, activities, labels) / len(labels), state.weights)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-5, atol=1e-7)


@quick
@given(head_cases, st.floats(0.01, 1), st.floats(0, 0.1), st.floats(0, 0.95), st.floats(0, 1))
def test_the_heads_update(case, rate, decay, keep, factor):
    state, activities, labels = case
    trainee = HeadTrainee(state, HeadRecipe(rate=rate, decay=decay, momentum=keep), reference)
    weights, moment, rows = state.weights, state.moment, np.concatenate(activities, axis=1)
    for _ in range(3):
        gradient = decay * weights
        for row, label in zip(rows, labels, strict=True):
            delta = plain.softmax(row @ weights)
            delta[label] -= 1
            gradient = gradient + np.outer(row, delta) / len(labels)
        moment = keep * moment + (1 - keep) * gradient
        weights = weights - factor * rates(activities, rate) * moment
        head_learned(trainee, activities, labels, factor)
    np.testing.assert_allclose(trainee.state().weights, weights, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(trainee.state().moment, moment, rtol=1e-8, atol=1e-10)


def test_the_heads_default_recipe():
    assert HeadRecipe() == HeadRecipe(rate=0.1, decay=0.003, momentum=0.9)


@quick
@given(head_cases)
def test_the_head_tells_what_it_thought_before_the_update(case):
    state, activities, labels = case
    trainee = HeadTrainee(state, HeadRecipe(rate=100.0), reference)
    probabilities, loss = head_learned(trainee, activities, labels, 1.0)
    rows = np.concatenate(activities, axis=1)
    np.testing.assert_allclose(probabilities, [plain.softmax(row @ state.weights) for row in rows], rtol=1e-9)
    assert loss == pytest.approx(cross_entropy(state.weights, activities, labels) / len(labels), rel=1e-9)


def test_a_heads_loss_stays_finite_where_the_probability_is_zero():
    state = HeadState(np.array([[1e4, 0.0]], np.float32), np.zeros((1, 2), np.float32))
    trainee = HeadTrainee(state, HeadRecipe(), reference)
    _, loss = head_learned(trainee, [np.ones((1, 1), np.float32)], np.array([1]), 1.0)
    assert 80 < loss < np.inf


def test_the_given_head_is_untouched_and_the_new_one_is_read_only():
    state, activities, labels = head_case(0, 5, [3, 2])
    before = [array.copy() for array in state.arrays().values()]
    trainee = HeadTrainee(state, HeadRecipe(), reference)
    head_learned(trainee, activities, labels, 1.0)
    after = trainee.state()
    for old, kept, new in zip(state.arrays().values(), before, after.arrays().values(), strict=True):
        np.testing.assert_array_equal(old, kept)
        assert not np.array_equal(old, new)
        assert not np.shares_memory(old, new)
        assert not new.flags.writeable
    head_learned(HeadTrainee(after, HeadRecipe(), reference), activities, labels, 1.0)


def test_a_float32_head_stays_float32():
    activities, labels = [np.ones((4, 3), np.float32)], np.arange(4)
    trainee = HeadTrainee(initial_head((3,), 10), HeadRecipe(), reference)
    probabilities, _ = head_learned(trainee, activities, labels, 0.5)
    assert {probabilities.dtype, trainee.weights.dtype, trainee.moment.dtype} == {np.dtype(np.float32)}


def changed(net: Network, layer: int, **parts: object) -> Network:
    states = list(net.states)
    states[layer] = replace(states[layer], **parts)
    return replace(net, states=tuple(states))


def nudged(array: np.ndarray) -> np.ndarray:
    """The same array but for the last bit of one element."""
    new = array.copy()
    new.flat[-1] = np.nextafter(new.flat[-1], np.inf)
    return new


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("part", ["weights", "bias"])
def test_sha256_changes_with_any_bit_of_a_layer(layer, part):
    net = network(5, (4, 4), np.float32)
    other = changed(net, layer, **{part: nudged(getattr(net.states[layer], part))})
    assert other.sha256() != net.sha256()
    assert network(5, (4, 4), np.float32).sha256() == net.sha256()


def test_sha256_changes_with_the_head_and_with_its_absence():
    net = network(5, (4, 4), np.float32)
    nudge = replace(net, head=HeadState(nudged(net.head.weights), net.head.moment))
    assert len({net.sha256(), nudge.sha256(), replace(net, head=None).sha256()}) == 3


def test_sha256_does_not_change_with_what_only_training_reads():
    net = network(5, (4, 4), np.float32)
    for layer, state in enumerate(net.states):
        moments = tuple(moment + 1 for moment in state.moments)
        assert (
            changed(net, layer, moments=moments, steps=99, running_mean=state.running_mean + 1).sha256() == net.sha256()
        )
    assert replace(net, head=HeadState(net.head.weights, net.head.moment + 1)).sha256() == net.sha256()


def test_sha256_changes_with_order_shape_and_dtype():
    net = network(5, (4, 4), np.float32, side=2)
    one, two = net.states
    assert Network((two, one), net.head, CLASSES).sha256() != net.sha256()
    assert changed(net, 0, weights=one.weights.reshape(2, 8)).sha256() != net.sha256()
    assert changed(net, 0, bias=one.bias.view(np.int32)).sha256() != net.sha256()
    assert changed(net, 0, weights=one.weights.T).sha256() != net.sha256()


def test_sha256_does_not_depend_on_the_layout_in_memory():
    def stored(state: LayerState) -> LayerState:
        return replace(state, weights=np.asfortranarray(state.weights), bias=state.bias.astype(">f4"))

    net = network(5, (5, 3), np.float32)
    assert replace(net, states=tuple(map(stored, net.states))).sha256() == net.sha256()


@pytest.mark.parametrize("name", ["goodness", "softmax"])
@pytest.mark.parametrize("threads", [1, 2])
def test_no_images_have_no_scores_and_no_errors(name, threads):
    made, images = network(3, (5, 6), np.float32), np.empty((0, 4, 4), np.uint8)
    scores = made.scores(images, name, reference, threads)
    assert (scores.shape, scores.dtype) == ((0, made.classes), np.float32)
    assert made.errors(images, np.empty(0, int), name, reference, threads) == 0


def test_a_classifier_must_be_there_for_no_images_too():
    with pytest.raises(KeyError):
        replace(network(3, (5, 6)), head=None).scores(np.empty((0, 4, 4), np.uint8), "softmax", reference)
