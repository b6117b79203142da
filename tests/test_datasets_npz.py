from __future__ import annotations

import zipfile

import datasets_files as files
import numpy as np
import pytest

from ffdask import datasets
from ffdask.datasets.arrays import ORDER
from ffdask.errors import BadInput

pytestmark = pytest.mark.usefixtures("cache")


T = files.tiny()
BAD_NPZ = {
    "missing": ({"y_test": None}, "m.npz has no y_test; the arrays x_train"),
    "pickled": ({"x_train": np.array([{}, 1], dtype=object)}, "x_train holds pickled objects"),
    "floats": ({"x_test": T.test_images / 255}, r"x_train has type uint8 and .*x_test float64; integers are scaled"),
    "above": ({"x_train": T.train_images.astype(np.int16) + 9}, r"x_train: the pixel in row \d+ is 2\d\d"),
    "below": ({"y_test": T.test_labels.astype(np.int8) - 20}, r"y_test: the label in row 0 is -\d+; 0 to 255"),
    "flat": ({"x_train": T.train_images.reshape(12, -1)}, r"images of shape \(784,\) and .* of \(28, 28\)"),
    "column": ({"y_train": T.train_labels[:, None]}, r"y_train has shape \(12, 1\); labels"),
    "count": ({"y_train": T.train_labels[1:]}, "x_train holds 12 images and .* 11 labels"),
    "empty": ({"x_test": T.test_images[:0]}, "x_test is empty"),
}


@pytest.mark.parametrize("name", BAD_NPZ)
def test_bad_npz(tmp_path, name):
    instead, message = BAD_NPZ[name]
    path = files.keras_npz(tmp_path / "m.npz", files.tiny(), **instead)
    with pytest.raises(BadInput, match=message) as caught:
        datasets.obtain(str(path))
    assert str(path) in str(caught.value)


def test_npz_that_is_cut_or_something_else(tmp_path):
    path = files.keras_npz(tmp_path / "m.npz", files.tiny())
    content = bytearray(path.read_bytes())
    content[200] ^= 255
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"m\.npz is a corrupt \.npz file"):
        datasets.obtain(str(path))
    path.write_bytes(content[:500])
    with pytest.raises(BadInput, match=r"m\.npz is not a data set; allowed are"):
        datasets.obtain(str(path))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"(12, 28, 28)", b"(12, 28, 28 ", "x_train is not a NumPy array"),
        (b"(12, 28, 28)", b"(13, 28, 28)", r"x_train holds \d+ bytes where its header says"),
        (b"(12, 28, 28),", b"(2**40, 2**9)", "x_train is not a NumPy array"),
        (b"(12, 28, 28), }", b"(99999999999,)}", "at most 2147483648 are taken"),
        (b"NUMPY", b"NUMPX", "x_train is not a NumPy array"),
    ],
)
def test_npz_with_a_crafted_header(tmp_path, old, new, message):
    with zipfile.ZipFile(files.keras_npz(tmp_path / "m.npz", files.tiny())) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    assert old in content["x_train.npy"]
    content["x_train.npy"] = content["x_train.npy"].replace(old, new)
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    with pytest.raises(BadInput, match=message) as caught:
        datasets.obtain(str(tmp_path / "bad.npz"))
    assert "bad.npz" in str(caught.value)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_are_kept(tmp_path, dtype):
    floats = {
        key: getattr(T, name) / dtype(255) for name, key in (("train_images", "x_train"), ("test_images", "x_test"))
    }
    got = datasets.obtain(str(files.keras_npz(tmp_path / "m.npz", T, **floats)))
    assert got.dtype == "float32"
    np.testing.assert_array_equal(datasets.load(got.path, "train")[0], floats["x_train"].astype(np.float32))


@pytest.mark.parametrize("shape", [(7,), (4, 5), (4, 5, 3)])
def test_our_names_and_every_shape(tmp_path, shape):
    arrays = [np.ones((9, *shape), np.uint8), np.arange(9), np.ones((4, *shape), np.uint8), np.arange(4)]
    np.savez(tmp_path / "m.npz", **dict(zip(ORDER, arrays, strict=True)))
    got = datasets.obtain(str(tmp_path / "m.npz"))
    assert (got.shape, got.classes) == (shape, 9)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"images": np.zeros((9, 4), np.uint8), "labels": np.arange(8)}, "images holds 9 images and labels 8 labels"),
        ({"images": np.zeros((5, 4), np.uint8), "labels": np.arange(5)}, "5 rows and no test set"),
        ({"images": np.uint8(3), "labels": np.uint8(1)}, "0 rows and no test set"),
        ({"images": np.zeros((9, 4), np.uint8)}, "has no labels"),
    ],
)
def test_bad_npz_without_a_test_set(tmp_path, arrays, says):
    np.savez(tmp_path / "m.npz", **arrays)
    with pytest.raises(BadInput, match=says):
        datasets.obtain(str(tmp_path / "m.npz"))
