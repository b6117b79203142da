from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import datasets_files as files
import numpy as np
import pytest

from ffdask.datasets import debian
from ffdask.errors import BadInput


@pytest.fixture(autouse=True)
def tools(monkeypatch):
    monkeypatch.setattr(debian.shutil, "which", lambda name: f"/usr/bin/{name}")


def test_apt_downloads_and_dpkg_unpacks_nothing_is_installed(monkeypatch):
    ran = []

    def run(command, *, cwd, **options):
        ran.append(command)
        assert options["capture_output"]
        assert options["timeout"] <= 300
        if command[0].endswith("apt-get"):
            (Path(cwd) / "dataset-fashion-mnist_1_all.deb").touch()
        else:
            files.idx_folder(Path(command[-1]) / "usr/share/datasets/fashion-mnist", files.tiny(), gz=True)
        return subprocess.CompletedProcess(command, 0, "", "W: unsandboxed")

    monkeypatch.setattr(debian.subprocess, "run", run)
    said = []
    arrays, source = debian.fetch(said.append)
    assert source == "Debian package dataset-fashion-mnist_1_all.deb"
    np.testing.assert_array_equal(arrays.train_images, files.tiny().train_images)
    assert [command[1] for command in ran] == ["download", "-x"]
    assert len(said) == 2
    assert not Path(ran[1][-1]).exists(), "the temporary folder is gone"


@pytest.mark.parametrize(
    ("done", "says"),
    [
        (
            subprocess.CompletedProcess([], 100, "", "W: x\nE: Unable to locate package y\n"),
            "(E: Unable to locate pack",
        ),
        (subprocess.CompletedProcess([], 1, "", ""), "(exit status 1)"),
        (subprocess.CompletedProcess([], 0, "", ""), "apt-get left no package"),
        (subprocess.TimeoutExpired([], 1), "apt-get was not done after 300 s"),
        (PermissionError(13, "Permission denied"), "apt-get could not be started (Permission denied)"),
    ],
)
def test_apt_that_fails(tmp_path, monkeypatch, done, says):
    def run(*_, **__):
        if isinstance(done, Exception):
            raise done
        return done

    monkeypatch.setattr(debian.subprocess, "run", run)
    with pytest.raises(BadInput) as caught:
        debian.download(tmp_path)
    assert says in str(caught.value)


def test_no_apt(monkeypatch, tmp_path):
    monkeypatch.setattr(debian.shutil, "which", lambda name: None)
    with pytest.raises(BadInput, match="this machine has no apt-get"):
        debian.download(tmp_path)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_a_real_package_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.undo()
    made = tmp_path / "made"
    files.idx_folder(made / "usr/share/datasets/fashion-mnist", files.tiny(), gz=True)
    (made / "DEBIAN").mkdir()
    control = "Package: dataset-fashion-mnist\nVersion: 1\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: x\n"
    (made / "DEBIAN" / "control").write_text(control)
    script = made / "DEBIAN" / "postinst"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path / 'sprung'}\n")
    script.chmod(0o755)

    def download(folder):
        path = folder / "dataset-fashion-mnist_1_all.deb"
        subprocess.run(["dpkg-deb", "--build", made, path], check=True, capture_output=True)
        return path

    monkeypatch.setattr(debian, "download", download)
    arrays, _ = debian.fetch(lambda line: None)
    np.testing.assert_array_equal(arrays.test_images, files.tiny().test_images)
    assert not (tmp_path / "sprung").exists()
