from __future__ import annotations

import math
from pathlib import Path
from tempfile import gettempdir

import numpy as np
import pytest
from device_host import COMPILER
from hypothesis import given, settings
from hypothesis import strategies as st
from standin import OnTheHost

from ffdask.augment import drawn, shifted
from ffdask.datasets.on_disk import DiskRows
from ffdask.kernels import BACKENDS, Kernels, named, reference
from ffdask.objectives import OBJECTIVES
from ffdask.objectives.classifier import classifier

quick = settings(deadline=None, max_examples=40)
shapes = st.tuples(st.integers(1, 6), st.integers(1, 7))
seeds = st.integers(0, 10**6)

ALL = {name: named(name) for name in BACKENDS} | ({"device, on the host": OnTheHost()} if COMPILER else {})
backends = pytest.mark.parametrize("kernels", ALL.values(), ids=ALL)


def normal(seed: int, *shape: int, dtype: type = np.float64) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def untouchable(*arrays: np.ndarray) -> None:
    """Whoever writes to one of them raises."""
    for array in arrays:
        array.setflags(write=False)


@backends
def test_a_backend_provides_the_whole_interface(kernels):
    promised = [name for name in vars(Kernels) if not name.startswith("_")]
    assert len(promised) >= 8
    assert all(callable(getattr(kernels, name)) for name in promised if name != "TILE")
    assert kernels.TILE >= 1


@backends
@quick
@given(shapes, st.integers(1, 5), seeds)
def test_matmul(kernels, shape, width, seed):
    a, b = normal(seed, *shape), normal(seed + 1, shape[1], width)
    untouchable(a, b)
    expected = [[sum(a[i, k] * b[k, j] for k in range(shape[1])) for j in range(width)] for i in range(shape[0])]
    np.testing.assert_allclose(kernels.matmul(a, b), expected, rtol=1e-10, atol=1e-12)
    out = np.full((shape[0], width), np.nan)
    assert kernels.matmul(a, b, out=out) is out
    np.testing.assert_allclose(out, expected, rtol=1e-10, atol=1e-12)


@quick
@given(
    n=st.integers(0, 5), height=st.integers(1, 6), width=st.integers(1, 6), channels=st.integers(0, 3),
    pixels=st.integers(0, 2), dtype=st.sampled_from([np.uint8, np.float32]), seed=seeds,
)  # fmt: skip
def test_rows_are_gathered_and_shifted_as_by_numpy(n, height, width, channels, pixels, dtype, seed):
    rng, shape = np.random.default_rng(seed), (7, height, width, *([channels] if channels else []))
    images, which = rng.integers(0, 256, shape).astype(dtype), rng.integers(0, 7, n).astype(np.uint32)
    untouchable(images, which)
    found = named("numba").gatherer(images)(which, drawn(n, pixels, np.random.default_rng(seed)))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, shifted(images[which], pixels, np.random.default_rng(seed)))


def test_what_does_not_lie_row_by_row_in_memory_is_left_to_numpy():
    images = np.zeros((4, 3, 2), np.uint8)
    vectors = np.arange(12, dtype=np.float32).reshape(4, 3)
    rows = np.array([3, 0])
    np.testing.assert_array_equal(named("numba").gatherer(vectors)(rows, np.zeros((2, 2), int)), vectors[rows])
    assert named("numba").gatherer(images[::2]) is None
    assert named("numba").gatherer(DiskRows((4, 3), "u1", [np.zeros((4, 3), np.uint8)], Path(gettempdir()))) is None


@backends
@quick
@given(st.integers(1, 4), st.integers(1, 7), st.integers(1, 3), st.booleans(), seeds)
def test_overlay_adds_the_labels_weights_and_divides_each_row(kernels, n, width, copies, heights, seed):
    rng = np.random.default_rng(seed)
    product, table, labels = normal(seed, n, width), normal(seed + 1, 3, width), rng.integers(0, 3, copies * n)
    length, height = 0.1 + rng.random(copies * n), rng.random(copies * n) if heights else None
    untouchable(product, table, labels, length)
    found = kernels.overlay(product, table, labels.astype(np.uint8), length, height)
    assert found.shape == (copies * n, width)
    for i, j in np.ndindex(*found.shape):
        added = table[labels[i], j] * (height[i] if height is not None else 1)
        assert found[i, j] == pytest.approx((product[i % n, j] + added) / length[i], rel=1e-12, abs=1e-15)


