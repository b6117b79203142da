"""Changes at a chapter: the run before it is the run without, and the run after it is as reproducible as any."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil

import pytest
from test_inline import resolved_of, rows

from ffdask import machine
from ffdask.changes import PLACES, Change, changed
from ffdask.config import dotted, load
from ffdask.errors import BadInput
from ffdask.inline import train_inline
from ffdask.job import Data
from ffdask.schedules import SCHEDULES
from ffdask.store import open_configuration

VALUES = {
    "learning_rate": 0.05,
    "momentum": 0.5,
    "weight_decay": 0.1,
    "head_rate": 0.3,
    "dropout": 0.4,
    "threshold": 3.0,
    "shift": 2,
    "negatives": "random",
}


@pytest.fixture(autouse=True)
def _one_thread():
    with machine.one_thread():
        yield


def trained(resolved):
    calendar, test = resolved.plan.calendar, rows(40, seed=1)
    data = Data.of(calendar, rows(90), lambda: test)
    return train_inline(resolved.job, resolved.plan, resolved.entry.steps, data)


def run_of(name, changes=()):
    resolved = resolved_of(name)
    job = dataclasses.replace(resolved.job, changes=tuple(Change(**change) for change in changes))
    return dataclasses.replace(resolved, job=job)


def test_every_value_has_its_place():
    assert {*VALUES, "ends"} == set(PLACES) == {field.name for field in dataclasses.fields(Change)} - {"chapter"}


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - {"federated"}))
@pytest.mark.parametrize("value", VALUES)
def test_a_change_acts_from_its_chapter_on_and_not_before(name, value):
    """At chapter 0 it is the configuration itself; later, what comes before it has the bits of the run without it."""
    without, here = run_of(name), {value: VALUES[value]}
    whole = dataclasses.replace(without, job=changed(without.job, here))
    assert trained(run_of(name, [{"chapter": 0, **here}]))[0].sha256() == trained(whole)[0].sha256()
    plain, late = trained(without), trained(run_of(name, [{"chapter": 2, **here}]))
    assert late[0].sha256() != plain[0].sha256()
    chapter_of = without.plan.calendar.chapter_of
    rounds = {step: int(re.search(r"-(?:chapter|visit)(\d+)", step)[1]) for step in plain[1]}
    before = [step for step, round_ in rounds.items() if chapter_of(round_) < 2]
    assert before
    assert [late[1][step] for step in before] == [plain[1][step] for step in before]


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - {"federated"}))
def test_an_end_is_that_of_a_run_with_fewer_chapters(name):
    """All that was done by then has the bits of the whole run, and nothing else was done."""
    short, whole = trained(run_of(name, [{"chapter": 2, "ends": True}])), trained(run_of(name))
    chapter_of = run_of(name).plan.calendar.chapter_of
    rounds = {step: int(re.search(r"-(?:chapter|visit)(\d+)", step)[1]) for step in whole[1]}
    assert short[1] == {step: whole[1][step] for step, round_ in rounds.items() if chapter_of(round_) < 2}
    assert short[0].sha256() != whole[0].sha256()


def test_the_later_change_wins_and_the_earlier_stays_beside_it():
    two = [{"chapter": 1, "learning_rate": 0.05, "dropout": 0.2}, {"chapter": 2, "learning_rate": 0.001}]
    job = run_of("all-layers", two).job
    at = [(job.at(round_).optimizer.learning_rate, job.at(round_).layer.dropout) for round_ in range(4)]
    assert at == [(0.02, 0.0), (0.05, 0.2), (0.001, 0.2), (0.001, 0.2)]


def test_a_graph_file_holds_changes(tmp_path):
    file = tmp_path / "graph.toml"
    file.write_text("[[training.changes]]\nchapter = 3\nlearning_rate = 0.001\n")
    config = load(file)
    assert config.training.changes == (Change(chapter=3, learning_rate=0.001),)
    assert load(None, dotted(config.tables())) == config


def test_a_crafted_file_of_changes_is_not_read(finished, tmp_path):
    """Its size is looked at before it is."""
    shutil.copytree(finished.path, tmp_path / "run")
    with (tmp_path / "run" / "changes.json").open("wb") as file:
        file.truncate(5 << 20)
    with pytest.raises(BadInput, match=r"changes\.json has 5242880 bytes"):
        open_configuration(tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"chapter": 1}, "nothing changes"),
        ({"chapter": 0, "ends": True}, "always trained"),
        ({"chapter": 24, "shift": 0}, "0 to 23"),
        ({"chapter": 1, "negatives": "sampled"}, "do not bring"),
        ({"chapter": 1, "learning_rate": -1}, "greater than 0"),
        ({"chapter": 1, "layers": [3]}, "layers"),
        ({"chapter": -1, "shift": 0}, "greater than or equal to 0"),
    ],
)
def test_a_change_that_cannot_be_is_refused(command, tiny, change, said):
    text = ", ".join(f"{key} = {json.dumps(value)}" for key, value in change.items())
    flags = ["--dataset", tiny, "--chunk", 100, "--negatives", "random", "--set", f"training.changes=[{{{text}}}]"]
    result = command("train", "--dry-run", *flags)
    assert result.code == 2
    assert said in result.err
