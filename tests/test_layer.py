from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import plain
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ffdask.head import HeadRecipe, HeadState
from ffdask.kernels import reference
from ffdask.labels import Bare, Overlaid, Pixels
from ffdask.layer import (
    Activities,
    LayerRecipe,
    LayerState,
    Measured,
    Optimizer,
    Trainee,
    frozen,
    initial_state,
)
from ffdask.objectives import OBJECTIVES, Paired

quick = settings(deadline=None, max_examples=12)
BARE = Optimizer(learning_rate=1.0, momentum=0.0, weight_decay=0.0)
"""With it, and a rate of 1, weights before less weights after are the gradient."""
PAIRED = {name: objective for name, objective in OBJECTIVES.items() if isinstance(objective, Paired)}
goodness = OBJECTIVES["goodness"]
objectives = pytest.mark.parametrize("objective", PAIRED.values(), ids=PAIRED)


class Case:
    """A minibatch of layer one and of a higher layer, and states for them, in float64."""

    def __init__(self, seed: int, n: int, width: int, optimizer: Optimizer = BARE) -> None:
        rng = np.random.default_rng([seed, n, width])
        self.n, self.width = n, width
        self.images, self.labels = plain.images(rng, n), rng.integers(0, 10, 2 * n)
        self.rows = plain.rows(np.concatenate([self.images, self.images]), self.labels, 10)
        self.overlaid = Overlaid(Pixels.of(self.images, 10, np.dtype(np.float64), kernels=reference), self.labels)
        self.above = np.array([plain.normalised(row) for row in plain.relu(rng.standard_normal((2 * n, 6)))])
        self.activities = Activities(self.above)
        for array in (self.labels, self.overlaid.pixels.values, self.overlaid.pixels.squares, self.above):
            array.setflags(write=False)
        self.first, self.higher = (self.state(rng, fan_in, optimizer) for fan_in in (16, 6))

    def state(self, rng: np.random.Generator, fan_in: int, optimizer: Optimizer) -> LayerState:
        start = initial_state(0, 1, fan_in, self.width, optimizer, np.float64)
        weights = rng.standard_normal((fan_in, self.width)) / np.sqrt(fan_in)
        moments = tuple(np.abs(rng.standard_normal(moment.shape)) for moment in start.moments)
        return frozen(
            LayerState(weights, 0.3 * rng.standard_normal(self.width), moments, rng.uniform(0, 1, self.width), 5)
        )

    def places(self):
        """(state, what the layer takes, the same as plain rows) of layer one and of a higher layer."""
        return (self.first, self.overlaid, self.rows), (self.higher, self.activities, self.above)


cases = st.builds(Case, st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4))


def learned(state, inputs, recipe=None, optimizer=BARE, rate=None, objective=goodness, minibatches=1):
    # The rate is the optimiser's times a factor: half of twice as much must be as much.
    if rate is not None:
        optimizer = replace(optimizer, learning_rate=2 * rate)
    trainee = Trainee(state, recipe or LayerRecipe(peer=0.0), optimizer, objective, reference)
    for _ in range(minibatches):
        y, g, _ = trainee.forward(inputs)
        measured = trainee.learn(inputs, y, g, 1.0 if rate is None else 0.5)
    return trainee.state(), figures(measured)


def figures(measured: Measured) -> SimpleNamespace:
    """What was measured, by its names."""
    assert measured.seen.dtype == np.float64
    loss, positive, negative, wrong = measured.seen.tolist()
    named = {"loss": loss, "goodness_positive": positive, "goodness_negative": negative, "wrong": wrong}
    return SimpleNamespace(rows=measured.rows, judged=measured.judged, **named)


def arrays_of(state: LayerState) -> list[np.ndarray]:
    return [state.weights, state.bias, state.running_mean, *state.moments]