@backends
@quick
@given(st.integers(1, 4), st.integers(1, 7), st.booleans(), seeds)
def test_fold_adds_up_rows_that_share_their_pixels_and_rows_of_one_label(kernels, n, width, heights, seed):
    rng = np.random.default_rng(seed)
    dz, labels, length = normal(seed, 2 * n, width), rng.integers(0, 4, 2 * n), 0.1 + rng.random(2 * n)
    height = rng.random(2 * n) if heights else None
    untouchable(dz, labels, length)
    both, top = kernels.fold(dz, length, labels, 4, height)
    scaled = [[dz[i, j] / length[i] for j in range(width)] for i in range(2 * n)]
    for j in range(width):
        for i in range(n):
            assert both[i, j] == pytest.approx(scaled[i][j] + scaled[n + i][j], rel=1e-12, abs=1e-12)
        for label in range(4):
            rows = [i for i in range(2 * n) if labels[i] == label]
            expected = sum(scaled[i][j] * (height[i] if height is not None else 1) for i in rows)
            assert top[label, j] == pytest.approx(expected, rel=1e-12, abs=1e-12)


@backends
@quick
@given(st.integers(0, 3), st.integers(1, 4), st.integers(3, 9), st.integers(0, 3), st.booleans(), seeds)
def test_scale_writes_the_pixels_behind_the_labels_place(kernels, n, lead, pixels, cleared, floats, seed):
    images = np.random.default_rng(seed).integers(0, 256, (n, pixels)).astype(np.float32 if floats else np.uint8)
    lead = min(lead, cleared)
    values = np.full((n, lead + pixels), np.nan)
    untouchable(images)
    squares = kernels.scale(images, values, cleared)
    for i in range(n):
        row = [0.0] * lead + [float(value) / (1 if floats else 255) for value in images[i]]
        row[:cleared] = [0.0] * cleared
        np.testing.assert_allclose(values[i], row, rtol=1e-15)
        assert squares[i] == pytest.approx(sum(value**2 for value in row), rel=1e-12)


@backends
@quick
@given(shapes, seeds, st.floats(0, 0.99))
def test_the_running_mean_moves_toward_the_rows(kernels, shape, seed, keep):
    mean, positive = normal(seed, shape[1]), normal(seed + 1, *shape)
    untouchable(mean, positive)
    found = kernels.running(mean, positive, keep)
    for j in range(shape[1]):
        expected = keep * mean[j] + (1 - keep) * sum(positive[:, j]) / shape[0]
        assert found[j] == pytest.approx(expected, rel=1e-12, abs=1e-14)


@backends
@quick
@given(shapes, seeds)
def test_activate_is_relu_in_place_and_the_sum_of_squares(kernels, shape, seed):
    z, bias = normal(seed, *shape), normal(seed, shape[1])
    untouchable(bias)
    before = z.copy()
    y, goodness = kernels.activate(z, bias)
    assert np.shares_memory(y, z)
    for i in range(shape[0]):
        expected = [max(0.0, before[i, j] + bias[j]) for j in range(shape[1])]
        assert y[i].tolist() == expected
        assert goodness[i] == pytest.approx(sum(value**2 for value in expected), rel=1e-12)


@backends
@quick
@given(shapes, seeds)
def test_normalised_rows_have_an_rms_of_one_and_the_same_direction(kernels, shape, seed):
    y = np.abs(normal(seed, *shape)) + 0.01
    goodness = (y**2).sum(axis=1)
    untouchable(y, goodness)
    found = kernels.normalise(y, goodness)
    np.testing.assert_allclose(np.sqrt((found**2).mean(axis=1)), 1, rtol=1e-5)
    np.testing.assert_allclose(found / found[:, :1], y / y[:, :1], rtol=1e-9)


@backends
def test_a_silent_row_stays_zero_and_a_faint_one_is_held_by_epsilon(kernels):
    y = np.array([[0.0, 0.0], [1e-8, 1e-8], [3.0, 4.0]])
    found = kernels.normalise(y, (y**2).sum(axis=1))
    np.testing.assert_allclose(found[0], 0)
    np.testing.assert_allclose(found[1], 0.5)
    np.testing.assert_allclose(found[2], [3 / math.sqrt(12.5), 4 / math.sqrt(12.5)], rtol=1e-7)


@backends
@quick
@given(shapes, seeds)
def test_derivative_scales_each_row_and_adds_an_ungated_peer_term(kernels, shape, seed):
    y, scale, peer = np.maximum(normal(seed, *shape), 0), normal(seed, shape[0]), normal(seed + 1, shape[1])
    untouchable(y, scale, peer)
    found, total = kernels.derivative(y.copy(), scale, peer)
    for i, j in np.ndindex(*shape):
        assert found[i, j] == pytest.approx(y[i, j] * scale[i] + peer[j], rel=1e-12, abs=1e-15)
    np.testing.assert_allclose(total, sum(found), rtol=1e-12, atol=1e-12)


