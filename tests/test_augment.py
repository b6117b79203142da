from __future__ import annotations

import numpy as np
import plain
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffdask import draws
from ffdask.augment import shifted

quick = settings(deadline=None, max_examples=60)


def moved(image: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """The image moved pixel by pixel; zeros come in."""
    height, width = image.shape
    new = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            if 0 <= y - dy < height and 0 <= x - dx < width:
                new[y, x] = image[y - dy, x - dx]
    return new


def shifts_of(image: np.ndarray, found: np.ndarray, pixels: int) -> list[tuple[int, int]]:
    span = range(-pixels, pixels + 1)
    return [(dy, dx) for dy in span for dx in span if np.array_equal(moved(image, dy, dx), found)]


def test_no_pixels_returns_the_same_object_and_draws_nothing():
    images, generator = plain.images(np.random.default_rng(0), 3), np.random.default_rng(1)
    assert shifted(images, 0, generator) is images
    assert generator.random() == np.random.default_rng(1).random()


@quick
@given(st.integers(0, 5), st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.integers(0, 10**6))
def test_every_image_is_the_original_moved(n, height, width, pixels, seed):
    rng = np.random.default_rng(seed)
    images = rng.integers(1, 256, (n, height, width), dtype=np.uint8)
    images.setflags(write=False)
    found = shifted(images, pixels, rng)
    assert found.dtype == np.uint8
    assert found.shape == images.shape
    assert all(shifts_of(image, new, pixels) for image, new in zip(images, found, strict=True))


@pytest.mark.parametrize("pixels", [1, 2])
def test_all_shifts_occur_equally_often(pixels):
    side, n = 2 * pixels + 1, 100 * (2 * pixels + 1) ** 2
    one = np.zeros((5, 5), np.uint8)
    one[2, 2] = 9
    found = shifted(np.broadcast_to(one, (n, 5, 5)), pixels, draws.generator(0, "shift", 0, 0))
    counts = found.sum(axis=0)[2 - pixels : 3 + pixels, 2 - pixels : 3 + pixels] // 9
    assert counts.sum() == n
    assert ((counts - 100.0) ** 2 / 100).sum() < side**2 + 6 * np.sqrt(2 * side**2)


def test_a_row_moves_both_ways_on_its_own():
    images = plain.images(np.random.default_rng(0), 200, 8)
    found = shifted(images, 2, np.random.default_rng(1))
    shifts = [shifts_of(image, new, 2) for image, new in zip(images, found, strict=True)]
    assert all(len(each) == 1 for each in shifts)
    assert {each[0] for each in shifts} == {(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)}


def test_equal_generators_give_equal_shifts():
    images = plain.images(np.random.default_rng(0), 50, 8)
    one, other, apart = (shifted(images, 2, draws.generator(0, "shift", 0, chunk)) for chunk in (0, 0, 1))
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, apart)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_channels_of_an_image_move_together(dtype):
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (20, 6, 5, 3)).astype(dtype)
    found = shifted(colour, 2, draws.generator(0, "shift", 0, 0))
    assert (found.shape, found.dtype) == (colour.shape, dtype)
    for channel in range(3):
        alone = shifted(colour[..., channel], 2, draws.generator(0, "shift", 0, 0))
        np.testing.assert_array_equal(found[..., channel], alone)