@objectives
@quick
@given(cases, st.sampled_from([0.3, 1.0]), st.sampled_from(["sum", "mean"]))
def test_gradients_are_the_losss_slopes(objective, case, threshold, squares):
    # The mean of the squares, and a threshold of as much: both sides over the width.
    over = case.width if squares == "mean" else 1
    for state, inputs, rows in case.places():
        # Away from the ReLU's corner, where there is no slope.
        assume(np.abs(rows @ state.weights + state.bias).min() > 1e-4)

        def loss(weights, bias, rows=rows):
            g = (plain.relu(rows @ weights + bias) ** 2).sum(axis=1)
            return objective.loss(g[: case.n] / over, g[case.n :] / over, threshold * case.width / over)[0]

        recipe = LayerRecipe(threshold=threshold, peer=0.0, goodness=squares)
        after, _ = learned(state, inputs, recipe, objective=objective)
        by_weights = plain.slopes(lambda weights, state=state, loss=loss: loss(weights, state.bias), state.weights)
        by_bias = plain.slopes(lambda bias, state=state, loss=loss: loss(state.weights, bias), state.bias)
        np.testing.assert_allclose(state.weights - after.weights, by_weights, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(state.bias - after.bias, by_bias, rtol=1e-5, atol=1e-7)


@quick
@given(cases)
def test_forward_is_the_plain_computation(case):
    for state, inputs, rows in case.places():
        trainee = Trainee(state, LayerRecipe(), BARE, goodness, reference)
        y, g, product = trainee.forward(inputs)
        expected = plain.relu(rows @ state.weights + state.bias)
        np.testing.assert_allclose(y, expected, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(g, [sum(value**2 for value in row) for row in expected], rtol=1e-9, atol=1e-12)
        assert (product is None) == (inputs is case.activities)


@quick
@given(cases, st.floats(0.01, 1), st.floats(0, 0.99))
def test_peer_normalisation_pulls_all_rows_ungated(case, peer, keep):
    for state, inputs, rows in case.places():
        y = plain.relu(rows[: case.n] @ state.weights + state.bias)
        running = keep * state.running_mean + (1 - keep) * y.mean(axis=0)
        pull = peer * (running - sum(running) / case.width) / case.n
        without, _ = learned(state, inputs)
        pulled, _ = learned(state, inputs, LayerRecipe(peer=peer, peer_momentum=keep))
        np.testing.assert_allclose(pulled.running_mean, running, rtol=1e-9)
        # Its gradient: every row, positive or negative, on or off, times the unit's pull.
        expected = sum(np.outer(row, pull) for row in rows)
        np.testing.assert_allclose(without.weights - pulled.weights, expected, rtol=1e-7, atol=1e-10)
        np.testing.assert_allclose(without.bias - pulled.bias, 2 * case.n * pull, rtol=1e-7, atol=1e-10)


def test_peer_normalisation_wakes_a_silent_unit():
    case = Case(0, 4, 3)
    bias = np.array([0.0, 0.0, -50.0])
    state = LayerState(case.first.weights, bias, case.first.moments, np.array([0.5, 0.5, 0.0]))
    asleep, _ = learned(state, case.overlaid)
    woken, _ = learned(state, case.overlaid, LayerRecipe())
    assert asleep.bias[2] == -50
    assert woken.bias[2] > -50


@quick
@given(cases, st.floats(0.01, 0.5), st.floats(0, 0.95), st.floats(0, 0.1))
def test_momentum_and_decay(case, rate, keep, decay):
    optimizer = Optimizer(momentum=keep, weight_decay=decay)
    for state, inputs, _ in case.places():
        bare, _ = learned(state, inputs)
        found, _ = learned(state, inputs, optimizer=optimizer, rate=rate)
        of_weights, of_bias = state.moments
        of_weights = keep * of_weights + (1 - keep) * (state.weights - bare.weights)
        of_bias = keep * of_bias + (1 - keep) * (state.bias - bare.bias)
        np.testing.assert_allclose(found.moments[0], of_weights, rtol=1e-7, atol=1e-10)
        np.testing.assert_allclose(found.moments[1], of_bias, rtol=1e-7, atol=1e-10)
        weights = state.weights - rate * (of_weights + decay * state.weights)
        np.testing.assert_allclose(found.weights, weights, rtol=1e-7, atol=1e-10)
        np.testing.assert_allclose(found.bias, state.bias - rate * of_bias, rtol=1e-7, atol=1e-10)


@quick
@given(st.integers(0, 10**6), st.floats(0.01, 0.5), st.floats(0, 0.1))
def test_adam_and_decoupled_decay(seed, rate, decay):
    optimizer = Optimizer(name="adam", weight_decay=decay)
    case = Case(seed, 3, 2, optimizer)
    for state, inputs, _ in case.places():
        bare = LayerState(state.weights, state.bias, state.moments[:2], state.running_mean)
        without, _ = learned(bare, inputs)
        found, _ = learned(state, inputs, optimizer=optimizer, rate=rate)
        step = state.steps + 1
        for part, (before, after, gradient, shrink) in enumerate(
            [
                (state.weights, found.weights, state.weights - without.weights, decay),
                (state.bias, found.bias, state.bias - without.bias, 0.0),
            ]
        ):
            first = 0.9 * state.moments[part] + 0.1 * gradient
            second = 0.999 * state.moments[2 + part] + 0.001 * gradient**2
            move = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
            np.testing.assert_allclose(after, before - rate * (move + shrink * before), rtol=1e-7, atol=1e-9)
            np.testing.assert_allclose(found.moments[part], first, rtol=1e-7, atol=1e-10)
            np.testing.assert_allclose(found.moments[2 + part], second, rtol=1e-7, atol=1e-10)


def test_the_default_recipe_over_three_minibatches():
    case, rate = Case(3, 5, 4), 0.01
    optimizer, recipe = Optimizer(), LayerRecipe()
    assert optimizer.learning_rate == rate
    assert optimizer.cooldown == 0.5
    for fan_in, inputs, rows in ((16, case.overlaid, case.rows), (6, case.activities, case.above)):
        state = initial_state(0, 1, fan_in, 4, optimizer, np.float64)
        w, b, r = state.weights.copy(), np.zeros(4), np.full(4, 0.5)
        mw, mb = np.zeros_like(w), np.zeros(4)
        for _ in range(3):
            y = plain.relu(rows @ w + b)
            r = 0.9 * r + 0.1 * y[:5].mean(axis=0)
            dz = np.empty_like(y)
            for i in range(10):
                g = sum(value**2 for value in y[i])
                slope = -1 / (1 + np.exp(g - 4)) if i < 5 else 1 / (1 + np.exp(4 - g))
                dz[i] = 2 * y[i] * slope / 5 + 0.03 * (r - r.mean()) / 5
            mw, mb = 0.9 * mw + 0.1 * rows.T @ dz, 0.9 * mb + 0.1 * dz.sum(axis=0)
            w, b = w - rate * (mw + 0.002 * w), b - rate * mb
        found, _ = learned(state, inputs, recipe, optimizer, rate, minibatches=3)
        np.testing.assert_allclose(found.weights, w, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.bias, b, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.running_mean, r, rtol=1e-9)


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_the_given_state_is_untouched_and_the_new_one_is_read_only(name):
    optimizer = Optimizer(name=name)
    case = Case(4, 3, 4, optimizer)
    for state, inputs, _ in case.places():
        before = [array.copy() for array in arrays_of(state)]
        after, _ = learned(state, inputs, LayerRecipe(), optimizer, 0.1, minibatches=2)
        for old, kept in zip(arrays_of(state), before, strict=True):
            np.testing.assert_array_equal(old, kept)
        for old, new in zip(arrays_of(state), arrays_of(after), strict=True):
            assert not np.shares_memory(old, new)
            assert not np.array_equal(old, new)
            assert not new.flags.writeable
        assert (state.steps, after.steps) == (5, 7)
        # What came out can go in again, as from a checkpoint.
        learned(after, inputs, LayerRecipe(), optimizer, 0.1)


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_float32_stays_float32_and_gives_the_same_bits_again_in_blocks_of_any_size(name, monkeypatch):
    optimizer, case = Optimizer(name=name), Case(6, 4, 5)
    overlaid = Overlaid(Pixels.of(case.images, 10, np.dtype(np.float32), kernels=reference), case.labels)
    state = initial_state(0, 1, 16, 5, optimizer)
    results = [learned(state, overlaid, LayerRecipe(), optimizer, 0.1, minibatches=3)[0]]
    for block in (1 << 16, 1, 7):
        monkeypatch.setattr(reference, "BLOCK", block)
        results.append(learned(state, overlaid, LayerRecipe(), optimizer, 0.1, minibatches=3)[0])
    for result in results:
        for array, first in zip(arrays_of(result), arrays_of(results[0]), strict=True):
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, first)


@pytest.mark.parametrize("tile", [1, 15, 40, 1000])
def test_a_gradient_used_tile_by_tile_is_the_whole_one(tile, monkeypatch):
    """Tiles of 1, 3 and 8 of 16 rows, of which ten are labels': none is lost at a tile's edge, and all of them."""
    case, optimizer = Case(6, 4, 5), Optimizer()
    overlaid = Overlaid(Pixels.of(case.images, 10, np.dtype(np.float32), kernels=reference), case.labels)
    state = initial_state(0, 1, 16, 5, optimizer)
    whole = learned(state, overlaid, LayerRecipe(), optimizer, 0.1, minibatches=3)[0]
    monkeypatch.setattr(reference, "TILE", tile)
    found = learned(state, overlaid, LayerRecipe(), optimizer, 0.1, minibatches=3)[0]
    for one, other in zip(arrays_of(found), arrays_of(whole), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@quick
@given(cases)
def test_measured_is_what_the_layer_saw_before_its_update(case):
    for state, inputs, rows in case.places():
        theta, n = 0.7 * case.width, case.n
        g = [sum(value**2 for value in row) for row in plain.relu(rows @ state.weights + state.bias)]
        _, measured = learned(state, inputs, LayerRecipe(threshold=0.7))
        loss = sum(plain.softplus(theta - x) for x in g[:n]) + sum(plain.softplus(x - theta) for x in g[n:])
        assert measured.rows == n
        assert measured.loss == pytest.approx(loss)
        assert measured.goodness_positive == pytest.approx(sum(g[:n]) / case.width)
        assert measured.goodness_negative == pytest.approx(sum(g[n:]) / case.width)
        assert measured.judged == 2 * n
        assert measured.wrong == sum(x < theta for x in g[:n]) + sum(x > theta for x in g[n:])


@quick
@given(cases)
def test_symba_counts_both_rows_of_a_pair_that_is_the_wrong_way_round(case):
    for state, inputs, rows in case.places():
        n = case.n
        g = (plain.relu(rows @ state.weights + state.bias) ** 2).sum(axis=1)
        # Which of two equal ones rounding puts first is nobody's promise; of two that are 0 there is none to round.
        assume(all(abs(p - q) > 1e-9 or p == q == 0 for p, q in zip(g[:n], g[n:], strict=True)))
        _, measured = learned(state, inputs, objective=OBJECTIVES["symba"])
        assert measured.judged == 2 * n
        assert measured.wrong == 2 * sum(p <= q for p, q in zip(g[:n], g[n:], strict=True))


# --- a layer with a head of its own


class Alone:
    """A minibatch of rows without negatives, of layer one and of a higher layer, and states with heads, in float64."""

    def __init__(self, seed: int, n: int, width: int, dropout: bool) -> None:
        rng = np.random.default_rng([seed, n, width])
        self.n, self.width, self.labels = n, width, rng.integers(0, 3, n)
        images = plain.images(rng, n)
        self.mask = 2.0 * rng.integers(0, 2, (n, width)) if dropout else None
        above = np.array([plain.normalised(row) for row in plain.relu(rng.standard_normal((n, 6)))])
        first = Bare(Pixels.of(images, 10, np.dtype(np.float64), "none", kernels=reference))
        self.places = [
            (self.state(rng, 16), first, plain.rows(images, None, 10, "none")),
            (self.state(rng, 6), Activities(above), above),
        ]

    def state(self, rng: np.random.Generator, fan_in: int) -> LayerState:
        start = initial_state(0, 1, fan_in, self.width, BARE, np.float64, classes=3)
        weights = 3 * rng.standard_normal((fan_in, self.width)) / np.sqrt(fan_in)
        bias = rng.standard_normal(self.width)
        head = HeadState(rng.standard_normal((self.width, 3)), np.zeros((self.width, 3)))
        return frozen(replace(start, weights=weights, bias=bias, head=head))

    def logits(self, rows: np.ndarray, weights: np.ndarray, bias: np.ndarray, head: np.ndarray) -> np.ndarray:
        h = np.array([plain.normalised(row) for row in plain.relu(rows @ weights + bias)])
        return (h if self.mask is None else h * self.mask) @ head

    def loss(self, rows: np.ndarray, weights: np.ndarray, bias: np.ndarray, head: np.ndarray) -> float:
        scores = self.logits(rows, weights, bias, head)
        return sum(-np.log(plain.softmax(row)[y]) for row, y in zip(scores, self.labels, strict=True)) / self.n

    def learned(self, state: LayerState, inputs, peer: float = 0.0, factor: float = 1.0):
        head = HeadRecipe(rate=1000 / self.width, decay=0.0, momentum=0.0)
        trainee = Trainee(state, LayerRecipe(peer=peer), BARE, OBJECTIVES["classifier"], reference, head)
        y, g, _ = trainee.forward(inputs)
        for array in (y, g, *([] if self.mask is None else [self.mask])):
            array.setflags(write=False)
        measured = trainee.learn(inputs, y, g, factor, self.labels, self.mask)
        return trainee.state(), figures(measured)


alone = st.builds(Alone, st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 5), st.booleans())


@settings(deadline=None, max_examples=40)
@given(alone)
def test_the_gradient_of_a_layers_own_head_is_the_losss_slope(case):
    for state, inputs, rows in case.places:
        z = rows @ state.weights + state.bias
        # Away from the ReLU's corner, and from rows so faint that epsilon holds their length.
        assume(np.abs(z).min() > 0.1)
        lengths = np.sqrt((np.maximum(z, 0) ** 2).mean(axis=1))
        assume((lengths[lengths > 0] > 0.3).all())
        after, _ = case.learned(state, inputs)
        parts = {"weights": state.weights, "bias": state.bias, "head": state.head.weights}
        moved = {"weights": after.weights, "bias": after.bias, "head": after.head.weights}
        for name, part in parts.items():
            slopes = plain.slopes(
                lambda x, name=name, rows=rows, parts=parts: case.loss(rows, **(parts | {name: x})), part
            )
            # What is left of a stretched row by epsilon, the kernel leaves out.
            np.testing.assert_allclose(part - moved[name], slopes, rtol=1e-4, atol=1e-5)


def test_a_layer_with_a_head_is_pulled_by_its_peers_too():
    case = Alone(1, 4, 5, False)
    for state, inputs, rows in case.places:
        y = plain.relu(rows @ state.weights + state.bias)
        running = 0.9 * state.running_mean + 0.1 * y.mean(axis=0)
        pull = 0.2 * (running - running.mean()) / case.n
        without, with_peers = (case.learned(state, inputs, peer)[0] for peer in (0.0, 0.2))
        np.testing.assert_allclose(with_peers.running_mean, running)
        np.testing.assert_allclose(without.bias - with_peers.bias, case.n * pull, atol=1e-12)
        np.testing.assert_allclose(
            without.weights - with_peers.weights, sum(np.outer(r, pull) for r in rows), atol=1e-12
        )


@quick
@given(alone)
def test_a_layer_with_a_head_measures_what_the_head_said_before(case):
    for state, inputs, rows in case.places:
        _, measured = case.learned(state, inputs)
        scores = case.logits(rows, state.weights, state.bias, state.head.weights)
        g = (plain.relu(rows @ state.weights + state.bias) ** 2).sum(axis=1)
        assert (measured.rows, measured.judged, measured.goodness_negative) == (case.n, case.n, 0)
        assert measured.loss == pytest.approx(case.n * case.loss(rows, state.weights, state.bias, state.head.weights))
        assert measured.goodness_positive == pytest.approx(g.sum() / case.width)
        # Away from ties, which rounding may turn.
        assume(all(abs(row[row.argsort()[-1]] - row[row.argsort()[-2]]) > 1e-9 for row in scores if row.any()))
        assert measured.wrong == sum(
            max(range(3), key=lambda k, row=row: row[k]) != y for row, y in zip(scores, case.labels, strict=True)
        )


def test_the_cool_down_slows_a_layers_own_head_with_the_layer():
    case = Alone(2, 4, 5, True)
    for state, inputs, _ in case.places:
        whole, half = (case.learned(state, inputs, factor=factor)[0] for factor in (1.0, 0.5))
        np.testing.assert_allclose(state.weights - whole.weights, 2 * (state.weights - half.weights))
        np.testing.assert_allclose(
            state.head.weights - whole.head.weights, 2 * (state.head.weights - half.head.weights)
        )


def test_a_layer_with_a_head_leaves_the_given_state_and_gives_a_read_only_one():
    case = Alone(3, 4, 5, True)
    for state, inputs, _ in case.places:
        before = {name: array.copy() for name, array in state.arrays().items()}
        after, _ = case.learned(state, inputs)
        assert list(after.arrays())[-2:] == ["head", "head_moment"]
        for name, array in state.arrays().items():
            np.testing.assert_array_equal(array, before[name])
            assert not np.shares_memory(array, after.arrays()[name])
            assert not after.arrays()[name].flags.writeable
        assert not np.array_equal(after.head.weights, state.head.weights)


def test_measured_adds_up():
    total = Measured(2, 4, np.array([1.5, 3.0, 4.0, 1])) + Measured(3, 6, np.array([0.5, 1.0, 2.0, 5]))
    assert (total.rows, total.judged, total.seen.tolist()) == (5, 10, [2.0, 4.0, 6.0, 6])
    record = {"rows": 5, "loss": 0.4, "goodness_positive": 0.8, "goodness_negative": 1.2, "error": 0.6}
    assert total.record() == pytest.approx(record)


def test_learning_separates_positive_from_negative_rows():
    case = Case(7, 8, 16)
    _, before = learned(case.first, case.overlaid, LayerRecipe(), Optimizer(), 0.1)
    _, after = learned(case.first, case.overlaid, LayerRecipe(), Optimizer(), 0.1, minibatches=200)
    assert after.loss < 0.5 * before.loss


def test_the_initial_state():
    state = initial_state(1, 2, 400, 300, Optimizer())
    assert state.weights.shape == (400, 300)
    assert state.weights.mean() == pytest.approx(0, abs=5 / 400 / np.sqrt(300) * 1.1)
    assert state.weights.std() == pytest.approx(1 / 20, rel=0.02)
    assert not state.bias.any()
    assert set(state.running_mean) == {0.5}
    assert [moment.shape for moment in state.moments] == [(400, 300), (300,)]
    assert not any(moment.any() for moment in state.moments)
    assert {array.dtype for array in arrays_of(state)} == {np.dtype(np.float32)}
    assert not any(array.flags.writeable for array in arrays_of(state))
    adam = initial_state(1, 2, 400, 300, Optimizer(name="adam"))
    assert [moment.shape for moment in adam.moments] == [(400, 300), (300,)] * 2


def test_initial_weights_are_drawn_by_seed_and_layer():
    first = initial_state(1, 1, 5, 4, Optimizer())
    np.testing.assert_array_equal(initial_state(1, 1, 5, 4, Optimizer(name="adam")).weights, first.weights)
    for seed, layer in ((2, 1), (1, 2)):
        assert not np.array_equal(initial_state(seed, layer, 5, 4, Optimizer()).weights, first.weights)
    doubles = initial_state(1, 1, 5, 4, Optimizer(), np.float64).weights
    np.testing.assert_array_equal(doubles.astype(np.float32), first.weights)


def test_a_state_names_all_its_arrays():
    state = initial_state(0, 1, 5, 4, Optimizer(name="adam"))
    named = state.arrays()
    assert list(named) == ["weights", "bias", "running_mean", "moment0", "moment1", "moment2", "moment3"]
    assert all(any(array is mine for mine in arrays_of(state)) for array in named.values())


@pytest.mark.parametrize(
    ("recipe", "key", "value"),
    [
        (LayerRecipe, "threshold", 0.0),
        (LayerRecipe, "peer", -0.1),
        (LayerRecipe, "peer_momentum", 1.0),
        (LayerRecipe, "pear", 0.1),
        (Optimizer, "learning_rate", 0.0),
        (Optimizer, "learning_rate", float("nan")),
        (Optimizer, "momentum", 1.0),
        (Optimizer, "cooldown", 1.5),
        (Optimizer, "name", "sgd"),
    ],
)
def test_constants_out_of_bounds_are_refused(recipe, key, value):
    with pytest.raises(ValidationError, match=key):
        recipe(**{key: value})
