"""``benchmarks/overlap.py``: the emulated steps give what real ones would, and notice a state that was changed."""

from __future__ import annotations

import argparse
import importlib
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ffdask import datasets, on_worker, work
from ffdask.folder import open_folder
from ffdask.resolved import resolve
from ffdask.schedules.steps import Need, Step, static_steps

ROOT = Path(__file__).parents[1]
GIVEN = argparse.Namespace(
    layers=2, width=8, optimizer="adam", schedule="all-layers", chapters=6, processes=False, apart=False,
    unshared=False, evaluate_every=3, checkpoint_every=2, cut_every=2,
)  # fmt: skip


@pytest.fixture
def overlap(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("overlap")


@pytest.fixture
def config(overlap, tmp_path):
    rows = overlap.ROWS + 100
    images, labels = np.zeros((rows, 6, 6), np.uint8), np.arange(rows, dtype=np.uint8) % 10
    path = tmp_path / "rows.npz"
    split = {"x_train": images[:-100], "y_train": labels[:-100], "x_test": images[-100:], "y_test": labels[-100:]}
    np.savez(path, **split)
    return overlap.config_of(GIVEN, 2, path)


def test_an_emulated_state_has_the_true_shapes_and_is_checked_by_its_reader(overlap, config):
    resolved = resolve(config, datasets.obtain(config.data.dataset), 2)
    steps = list(static_steps(resolved.entry.steps, resolved.plan))
    first, after = (step for step in steps[:12] if step.kind == "train" and step.layer == 1)
    rates, _, _ = overlap.slowed(config, 0.05, 2)

    def done(step, inputs):
        return overlap.emulated(work.perform, rates, resolved.job, step, inputs, None)

    begun = time.perf_counter()
    state = done(first, {})["state"]
    assert time.perf_counter() - begun > 0.01
    true = resolved.job.initial_layer(1).arrays()
    assert {name: array.shape for name, array in state.arrays().items()} == {n: a.shape for n, a in true.items()}
    assert done(after, {"state": state})["state"].steps != state.steps
    changed = replace(state, bias=state.bias + 1)
    with pytest.raises(ValueError, match="not as it was written"):
        done(after, {"state": changed})


def test_an_emulated_run_goes_through_the_real_graph(overlap, config, tmp_path):
    rates, ideal, speed_up = overlap.slowed(config, 0.05, 2)
    assert 1 < speed_up <= 2
    summary = overlap.measured(config, rates, tmp_path)
    # Steps wait; no run is faster than its ideal.
    assert summary["train_seconds"] > 0.99 * ideal
    assert len(list((tmp_path / "run" / "checkpoints").glob("*.json"))) == 2
    assert on_worker.perform is work.perform
    parts = {part: (times, seconds) for part, times, seconds, *_ in overlap.lost(config, rates, 2, tmp_path)}
    # From the first step's start to the last one's end, nothing is left out.
    records = open_folder(tmp_path / "run").records
    whole = max(record["stop"] for record in records) - min(record["start"] for record in records)
    assert sum(seconds for _, seconds in parts.values()) == pytest.approx(whole, abs=0.01)
    asked, beyond = parts["steps, as long as asked"], parts["steps, beyond that"]
    assert asked[0] == beyond[0] >= GIVEN.chapters
    assert asked[1] <= ideal + 0.001


def test_what_a_run_waited_for_is_told_by_what_it_was(overlap):
    def trained(chapter, **needs):
        return Step("train", chapter, 0, 1, needs=needs, gives=("state",))

    steps = [
        Step("negatives", 0, 1, gives=("labels",)),
        trained(0, labels=Need("negatives-chapter000", "labels")),
        trained(1, state=Need("train_layer1-chapter000", "state")),
        trained(2, state=Need("train_layer1-chapter001", "state")),
    ]
    times = [(0, 1), (1.5, 3), (3.25, 4.25), (5, 6)]
    records = [{"name": step.name, "start": a, "stop": b} for step, (a, b) in zip(steps, times, strict=True)]
    parts = overlap.critical_path.parts_of(records, steps, lambda step: 1.0, cut_every=2)
    assert {part: (times, seconds) for part, times, seconds, *_ in parts} == {
        "steps, as long as asked": (4, 4.0),
        "steps, beyond that": (4, 0.5),
        "between: waits for labels": (1, 0.5),
        "between: waits for state": (1, 0.25),
        "between: waits for state, cut": (1, 0.75),
    }
