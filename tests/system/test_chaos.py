"""The benchmarks of faults, each in a short form; the long ones' figures stand in benchmarks/RESULTS.md."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import chaos
import faults
import goes_on
import kills
import limits
import mutate
import numpy as np
import outcome
import psutil
import pytest
import readable
import scene
from made_rows import make_rows

from ffdask.errors import BadInput
from ffdask.records import Records

BENCHMARKS = Path(chaos.__file__).parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("chaos") / "rows.npz"
    make_rows(path)
    return path


@pytest.fixture(scope="module")
def undisturbed(data):
    return chaos.undisturbed("streaming", data, data.parent)


@pytest.mark.parametrize("kind", faults.FAULTS)
def test_a_disturbed_run_has_the_bits_of_the_undisturbed_one(data, undisturbed, kind):
    """Every kind of fault once, in the layout that is hardest on it; drawn again where it came too early or late."""
    summary, wall = undisturbed
    layout = faults.FAULTS[kind].layouts[-1]
    for number in range(4):
        run = chaos.Disturbed(number, "streaming", layout, [kind])
        chaos.disturb(run, data, summary["weights_sha256"], wall, Random(f"ci/{kind}/{number}"))
        assert run.outcome in outcome.GOOD, (run, run.said)
        if run.became == [faults.DONE]:
            break
    assert run.became == [faults.DONE], run
    assert run.outcome != outcome.UNDISTURBED


def test_what_could_not_be_done_is_no_fault(data, undisturbed, monkeypatch):
    """A fault that raises, and one whose instant comes after the end: neither run was disturbed; the table says so."""

    def in_vain(scene, random):
        raise faults.NotDoneError("there is nothing to break")

    monkeypatch.setitem(faults.FAULTS, "in vain", faults.Fault(in_vain))
    summary, wall = undisturbed
    runs = [
        chaos.Disturbed(0, "streaming", "threads", ["in vain"]),
        chaos.Disturbed(1, "streaming", "threads", ["SIGTERM"]),
    ]
    # At once: of a busy machine's time another run may be done sooner.
    chaos.disturb(runs[0], data, summary["weights_sha256"], 0.0, Random(0))
    chaos.disturb(runs[1], data, summary["weights_sha256"], 100 * wall, Random(0))
    assert [run.became for run in runs] == [["not done: there is nothing to break"], [faults.LATE]]
    assert [run.outcome for run in runs] == [outcome.UNDISTURBED] * 2
    assert chaos.table(runs, ["in vain", "SIGTERM"]) == [
        ["in vain", 1, 0, 1, 0, 0, 0, 0, 0],
        ["SIGTERM", 1, 1, 0, 0, 0, 0, 0, 0],
        ["all runs", 2, 1, 1, 0, 0, 0, 0, 0],
    ]


def test_what_becomes_of_a_run_is_told(tmp_path, data, undisturbed):
    """The judge itself: other bits, a traceback and a silent end are all seen."""
    flags = chaos.train_flags("streaming", data)
    folder = tmp_path / "whole"
    shutil.copytree(data.parent / "undisturbed-streaming", folder)
    digest = undisturbed[0]["weights_sha256"]
    assert outcome.judge(0, "", "", folder, flags, digest) == outcome.SAME
    assert outcome.judge(0, "", "", folder, flags, "another") == "different bits"
    # A signal that came when all was written, while the process went.
    for number in (signal.SIGINT, signal.SIGTERM):
        assert outcome.judge(-number, "", "", folder, flags, digest) == outcome.SAME
        assert outcome.judge(-number, "", "", folder, flags, "another") == "different bits"
    assert outcome.judge(1, "", "Traceback (most recent call last)", folder, flags, digest) == "a traceback"
    assert outcome.judge(2, "", "ffdask: no", folder, flags, digest) == "exit code 2"
    assert outcome.judge(1, "", "ffdask: lost", folder, flags, digest) == "exit code 1, and no word how to go on"
    assert outcome.judge(1, "", "go on with --resume", folder, flags, digest).startswith("not resumed: ")
    assert outcome.judge(-9, "", "", tmp_path / "run", flags, digest) == outcome.ANEW
    assert outcome.judge(-9, "", "", tmp_path / "run2", flags, "another") == "different bits, begun anew"
    assert outcome.judge(-signal.SIGABRT, "", "", tmp_path / "run3", flags, "another") == "different bits, begun anew"
    assert outcome.judge(-signal.SIGSEGV, "", "", tmp_path / "run4", flags, digest) == "exit code -11"
    # A summary that names a digest which is not that of the weights beside it.
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"weights_sha256": "named only"}))
    assert outcome.judge(0, "", "", folder, flags, "named only") == "different bits"


@pytest.mark.parametrize("damaged", [False, True])
def test_where_a_run_was_resumed_from_is_told(tmp_path, data, undisturbed, damaged):
    """From a checkpoint; or, where every checkpoint is damaged, from the start, which is not what was promised."""
    flags, folder = chaos.train_flags("streaming", data), tmp_path / "run"
    with scene.scene("threads", flags, tmp_path) as made:
        while len(list((folder / "checkpoints").glob("*.json"))) < 2:
            assert made.lasts(0.05)
    for archive in (folder / "checkpoints").glob("*.zip"):
        if damaged:
            archive.write_bytes(b"")
    told = outcome.judge(-9, "", "", folder, flags, undisturbed[0]["weights_sha256"])
    assert told == ("begun anew beside a checkpoint" if damaged else outcome.FROM_CHECKPOINT)


def test_what_is_left_of_a_run_is_found_and_ended(tmp_path):
    folder = tmp_path.resolve()
    listening = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", listening], cwd=folder, stdin=pipe, stdout=pipe) as process:
        port = ("127.0.0.1", int(process.stdout.readline()))
        found = scene.left(folder, {port}, patience=0.5)
        assert [one.partition(":")[0] for one in found] == ["process left", "port held"]
    assert not psutil.pid_exists(process.pid)
    assert scene.left(folder, {port}, patience=0.5) == []


def test_children_that_are_killed_while_they_write_go_on_to_the_same_digest():
    found, _ = kills.outcomes(12, 0)
    assert found["same digest"] == 12
    assert found["after a checkpoint"] >= 10
    assert found["inside a write"]
    assert found["torn files found"]


def test_a_digest_of_a_killed_child_has_all_records(monkeypatch):
    """Whoever goes on and forgets the records before has another digest than who was not killed."""
    monkeypatch.setattr(kills, "Records", lambda given=None: Records())
    found, _ = kills.outcomes(3, 0)
    assert found["after a checkpoint"]
    assert found["same digest"] == 3 - found["after a checkpoint"]


@pytest.mark.parametrize("kind", readable.KINDS)
def test_damaged_files_are_read_or_refused(tmp_path, kind, capfd):
    found = mutate.outcomes(kind, range(150), 1, tmp_path)
    assert not found["otherwise"], capfd.readouterr().out
    assert found["read"] + found["refused"] == 150


def swallows(broken):
    """A reader that calls bad input whatever goes wrong in it, limits included."""

    def read(path):
        try:
            return broken()
        except BaseException:
            raise BadInput("cannot be read") from None

    return read


def takes_memory():
    np.ones(LIMIT // 8 + (1 << 20))
    raise ValueError("it was all for nothing")


def takes_address_space():
    np.empty(LIMIT + (1 << 23), np.uint8)
    raise ValueError("it was all for nothing")


def deaf():
    # One call in C, in which no handler of a signal runs.
    sum(range(10**13))


LIMIT = limits.MEMORY
BROKEN = {
    "raises": (lambda path: {}["careless"], "KeyError: 'careless'"),
    "slow": (swallows(lambda: time.sleep(5)), "longer than 0.5 s, refused"),
    "memory": (swallows(takes_memory), "more than 1024 MiB, refused"),
    "address space": (swallows(takes_address_space), "more than 1024 MiB, refused"),
    "no such memory": (swallows(lambda: np.empty(1 << 45, np.uint8)), "refused for want of memory"),
    "exits": (lambda path: os._exit(3), "the process died"),
    "deaf": (swallows(deaf), "the process died"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_defect_of_a_reader_is_seen_whatever_it_swallows(tmp_path, monkeypatch, capfd, how):
    def read(path):
        if path.read_bytes() != clean:
            careless(path)

    careless, told = BROKEN[how]
    clean = readable.make_graph(tmp_path).read_bytes()
    monkeypatch.setitem(readable.KINDS, "graph file", (readable.make_graph, read))
    monkeypatch.setattr(limits, "SECONDS", 0.5 if how in ("slow", "deaf") else 20.0)
    monkeypatch.setattr(limits, "HUNG", 1.5 if how == "deaf" else 60.0)
    found = mutate.outcomes("graph file", range(3), 1, tmp_path)
    assert found == {"otherwise": 3}
    lines = capfd.readouterr().out.splitlines()
    assert [line.startswith(f"graph file, mutation {i}: {told}") for i, line in enumerate(lines)] == [True] * 3, lines


class OneWorker:
    """A client's part that a killer asks, of a cluster whose worker is some process."""

    def __init__(self, pid):
        self.pid = pid

    def subscribe_topic(self, topic, handler):
        pass

    def wait_for_workers(self, count, timeout):
        pass

    def run(self, function, workers):
        return {workers[0]: self.pid}


