from __future__ import annotations

import threading
import time

import datasets_files as files
import numpy as np
import pytest
import zarr

from ffdask import datasets
from ffdask.datasets import zarr_store
from ffdask.errors import BadInput

pytestmark = pytest.mark.usefixtures("cache")


def _spoil(path, name):
    group = zarr.open_group(path, mode="r+")
    match name:
        case "array":
            del group["test_labels"]
        case "type":
            group.create_array("train_labels", data=np.zeros(12, np.int32), overwrite=True)
        case "dimension":
            group.create_array("train_labels", data=np.zeros((12, 1), np.uint8), overwrite=True)
        case "count":
            group.create_array("train_labels", data=np.zeros(11, np.uint8), overwrite=True)
        case "huge":
            group.create_array("train_labels", shape=2**40, dtype=np.uint8, overwrite=True)
        case "huge chunk":
            group.create_array("train_labels", shape=12, chunks=(2**40,), dtype=np.uint8, overwrite=True)
        case "format":
            group.attrs["format"] = 2
        case "classes":
            group.attrs["classes"] = 0
        case "digest":
            del group.attrs["sha256"]
        case "metadata":
            (path / "zarr.json").write_text("{")


BAD_STORES = {
    "array": "without the array test_labels",
    "type": "train_labels has type int32; uint8 is needed",
    "dimension": "train_labels has 2 dimensions; 1 are needed",
    "count": "holds 12 train images but 11 labels",
    "huge": "train_labels says shape",
    "huge chunk": "train_labels says shape",
    "format": "layout format 2; this ffdask reads format 1",
    "classes": "attribute classes is 0",
    "digest": "attribute sha256 is None",
    "metadata": "is not a Zarr group of arrays",
}


@pytest.mark.parametrize("name", BAD_STORES)
def test_zarr_that_is_not_ours(tmp_path, name):
    path = tmp_path / "other.zarr"
    files.store(path)
    _spoil(path, name)
    for ask in (datasets.obtain, datasets.describe):
        with pytest.raises(BadInput, match=BAD_STORES[name]) as caught:
            ask(str(path))
        assert str(path) in str(caught.value)


def test_unreadable_chunk(tmp_path):
    path = tmp_path / "s.zarr"
    files.store(path)
    chunk = next(file for file in (path / "test_images" / "c").rglob("*") if file.is_file())
    chunk.write_bytes(b"nonsense")
    datasets.forget()
    with pytest.raises(BadInput, match=r"s\.zarr: test_images cannot be read at row 0"):
        datasets.load(str(path), "test")


def test_load_reads_once_for_all_threads(tmp_path, monkeypatch):
    got = files.store(tmp_path / "s.zarr")
    reads, real, barrier = [], zarr_store._open, threading.Barrier(4)

    def slow(path):
        reads.append(path)
        time.sleep(0.05)
        return real(path)

    monkeypatch.setattr(zarr_store, "_open", slow)
    loaded = []

    def ask():
        barrier.wait()
        loaded.append(datasets.load(got.path, "train"))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reads) == 1
    assert all(pair is loaded[0] for pair in loaded)
    images, labels = loaded[0]
    assert not images.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        labels[0] = 1
    with pytest.raises(BadInput, match="'train' and 'test' are allowed"):
        datasets.load(got.path, "valid")
    with pytest.raises(BadInput, match="is not a Zarr v3 group"):
        datasets.load(str(tmp_path / "none.zarr"), "train")
