"""Images on the disk: the rows of the array in memory, whatever is asked for, in little memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffdask import datasets
from ffdask.datasets import zarr_store
from ffdask.datasets.on_disk import DiskRows, most_in_memory
from ffdask.errors import BadInput


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.sampled_from([(3,), (2, 3), (2, 3, 4)]),
    st.sampled_from(["uint8", "float32"]),
    st.integers(1, 9),
    st.data(),
)
def test_rows_are_those_of_the_array(tmp_path_factory, rows, shape, dtype, block, data):
    array = np.random.default_rng(rows).integers(0, 256, (rows, *shape)).astype(dtype)
    blocks = (array[start : start + block] for start in range(0, rows, block))
    disk = DiskRows(array.shape, array.dtype, blocks, tmp_path_factory.getbasetemp())
    numbers = np.array(data.draw(st.lists(st.integers(0, rows - 1), max_size=60)), np.int64)
    low, high = sorted(data.draw(st.tuples(st.integers(-rows, rows), st.integers(-rows, rows))))
    for wanted in (numbers, slice(low, high), slice(None), slice(0, rows, 3)):
        found = disk[wanted]
        np.testing.assert_array_equal(found, array[wanted])
        assert found.dtype == array.dtype
    assert (len(disk), disk.shape, disk.dtype) == (rows, array.shape, array.dtype)


def test_rows_that_were_never_written_are_not_waited_for(tmp_path):
    disk = DiskRows((3, 2), np.uint8, [np.zeros((2, 2), np.uint8)], tmp_path)
    with pytest.raises(OSError, match="fewer were written"):
        disk[:]


def test_no_room_is_said_before_anything_is_written(tmp_path):
    def blocks():
        raise AssertionError("nothing is to be read")
        yield

    with pytest.raises(BadInput, match="make room"):
        DiskRows((2**40, 2**20), np.uint8, blocks(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", ["0", "-1", "lots", "inf", "nan"])
def test_a_limit_that_is_none_is_refused(monkeypatch, given):
    monkeypatch.setenv("FFDASK_IMAGES_GIB", given)
    with pytest.raises(BadInput, match="FFDASK_IMAGES_GIB"):
        most_in_memory()


def test_what_says_more_than_is_stored_is_refused(tiny, tmp_path, monkeypatch):
    """A few bytes of metadata must not fill a disk."""
    import shutil

    import zarr

    shutil.copytree(tiny, tmp_path / "crafted.zarr")
    group = zarr.open_group(tmp_path / "crafted.zarr", mode="r+")
    for name, shape in (("train_images", (2**18, 128, 128)), ("train_labels", (2**18,))):
        group.create_array(name, shape=shape, chunks=(2**10, *shape[1:]), dtype=np.uint8, overwrite=True)
    with pytest.raises(BadInput, match="bytes are stored"):
        zarr_store.open_store(tmp_path / "crafted.zarr")


@pytest.mark.parametrize("schedule", ["streaming", "federated"])
def test_a_run_from_the_disk_has_the_bits_of_one_from_memory(tiny, tmp_path, command, monkeypatch, schedule):
    flags = ["--dataset", tiny, "--chunk", 50, "--layers", "20,30", "--epochs", 2, "--batch-size", 10, "--quiet"]
    flags += ["--validation", 50, "--schedule", schedule, "--evaluate-every", 1]
    digests = []
    for out, gib in (("memory", "1"), ("disk", "1e-6")):
        datasets.forget()
        monkeypatch.setenv("FFDASK_IMAGES_GIB", gib)
        result = command("train", *flags, "--out", tmp_path / out)
        assert result.code == 0, result.err
        summary = json.loads((tmp_path / out / "summary.json").read_text())
        digests.append([summary[key] for key in ("weights_sha256", "test_errors", "validation_errors")])
    assert digests[0] == digests[1]
    images, _ = datasets.load(str(tiny), "train")
    assert isinstance(images, DiskRows)
    datasets.forget()


def test_memory_does_not_grow_with_the_images(tmp_path):
    """128 MiB of images, of which 16 MiB may be in memory: a few of the store's chunks are all that is."""
    script = textwrap.dedent(
        """
        import os, sys
        import numpy as np
        from ffdask import datasets, machine
        from ffdask.datasets import write_store
        path, rows = sys.argv[1], 2**17
        if len(sys.argv) > 2:
            images = np.random.default_rng(0).integers(0, 256, (rows, 32, 32), np.uint8)
            write_store(path, "large", "noise", images, np.arange(rows) % 10, images[:10], np.arange(10))
            sys.exit()
        datasets.load(path, "test")
        before = machine.peak_memory()
        images, labels = datasets.load(path, "train")
        for start in range(0, rows, 1000):
            images[np.random.default_rng(start).integers(0, rows, 1000)]
        print((machine.peak_memory() - before) / 2**20)
        """
    )
    environment = os.environ | {"FFDASK_IMAGES_GIB": "0.015", "FFDASK_CACHE": str(tmp_path)}

    def ran(*arguments):
        command = [sys.executable, "-c", script, tmp_path / "large.zarr", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    ran("write")
    assert float(ran()) < 50