@backends
@quick
@given(shapes, seeds, st.sampled_from([0.0, 1.0]))
def test_derivative_below_is_each_rows_chain_rule(kernels, shape, seed, peer_size):
    n, width = shape
    y = np.maximum(normal(seed, *shape), 0)
    # The kernel's derivative leaves out what epsilon itself would add, 1e-8 / rms**2: nothing, unless a row is all but
    # silent.
    y[(y > 0) & (y < 0.3)] = 0
    y[0] = 0  # a silent row
    above, peer = normal(seed + 1, *shape), peer_size * normal(seed + 2, width)
    goodness = (y**2).sum(axis=1)
    h = kernels.normalise(y, goodness)
    untouchable(h, goodness, peer)
    found, total = kernels.derivative_below(above.copy(), h, goodness, peer)
    np.testing.assert_allclose(total, sum(found), rtol=1e-12, atol=1e-12)
    for i in range(n):
        rms = math.sqrt(goodness[i] / width)
        for j in range(width):
            through = 0.0
            for k in range(width):
                # Of y[k] / (rms + epsilon) by y[j]; an off unit has no slope by its pre-activation.
                slope = (k == j) / (rms + 1e-8)
                slope -= y[i, k] * y[i, j] / (width * rms * (rms + 1e-8) ** 2) if rms else 0.0
                through += above[i, k] * slope * (y[i, j] > 0)
            assert found[i, j] == pytest.approx(through + peer[j], rel=1e-5, abs=1e-5)
    np.testing.assert_array_equal(found[0], peer)


@backends
@quick
@given(shapes, seeds, st.floats(0.001, 1), st.floats(0, 0.99), st.floats(0, 0.1))
def test_momentum(kernels, shape, seed, rate, keep, decay):
    w, m = normal(seed, *shape), normal(seed + 1, *shape)
    expected_w, expected_m = w.copy(), m.copy()
    for step in range(3):
        gradient = normal(seed + 2 + step, *shape)
        expected_m = keep * expected_m + (1 - keep) * gradient
        expected_w = expected_w - rate * (expected_m + decay * expected_w)
        kernels.momentum(w, (m,), gradient, rate, keep, decay)
    np.testing.assert_allclose(m, expected_m, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(w, expected_w, rtol=1e-9, atol=1e-12)


@backends
@quick
@given(shapes, seeds, st.floats(0.001, 1), st.floats(0, 0.1))
def test_adam_with_decoupled_decay(kernels, shape, seed, rate, decay):
    w, m, v = normal(seed, *shape), np.zeros(shape), np.zeros(shape)
    weights, gradients = w.copy(), [normal(seed + 2 + step, *shape) for step in range(4)]
    for step, gradient in enumerate(gradients, start=1):
        kernels.adam(w, (m, v), gradient.copy(), rate, step, decay)
    for index in np.ndindex(*shape):
        weight, first, second = weights[index], 0.0, 0.0
        for step, gradient in enumerate(gradients, start=1):
            first = 0.9 * first + 0.1 * gradient[index]
            second = 0.999 * second + 0.001 * gradient[index] ** 2
            mean, square = first / (1 - 0.9**step), second / (1 - 0.999**step)
            weight = weight - rate * decay * weight - rate * mean / (math.sqrt(square) + 1e-8)
        assert w[index] == pytest.approx(weight, rel=1e-8, abs=1e-10)
        assert m[index] == pytest.approx(first, rel=1e-8, abs=1e-10)
        assert v[index] == pytest.approx(second, rel=1e-8, abs=1e-10)


@backends
def test_adams_first_step_is_the_rate_whatever_the_gradients_size(kernels):
    w, gradient = np.zeros(3), np.array([1e-3, -1.0, 1e4])
    kernels.adam(w, (np.zeros(3), np.zeros(3)), gradient, 0.5, 1, 0.0)
    np.testing.assert_allclose(w, [-0.5, 0.5, -0.5], rtol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(7,), (5, 13)])
