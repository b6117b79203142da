from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets_files as files
import numpy as np
import pytest
import xarray
import zarr

from ffdask import datasets
from ffdask.datasets import zarr_store, zarr_write
from ffdask.datasets.arrays import whole_digest
from ffdask.errors import BadInput

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("cache")


def test_store_as_xarray_sees_it(tmp_path, capfd):
    got = files.store(tmp_path / "s.zarr")
    seen = xarray.open_zarr(got.path, consolidated=False, chunks=None)
    assert dict(seen.sizes) == {"train_sample": 12, "test_sample": 5, "row": 28, "column": 28}
    for name, array in files.tiny()._asdict().items():
        assert seen[name].dims == zarr_store.dimensions(name, array.shape)
        assert seen[name].dtype == np.uint8
        np.testing.assert_array_equal(seen[name].values, array)
    assert {key: seen.attrs[key] for key in ("name", "source", "format", "classes")} == {
        **files.PLAIN,
        "format": 1,
        "classes": 10,
    }
    assert seen.attrs["sha256_arrays"] == files.tiny().digests()
    assert seen.attrs["sha256"] == got.sha256 == whole_digest(files.tiny().digests())
    assert seen.attrs["created"].endswith("+00:00")
    assert capfd.readouterr() == ("", "")


def test_rows_in_many_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(zarr_write, "CHUNK_BYTES", 28 * 28 * 5)
    got = files.store(tmp_path / "s.zarr")
    assert zarr.open_group(got.path, mode="r")["train_images"].chunks == (5, 28, 28)
    datasets.forget()
    assert datasets.locate(got) == got.path
    np.testing.assert_array_equal(datasets.load(got.path, "train")[0], files.tiny().train_images)


def test_other_classes_and_arrays_in_memory(tmp_path):
    with pytest.raises(BadInput, match="train_labels: the label in row 0 is 11; 0 to 9 are allowed"):
        files.store(tmp_path / "s.zarr", train_labels=np.full(12, 11), classes=10)
    assert files.store(tmp_path / "given.zarr", train_labels=np.full(12, 11), classes=14).classes == 14
    got = files.store(tmp_path / "s.zarr", train_labels=np.full(12, 11))
    assert got.classes == 12
    assert datasets.load(got.path, "train")[1].dtype == np.uint8


def test_same_content_is_kept_and_other_content_is_not_overwritten(tmp_path):
    assert files.store(tmp_path / "s.zarr") == files.store(tmp_path / "s.zarr")
    with pytest.raises(BadInput, match=r"s\.zarr already holds other data"):
        files.store(tmp_path / "s.zarr", train_labels=np.zeros(12, np.uint8))


def test_store_in_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=r"cannot be written .* FFDASK_CACHE"):
        files.store(tmp_path / "file" / "s.zarr")


def _child(tmp_path, before):
    """Another process that runs `before`, then writes the tiny store."""
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]\n"
        "import os, signal, time, pathlib, datasets_files as files\n"
        "from ffdask import datasets\nfrom ffdask.datasets import zarr_write\n"
        f"{before}\n"
        "print(datasets.write_store(sys.argv[3], 'tiny', 'memory', *files.tiny()).sha256)"
    )
    command = [sys.executable, "-c", code, str(ROOT), str(ROOT / "tests"), str(tmp_path / "s.zarr")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(os.name != "posix", reason="ends a process with a signal")
def test_killed_conversion_leaves_no_store_and_is_swept(tmp_path):
    child = _child(tmp_path, "zarr_write.os.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)")
    child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL
    (left,) = os.listdir(tmp_path)
    assert ".ffdask-partial-" in left
    assert not datasets.locate(datasets.Dataset("x", str(tmp_path / "s.zarr"), "", 1, 1, (1, 1), 2, ""))
    files.store(tmp_path / "s.zarr")
    assert os.listdir(tmp_path) == ["s.zarr"]


def test_sweep_lets_the_living_be(cache):
    def leftover(host, pid, *, days=0):
        folder = cache / f".mnist.zarr.ffdask-partial-{host}-{pid}-0{days}ab"
        folder.mkdir(parents=True)
        then = time.time() - days * 24 * 3600 - 60
        os.utime(folder, (then, then))
        return folder

    here = zarr_write._HOST
    kept = [leftover(here, os.getppid()), leftover("elsewhere", 1), cache / "data-0.zarr"]
    kept[2].mkdir()
    swept = [leftover(here, os.getpid()), leftover(here, 2**30), leftover("elsewhere", 1, days=2)]
    zarr_write.sweep(cache)
    assert [folder.exists() for folder in kept] == [True] * 3
    assert not any(folder.exists() for folder in swept)


def test_two_processes_convert_at_once(tmp_path):
    # Each waits in front of its renaming until both have written all.
    before = (
        "real = os.rename\n"
        "def rename(*names):\n"
        "    while sum('partial' in n for n in os.listdir(pathlib.Path(sys.argv[3]).parent)) < 2"
        " and not os.path.exists(sys.argv[3]): time.sleep(0.01)\n"
        "    real(*names)\n"
        "zarr_write.os.rename = rename"
    )
    children = [_child(tmp_path, before) for _ in range(2)]
    answers = [child.communicate(timeout=60) for child in children]
    assert answers == [(whole_digest(files.tiny().digests()) + "\n", "")] * 2
    assert os.listdir(tmp_path) == ["s.zarr"]