def test_a_run_that_does_not_go_on_is_told(monkeypatch, capsys):
    """Whatever fails on the killer's thread stops the run, is said, and leaves an exit code that is not 0."""
    monkeypatch.setattr(goes_on, "STOPS", 0.2)
    monkeypatch.setattr(goes_on, "workers_of", lambda client: {"one": {}, "other": {}})
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(["sleep", "60"]) as process:
        killer = goes_on.Killer(OneWorker(process.pid), 2, 0.0, patience=0.1)
        try:
            killer.begin(None, "")
            # A run that does not heed the first is asked again.
            for _ in range(2):
                with pytest.raises(KeyboardInterrupt):
                    time.sleep(20)
        finally:
            killer.end()
            signal.signal(signal.SIGINT, before)
    assert process.returncode == -signal.SIGKILL
    monkeypatch.setattr(goes_on, "disturbed", lambda kills, every: killer)
    monkeypatch.setattr(sys, "argv", ["goes_on.py"])
    with pytest.raises(SystemExit) as ended:
        goes_on.main()
    assert ended.value.code
    assert "1 kills to come: RunFailed: the run did not go on within 0.1 s of a kill" in capsys.readouterr().err


def test_a_soak_of_seconds(tmp_path):
    """Not the memory's line, which needs minutes: tasks are bounded, files and sockets do not grow."""
    figures = tmp_path / "soak.json"
    command = [sys.executable, "soak.py", "--minutes", "0.5", "--json", str(figures)]
    done = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, timeout=200)
    assert figures.exists(), done.stderr
    (row,) = json.loads(figures.read_text())["rows"]
    assert row["steps"] > 50
    assert row["most tasks"] <= row["bound"]
    for kind in ("open files", "sockets"):
        first, last = map(int, row[kind].split(" / "))
        assert last <= first + 2, row
