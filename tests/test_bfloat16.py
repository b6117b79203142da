from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import ThreadpoolController

from ffdask.kernels import BACKENDS, named, onednn, without_bfloat16
from ffdask.kernels.bfloat16 import THIN
from ffdask.layer import Activities, LayerRecipe, Optimizer, Trainee, initial_state
from ffdask.objectives import OBJECTIVES

lacking = without_bfloat16()
needs = pytest.mark.skipif(bool(lacking), reason=f"no bfloat16 products here: {lacking}")
backends = pytest.mark.parametrize("backend", BACKENDS)

SPECIAL = [0, 1, 0x7F80_0000, 0xFF80_0000, 0x7FC0_0000, 0x7F80_0001, 0xFFFF_FFFF, 0x3F80_8000, 0x3F81_8000, 0x7F7F_FFFF]
"""Zero, the smallest number, both infinities, NaN by several bits, two ties, the largest number (which overflows)."""


def normal(seed, *shape):
    return np.random.default_rng([seed, *shape]).standard_normal(shape, dtype=np.float32)


def rounded(x):
    """The nearest bfloat16 numbers, as float32, by a library."""
    return x.astype(ml_dtypes.bfloat16).astype(np.float32)


@backends
@given(bits=st.lists(st.one_of(st.integers(0, 2**32 - 1), st.sampled_from(SPECIAL)), min_size=1, max_size=40))
def test_rounding_is_to_the_nearest_and_ties_go_to_even(backend, bits):
    x = np.array(bits, np.uint32).view(np.float32)[None]
    x.setflags(write=False)
    with np.errstate(invalid="ignore"):
        found, expected = np.empty(x.shape, np.uint16), x.astype(ml_dtypes.bfloat16)
    named(backend).to_bfloat16(x, found)
    number = ~np.isnan(x)
    assert (found[number] == expected.view(np.uint16)[number]).all()
    assert np.isnan(found.view(ml_dtypes.bfloat16)[~number].astype(np.float32)).all()


