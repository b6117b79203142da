"""The writer of checkpoints: beside the training, the newest first, and nothing is lost by a disk that is full."""

from __future__ import annotations

import errno
import json
import threading
import time
import weakref

import numpy as np
import pytest

from ffdask import checkpoints, pieces, places
from ffdask.checkpoints import Checkpoint, Writer, read
from ffdask.errors import BadInput
from ffdask.head import HeadState
from ffdask.records import Records
from ffdask.schedules.steps import Need


def checkpoint(number: int, run: str = "") -> Checkpoint:
    head = HeadState(np.full((4, 3), number, np.float32), np.zeros((4, 3), np.float32))
    records = Records({f"step{i}": {"name": f"step{i}", "round": i, "loss": i / 3} for i in range(number + 1)})
    return Checkpoint(number, {Need("head-chapter000", "state"): head}, records, run)


def rounds(folder) -> list[int]:
    return sorted(int(path.stem.removeprefix("round")) for path in folder.glob("*.json"))


@pytest.fixture
def slow(monkeypatch):
    """Hold each write until it is let go; return the event that lets go, and the one that says that one began."""
    go, begun, write = threading.Event(), threading.Event(), checkpoints.write

    def held(folder, checkpoint, before):
        begun.set()
        assert go.wait(10)
        return write(folder, checkpoint, before)

    monkeypatch.setattr(checkpoints, "write", held)
    return go, begun


def test_nobody_waits_for_the_disk_and_the_newest_is_written_next(tmp_path, slow):
    go, begun = slow
    said: list[str] = []
    writer = Writer(tmp_path / "checkpoints", said.append)
    assert writer.seconds == 0
    writer.write(checkpoint(1))
    assert begun.wait(10)
    time.sleep(0.1)
    assert writer.seconds >= 0.1, "also while it is at it"
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

    def full(folder, checkpoint, before):
        raise error

    monkeypatch.setattr(checkpoints, "write", full)
    writer = Writer(tmp_path / "checkpoints", said.append)
    writer.write(checkpoint(2))
    writer.close()
    assert len(said) == 1
    assert reason in said[0]
    assert rounds(tmp_path / "checkpoints") == [1]


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.glob("*.jsonl"))


def test_records_are_written_once(tmp_path):
    manifest = None
    for number in (1, 3, 4):
        manifest = checkpoints.write(tmp_path, checkpoint(number), manifest)
    assert names(tmp_path) == ["round0000001.jsonl", "round0000003.jsonl", "round0000004.jsonl"]
    assert (tmp_path / "round0000003.jsonl").read_text().count("\n") == 2
    assert rounds(tmp_path) == [3, 4]
    found = read(tmp_path, print)
    assert found is not None
    assert dict(found.records) == dict(checkpoint(4).records)


def test_a_run_that_is_resumed_writes_all_of_them_anew_and_older_files_go(tmp_path):
    first = checkpoints.write(tmp_path, checkpoint(1))
    checkpoints.write(tmp_path, checkpoint(2), first)
    third = checkpoints.write(tmp_path, checkpoint(3))
    checkpoints.write(tmp_path, checkpoint(4), third)
    assert names(tmp_path) == ["round0000003.jsonl", "round0000004.jsonl"]


def test_no_manifest_names_too_many_files(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "MOST_FILES", 3)
    manifest = None
    for number in range(8):
        manifest = checkpoints.write(tmp_path, checkpoint(number), manifest)
        assert len(manifest["records"]) <= 3
        found = read(tmp_path, print)
        assert found is not None
        assert dict(found.records) == dict(checkpoint(number).records)
    assert len(names(tmp_path)) <= 4


def test_one_flipped_bit_in_an_older_file_is_noticed(tmp_path):
    first = checkpoints.write(tmp_path, checkpoint(1))
    checkpoints.write(tmp_path, checkpoint(2), first)
    path = tmp_path / "round0000001.jsonl"
    path.write_bytes(path.read_bytes().replace(b"0", b"1", 1))
    said: list[str] = []
    assert read(tmp_path, said.append) is None
    assert len(said) == 2


