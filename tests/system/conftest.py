"""Tiny data, and clusters that somebody else started."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from outside import outside_cluster, start_worker

from ffdask import machine
from ffdask.conduct import conduct
from ffdask.config import load
from ffdask.datasets import forget, write_store
from ffdask.datasets import load as load_rows
from ffdask.inline import train_inline
from ffdask.job import Data
from ffdask.resolved import resolve

__all__ = ["command", "outside_cluster", "run_folder", "start_worker"]


def rows(n, seed, side=8):
    """Images whose bright pixel tells the class."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 10, n).astype(np.uint8)
    images = random.integers(0, 60, (n, side, side)).astype(np.uint8)
    images[np.arange(n), 2 + labels // 5, labels % 5] = 255
    return images, labels


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A data set of 600 + 200 rows in a Zarr store."""
    path = tmp_path_factory.mktemp("data") / "tiny.zarr"
    return write_store(path, "tiny", "made by the tests", *rows(600, 1), *rows(200, 2))


def _keys(tiny, changed):
    keys = {
        "data.dataset": tiny.path,
        "data.chunk": 100,
        "network.layers": [24, 32, 16],
        "training.epochs": 3,
        "training.batch_size": 20,
        "schedule.chapters": 6,
    }
    return keys | {key.replace("__", "."): value for key, value in changed.items()}


@pytest.fixture
def train(tiny, tmp_path):
    """Train on the tiny data by ``table__key=value``; each run in a folder of its own."""
    count = iter(range(1000))

    def go(client=None, say=lambda line: None, watchers=(), **changed):
        keys = {"run.out": str(tmp_path / f"run{next(count)}")} | _keys(tiny, changed)
        return conduct(load(None, keys), client=client, say=say, watchers=watchers)

    return go


@pytest.fixture(scope="session")
def undisturbed(tiny, tmp_path_factory):
    """A run by the keys of `train` alone, to which nothing happened; its folder is read only."""
    out = str(tmp_path_factory.mktemp("undisturbed") / "run")
    return conduct(load(None, {"run.out": out} | _keys(tiny, {})))


@pytest.fixture(scope="session")
def inline_digest(tiny):
    """The digest of a run in this thread, one step after another, by the same keys as `train`."""

    def digest(**changed):
        resolved = resolve(load(None, _keys(tiny, changed)), tiny, 2)
        rows_of = partial(load_rows, tiny.path)
        data = Data.of(resolved.plan.calendar, rows_of("train"), lambda: rows_of("test"))
        machine.hold_one_thread()
        try:
            return train_inline(resolved.job, resolved.plan, resolved.entry.steps, data)[0].sha256()
        finally:
            machine.let_go()

    return digest


@pytest.fixture(autouse=True)
def _fresh_data():
    yield
    forget()


def command(*arguments, cwd, timeout=120, **environment):
    """Run ``python -m ffdask.<...>`` as a user would; return the finished process."""
    env = os.environ | {key: str(value) for key, value in environment.items()}
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout
    )


def run_folder(output):
    """The run folder that a closing line names."""
    return re.search(r"busy: (\S+)$", output.strip()).group(1)
