"""The benchmarks of faults, each in a short form; the long ones' figures stand in benchmarks/RESULTS.md."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import chaos
import kills
import mutate
import pytest

BENCHMARKS = Path(chaos.__file__).parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("chaos") / "rows.npz"
    chaos.make_data(path)
    return path


@pytest.fixture(scope="module")
def undisturbed(data):
    return chaos.undisturbed("streaming", data, data.parent)


@pytest.mark.parametrize("kind", chaos.FAULTS)
def test_a_disturbed_run_has_the_bits_of_the_undisturbed_one(data, undisturbed, kind):
    """Every kind of fault once, in the layout that is hardest on it."""
    summary, wall = undisturbed
    layout = chaos.FAULTS[kind].layouts[-1]
    run = chaos.Disturbed(0, "streaming", layout, [kind])
    chaos.disturb(run, data, summary["weights_sha256"], wall, chaos.Random(f"ci/{kind}"))
    assert run.outcome in chaos.GOOD, (run, run.said)


def test_what_becomes_of_a_run_is_told(tmp_path, data, undisturbed):
    """The judge itself: other bits, a traceback and a silent end are all seen."""
    flags = chaos.train_flags("streaming", data)
    folder = data.parent / "undisturbed-streaming"
    digest = undisturbed[0]["weights_sha256"]
    assert chaos._outcome(0, "", "", folder, flags, digest) == chaos.SAME
    assert chaos._outcome(0, "", "", folder, flags, "another") == "different bits"
    assert chaos._outcome(1, "", "Traceback (most recent call last)", folder, flags, digest) == "a traceback"
    assert chaos._outcome(2, "", "ffdask: no", folder, flags, digest) == "exit code 2"
    assert chaos._outcome(1, "", "ffdask: lost", folder, flags, digest) == "exit code 1, and no word how to go on"
    assert chaos._outcome(1, "", "go on with --resume", folder, flags, digest).startswith("not resumed: ")
    fresh = tmp_path / "run"
    assert chaos._outcome(-9, "", "", fresh, flags, "another") == "different bits when resumed"


def test_children_that_are_killed_while_they_write_go_on_to_the_same_digest():
    found, _ = kills.outcomes(12, 0)
    assert found["same digest"] == 12
    assert found["after a checkpoint"]


@pytest.mark.parametrize("kind", mutate.KINDS)
def test_damaged_files_are_read_or_refused(tmp_path, kind, capfd):
    found = mutate.outcomes(kind, range(150), 1, tmp_path)
    assert not found["otherwise"], capfd.readouterr().out
    assert found["read"] + found["refused"] == 150


def test_a_defect_of_a_reader_would_be_seen(tmp_path, monkeypatch, capfd):
    def careless(path):
        if path.read_bytes() != clean:
            raise KeyError("careless")

    clean = mutate.make_graph(tmp_path).read_bytes()
    monkeypatch.setitem(mutate.KINDS, "graph file", (mutate.make_graph, careless))
    found = mutate.outcomes("graph file", range(20), 1, tmp_path)
    assert found["otherwise"] == 20
    assert "KeyError: 'careless'" in capfd.readouterr().out


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