@pytest.mark.parametrize("name", ["../secret.jsonl", "/etc/passwd", "round0000001.jsonl/../x", "round1.jsonl"])
def test_a_manifest_cannot_name_what_is_not_beside_it(tmp_path, name):
    checkpoints.write(tmp_path, checkpoint(1))
    path = tmp_path / "round0000001.json"
    manifest = json.loads(path.read_text())
    manifest["records"] = [name]
    manifest["files"][name] = "0"
    path.write_text(json.dumps(manifest))
    said: list[str] = []
    assert read(tmp_path, said.append) is None
    assert "it names a file" in said[0]


def test_what_bears_its_name_is_whole(tmp_path, monkeypatch):
    """Also where a resumed run writes over what it found damaged, while somebody reads."""
    checkpoints.write(tmp_path, checkpoint(1))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write, seen = pieces.write, []

    def looked_at(path, given):
        described = write(path, given)
        seen.append({name: (tmp_path / name).read_bytes() for name in before})
        return described

    monkeypatch.setattr(pieces, "write", looked_at)
    changed = Checkpoint(1, {Need("head-chapter000", "state"): HeadState(*np.ones((2, 4, 3), np.float32))}, Records())
    checkpoints.write(tmp_path, changed)
    assert seen == [before]
    assert {path.name for path in tmp_path.iterdir()} == set(before)
    assert (tmp_path / "round0000001.zarr.zip").read_bytes() != before["round0000001.zarr.zip"]


@pytest.mark.parametrize("room", [0, 1, 2])
def test_a_full_disk_is_not_kept_full_by_what_was_begun(tmp_path, monkeypatch, room):
    checkpoints.write(tmp_path, checkpoint(1))
    before, left, put = sorted(path.name for path in tmp_path.iterdir()), [room], places._to_disk

    def full(path):
        if path.suffix == ".tmp":
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
        put(path)

    monkeypatch.setattr(places, "_to_disk", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.write(tmp_path, checkpoint(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_runs_in_one_place_neither_read_nor_remove_each_others(tmp_path):
    before = dict.fromkeys(("", "a1", "b2"))
    for number in range(4):
        for run in before:
            before[run] = checkpoints.write(tmp_path, checkpoint(number + (run == "b2"), run), before[run])
    for run, newest in (("", 3), ("a1", 3), ("b2", 4)):
        said: list[str] = []
        found = read(tmp_path, said.append, run)
        assert found is not None
        assert (found.round, found.run, len(found.records)) == (newest, run, newest + 1)
        (line,) = said
        others = {"", "a1", "b2"} - {run}
        assert [f"run {other}" in line for other in ("a1", "b2")] == [other in others for other in ("a1", "b2")]
        assert ("a run without an id" in line) == ("" in others)
    assert len(list(tmp_path.glob("*.json"))) == 3 * checkpoints.KEPT
    assert read(tmp_path, print, "c3") is None


def test_a_checkpoint_that_was_given_another_runs_name_is_damaged(tmp_path):
    checkpoints.write(tmp_path, checkpoint(1, "a1"))
    for path in list(tmp_path.iterdir()):
        path.rename(tmp_path / path.name.replace("a1", "b2"))
    said: list[str] = []
    assert read(tmp_path, said.append, "b2") is None
    assert "it is of run 'a1', whatever its name" in said[0]


def test_a_place_is_free_for_the_run_that_has_it(tmp_path):
    checkpoints.check_free(tmp_path / "nothing yet")
    checkpoints.write(tmp_path, checkpoint(1, "a1"))
    checkpoints.check_free(tmp_path, "a1")
    for run in ("", "b2"):
        with pytest.raises(BadInput, match=r"checkpoints of run a1; give each run a place of its own.*--resume"):
            checkpoints.check_free(tmp_path, run)
