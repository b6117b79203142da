from __future__ import annotations

import json
import pickle

import datasets_files as files
import numpy as np
import pytest
import xarray as xr
import zarr

from ffdask import datasets
from ffdask.datasets.splits import HELD_OUT, NAMES
from ffdask.errors import BadInput

pytestmark = pytest.mark.usefixtures("cache")


def group(path, names=NAMES[0], arrays=None, form=3, **fields):
    made = zarr.open_group(str(path), mode="w", zarr_format=form)
    for name, array in zip(names, arrays or files.tiny(), strict=True):
        made.create_array(name, data=array, chunks=(5, *array.shape[1:]), **fields)
    return path


@pytest.mark.parametrize("form", [2, 3])
@pytest.mark.parametrize("names", NAMES[:2])
def test_groups_of_others_are_read_and_kept_once(tmp_path, cache, names, form):
    path = group(tmp_path / "g.zarr", names, form=form)
    plan = datasets.describe(str(path))
    assert not cache.exists()
    said = []
    got = datasets.obtain(str(path), said.append)
    assert got == plan == datasets.obtain(str(path), said.append)
    assert said == [f"converting {path} into {got.path}"]
    assert got.source == f"Zarr group {path}"
    assert got.sha256 == datasets.obtain(str(files.keras_npz(tmp_path / "m.npz", files.tiny()))).sha256


@pytest.mark.parametrize("form", [2, 3])
@pytest.mark.parametrize("consolidated", [False, True])
def test_what_xarray_writes_is_read(tmp_path, form, consolidated):
    arrays = files.tiny()
    dims = [("n", "y", "x"), ("n",), ("m", "y", "x"), ("m",)]
    made = xr.Dataset({name: (dim, array) for name, dim, array in zip(arrays._fields, dims, arrays, strict=True)})
    with pytest.warns() if form == 3 and consolidated else _nothing():
        made.to_zarr(tmp_path / "x.zarr", zarr_format=form, consolidated=consolidated)
    got = datasets.obtain(str(tmp_path / "x.zarr"))
    np.testing.assert_array_equal(datasets.load(got.path, "train")[0], arrays.train_images)


def _nothing():
    import contextlib

    return contextlib.nullcontext()


def test_a_group_without_a_test_set_has_a_sixth_held_out(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (60, 4, 3, 3), dtype=np.uint8), rng.integers(0, 5, 60)
    path = group(tmp_path / "g.zarr", NAMES[2], (images, labels))
    said = []
    got = datasets.obtain(str(path), said.append)
    assert said[0] == f"{path} has no test set: {HELD_OUT}"
    assert HELD_OUT in got.source
    assert (got.train_rows, got.test_rows, got.shape) == (50, 10, (4, 3, 3))
    parts = [datasets.load(got.path, split) for split in ("train", "test")]
    rows = np.concatenate([np.column_stack([x.reshape(len(x), -1), y]) for x, y in parts])
    every = np.column_stack([images.reshape(60, -1), labels])
    assert sorted(map(tuple, rows)) == sorted(map(tuple, every)), "every row is in one of the sets"
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    assert datasets.obtain(str(tmp_path / "a.npz")).sha256 == got.sha256, "the same rows are held out"


@pytest.mark.parametrize(
    ("names", "arrays", "says"),
    [
        (NAMES[0][:3], files.tiny()[:3], "has no y_test; the arrays x_train, y_train, x_test, y_test or train_images"),
        (("images",), files.tiny()[:1], "has no labels"),
        (("a", "b"), files.tiny()[:2], "has no "),
        (NAMES[2], (np.zeros((5, 4, 4), np.uint8), np.arange(5)), "5 rows and no test set of its own; at least 6"),
        (NAMES[2], (np.zeros((9, 4, 4), np.uint8), np.arange(8)), "one integer label for each image"),
        (NAMES[2], (np.zeros((9, 4, 4), np.uint8), np.zeros(9)), "type float64; there must be one integer label"),
        (NAMES[0], (*files.tiny()[:3], np.zeros(5)), "y_test has type float64; only integers"),
        (NAMES[0], (files.tiny()[0] + np.int16(5), *files.tiny()[1:]), "x_train: the pixel in row 0 is"),
        (NAMES[0], (np.full((12, 28, 28), np.nan), files.tiny()[1], np.zeros((5, 28, 28)), files.tiny()[3]), "is nan"),
    ],
)
def test_bad_groups_are_refused(tmp_path, command, names, arrays, says):
    path = group(tmp_path / "g.zarr", names, arrays)
    for ask in (datasets.obtain, datasets.describe):
        with pytest.raises(BadInput) as caught:
            ask(str(path))
        assert says in str(caught.value)
        assert str(path) in str(caught.value)
    said = command("train", "--dataset", path, "--out", tmp_path / "run")
    assert said.code == 2
    assert len(said.err.splitlines()) == 1


def test_packed_values_are_refused(tmp_path):
    path = group(tmp_path / "g.zarr")
    zarr.open_group(str(path), mode="r+")["x_train"].attrs["scale_factor"] = 0.5
    with pytest.raises(BadInput, match=r"x_train is packed \(scale_factor in its attributes\).* ffdask.from_arrays"):
        datasets.obtain(str(path))


@pytest.mark.parametrize("spoil", ["shape", "chunks", "content", "metadata"])
def test_crafted_groups_are_refused(tmp_path, spoil):
    path = group(tmp_path / "g.zarr", form=2, compressors=None)
    about = path / "x_train" / ".zarray"
    form = json.loads(about.read_text())
    match spoil:
        case "shape":
            form["shape"] = [2**40, 28, 28]
        case "chunks":
            form["chunks"] = [2**40, 28, 28]
        case "content":
            (path / "x_train" / "0.0.0").write_bytes(b"short")
        case "metadata":
            form = []
    about.write_text(json.dumps(form))
    with pytest.raises(BadInput) as caught:
        datasets.obtain(str(path))
    assert str(path) in str(caught.value)


class Trap:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("codecs", [{"filters": [{"id": "pickle"}]}, {"compressor": {"id": "pickle"}}])
def test_nothing_is_unpickled(tmp_path, monkeypatch, codecs):
    import numcodecs.pickles

    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
    path, sprung = group(tmp_path / "g.zarr", form=2, compressors=None), tmp_path / "sprung"
    about = path / "y_train" / ".zarray"
    about.write_text(json.dumps(json.loads(about.read_text()) | codecs))
    for chunk in ("0", "1", "2"):
        (path / "y_train" / chunk).write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(BadInput):
        datasets.obtain(str(path))
    assert not sprung.exists()


def test_other_codecs_of_version_2_are_read(tmp_path):
    import numcodecs

    path = group(tmp_path / "g.zarr", form=2, compressors=numcodecs.Blosc(), filters=[numcodecs.Delta("u1")])
    np.testing.assert_array_equal(datasets.load(datasets.obtain(str(path)).path, "train")[0], files.tiny().train_images)
