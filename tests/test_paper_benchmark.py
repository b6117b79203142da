"""``benchmarks/paper.py``: which cells it runs, how it goes on, what its table says, and two of its cells for real."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import make_store

from ffdask.config import load
from ffdask.errors import BadInput

ROOT = Path(__file__).parents[1]
SETTINGS = {"scale": 0.25, "seed": 0, "units": 2, "dataset": None}


@pytest.fixture
def paper(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = importlib.import_module("paper")
    monkeypatch.setattr(module, "commit", lambda: "now")
    return module


def cell(schedule="sequential", seconds=100.0, accuracy=0.98, digest="same", **instead):
    return {
        "schedule": schedule,
        "test_accuracy": accuracy,
        "classifier": "softmax",
        "by_classifier": {"softmax": accuracy, "goodness": 0.97},
        "train_seconds": seconds,
        "utilization": 0.9,
        "workers": 1,
        "threads": 1 if schedule == "sequential" else 2,
        "nodes": 4,
        "layers": [500] * 4,
        "epochs": 25,
        "chapters": 25,
        "ideal_speed_up": 1.0 if schedule == "sequential" else 1.99,
        "weights_sha256": digest,
        "commit": "now",
        "processor": "a processor",
        "blas": "a BLAS",
        "cores": 2,
        "date": "2026-11-24 00:00 UTC",
        "versions": {"python": "3", "numpy": "2", "distributed": "2026"},
        **SETTINGS,
        **instead,
    }


def test_every_graph_of_the_paper_is_a_cell_and_says_the_papers_figures(paper):
    files = {paper.graph_of(name) for name in paper.PAPER}
    assert files == set((ROOT / "graphs" / "paper").rglob("*.toml"))
    for name, (accuracy, seconds) in paper.PAPER.items():
        text = paper.graph_of(name).read_text()
        assert f"{accuracy:.2f} %" in text
        assert seconds is None or f"{seconds:,.2f} s" in text


def test_rows_are_beginnings_of_names(paper):
    assert paper.chosen([]) == list(paper.PAPER)
    assert paper.chosen(["random-softmax-all-layers"]) == ["random-softmax-all-layers"]
    assert paper.chosen(["fixed"]) == [f"fixed-goodness-{name}" for name in paper.SCHEDULES]
    assert len(paper.chosen(["random-softmax"])) == 5
    assert paper.chosen(["cifar-10/random", "cifar-10"]) == [n for n in paper.PAPER if n.startswith("cifar-10/")]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["random-softmaxx"], ["'random-softmaxx'", "random-softmax,", "cifar-10/adaptive-goodness"]),
        (["fixed", "--scale", "0"], ["training.scale"]),
        (["fixed", "--dataset", "nowhere"], ["'nowhere'"]),
        (["fixed", "--out", "nowhere/paper.json"], ["--out", "nowhere"]),
        (["--table", "nowhere.json"], ["--table", "nowhere.json"]),
        (["--table", "bad.json"], ["bad.json"]),
    ],
)
def test_what_cannot_be_run_is_one_line_and_2(paper, monkeypatch, capsys, tmp_path, arguments, says):
    monkeypatch.chdir(tmp_path)
    Path("bad.json").write_text('{"cells": {"fixed-goodness-sequential": {}}}')
    monkeypatch.setattr(sys, "argv", ["paper.py", *arguments])
    assert paper.main() == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert all(part in said.err for part in says)


def test_the_keys_of_a_cell(paper):
    plain = {"training.scale": 0.25, "training.seed": 0, "cluster.workers": 1}
    assert paper.keys_of("fixed-goodness-sequential", SETTINGS) == plain | {"cluster.units": 1}
    others = SETTINGS | {"units": 3, "dataset": "elsewhere"}
    found = paper.keys_of("fixed-goodness-single-layer", others)
    assert found == plain | {"cluster.units": 3, "data.dataset": "elsewhere", "schedule.chapters": 25}


def test_the_papers_own_theta_follows_the_width(paper):
    keys = paper.keys_of("random-softmax-own-settings-sum", SETTINGS)
    config = load(paper.graph_of("random-softmax-own-settings-sum"), keys)
    assert config.layer.threshold * 496 == pytest.approx(0.01)
    assert "layer.threshold" not in paper.keys_of("random-softmax-own-settings-mean", SETTINGS)


def test_the_ideal_is_over_sequential_on_one_unit(paper):
    def ideal(name):
        return paper.ideal_speed_up(name, paper.keys_of(name, SETTINGS))

    assert ideal("random-goodness-sequential") == pytest.approx(1)
    assert 1.9 < ideal("random-goodness-all-layers") <= 2
    # Its upper nodes push more, so its units are busy with more than sequential has to do.
    assert ideal("random-goodness-single-layer") < ideal("random-goodness-all-layers")


@pytest.fixture
def runs(paper, monkeypatch):
    """Stand in for the runs themselves; return the names that were asked for, and which of them are to fail."""
    asked: list[str] = []

    def run(name, settings):
        asked.append(name)
        if len(asked) in fails:
            raise subprocess.CalledProcessError(3, ["python"])
        return cell(load(paper.graph_of(name)).schedule.name, **settings)

    fails: set[int] = set()
    monkeypatch.setattr(paper, "run", run)
    return asked, fails


def test_a_stopped_table_goes_on_with_what_is_missing(paper, runs, monkeypatch, tmp_path):
    (asked, fails), out = runs, tmp_path / "paper.json"
    names = paper.chosen(["fixed"])
    fails.add(2)
    assert paper.fill(names, SETTINGS, out) == [names[1]]
    assert asked == names
    assert list(paper.read(out)) == [names[0], names[2]]
    assert out.with_suffix(".md").read_text() == paper.table(paper.read(out)) + "\n"

    asked.clear()
    fails.clear()
    assert paper.fill(names, SETTINGS, out) == []
    assert asked == [names[1]]
    assert set(paper.read(out)) == set(names)

    asked.clear()
    assert paper.fill(names, SETTINGS, out) == []
    assert asked == []
    assert paper.fill(names[:1], SETTINGS, out, again=True) == []
    assert asked == names[:1]
    assert set(paper.read(out)) == set(names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["paper.json", "paper.md"]


def test_the_command_is_stopped_fails_and_goes_on(paper, runs, monkeypatch, capsys, tmp_path):
    (_, fails), out = runs, tmp_path / "paper.json"
    finish = paper.run

    def stopped(name, settings):
        if name == "fixed-goodness-single-layer":
            raise KeyboardInterrupt
        return finish(name, settings)

    monkeypatch.setattr(paper, "run", stopped)
    monkeypatch.setattr(sys, "argv", ["paper.py", "fixed", "--out", str(out)])
    assert paper.main() == 130
    said = capsys.readouterr()
    assert said.out == ""
    assert str(out) in said.err.splitlines()[-1]
    assert list(paper.read(out)) == ["fixed-goodness-sequential"]

    monkeypatch.setattr(paper, "run", finish)
    fails.add(2)
    assert paper.main() == 1
    assert capsys.readouterr().out.endswith("Not run to the end: fixed-goodness-single-layer.\n")
    assert paper.main() == 0
    assert "Not run" not in capsys.readouterr().out
    assert set(paper.read(out)) == set(paper.chosen(["fixed"]))


def test_cells_of_another_commit_are_run_again_or_kept_and_said(paper, runs, monkeypatch, tmp_path):
    (asked, _), out = runs, tmp_path / "paper.json"
    names = paper.chosen(["fixed"])
    paper.fill(names, SETTINGS, out)
    asked.clear()
    monkeypatch.setattr(paper, "commit", lambda: "later")
    assert paper.fill(names, SETTINGS, out, keep=True) == []
    assert asked == []
    assert "Kept from another commit than later: fixed-goodness-sequential, fixed" in paper.table(
        paper.read(out), "later"
    )
    assert paper.fill(names[:2], SETTINGS, out) == []
    assert asked == names[:2]


def test_cells_of_other_settings_are_not_mixed(paper, runs, tmp_path):
    (asked, _), out = runs, tmp_path / "paper.json"
    names = paper.chosen(["fixed"])
    paper.fill(names, SETTINGS, out)
    for other in ({"scale": 0.5}, {"seed": 1}, {"units": 1}, {"dataset": "x"}):
        with pytest.raises(BadInput, match=f"{next(iter(other))}.*--again"):
            paper.fill(names, SETTINGS | other, out)
    asked.clear()
    assert paper.fill(names[:1], SETTINGS | {"scale": 0.5}, out, again=True) == []
    assert [(name, one["scale"]) for name, one in paper.read(out).items()] == [(names[0], 0.5)]


def test_the_table(paper):
    cells = {
        "random-softmax-all-layers": cell("all-layers", 50.0, 0.9801),
        "random-softmax-sequential": cell(seconds=95.0, accuracy=0.98015),
        "performance-optimised-last-head": cell("all-layers", classifier="last-head", by_classifier={}, digest="other"),
        "cifar-10/fixed-softmax": cell("all-layers", accuracy=0.5),
    }
    lines = paper.table(cells, "now").splitlines()
    rows, by = [line for line in lines if line.startswith("| ")], "97.00 (goodness)"
    heads = "performance-optimised, last-head"
    assert rows == [
        f"| {' | '.join(paper.COLUMNS)} |",
        f"| random-softmax | sequential | 98.48 | 8,104.96 | 98.02 | {by} | 95.0 | 1 x 1 | 1.00 | 1.00 | 1.00 |",
        f"| random-softmax | all-layers | 98.33 | 1,786.30 | 98.01 | {by} | 50.0 | 1 x 2 | 1.99 | 1.90 | 4.54 |",
        f"| {heads} | all-layers | 98.30 | 4,219.97 | 98.00 | - | 100.0 | 1 x 2 | 1.99 | - | - |",
        f"| cifar-10/fixed-softmax | all-layers | 50.89 | - | 50.00 | {by} | 100.0 | 1 x 2 | 1.99 | - | - |",
    ]
    assert "Ours at scale 0.25" in lines[7]
    assert "500-500-500-500, 25 epochs in 25 chapters" in lines[7]
    assert "4 cells: commit now; a processor, 2 cores, a BLAS; python 3, numpy 2, distributed 2026" in lines[9]
    assert "Kept" not in paper.table(cells, "now")
    assert "DIFFER" not in paper.table(cells, "now")
    assert "on /data/small in place" in paper.table({"cifar-10/fixed-softmax": cell(dataset="/data/small")})
    assert "No cell" in paper.table({})


def test_digests_that_differ_are_said_loudly(paper):
    names = [f"random-softmax-{name}" for name in paper.SCHEDULES]
    cells = {name: cell(digest="same") for name in names} | {"random-softmax-own-settings-sum": cell(digest="other")}
    assert paper.alarms(cells) == []
    cells[names[2]] = cell(digest="different")
    assert "**DIGESTS DIFFER in random-softmax, which is one computation: " in paper.table(cells)
    assert f"{names[2]} different" in paper.alarms(cells)[0]
    cells[names[2]]["commit"] = "other"
    assert paper.alarms(cells) == [], "another commit may have other bits"
    heads = {f"performance-optimised-{name}": cell(digest=name) for name in paper.HEADS}
    assert len(paper.alarms(heads)) == 1


def test_a_cell_for_real(paper, tiny):
    found = paper.run("performance-optimised-last-head", SETTINGS | {"scale": 0.01, "dataset": str(tiny)})
    assert set(found) == set(cell())
    assert (found["schedule"], found["nodes"], found["workers"], found["threads"]) == ("all-layers", 4, 1, 2)
    assert (found["layers"], found["epochs"], found["chapters"]) == ([16] * 4, 1, 1)
    assert set(found["by_classifier"]) == {"last-head", "all-heads"}
    assert found["test_accuracy"] == found["by_classifier"]["last-head"]
    assert "| performance-optimised, last-head | all-layers | 98.30 |" in paper.table(
        {"performance-optimised-last-head": found}
    )


@pytest.mark.whole
def test_a_row_for_real(tmp_path):
    """The command itself, on tiny data: two schedules of a row, then the table from its file."""
    store, out = make_store(tmp_path / "tiny.zarr", rows=300, side=6), tmp_path / "paper.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "paper.py"), "random-softmax-sequential"]
    command += ["random-softmax-all-layers", "--scale", "0.01", "--dataset", str(store), "--out", str(out)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    cells = json.loads(out.read_text())["cells"]
    assert list(cells) == ["random-softmax-sequential", "random-softmax-all-layers"]
    first, second = cells.values()
    assert first["weights_sha256"] == second["weights_sha256"]
    assert (first["threads"], second["threads"], second["workers"]) == (1, 2, 1)
    assert first["layers"] == [16] * 4
    assert (first["epochs"], first["chapters"], second["nodes"]) == (1, 1, 4)
    assert set(first["by_classifier"]) == {"softmax", "goodness"}
    assert len([line for line in ran.stdout.splitlines() if line.startswith("| random-softmax |")]) == 2
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout == ran.stdout
    assert out.with_suffix(".md").read_text() == ran.stdout