@pytest.mark.parametrize("block", [1, 3, 64, 65])
def test_updates_have_the_same_bits_in_blocks_of_any_size(monkeypatch, dtype, shape, block):
    def moved() -> list[np.ndarray]:
        w, m, v = (normal(seed, *shape, dtype=dtype) for seed in range(3))
        adam_w, adam_m, adam_v = w.copy(), m.copy(), np.abs(v)
        for step in (1, 2):
            reference.momentum(w, (m,), normal(9 + step, *shape, dtype=dtype), 0.1, 0.9, 0.01)
            reference.adam(adam_w, (adam_m, adam_v), normal(9 + step, *shape, dtype=dtype), 0.1, step, 0.01)
        return [w, m, adam_w, adam_m, adam_v]

    whole = moved()
    monkeypatch.setattr(reference, "BLOCK", block)
    for one, other in zip(whole, moved(), strict=True):
        assert one.dtype == other.dtype == dtype
        np.testing.assert_array_equal(one, other, strict=True)


@backends
def test_float32_stays_float32(kernels):
    a, b = normal(0, 4, 3, dtype=np.float32), normal(1, 3, 5, dtype=np.float32)
    z = kernels.overlay(kernels.matmul(a, b), b, np.zeros(4, np.uint8), np.full(4, 0.5, np.float32))
    y, goodness = kernels.activate(z, b[1])
    h = kernels.normalise(y, goodness)
    results = [y, goodness, h, kernels.running(b[0], h, 0.9)]
    results += [*kernels.fold(y, goodness, np.zeros(4, np.uint8), 2), kernels.scale(a, np.empty_like(a), 1)]
    results += [*kernels.derivative(y, goodness, b[2]), *kernels.derivative_below(np.ones_like(h), h, goodness, b[2])]
    assert {array.dtype for array in results} == {np.dtype(np.float32)}


SPECIAL = st.sampled_from([0.0, -0.0, 1.0, -2.5, 1e-30, -1e-30, 1e30, np.inf, -np.inf, np.nan])


@quick
@given(st.lists(SPECIAL, min_size=12, max_size=12), st.lists(SPECIAL, min_size=3, max_size=3))
def test_the_backends_agree_on_nan_infinity_and_extremes(values, more):
    """A layer that diverges says so, whatever the backend: NaN is not lost on the way."""
    found = []
    for kernels in ALL.values():
        with np.errstate(all="ignore"):
            z, row = np.array(values).reshape(4, 3), np.array(more)
            y, goodness = kernels.activate(z.copy(), row)
            each = [y.copy(), goodness, kernels.normalise(y, goodness), kernels.running(row, z, 0.9)]
            each += kernels.derivative(y.copy(), goodness, row)
            each += kernels.derivative_below(z.copy(), y.copy(), goodness, row)
            weights, moment = z.copy(), np.ones_like(z)
            kernels.momentum(weights, (moment,), y.copy(), 0.1, 0.9, 0.01)
            head, average = z.copy(), np.ones_like(z)
            kernels.descend(head, average, y.copy(), 0.1, 0.9, 0.01)
            each += [
                kernels.pull(row, 0.03),
                *kernels.classes(classifier, z, np.array([0, 1, 2, 0]), z[:, 0].copy(), 3),
            ]
            for objective in (OBJECTIVES["goodness"], OBJECTIVES["symba"]):
                each += kernels.pairs(objective, goodness, 3, 1.0, False)
            found.append([*each, weights, moment, head, average])
    for one, *others in zip(*found, strict=True):
        # Whether it is NaN or infinity may depend on the order of a sum; that it is neither may not.
        finite = np.isfinite(one)
        for other in others:
            np.testing.assert_array_equal(finite, np.isfinite(other))
            np.testing.assert_allclose(one[finite], other[finite], rtol=1e-9, atol=1e-12)


@backends
@quick
@given(st.integers(1, 5), st.integers(1, 40), st.booleans(), seeds, st.sampled_from(["goodness", "symba"]))
def test_pairs_are_judged_by_their_objective(kernels, n, width, mean, seed, name):
    objective, goodness = OBJECTIVES[name], width * np.random.default_rng(seed).gamma(1, 1, 2 * n)
    untouchable(goodness)
    scale, seen = kernels.pairs(objective, goodness, width, 0.7, mean)
    over, theta = (width, 0.7) if mean else (1, 0.7 * width)
    positive, negative = goodness[:n] / over, goodness[n:] / over
    loss, slope = objective.loss(positive, negative, theta)
    np.testing.assert_allclose(scale, 2 * slope / over, rtol=1e-12)
    pairs = zip(positive, negative, strict=True)
    wrong = sum(int(p <= theta) + int(q > theta) if name == "goodness" else 2 * int(p <= q) for p, q in pairs)
    np.testing.assert_allclose(seen, [loss * n, goodness[:n].sum() / width, goodness[n:].sum() / width, wrong])
    assert seen.dtype == np.float64


