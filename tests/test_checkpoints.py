"""The writer of checkpoints: beside the training, the newest first, and nothing is lost by a disk that is full."""

from __future__ import annotations

import errno
import threading
import weakref

import numpy as np
import pytest

from ffdask import checkpoints
from ffdask.checkpoints import Checkpoint, Writer, read
from ffdask.head import HeadState
from ffdask.schedules.steps import Need


def checkpoint(number: int) -> Checkpoint:
    head = HeadState(np.full((4, 3), number, np.float32), np.zeros((4, 3), np.float32))
    return Checkpoint(number, {Need("head-chapter000", "state"): head}, {"step": {"name": "step", "round": number}})


def rounds(folder) -> list[int]:
    return sorted(int(path.stem.removeprefix("round")) for path in folder.glob("*.json"))


@pytest.fixture
def slow(monkeypatch):
    """Hold each write until it is let go; return the event that lets go, and the one that says that one began."""
    go, begun, write = threading.Event(), threading.Event(), checkpoints.write

    def held(folder, checkpoint):
        begun.set()
        assert go.wait(10)
        write(folder, checkpoint)

    monkeypatch.setattr(checkpoints, "write", held)
    return go, begun


def test_nobody_waits_for_the_disk_and_the_newest_is_written_next(tmp_path, slow):
    go, begun = slow
    said: list[str] = []
    writer = Writer(tmp_path / "checkpoints", said.append)
    writer.write(checkpoint(1))
    assert begun.wait(10)
    left_out = []
    for number in (2, 3, 4):
        given = checkpoint(number)
        left_out.append(weakref.ref(given))
        writer.write(given)
    del given
    # What is left out is let go of at once: states are large.
    assert [one() is None for one in left_out] == [True, True, False]
    assert not rounds(tmp_path / "checkpoints")
    go.set()
    writer.close()
    assert rounds(tmp_path / "checkpoints") == [1, 4]
    assert not said
    newest = read(tmp_path / "checkpoints", said.append)
    assert newest is not None
    assert newest.round == 4
    assert (newest.pieces[Need("head-chapter000", "state")].weights == 4).all()


@pytest.mark.parametrize(
    ("error", "reason"),
    [(OSError(errno.ENOSPC, "No space left on device"), "No space left"), (ValueError("odd"), "ValueError: odd")],
)
def test_what_cannot_be_written_is_said_and_the_one_before_stays(tmp_path, monkeypatch, error, reason):
    said: list[str] = []
    writer = Writer(tmp_path / "checkpoints", said.append)
    writer.write(checkpoint(1))
    writer.close()

    def full(folder, checkpoint):
        raise error

    monkeypatch.setattr(checkpoints, "write", full)
    writer = Writer(tmp_path / "checkpoints", said.append)
    writer.write(checkpoint(2))
    writer.close()
    assert len(said) == 1
    assert reason in said[0]
    assert rounds(tmp_path / "checkpoints") == [1]
