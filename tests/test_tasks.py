"""The tasks that are drawn are those that a real run submits."""

from __future__ import annotations

import pytest
from conftest import SMALL
from distributed import Client

from ffdask.conduct import conduct, foresee
from ffdask.config import load
from ffdask.tasks import tasks_of


@pytest.fixture
def submitted(monkeypatch):
    """Every key of a graph's that goes to a scheduler of ours, with its run's id."""
    keys: list[str] = []
    real = Client.submit

    def submit(self, function, *args, key=None, **how):
        # What workers are asked before there is a graph has no priority.
        keys.extend([key] if "priority" in how else [])
        return real(self, function, *args, key=key, **how)

    monkeypatch.setattr(Client, "submit", submit)
    return keys


@pytest.mark.parametrize(
    "keys",
    [
        {"schedule.name": "streaming", "schedule.staleness": 0},
        {"schedule.name": "all-layers", "schedule.nodes": 2, "run.evaluate_every": 2, "run.cut_every": 2},
        {"schedule.name": "sequential", "network.negatives": "random", "network.classifier": "goodness"},
    ],
    ids=lambda keys: keys["schedule.name"],
)
def test_a_real_run_submits_the_same_tasks(tiny, tmp_path, submitted, keys):
    base = {
        "data.dataset": str(tiny),
        "training.epochs": 3,
        "cluster.workers": 2,
        "run.checkpoint_every": 0,
        "run.out": str(tmp_path / "run"),
    }
    config = load(None, SMALL | base | keys)
    forecast = foresee(config)
    assert submitted == [], "no cluster was asked"
    drawn = [task.key for task in tasks_of(forecast, forecast.steps)]
    conduct(config)
    # Beforehand each worker is asked whether it can read the data: that is no part of the graph.
    real = {key.rpartition("-")[0] for key in submitted if not key.startswith("locate-")}
    assert len(set(drawn)) == len(drawn)
    assert set(drawn) <= real
    # What a run does at its very end: cuts behind the last round, and the network brought here.
    last = f"{forecast.resolved.plan.word}{forecast.resolved.plan.rounds - 1:03d}"
    assert all(key.endswith(last) and key.startswith(("load_", "state-")) for key in real - set(drawn))


def test_a_piece_for_another_worker_is_picked_and_one_for_the_same_is_not(tiny):
    def picked(workers: int) -> set[str]:
        keys = {"data.dataset": str(tiny), "cluster.workers": workers, "schedule.name": "streaming"}
        forecast = foresee(load(None, SMALL | keys))
        first = [step for step in forecast.steps if step.round == 0]
        return {task.key for task in tasks_of(forecast, first) if task.function == "pick"}

    assert picked(1) == set()
    assert picked(2) == {f"{piece}-train_layer1-visit000" for piece in ("activities", "neutral")}


def test_whoever_reads_a_cut_piece_reads_what_was_taken_up_anew(tiny):
    keys = {"data.dataset": str(tiny), "schedule.name": "sequential", "run.cut_every": 1, "training.epochs": 3}
    forecast = foresee(load(None, SMALL | keys))
    tasks = {task.key: task for task in tasks_of(forecast, forecast.steps)}
    takes = {source.key: piece for source, piece in tasks["train_layer1-chapter001"].takes}
    assert takes == {"load_state-train_layer1-chapter000": "state", "negatives-chapter001": "labels"}
    (cut,) = tasks["load_state-train_layer1-chapter000"].takes
    assert (cut[0].key, cut[1]) == ("train_layer1-chapter000", "state")
