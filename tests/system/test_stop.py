"""A run that is stopped: by Ctrl-C, by SIGTERM, once or twice; what it leaves goes on to the same bits."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time

import pytest

from ffdask.conduct import conduct
from ffdask.config import load
from ffdask.resume import stopped_run

KEYS = {
    "data.chunk": 100,
    "network.layers": "16,16",
    "training.epochs": 60,
    "training.batch_size": 50,
}
NEVER = 10_000
LAYOUTS = {"threads": [], "processes": ["--processes", "--workers", "2"]}


@contextlib.contextmanager
def running(tiny, folder, every, *flags):
    """A run as a user starts it, some way on its way: past its first checkpoint, if one comes by the interval."""
    keys = [part for key, value in KEYS.items() for part in ("--set", f"{key}={value}")]
    flags = ["--checkpoint-every", str(every), *flags]
    call = [sys.executable, "-m", "ffdask.train", "--dataset", tiny.path, "--out", "run", *keys]
    pipe = subprocess.PIPE
    # Whoever runs the tests in the background has SIGINT ignored, and children inherit that.
    heeds = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        [*call, *flags], cwd=folder, stdout=pipe, stderr=pipe, text=True, start_new_session=True, preexec_fn=heeds
    ) as process:
        assert process.stdout.readline().startswith("dashboard")
        deadline = time.monotonic() + (60 if every < NEVER else 1.5)
        while not rounds(folder) and time.monotonic() < deadline:
            time.sleep(0.05)
        yield process


def rounds(folder):
    """Whose checkpoints there are."""
    names = (path.stem for path in (folder / "run" / "checkpoints").glob("*.json"))
    return sorted(int(name.removeprefix("round").partition("-")[0]) for name in names)


@pytest.fixture(scope="module")
def digest(tiny, tmp_path_factory):
    """Of the same run, undisturbed."""
    keys = {key: [16, 16] if key == "network.layers" else value for key, value in KEYS.items()}
    out = str(tmp_path_factory.mktemp("whole") / "run")
    return conduct(load(None, keys | {"data.dataset": tiny.path, "run.out": out})).summary["weights_sha256"]


def goes_on_to(folder):
    said = []
    run = conduct(stopped_run(folder / "run", {"cluster.processes": False}), resume=folder / "run", say=said.append)
    assert any("going on after round" in line for line in said)
    return run.summary["weights_sha256"]


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_once_it_ends_behind_a_checkpoint_and_says_how_to_go_on(tiny, tmp_path, digest, layout, number):
    """Ctrl-C goes to the whole process group, as a terminal sends it."""
    with running(tiny, tmp_path, NEVER, *LAYOUTS[layout]) as process:
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out.splitlines() == [
        "stopping behind the steps in work, with a checkpoint; once more stops at once, at the checkpoint before"
    ]
    assert err.splitlines() == [
        "ffdask: stopped; go on from its last checkpoint with: python -m ffdask.train --resume run"
    ]
    assert len(rounds(tmp_path)) == 1
    assert goes_on_to(tmp_path) == digest


@pytest.mark.slow
def test_twice_it_ends_at_once_and_whole(tiny, tmp_path, digest):
    with running(tiny, tmp_path, 20) as process:
        for _ in range(2):
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.02)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert [line.partition(";")[0] for line in err.splitlines()] == ["ffdask: stopped"]
    assert goes_on_to(tmp_path) == digest


STUCK = """
import pathlib, time

def draw(generator, labels, classes, probabilities):
    here = pathlib.Path({here!r})
    while (here / "wait").exists():
        (here / "waits").touch()
        time.sleep(0.05)
    return ((labels + generator.integers(1, classes, len(labels))) % classes).astype("uint8")
"""


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_twice_it_waits_for_no_step(tiny, tmp_path, monkeypatch, layout):
    """A step that does not end would hold up whoever waits for it: as once asked, until asked again."""
    (tmp_path / f"stuck_{layout}.py").write_text(STUCK.format(here=str(tmp_path)))
    with running(tiny, tmp_path, 20, *LAYOUTS[layout], "--negatives", f"stuck_{layout}:draw") as process:
        (tmp_path / "wait").touch()
        while not (tmp_path / "waits").exists():
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(5)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines() == [
        "ffdask: stopped; go on from its last checkpoint with: python -m ffdask.train --resume run"
    ]
    (tmp_path / "wait").unlink()
    monkeypatch.chdir(tmp_path)
    goes_on_to(tmp_path)


def test_before_the_first_step_once_is_at_once(tiny, tmp_path):
    heeds = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    call = [sys.executable, "-m", "ffdask.train", "--dataset", tiny.path, "--chunk", "100", "--checkpoint-every", "0"]
    with subprocess.Popen(
        [*call, "--epochs", "100000"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heeds,
    ) as process:
        assert process.stdout.readline().startswith("dashboard")
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == "ffdask: stopped; this run writes no checkpoints, so it cannot be resumed\n"
