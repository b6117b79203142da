from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffdask.kernels import KERNELS, Kernels, reference

quick = settings(deadline=None, max_examples=40)
shapes = st.tuples(st.integers(1, 6), st.integers(1, 7))
seeds = st.integers(0, 10**6)

backends = pytest.mark.parametrize("kernels", KERNELS.values(), ids=KERNELS)


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
    assert all(callable(getattr(kernels, name)) for name in promised)


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


@backends
@quick
@given(shapes, seeds)
def test_overlay_adds_the_labels_weights_and_divides_each_row(kernels, shape, seed):
    product, label_weights = normal(seed, *shape), normal(seed + 1, *shape)
    length = 0.1 + np.abs(normal(seed, shape[0]))
    untouchable(product, label_weights, length)
    found = kernels.overlay(product, label_weights, length)
    shared = kernels.overlay(product, label_weights[0], length)
    for i, j in np.ndindex(*shape):
        assert found[i, j] == pytest.approx((product[i, j] + label_weights[i, j]) / length[i], rel=1e-12)
        assert shared[i, j] == pytest.approx((product[i, j] + label_weights[0, j]) / length[i], rel=1e-12)


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
    found = kernels.derivative(y, scale, peer)
    for i, j in np.ndindex(*shape):
        assert found[i, j] == pytest.approx(y[i, j] * scale[i] + peer[j], rel=1e-12, abs=1e-15)


@backends
@quick
@given(shapes, seeds, st.sampled_from([0.0, 1.0]))
def test_derivative_below_is_each_rows_chain_rule(kernels, shape, seed, peer_size):
    n, width = shape
    y = np.maximum(normal(seed, *shape), 0)
    y[(y > 0) & (y < 0.05)] = 0
    y[0] = 0  # a silent row
    above, peer = normal(seed + 1, *shape), peer_size * normal(seed + 2, width)
    goodness = (y**2).sum(axis=1)
    h = kernels.normalise(y, goodness)
    untouchable(h, goodness, peer)
    found = kernels.derivative_below(above.copy(), h, goodness, peer)
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
    z = kernels.overlay(kernels.matmul(a, b), b[0], np.full(4, 0.5, np.float32))
    y, goodness = kernels.activate(z, b[1])
    h = kernels.normalise(y, goodness)
    results = [y, goodness, h, kernels.derivative(y, goodness, b[2])]
    results.append(kernels.derivative_below(np.ones_like(h), h, goodness, b[2]))
    assert {array.dtype for array in results} == {np.dtype(np.float32)}
