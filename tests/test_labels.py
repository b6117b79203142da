from __future__ import annotations

import numpy as np
import plain
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffdask.kernels import reference
from ffdask.labels import Bare, Overlaid, Pixels

quick = settings(deadline=None, max_examples=40)
F64 = np.dtype(np.float64)


def minibatch(seed: int, n: int, side: int, classes: int, width: int):
    rng = np.random.default_rng([seed, n, side, classes, width])
    labels = rng.integers(0, classes, n).astype(np.uint8)
    wrong = ((labels + rng.integers(1, classes, n)) % classes).astype(np.uint8)
    return plain.images(rng, n, side), labels, wrong, rng.standard_normal((side * side, width))


cases = st.builds(
    lambda seed, n, side, classes, width: (*minibatch(seed, n, side, classes, width), classes),
    st.integers(0, 10**6),
    st.integers(1, 5),
    st.integers(4, 7),
    st.integers(2, 10),
    st.integers(1, 5),
)


def test_pixels_are_scaled_and_the_labels_place_is_cleared():
    images = np.arange(32, dtype=np.uint8).reshape(2, 4, 4) * 8
    images.setflags(write=False)
    pixels = Pixels.of(images, 3, F64, kernels=reference)
    expected = images.reshape(2, 16) / 255
    assert pixels.values[:, :3].tolist() == [[0.0] * 3] * 2
    np.testing.assert_allclose(pixels.values[:, 3:], expected[:, 3:], rtol=1e-15)
    np.testing.assert_allclose(pixels.squares, (expected[:, 3:] ** 2).sum(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(Pixels.of(images.reshape(2, 16), 3, F64, kernels=reference).values, pixels.values)
    assert Pixels.of(images, 3, np.dtype(np.float32), kernels=reference).values.dtype == np.float32


@quick
@given(cases)
def test_positive_and_negative_rows_are_the_plain_product(case):
    images, labels, wrong, weights, classes = case
    pixels = Pixels.of(images, classes, F64, kernels=reference)
    z, product = Overlaid(pixels, np.concatenate([labels, wrong])).preactivations(weights, reference)
    n = len(images)
    np.testing.assert_allclose(z[:n], plain.rows(images, labels, classes) @ weights, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(z[n:], plain.rows(images, wrong, classes) @ weights, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(product, pixels.product(weights, reference))


@quick
@given(cases)
def test_labelled_rows_are_the_plain_product(case):
    images, labels, _, weights, classes = case
    pixels = Pixels.of(images, classes, F64, kernels=reference)
    product = pixels.product(weights, reference)
    product.setflags(write=False)
    z = pixels.labelled(product, weights, labels, reference)
    np.testing.assert_allclose(z, plain.rows(images, labels, classes) @ weights, rtol=1e-9, atol=1e-9)


@quick
@given(cases)
def test_neutral_rows_are_the_plain_product_with_an_equal_share_of_each_label(case):
    images, _, _, weights, classes = case
    pixels = Pixels.of(images, classes, F64, kernels=reference)
    product = pixels.product(weights, reference)
    product.setflags(write=False)
    z = pixels.neutral(product, weights, reference)
    np.testing.assert_allclose(z, plain.rows(images, None, classes) @ weights, rtol=1e-9, atol=1e-9)


def test_the_three_kinds_at_the_size_of_mnist():
    images, labels, wrong, weights = minibatch(1, 20, 28, 10, 6)
    pixels = Pixels.of(images, 10, F64, kernels=reference)
    rows = [plain.rows(images, label, 10) for label in (labels, wrong, None)]
    assert rows[0].shape == (20, 784)
    for row, neutral in zip(plain.rows(images, labels, 10), rows[2], strict=True):
        assert np.count_nonzero(row[:10]) == 1
        assert neutral[0] == neutral[9] > 0
    z, product = Overlaid(pixels, np.concatenate([labels, wrong])).preactivations(weights, reference)
    np.testing.assert_allclose(z, np.concatenate(rows[:2]) @ weights, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(pixels.neutral(product, weights, reference), rows[2] @ weights, rtol=1e-9, atol=1e-9)


def test_a_black_image_is_its_label_alone():
    pixels = Pixels.of(np.zeros((1, 4, 4), np.uint8), 10, F64, kernels=reference)
    weights = np.random.default_rng(0).standard_normal((16, 3))
    z = pixels.labelled(pixels.product(weights, reference), weights, np.array([7]), reference)
    np.testing.assert_allclose(z[0], 4 * weights[7], rtol=1e-6)


def test_ink_under_the_label_does_not_matter():
    images, labels, _, weights = minibatch(2, 3, 5, 10, 4)
    inked = images.copy()
    inked.reshape(3, -1)[:, :10] = 200
    one, other = (Pixels.of(each, 10, F64, kernels=reference) for each in (images, inked))
    np.testing.assert_array_equal(
        one.labelled(one.product(weights, reference), weights, labels, reference),
        other.labelled(other.product(weights, reference), weights, labels, reference),
    )


@quick
@given(cases)
def test_the_gradient_is_the_plain_one(case):
    images, labels, wrong, weights, classes = case
    both = np.concatenate([labels, wrong])
    dz = np.random.default_rng(len(images)).standard_normal((len(both), weights.shape[1]))
    pixels = Pixels.of(images, classes, F64, kernels=reference)
    for array in (dz, both, pixels.values, pixels.squares):
        array.setflags(write=False)
    found = plain.gradient(Overlaid(pixels, both), dz, reference)
    rows = plain.rows(np.concatenate([images, images]), both, classes)
    expected = sum(np.outer(row, slope) for row, slope in zip(rows, dz, strict=True))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("label", [0, 9])
def test_only_a_rows_own_label_gets_a_gradient(label):
    images, _, _, _ = minibatch(3, 1, 4, 10, 2)
    pixels = Pixels.of(images, 10, F64, kernels=reference)
    other = 5
    dz = np.array([[1.0, 2.0], [0.0, 0.0]])
    gradient = plain.gradient(Overlaid(pixels, np.array([label, other])), dz, reference)
    assert np.flatnonzero(gradient[:10].any(axis=1)).tolist() == [label]


def test_float32_stays_float32():
    images, labels, wrong, weights = minibatch(4, 3, 5, 10, 4)
    weights = weights.astype(np.float32)
    pixels = Pixels.of(images, 10, np.dtype(np.float32), kernels=reference)
    overlaid = Overlaid(pixels, np.concatenate([labels, wrong]))
    z, product = overlaid.preactivations(weights, reference)
    found = [z, product, pixels.neutral(product, weights, reference), plain.gradient(overlaid, z, reference)]
    assert {array.dtype for array in found} == {np.dtype(np.float32)}


@pytest.mark.parametrize("shape", [(30,), (6, 5), (2, 5, 3)])
def test_floats_are_taken_as_they_are_and_bytes_are_scaled(shape):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, *shape), dtype=np.uint8)
    floats = images.astype(np.float32) / np.float32(255)
    floats.setflags(write=False)
    one, other = (Pixels.of(each, 10, np.dtype(np.float32), kernels=reference) for each in (images, floats))
    np.testing.assert_array_equal(one.values, other.values)
    np.testing.assert_array_equal(one.values[:, :10], 0)
    np.testing.assert_array_equal(
        Pixels.of(floats - 3, 10, np.dtype(np.float32), kernels=reference).values[:, 10:],
        (floats - 3).reshape(4, -1)[:, 10:],
    )


# --- wherever the label goes

overlays = pytest.mark.parametrize("overlay", ["replace", "append"])


def weights_for(case, overlay: str) -> np.ndarray:
    """Weights of a case, with rows for labels that have inputs of their own."""
    weights, classes = case[3], case[4]
    more = np.random.default_rng(classes).standard_normal((classes, weights.shape[1]))
    return np.concatenate([more, weights]) if overlay == "append" else weights


@overlays
@quick
@given(cases)
def test_each_kind_of_row_is_the_plain_product(overlay, case):
    images, labels, wrong, _, classes = case
    weights, n = weights_for(case, overlay), len(images)
    pixels = Pixels.of(images, classes, F64, overlay, kernels=reference)
    product = pixels.product(weights, reference)
    for array in (weights, product, pixels.values, pixels.squares):
        array.setflags(write=False)
    z, shared = Overlaid(pixels, np.concatenate([labels, wrong])).preactivations(weights, reference)
    np.testing.assert_array_equal(shared, product)
    found = [z[:n], z[n:], pixels.labelled(product, weights, wrong, reference)]
    found.append(pixels.neutral(product, weights, reference))
    for each, chosen in zip(found, (labels, wrong, wrong, None), strict=True):
        expected = plain.rows(images, chosen, classes, overlay) @ weights
        np.testing.assert_allclose(each, expected, rtol=1e-9, atol=1e-9)


@overlays
@quick
@given(cases)
def test_the_gradient_of_both_kinds_is_the_plain_one(overlay, case):
    images, labels, wrong, _, classes = case
    weights, both = weights_for(case, overlay), np.concatenate([labels, wrong])
    dz = np.random.default_rng(len(images)).standard_normal((len(both), weights.shape[1]))
    dz.setflags(write=False)
    overlaid = Overlaid(Pixels.of(images, classes, F64, overlay, kernels=reference), both)
    found = plain.gradient(overlaid, dz, reference)
    rows = plain.rows(np.concatenate([images, images]), both, classes, overlay)
    expected = sum(np.outer(row, slope) for row, slope in zip(rows, dz, strict=True))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@quick
@given(cases)
def test_rows_without_a_label_are_the_plain_pixels(case):
    images, _, _, weights, classes = case
    bare = Bare(Pixels.of(images, classes, F64, "none", kernels=reference))
    rows = plain.rows(images, None, classes, "none")
    z, product = bare.preactivations(weights, reference)
    np.testing.assert_allclose(z, rows @ weights, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(bare.pixels.plain(product, reference), z)
    dz = np.random.default_rng(len(images)).standard_normal(z.shape)
    dz.setflags(write=False)
    np.testing.assert_allclose(plain.gradient(bare, dz, reference), rows.T @ dz, rtol=1e-9, atol=1e-9)


def test_appended_labels_leave_every_pixel_and_weigh_an_88th_of_them():
    images, labels, _, weights = minibatch(5, 6, 6, 10, 4)
    pixels = Pixels.of(images, 10, F64, "append", kernels=reference)
    assert pixels.values.shape == (6, 46)
    np.testing.assert_allclose(pixels.values[:, 10:], images.reshape(6, 36) / 255, rtol=1e-15)
    rows = plain.rows(images, labels, 10, "append")
    np.testing.assert_allclose((rows[:, :10] ** 2).sum(axis=1) * 88, (rows[:, 10:] ** 2).sum(axis=1))
    # A row twice as bright is the same row.
    dark, bright = (Pixels.of(images // 2 * factor, 10, F64, "append", kernels=reference) for factor in (1, 2))
    weights = np.concatenate([weights[:10], weights])
    one, other = (p.labelled(p.product(weights, reference), weights, labels, reference) for p in (dark, bright))
    np.testing.assert_allclose(one, other, rtol=1e-6)


def test_a_black_image_gives_nothing_where_its_label_has_no_height():
    weights = np.random.default_rng(0).standard_normal((26, 3))
    for overlay in ("append", "none"):
        pixels = Pixels.of(np.zeros((1, 4, 4), np.uint8), 10, F64, overlay, kernels=reference)
        own = weights[: pixels.values.shape[1]]
        product = pixels.product(own, reference)
        z = pixels.plain(product, reference) if overlay == "none" else pixels.labelled(product, own, [7], reference)
        np.testing.assert_array_equal(z, 0)


@pytest.mark.parametrize("overlay", ["replace", "append", "none"])
def test_every_overlay_keeps_float32(overlay):
    images, labels, wrong, weights = minibatch(4, 3, 5, 10, 4)
    pixels = Pixels.of(images, 10, np.dtype(np.float32), overlay, kernels=reference)
    weights = np.resize(weights, (pixels.values.shape[1], 4)).astype(np.float32)
    batch = Bare(pixels) if overlay == "none" else Overlaid(pixels, np.concatenate([labels, wrong]))
    z, product = batch.preactivations(weights, reference)
    found = [z, product, plain.gradient(batch, z, reference)]
    if overlay != "none":
        found += [pixels.neutral(product, weights, reference), pixels.labelled(product, weights, labels, reference)]
    assert {array.dtype for array in found} == {np.dtype(np.float32)}
