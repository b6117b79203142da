from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr

import ffdask
from ffdask import datasets
from ffdask.conduct import conduct
from ffdask.datasets.arrays import ORDER
from ffdask.errors import BadInput

pytestmark = pytest.mark.usefixtures("cache")


def four(dtype="uint8", shape=(6, 5)):
    rng = np.random.default_rng(0)
    return [
        rng.integers(0, 256, (70, *shape)).astype(dtype),
        rng.integers(0, 7, 70),
        rng.integers(0, 256, (30, *shape)).astype(dtype),
        rng.integers(0, 7, 30),
    ]


def lazily_opened(arrays, place):
    """What xarray opens without Dask: read where it is indexed."""
    dims = [("n", "y", "x"), ("n",), ("m", "y", "x"), ("m",)]
    made = xr.Dataset({name: (dim, array) for name, dim, array in zip(ORDER, dims, arrays, strict=True)})
    made.to_zarr(place / "x.zarr", mode="w", consolidated=False)
    opened = xr.open_zarr(place / "x.zarr", chunks=None, consolidated=False)
    return [opened[name] for name in ORDER]


KINDS = {
    "numpy": lambda arrays, place: arrays,
    "lists": lambda arrays, place: [array.tolist() for array in arrays],
    "dask": lambda arrays, place: [da.from_array(a, chunks=(17, *a.shape[1:])) for a in arrays],
    "dask in small pieces": lambda arrays, place: [da.from_array(a, chunks=3) for a in arrays],
    "zarr": lambda arrays, place: [
        zarr.create_array(str(place / f"{i}.zarr"), data=a, chunks=(13, *a.shape[1:])) for i, a in enumerate(arrays)
    ],
    "xarray": lambda arrays, place: [xr.DataArray(a) for a in arrays],
    "xarray of dask": lambda arrays, place: [xr.DataArray(da.from_array(a, chunks=17)) for a in arrays],
    "xarray, opened lazily": lazily_opened,
}


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_rows_are_the_same_data_set(tmp_path, cache, kind, dtype):
    arrays = four(dtype)
    said = []
    got = ffdask.from_arrays(*KINDS[kind](arrays, tmp_path), name="mine", say=said.append)
    if kind == "lists" and dtype == "float32":
        assert got.dtype == "float32"
    expected = datasets.from_arrays(*four(dtype))
    assert (got.path, got.sha256, got.classes, got.shape) == (expected.path, expected.sha256, 7, (6, 5))
    assert (got.name, got.source) == ("mine", "arrays of a program")
    assert said == [f"writing mine into {cache}"]
    assert os.listdir(cache) == [Path(got.path).name]
    for split, images, labels in (("train", *arrays[:2]), ("test", *arrays[2:])):
        found = datasets.load(got.path, split)
        np.testing.assert_array_equal(found[0], images)
        np.testing.assert_array_equal(found[1], labels)


def test_it_trains_by_its_path(tmp_path):
    got = ffdask.from_arrays(*four("float32", (36,)))
    keys = {"data.dataset": got.path, "data.chunk": 35, "network.layers": [8], "training.epochs": 1, "cluster.units": 1}
    keys |= {"training.batch_size": 10, "training.shift": 0, "run.out": str(tmp_path / "run")}
    run = conduct(ffdask.load(keys=keys))
    assert 0 <= run.summary["test_accuracy"] <= 1
    assert run.summary["dataset_sha256"] == got.sha256


def test_lazy_arrays_are_never_whole_in_memory_and_read_once(monkeypatch):
    monkeypatch.setattr("ffdask.datasets.rows.BLOCK_BYTES", 2**18)
    monkeypatch.setattr("ffdask.datasets.zarr_write.CHUNK_BYTES", 2**18)
    made = []

    def block(block_info=None):
        made.append(block_info[None]["chunk-location"])
        return np.full(block_info[None]["chunk-shape"], 7, np.uint8)

    with dask.config.set(scheduler="synchronous"):
        images = da.map_blocks(
            block, chunks=((64,) * 128, (32,), (32,)), dtype=np.uint8, meta=np.empty((0, 0, 0), "u1")
        )
        labels = da.arange(len(images), chunks=64, dtype=np.int64) % 3
        tracemalloc.start()
        try:
            datasets.from_arrays(images, labels, images[:64], labels[:64])
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert images.nbytes == 2**23
    assert peak < 2**22
    assert len(made) == 128 + 1
    assert len(set(made)) == 128


@pytest.mark.parametrize(
    ("index", "given", "says"),
    [
        (0, da.zeros((70, 6, 5))[da.arange(70) > 3], "every size must be known: call its compute_chunk_sizes()"),
        (0, da.zeros((70, 6, 5), dtype=complex), "train_images has type complex128"),
        (0, da.full((70, 6, 5), 300, chunks=20), "train_images: the pixel in row 0 is 300"),
        (1, da.full(70, -1), "train_labels: the label in row 0 is -1"),
        (1, da.zeros(69, dtype=int), "holds 70 images and train_labels 69 labels"),
        (2, xr.DataArray(np.full((30, 6, 5), np.nan)), "test_images float64; integers are scaled"),
        (0, da.zeros((70, 6, 5), dtype="u1", chunks=20).map_blocks(lambda b: 1 // 0, dtype="u1"), "ZeroDivisionError"),
        (0, "images", "train_images has type <U6"),
    ],
)
def test_what_is_no_data_set_is_refused_and_leaves_nothing(cache, index, given, says):
    arrays = four("int64")
    arrays[index] = given
    with pytest.raises(BadInput) as caught:
        datasets.from_arrays(*arrays)
    assert says in str(caught.value)
    assert not cache.exists() or os.listdir(cache) == []


def test_a_bad_row_far_behind_is_named():
    images, labels = np.zeros((5000, 30, 30)), np.arange(5000) % 2
    images[4321, 3, 3] = np.nan
    with pytest.raises(BadInput, match="the value in row 4321 is nan"):
        datasets.from_arrays(da.from_array(images, chunks=100), labels, images[:9], labels[:9])
