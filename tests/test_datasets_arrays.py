from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ffdask import datasets
from ffdask.datasets.arrays import ORDER, Arrays, checked, digest
from ffdask.datasets.rows import Rows, taken
from ffdask.errors import BadInput

WHERE = {name: name for name in ORDER}


def raw(**changed):
    rng = np.random.default_rng(0)
    arrays = {
        "train_images": rng.integers(0, 256, (12, 5, 4)),
        "train_labels": np.arange(12) % 4,
        "test_images": rng.integers(0, 256, (6, 5, 4)),
        "test_labels": np.arange(6) % 3,
    }
    return arrays | changed


@pytest.mark.parametrize("shape", [(9,), (5, 4), (3, 4, 2), (3, 4, 3)])
@pytest.mark.parametrize("dtype", ["uint8", "int64", "uint16", "float16", "float32", "float64", ">f4"])
def test_every_shape_and_type_is_kept_in_a_store(tmp_path, cache, shape, dtype):
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (rows, *shape)).astype(dtype) for rows in (12, 6)]
    labels = [np.arange(12) % 3, np.arange(6) % 2]
    got = datasets.write_store(tmp_path / "s.zarr", "x", "y", images[0], labels[0], images[1], labels[1])
    stored = "float32" if np.dtype(dtype).kind == "f" else "uint8"
    assert (got.shape, got.inputs, got.classes, got.dtype) == (shape, int(np.prod(shape)), 3, stored)
    for split, given_, expected in zip(("train", "test"), images, labels, strict=True):
        found, found_labels = datasets.load(got.path, split)
        assert (found.dtype, found_labels.dtype) == (stored, np.uint8)
        np.testing.assert_array_equal(found, given_.astype(stored))
        np.testing.assert_array_equal(found_labels, expected)


@given(array=hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=4, max_side=4), elements=st.floats(width=32)))
def test_digest_of_floats_is_that_of_their_idx_file(array):
    file = struct.pack(f">BBBB{array.ndim}I", 0, 0, 0x0D, array.ndim, *array.shape) + array.astype(">f4").tobytes()
    assert digest(array.shape, [array], array.dtype) == hashlib.sha256(file).hexdigest()
    halves = np.array_split(array, 2)
    assert digest(array.shape, halves, array.dtype) == hashlib.sha256(file).hexdigest()


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int64", "uint64", ">i4"])
def test_labels_of_every_integer_type(dtype):
    arrays = checked(raw(train_labels=(np.arange(12) % 4).astype(dtype)), WHERE)
    assert arrays.classes == 4
    assert arrays.train_labels.dtype == np.uint8


def test_classes_are_counted_over_both_splits():
    assert checked(raw(test_labels=np.full(6, 255)), WHERE).classes == 256
    assert checked(raw(), WHERE, classes=10).classes == 4, "what the labels say; the name says ten"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"train_labels": np.full(12, 256)}, "train_labels: the label in row 0 is 256; 0 to 255 are allowed"),
        ({"test_labels": -np.ones(6, np.int8)}, "test_labels: the label in row 0 is -1; 0 to 255"),
        ({"test_labels": np.zeros(6)}, "test_labels has type float64; only integers are taken"),
        ({"test_labels": np.zeros(6, bool)}, "test_labels has type bool; only integers"),
        ({"train_labels": np.zeros(12, int), "test_labels": np.zeros(6, int)}, "no label but 0; two classes"),
        ({"train_images": np.zeros((12, 20))}, "images of shape (20,) and test_images of (5, 4)"),
        ({"train_images": np.zeros((12, 5, 4))}, "train_images has type float64 and test_images int64; integers"),
        ({"train_images": np.zeros((12, 5, 4, 1, 1))}, "have 2 to 4 dimensions"),
        ({"train_images": np.zeros(12)}, "have 2 to 4 dimensions"),
        ({"train_images": np.zeros((12, 5, 0))}, "train_images is empty"),
        ({"train_images": np.zeros((12, 5, 4), complex)}, "train_images has type complex128; integers and floats"),
        ({"train_images": np.full((12, 5, 4), 256)}, "train_images: the pixel in row 0 is 256; 0 to 255"),
        (
            {"train_images": np.broadcast_to(np.uint8(0), (12, 2**20, 2**20))},
            "at most 1099511627776 are",
        ),
    ],
)
def test_what_is_no_data_set_is_refused(changed, says):
    with pytest.raises(BadInput) as caught:
        checked(raw(**changed), WHERE)
    assert says in str(caught.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_floats_that_are_not_finite_are_refused(bad):
    images = np.zeros((4, 2, 2))
    images[2, 1, 0] = bad
    with pytest.raises(BadInput, match=r"x: the value in row 12 is .*; finite float32 numbers are allowed"):
        taken(images, "x", "pixel", start=10)


class Counted:
    """An array in chunks that remembers which slices were asked for."""

    def __init__(self, array, chunks):
        self.array, self.chunks, self.asked = array, chunks, []
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, rows):
        self.asked.append((rows.start, rows.stop))
        return self.array[rows]


@given(
    sizes=st.lists(st.integers(0, 7), min_size=1, max_size=9).filter(any),
    regular=st.booleans(),
    step=st.integers(1, 12),
    seed=st.integers(0, 99),
    masked=st.booleans(),
)
def test_rows_come_in_order_by_whole_chunks(sizes, regular, step, seed, masked):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 256, (sum(sizes), 3), dtype=np.uint8)
    array = Counted(values, (max(sizes), 3) if regular else (tuple(sizes), (3,)))
    kept = rng.random(len(values)) < 0.5 if masked else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ffdask.datasets.rows.BLOCK_BYTES", 3 * step)
        rows = Rows(array, "x", kept)
        blocks = list(rows.blocks())
    expected = values if kept is None else values[kept]
    assert rows.shape == expected.shape
    np.testing.assert_array_equal(np.concatenate([np.zeros((0, 3), np.uint8), *blocks]), expected)
    edges = set(range(0, len(values), max(sizes))) if regular else set(np.cumsum([0, *sizes]).tolist())
    largest = max(sizes)
    assert {start for start, _ in array.asked} <= edges
    assert all(stop - start <= max(step, largest) for start, stop in array.asked)


def test_digests_are_the_same_in_memory_and_block_by_block():
    arrays = checked(raw(), WHERE)
    lazy = Arrays(Rows(Counted(raw()["train_images"], (5, 5, 4)), "x"), *arrays[1:])
    assert lazy.digests() == arrays.digests()


def test_rows_that_do_not_come_as_promised():
    class Short(Counted):
        def __getitem__(self, rows):
            return self.array[rows][:-1]

    with pytest.raises(BadInput, match=r"x promised rows 0 to 4 of shape \(3,\) and gave \(3, 3\)"):
        list(Rows(Short(np.zeros((4, 3), np.uint8), None), "x").blocks())
