from __future__ import annotations

import gzip
import io
import shutil
import tarfile
import tracemalloc

import cifar_files as files
import numpy as np
import pytest

from ffdask import datasets
from ffdask.datasets import cifar
from ffdask.datasets.cifar import read_cifar
from ffdask.errors import BadInput

pytestmark = pytest.mark.usefixtures("cache")


def check(arrays, seed=0):
    *train, test = files.batches(seed).values()
    np.testing.assert_array_equal(arrays.train_images, np.concatenate([images for images, _ in train]))
    np.testing.assert_array_equal(arrays.train_labels, np.concatenate([labels for _, labels in train]))
    np.testing.assert_array_equal(arrays.test_images, test[0])
    np.testing.assert_array_equal(arrays.test_labels, test[1])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", files.FORMATS)
def test_every_published_format_is_read(tmp_path, kind, packed):
    path = files.folder(tmp_path / "c", kind)
    if packed:
        inside = "cifar-10-batches-bin" if kind == "binary" else "cifar-10-batches-py"
        path = files.archive(tmp_path / "c.tar.gz", path, inside)
    check(read_cifar(path))
    got = datasets.obtain(str(path))
    assert (got.shape, got.inputs, got.train_rows, got.test_rows) == ((32, 32, 3), 3072, 20, 4)
    assert got == datasets.describe(str(path))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_batches_of_every_protocol_are_read(tmp_path, protocol):
    path = files.folder(tmp_path / "c")
    for name, (images, labels) in files.batches().items():
        (path / name).write_bytes(files.python3(images, labels, protocol))
    check(read_cifar(path))


def test_a_folder_around_the_published_one_is_read(tmp_path):
    files.folder(tmp_path / "around" / "cifar-10-batches-py")
    check(read_cifar(tmp_path / "around"))


def test_labels_in_an_array_are_read(tmp_path):
    path = files.folder(tmp_path / "c")
    for name, (images, labels) in files.batches().items():
        (path / name).write_bytes(files.python3(images, labels, **{}) if name != "test_batch" else b"")
    images, labels = files.batches()["test_batch"]
    (path / "test_batch").write_bytes(files.python3(images, np.array(labels, ">i8")))
    check(read_cifar(path))


@pytest.mark.parametrize(
    ("kind", "name", "content", "says"),
    [
        ("binary", "data_batch_3.bin", b"", "data_batch_3.bin has 0 bytes; records of 3073"),
        ("binary", "test_batch.bin", bytes(3074), "test_batch.bin has 3074 bytes; records of 3073"),
        ("binary", "test_batch.bin", b"\x0a" + bytes(3072), "the label in row 0 is 10; 0 to 9 are allowed"),
        ("python3", "data_batch_2", None, "has no data_batch_2; the six batches"),
        ("binary", "data_batch_2.bin", None, "has no data_batch_2.bin; the six batches"),
        ("python3", "test_batch", b"", "test_batch is not a batch of CIFAR-10"),
        ("python3", "test_batch", b"<html>", "test_batch is not a batch of CIFAR-10"),
    ],
)
def test_bad_batches_are_refused(tmp_path, command, kind, name, content, says):
    path = files.folder(tmp_path / "c", kind)
    (path / name).unlink()
    if content is not None:
        (path / name).write_bytes(content)
    with pytest.raises(BadInput, match=says) as caught:
        datasets.obtain(str(path))
    assert str(path) in str(caught.value)
    said = command("train", "--dataset", path, "--out", tmp_path / "run")
    assert said.code == 2
    assert len(said.err.splitlines()) == 1, said.err


@pytest.mark.parametrize(
    ("instead", "says"),
    [
        ({b"data": np.zeros((4, 3071), np.uint8)}, r"data is uint8 of shape \(4, 3071\)"),
        ({b"data": np.zeros((4, 3072), np.int16)}, "data is int16"),
        ({b"data": [1, 2]}, "data is list"),
        ({b"labels": [1, 2, 3]}, "labels are not one integer"),
        ({b"labels": [1, 2, 3, 10]}, "labels are not one integer"),
        ({b"labels": [1, 2, 3, True]}, "labels are not one integer"),
        ({b"labels": [1, 2, 3, [1]]}, "labels are not one integer"),
        ({b"labels": np.array([1, 2, 3, 300])}, "is 300; 0 to 9 are allowed"),
        ({b"data": np.zeros((4, 3072))}, "not a batch"),
        ({b"data": np.array([{}, {}], object)}, "not a batch"),
    ],
)
def test_pickles_of_other_things_are_refused(tmp_path, instead, says):
    path = files.folder(tmp_path / "c")
    (path / "test_batch").write_bytes(files.python3(*files.batches()["test_batch"], **{}))
    import pickle

    content = pickle.loads((path / "test_batch").read_bytes()) | instead
    (path / "test_batch").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(BadInput, match=says):
        read_cifar(path)


