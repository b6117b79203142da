"""That products are asked of cuBLAS by the right addresses and distances, whatever lies where: read by a stand-in."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import standin
from hypothesis import given
from hypothesis import strategies as st

with standin.in_the_place_of_cupy():
    cublas = importlib.import_module("ffdask.kernels.cublas")

product = cublas.Product()
sizes = st.integers(1, 5)


def lying(rng: np.random.Generator, rows: int, columns: int, how: str, dtype: type) -> np.ndarray:
    """A matrix of random numbers, part of a larger one or its transpose."""
    if how == "rows":
        return rng.standard_normal((rows, columns)).astype(dtype)
    if how == "turned":
        return rng.standard_normal((columns, rows)).astype(dtype).T
    if how == "columns of rows":
        return rng.standard_normal((rows, columns + 3)).astype(dtype)[:, 1 : columns + 1]
    if how == "turned columns of rows":
        return rng.standard_normal((columns, rows + 3)).astype(dtype)[:, 2 : rows + 2].T
    return rng.standard_normal((2 * rows, 3 * columns)).astype(dtype)[::2, ::3]


lies = st.sampled_from(["rows", "turned", "columns of rows", "turned columns of rows", "here and there"])


@given(sizes, sizes, sizes, lies, lies, st.sampled_from([np.float32, np.float64]), st.booleans(), st.integers(0, 99))
def test_a_product_wherever_its_factors_lie(n, inner, width, how_a, how_b, dtype, given_out, seed):
    rng = np.random.default_rng(seed)
    a, b = lying(rng, n, inner, how_a, dtype), lying(rng, inner, width, how_b, dtype)
    out = standin.empty((n, width), dtype) if given_out else None
    found = product(standin.ndarray(a), standin.ndarray(b), out)
    assert out is None or found is out
    np.testing.assert_allclose(found.get(), a @ b, rtol=1e-4, atol=1e-4)
    assert found.dtype == dtype


def test_empty_sides():
    ones = standin.ndarray(np.ones((3, 0), np.float32))
    assert (product(ones, ones.T).get() == np.zeros((3, 3))).all()
    assert product(ones.T, ones).shape == (0, 0)
    two = standin.ndarray(np.ones((2, 4), np.float32))
    assert product(two.T[:0], two).shape == (0, 4)


@pytest.mark.parametrize(
    ("a", "b", "out"),
    [
        (np.ones((2, 3), np.float32), np.ones((2, 3), np.float32), None),
        (np.ones((2, 3), np.float32), np.ones((3, 2), np.float64), None),
        (np.ones((2, 3), np.float32), np.ones((3, 2), np.float32), np.ones((2, 3), np.float32)),
        (np.ones((2, 3), np.float32), np.ones((3, 2), np.float32), np.ones((2, 2), np.float64)),
        (np.ones((2, 3), np.float32), np.ones((3, 2), np.float32), np.ones((4, 2), np.float32)[::2]),
    ],
)
def test_what_does_not_fit_is_refused_before_the_library_reads_it(a, b, out):
    with pytest.raises(ValueError, match="a product of"):
        product(*(standin.ndarray(array) if array is not None else None for array in (a, b, out)))


def test_the_stand_in_sees_a_wrong_distance():
    a = standin.ndarray(np.ones((2, 3), np.float32))
    with pytest.raises(AssertionError, match="numbers between columns"):
        standin.gemm_ex(4711, 0, 0, 2, 2, 3, **wrong(a, lda=1))
    with pytest.raises(AssertionError, match="beyond"):
        standin.gemm_ex(4711, 0, 0, 2, 2, 3, **wrong(a, lda=900))


ONE, ZERO = np.array(1, np.float32), np.array(0, np.float32)


def wrong(a, lda):
    kinds = {"alpha": ONE.ctypes.data, "beta": ZERO.ctypes.data, "of_a": 0, "of_b": 0, "of_c": 0, "compute": 68}
    return kinds | dict.fromkeys("abc", a.data.ptr) | {"lda": lda, "ldb": 3, "ldc": 2, "algo": -1}