@needs
@backends
@given(
    n=st.integers(THIN, 80), inputs=st.integers(THIN, 90), width=st.integers(THIN, 70), turned=st.booleans(),
    first=st.booleans(), second=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_a_product_is_that_of_the_rounded_factors(backend, n, inputs, width, turned, first, second, seed):
    kernels = named(backend, "bfloat16")
    a = normal(seed, inputs, n).T if turned else normal(seed, n, inputs)
    b = normal(seed + 1, inputs, width)
    exact = rounded(a).astype(np.float64) @ rounded(b).astype(np.float64)
    given_a, given_b = (kernels.rounded(a) if first else a), (kernels.rounded(b) if second else b)
    out = np.full((n, width), np.nan, np.float32)
    assert kernels.matmul(given_a, given_b, out=out) is out
    np.testing.assert_allclose(out, exact, rtol=0, atol=3e-5 * np.sqrt(inputs))
    assert (kernels.matmul(given_a, given_b) == out).all()


@needs
def test_a_tile_of_a_turned_factor_is_the_rows_of_the_whole_product():
    kernels, left, right = named("numba", "bfloat16"), normal(0, 64, 300), normal(1, 64, 48)
    whole = kernels.matmul(kernels.rounded(left).T, kernels.rounded(right))
    for rows in (slice(0, 128), slice(128, 256), slice(256, 300)):
        out = np.empty((rows.stop - rows.start, 48), np.float32)
        kernels.matmul(kernels.rounded(left)[:, rows].T, kernels.rounded(right), out=out)
        np.testing.assert_allclose(out, whole[rows], rtol=1e-5, atol=1e-5)


@needs
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_so(bad):
    a, b = normal(0, 40, 50), normal(1, 50, 60)
    a[3, 7] = bad
    found = named("numba", "bfloat16").matmul(a, b)
    assert not np.isfinite(found[3]).any()
    assert np.isfinite(np.delete(found, 3, axis=0)).all()


@needs
def test_thin_products_and_float64_are_not_rounded():
    kernels, a, b = named("numba", "bfloat16"), normal(0, 200, 100), normal(1, 100, 10)
    assert (kernels.matmul(a, b) == a @ b).all()
    wide = normal(2, 100, 64)
    assert (kernels.matmul(a, wide) != a @ wide).any()
    assert (kernels.matmul(a.astype(float), wide) == a.astype(float) @ wide).all()
    # Factors that are rounded already can be thin too: the last rows of a gradient.
    thin = kernels.matmul(kernels.rounded(a)[:5], kernels.rounded(wide))
    np.testing.assert_array_equal(thin, rounded(a[:5]) @ rounded(wide))


@needs
def test_weights_that_are_followed_are_what_they_were_when_last_told_of():
    kernels, x, weights = named("numba", "bfloat16"), normal(0, 50, 80), normal(1, 80, 64)
    kernels.follow(weights)
    before = kernels.matmul(x, weights)
    weights[40:] *= 2
    assert (kernels.matmul(x, weights) == before).all()
    kernels.follow(weights, slice(40, 80))
    assert (kernels.matmul(x, weights) == named("numba", "bfloat16").matmul(x, weights)).all()
    # Others, of the same shape, are not they.
    assert (kernels.matmul(x, 2 * weights) == named("numba", "bfloat16").matmul(x, 2 * weights)).all()


@needs
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_a_layers_steps_stay_near_those_in_float32_and_follow_the_weights(optimizer, monkeypatch):
    # Several tiles, the last of them thin.
    monkeypatch.setattr(named("numba"), "TILE", 64 * 40)
    moved = {}
    for precision in ("float32", "bfloat16"):
        kernels, chosen = named("numba", precision), Optimizer(name=optimizer, learning_rate=0.001)
        state = initial_state(0, 2, 96, 64, chosen)
        trainee = Trainee(state, LayerRecipe(), chosen, OBJECTIVES["goodness"], kernels)
        for step in range(5):
            inputs = Activities(np.abs(normal(step, 128, 96)))
            y, goodness, _ = trainee.forward(inputs)
            if step == 4 and precision == "bfloat16":
                z = rounded(inputs.values) @ rounded(trainee.now.weights) + trainee.now.bias
                np.testing.assert_allclose(y, np.maximum(z, 0), atol=1e-5)
            trainee.learn(inputs, y, goodness, 1.0)
        moved[precision] = trainee.now.weights - state.weights
    assert (moved["float32"] != moved["bfloat16"]).any()
    size = np.linalg.norm(moved["float32"])
    assert np.linalg.norm(moved["float32"] - moved["bfloat16"]) < 0.05 * size


@needs
def test_shapes_that_do_not_fit_are_refused():
    x = named("numba", "bfloat16").rounded(normal(0, 64, 96))
    w = named("numba", "bfloat16").rounded(normal(1, 96, 64))
    wide = np.empty((64, 128), np.float32)
    for b, out in ((w[:40], wide[:, :64].copy()), (w, wide[:, :64]), (w, wide)):
        with pytest.raises(ValueError, match="a product of"):
            onednn.matmul(x, b, out)


@needs
def test_threads_get_the_same_bits_and_keep_their_own_number_of_openmp_threads():
    a, b = normal(0, 128, 200), normal(1, 200, 300)
    expected = named("numba", "bfloat16").matmul(a, b)
    openmp = ThreadpoolController().select(user_api="openmp").lib_controllers
    assert openmp

    def several(_):
        for library in openmp:
            library.set_num_threads(2)
        same = all((named("numba", "bfloat16").matmul(a, b) == expected).all() for _ in range(20))
        return same and all(library.get_num_threads() == 2 for library in openmp)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(several, range(8)))


def test_a_machine_without_the_library_says_what_to_install(monkeypatch):
    monkeypatch.setattr(onednn, "DISTRIBUTIONS", ("no-such-package",))
    monkeypatch.setattr(onednn, "NAME", "libnosuch.so.9")
    monkeypatch.setattr(onednn, "_library", onednn._library.__wrapped__)
    assert "pip install 'ffdask[bfloat16]'" in onednn.unavailable.__wrapped__()
    assert "libnosuch.so.9" in onednn.unavailable.__wrapped__()


def test_a_processor_without_the_instructions_is_named(monkeypatch):
    class Old:
        @staticmethod
        def dnnl_get_effective_cpu_isa():
            return 0x67

    monkeypatch.setattr(onednn, "_library", Old)
    assert onednn.unavailable.__wrapped__() == "its processor has neither AVX512-BF16 nor AMX"
