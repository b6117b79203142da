"""Functions of one's own, and watchers, in whole runs: on workers that have neither the file nor the notebook."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

import ffdask
from ffdask.config import load
from ffdask.errors import RunFailed
from ffdask.schedules.rules import Newest, chapter_steps
from ffdask.schedules.steps import Await
from tests.system.conftest import command, outside_cluster, run_folder

HELPER = """
import numpy as np

def side(count, dtype):
    return np.repeat(np.array([-1, 1], dtype), count)
"""

LOCAL = """
import numpy as np
from own_helper_of_tests import side
from ffdask.schedules.rules import Newest, chapter_steps

REACH = 1.25

def hinge(positive, negative, threshold):
    n = len(positive)
    margin = np.concatenate([REACH * threshold - positive, negative - threshold / REACH])
    return float(np.maximum(margin, 0).sum()) / n, side(n, positive.dtype) * (margin > 0) / n

def next_class(generator, labels, classes, scores):
    if scores is None:
        return ((labels + 1) % classes).astype(np.uint8)
    steps = generator.integers(1, 3, len(labels))
    return ((labels + steps) % classes).astype(np.uint8)

def two_by_two(plan):
    newest = Newest()
    for chapter in range(plan.rounds):
        yield from chapter_steps(plan, lambda layer, chapter: (layer - 1) // 2 % plan.nodes, chapter, newest)

two_by_two.nodes = lambda layers, units: 2
"""


@pytest.fixture
def local(tmp_path, monkeypatch):
    """A folder with a module of the user's own, which is the working folder."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "own_helper_of_tests.py").write_text(HELPER)
    (folder / "own_module_of_tests.py").write_text(LOCAL)
    monkeypatch.chdir(folder)
    yield folder
    for name in ("own_module_of_tests", "own_helper_of_tests"):
        sys.modules.pop(name, None)


NAMES = {
    "network__objective": "own_module_of_tests:hinge",
    "network__negatives": "own_module_of_tests:next_class",
    "schedule__name": "own_module_of_tests:two_by_two",
}


def in_a_cell(**over):
    """Functions as a notebook's cells define them: in no module that a worker could import."""
    scale = 0.75

    def loss(positive, negative, threshold):
        pulled = np.tanh(positive / threshold - scale), np.tanh(negative / threshold - scale)
        n, slopes = len(positive), [1 - part**2 for part in pulled]
        derivative = np.concatenate([-slopes[0], slopes[1]]) / (n * threshold)
        return float((pulled[1] - pulled[0]).sum()) / n, derivative.astype(positive.dtype)

    def draw(generator, labels, classes, scores):
        return ((labels + generator.integers(1, classes, len(labels))) % classes).astype(np.uint8)

    def until_enough(plan):
        newest = Newest()
        for chapter in range(plan.rounds):
            yield from chapter_steps(plan, lambda layer, chapter: chapter % plan.nodes, chapter, newest)
            if chapter > 2 and (yield Await((newest[1],)))[newest[1]]["rows"] > 0:
                return

    return {"network__objective": loss, "network__negatives": draw, "schedule__name": until_enough} | over


@pytest.mark.slow
def test_functions_of_a_local_file_reach_workers_in_other_folders(train, inline_digest, local, tmp_path):
    with outside_cluster(tmp_path, nthreads=1) as address:
        runs = [train(cluster__scheduler=address, cluster__workers=2, **NAMES)]
    runs += [train(**NAMES), train(cluster__processes=True, cluster__workers=2, cluster__units=2, **NAMES)]
    assert {run.summary["weights_sha256"] for run in runs} == {inline_digest(**NAMES)}
    assert runs[0].summary["weights_sha256"] != inline_digest(schedule__name="all-layers")
    assert runs[0].summary["workers"] == 2


@pytest.mark.slow
def test_functions_of_a_cell_reach_workers_in_other_folders(train, inline_digest, tmp_path):
    own = in_a_cell()
    with outside_cluster(tmp_path, nthreads=1) as address:
        run = train(cluster__scheduler=address, cluster__workers=2, **own)
    assert run.summary["weights_sha256"] == inline_digest(**own)
    assert run.summary["chapters"] == 4
    assert run.summary["weights_sha256"] != inline_digest(**in_a_cell(network__objective="goodness"))


def test_a_run_records_names_and_digests_and_opens_without_the_file(train, local, tmp_path):
    run = train(network__objective=NAMES["network__objective"], schedule__name=in_a_cell()["schedule__name"])
    attributes = json.loads((run.path / "run.zarr" / "zarr.json").read_text())["attributes"]
    own = attributes["resolved"]["own"]
    assert set(own) == {"network.objective", "schedule.name"}
    assert own["network.objective"]["name"] == "own_module_of_tests:hinge"
    assert all(len(one["source_sha256"]) == 64 for one in own.values())
    assert attributes["configuration"]["network"]["objective"] == "own_module_of_tests:hinge"
    assert own["schedule.name"]["name"].endswith("in_a_cell.<locals>.until_enough")
    # Whoever opens it has no such module; if they had, it would say so.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "own_module_of_tests.py").write_text("raise SystemExit('imported')")
    done = command("ffdask.evaluate", str(run.path), cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    network = ffdask.open_run(run.path).network
    assert network.sha256() == run.summary["weights_sha256"]


@pytest.mark.slow
def test_the_example_as_a_command_with_worker_processes(tiny, tmp_path, inline_digest):
    graph = Path(__file__).parents[2] / "graphs" / "own" / "alternating.toml"
    small = ["--chunk", "100", "--batch-size", "20", "--layers", "24,32,16", "--epochs", "3", "--chapters", "6"]
    flags = ["--dataset", tiny.path, *small, "--processes", "--workers", "2", "--units", "2"]
    paths = os.pathsep.join(path for path in sys.path if path and "graphs" not in path)
    done = command("ffdask.train", str(graph), *flags, cwd=tmp_path, PYTHONPATH=paths)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / run_folder(done.stdout) / "summary.json").read_text())
    own = {"network__objective": load(graph).network.objective, "schedule__name": load(graph).schedule.name}
    assert summary["weights_sha256"] == inline_digest(**own)