@backends
@quick
@given(st.integers(1, 6), st.integers(2, 5), st.booleans(), seeds)
def test_class_scores_are_judged_by_cross_entropy(kernels, n, classes, layers_own, seed):
    rng = np.random.default_rng(seed)
    logits, labels = 9 * normal(seed, n, classes), rng.integers(0, classes, n).astype(np.uint8)
    # A tie is the lowest class's.
    logits[0] = 3.0
    goodness = rng.random(n) if layers_own else None
    untouchable(logits, labels)
    derivative, seen = kernels.classes(classifier, logits, labels, goodness, 7)
    loss, expected = classifier(logits, labels)
    np.testing.assert_allclose(derivative, expected, rtol=1e-9, atol=1e-15)
    wrong = sum(max(range(classes), key=lambda c: row[c]) != label for row, label in zip(logits, labels, strict=True))
    np.testing.assert_allclose(seen, [loss * n, 0 if goodness is None else goodness.sum() / 7, 0, wrong])


@backends
@quick
@given(st.integers(1, 40), seeds)
def test_the_pull_is_toward_the_mean(kernels, width, seed):
    running = normal(seed, width)
    untouchable(running)
    expected = [0.03 * (value - sum(running) / width) for value in running]
    np.testing.assert_allclose(kernels.pull(running, 0.03), expected, rtol=1e-9, atol=1e-15)


@backends
@quick
@given(shapes, seeds, st.floats(0.001, 1), st.floats(0, 0.99), st.floats(0, 0.1))
def test_a_heads_decay_is_part_of_its_gradient(kernels, shape, seed, rate, keep, decay):
    w, m, gradient = normal(seed, *shape), normal(seed + 1, *shape), normal(seed + 2, *shape)
    expected_m = keep * m + (1 - keep) * (gradient + decay * w)
    expected_w = w - rate * expected_m
    kernels.descend(w, m, gradient, rate, keep, decay)
    np.testing.assert_allclose(m, expected_m, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(w, expected_w, rtol=1e-9, atol=1e-12)


def placed(arrays: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Copies of arrays in one block of memory, in any order, close together."""
    block = np.empty(sum(array.nbytes + 256 for array in arrays), np.uint8)
    found, at = {}, int(-block.ctypes.data % 64 + 4 * rng.integers(16))
    for index in rng.permutation(len(arrays)).tolist():
        array = arrays[index]
        found[index] = block[at : at + array.nbytes].view(array.dtype).reshape(array.shape)
        found[index][...] = array
        at += -(-array.nbytes // 8) * 8 + int(4 * rng.integers(3) * 2)
    return [found[index] for index in range(len(arrays))]


@backends
@pytest.mark.parametrize("width", [37, 200, 784])
def test_the_same_bits_wherever_the_arrays_lie(kernels, width):
    """Compiled loops come in two kinds, one for arrays that may overlap: both must do the same to the bit."""
    rng, n = np.random.default_rng(width), 24
    z, y = (rng.standard_normal((n, width), dtype=np.float32) for _ in range(2))
    row, table = rng.standard_normal(width, dtype=np.float32), rng.standard_normal((10, width), dtype=np.float32)
    each, labels = 1 + rng.random(n, dtype=np.float32), rng.integers(0, 10, n).astype(np.uint8)
    images, out = rng.integers(0, 256, (n, width)).astype(np.uint8), np.empty_like(z)
    seen: dict[str, tuple[bytes, ...]] = {}
    for _ in range(60):
        one, other, line, rows, scale, numbers, pixels, values = placed(
            [z, y, row, table, each, labels, images, out], rng
        )
        weights, moment, gradient, second = placed([z, y, z, y * y], rng)
        kernels.momentum(weights, (moment,), gradient.copy(), 0.01, 0.9, 0.002)
        adam = [weights.copy(), moment.copy()]
        kernels.adam(weights, (moment, second), gradient, 0.01, 3, 0.002)
        found = {
            "overlay": [kernels.overlay(one[: n // 2], rows, numbers, scale)],
            "fold": kernels.fold(one, scale, numbers, 10),
            "running": [kernels.running(line, other, 0.9)],
            "normalise": [kernels.normalise(other, scale, values).copy()],
            "scale": [kernels.scale(pixels, values, 10), values],
            "activate": [array.copy() for array in kernels.activate(one, line)],
            "derivative": [array.copy() for array in kernels.derivative(one, scale, line)],
            "derivative_below": kernels.derivative_below(one, other, scale, line),
            "momentum": adam,
            "adam": [weights, moment, second],
        }
        for name, arrays in found.items():
            bits = tuple(array.tobytes() for array in arrays)
            assert seen.setdefault(name, bits) == bits, name