def test_a_large_batch_is_refused_before_it_is_read(tmp_path):
    path = files.folder(tmp_path / "c", "binary")
    with (path / "test_batch.bin").open("wb") as file:
        file.truncate(2**33)
    with pytest.raises(BadInput, match="a batch has at most"):
        read_cifar(path)


# --- archives: nothing is extracted, names and sizes are checked


def packed(path, *members):
    """An archive of (TarInfo, content) members."""
    with tarfile.open(path, "w:gz") as archive:
        for member, content in members:
            member.size = member.size or len(content)
            archive.addfile(member, io.BytesIO(content) if content else None)
    return path


def info(name, kind=tarfile.REGTYPE, **fields):
    member = tarfile.TarInfo(name)
    member.type = kind
    for field, value in fields.items():
        setattr(member, field, value)
    return member


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ([(info("test_batch", tarfile.SYMTYPE, linkname="/etc/passwd"), b"")], "is no plain file"),
        ([(info("test_batch", tarfile.LNKTYPE, linkname="/etc/passwd"), b"")], "is no plain file"),
        ([(info("test_batch", tarfile.FIFOTYPE), b"")], "is no plain file"),
        ([(info("test_batch"), b"a"), (info("cifar-10-batches-py/test_batch"), b"a")], "there twice"),
        ([(info(f"x{i}"), b"a") for i in range(100)], "more than 64 members"),
        ([(info("../test_batch"), b"a")], "has no data_batch_1"),
        ([(info("/etc/test_batch"), b"a")], "has no data_batch_1"),
        ([(info("cifar-10-batches-py/../test_batch"), b"a")], "has no data_batch_1"),
    ],
)
def test_members_of_other_kinds_are_refused(tmp_path, members, says):
    with pytest.raises(BadInput, match=says):
        read_cifar(packed(tmp_path / "c.tar.gz", *members))
    assert [file.name for file in tmp_path.iterdir()] == ["c.tar.gz"]


def test_archives_that_are_cut_or_none_are_refused(tmp_path):
    path = files.archive(tmp_path / "c.tar.gz", files.folder(tmp_path / "c"))
    content = path.read_bytes()
    for bad in (
        content[: len(content) // 2],
        b"",
        b"no archive at all",
        gzip.compress(b"x" * 5000),
        b"\x1f\x8b" + bytes(99),
    ):
        path.write_bytes(bad)
        with pytest.raises(BadInput, match=r"c\.tar\.gz"):
            datasets.obtain(str(path))


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "MOST_BYTES", 2**22)
    path = packed(tmp_path / "c.tar.gz", (info("a-bomb"), bytes(2**24)))
    tracemalloc.start()
    try:
        with pytest.raises(BadInput, match=f"unpacks to more than {2**22} bytes"):
            read_cifar(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**24


def test_a_member_that_says_too_much_is_refused(tmp_path):
    member = info("test_batch", size=2**40)
    (tmp_path / "c.tar").write_bytes(member.tobuf() + bytes(1024))
    with pytest.raises(BadInput, match=f"{2**40} bytes; a batch has at most"):
        read_cifar(tmp_path / "c.tar")


# --- the known name


@pytest.mark.parametrize("kind", ["python2", "binary"])
def test_files_put_there_by_hand_are_cifar_10(tmp_path, cache, monkeypatch, kind):
    monkeypatch.setitem(datasets.KNOWN, "cifar-10", datasets.Known(20, 4, (32, 32, 3), 10, None))
    assert datasets.describe("cifar-10") is None
    with pytest.raises(BadInput) as caught:
        datasets.obtain("cifar-10")
    for part in ("cifar-10-python.tar.gz of https://", "or cifar-10-binary.tar.gz", f"into {cache / 'cifar-10'},"):
        assert part in str(caught.value)
    made = files.folder(tmp_path / "made", kind)
    (cache / "cifar-10").mkdir(parents=True)
    files.archive(cache / "cifar-10" / f"cifar-10-{kind}.tar.gz", made)
    said = []
    got = datasets.obtain("cifar-10", said.append)
    assert got.source.startswith(f"files in {cache / 'cifar-10'}; no digest of its arrays is published")
    assert any("sizes alone are checked" in line for line in said)
    assert got == datasets.describe("cifar-10") == datasets.obtain("cifar-10")
    assert datasets.locate(got) == got.path
    shutil.rmtree(got.path)
    assert datasets.locate(got) == got.path, "obtained again"


def test_another_number_of_rows_is_not_cifar_10(cache):
    files.folder(cache / "cifar-10")
    with pytest.raises(BadInput, match=r"images have shapes \(20, 32, 32, 3\) and .* cifar-10 has 50000 and 10000"):
        datasets.obtain("cifar-10")