def test_an_objective_that_fails_in_a_step_is_named_with_its_line(train):
    def loss(positive, negative, threshold):
        if len(positive) == 20:
            raise LookupError("no such thing")
        return 0.0, np.zeros(2 * len(positive), positive.dtype)

    with pytest.raises(RunFailed, match=r"step train_layer1-.* LookupError: no such thing \(test_own.py:\d+\)"):
        train(network__objective=loss)


class Faulty:
    """A watcher that raises in one of its methods."""

    def __init__(self, where):
        self.where, self.heard = where, []

    def _hear(self, what):
        self.heard.append(what)
        if what == self.where:
            raise ValueError(f"deaf in {what}")

    def begin(self, resolved, dashboard):
        self._hear("begin")

    def record(self, record):
        self._hear("record")

    def end(self):
        self._hear("end")


def test_a_watcher_that_raises_is_named_once_and_loses_no_run(train, undisturbed):
    faulty, sound, said = [Faulty(where) for where in ("begin", "record", "end")], Faulty(None), []
    run = train(watchers=[*faulty, sound], say=said.append)
    assert run.summary["weights_sha256"] == undisturbed.summary["weights_sha256"]
    lines = [line for line in said if "watcher" in line]
    assert len(lines) == 3
    for line, where in zip(lines, ("begin", "record", "end"), strict=True):
        assert line.startswith(f"watcher Faulty raised ValueError: deaf in {where} (test_own.py:")
        assert line.endswith(f"in {where}; it is told no more, training goes on")
    assert [len(one.heard) for one in faulty] == [1, 2, run.summary["steps"] + 2]
    assert len(sound.heard) == run.summary["steps"] + 2


def test_cuts_behind_layers_that_rest_change_nothing(train, inline_digest):
    graph = Path(__file__).parents[2] / "graphs" / "own" / "alternating.toml"
    own = {"network__objective": "goodness", "schedule__name": load(graph).schedule.name}
    digests = {
        train(run__cut_every=2, schedule__chapters=18, **layout, **own).summary["weights_sha256"]
        for layout in ({"cluster__units": 1}, {"cluster__workers": 2, "cluster__units": 2})
    }
    assert digests == {inline_digest(schedule__chapters=18, **own)}
