"""What the tests of the outer rooms share: an own cache, tiny data, and the command lines run in this process."""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import os
import signal
import sys
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import datasets_files as files
import numpy as np
import pytest
from hypothesis import settings

from ffdask import cli, datasets
from ffdask.conduct import conduct
from ffdask.datasets import debian, mirrors, wheel

# These machines are shared: how long an example takes says nothing about it. The same examples each time: whether a
# change lands must not depend on chance. To look for new ones: HYPOTHESIS_PROFILE=explore.
settings.register_profile("ffdask", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ffdask"))

SMALL = {
    "data.chunk": 100,
    "network.layers": [20, 30],
    "training.epochs": 1,
    "training.batch_size": 20,
    "cluster.units": 2,
}
"""Keys of a run that takes a fraction of a second."""


@dataclass(frozen=True)
class Said:
    """What a command line left: its exit code and its two streams."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def folders_for_caches(tmp_path_factory):
    """Names of folders that are not there yet; one a test, without asking pytest, which looks through all it made."""
    return map(tmp_path_factory.mktemp("caches").joinpath, map(str, itertools.count()))


@pytest.fixture(autouse=True)
def own_cache(request, folders_for_caches, monkeypatch):
    """Keep every test but the whole runs away from the user's cache."""
    if request.node.get_closest_marker("whole") is None:
        monkeypatch.setenv("FFDASK_CACHE", str(next(folders_for_caches)))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An own cache; MNIST is `files.tiny()`, and no source of it is reached unless a test says so."""
    monkeypatch.setenv("FFDASK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(datasets.KNOWN, "mnist", files.known_as(files.tiny()))
    monkeypatch.setattr(mirrors, "probe", lambda url: "no network in tests")
    monkeypatch.setattr(wheel, "download", partial(files.refuse, "no index in tests"))
    monkeypatch.setattr(debian, "download", partial(files.refuse, "no apt in tests"))
    monkeypatch.setattr(debian, "INSTALLED", tmp_path / "not-installed")
    datasets.forget()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield tmp_path / "cache"
    datasets.forget()


@pytest.fixture
def command():
    """Run ``python -m ffdask.<name>`` in this process."""
    return _command


def _command(name: str, *arguments: object) -> Said:
    module, argv = importlib.import_module(f"ffdask.{name}"), sys.argv
    out, err, code = io.StringIO(), io.StringIO(), 0
    before = signal.getsignal(signal.SIGINT)
    sys.argv = [f"ffdask.{name}", *map(str, arguments)]
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.guarded(module.main)
            except SystemExit as exit_:
                code = exit_.code if isinstance(exit_.code, int) else int(bool(exit_.code))
    finally:
        sys.argv = argv
        # A command ends its process, and ignores Ctrl-C from there on.
        signal.signal(signal.SIGINT, before)
    return Said(code, out.getvalue(), err.getvalue())


def make_store(path: Path, rows: int = 300, side: int = 6, **instead: object) -> Path:
    """Write a data set of noise: `rows` training and 50 test images of `side` x `side`."""
    rng = np.random.default_rng(0)
    arrays = {
        "train_images": rng.integers(0, 256, (rows, side, side)),
        "train_labels": rng.integers(0, 10, rows),
        "test_images": rng.integers(0, 256, (50, side, side)),
        "test_labels": rng.integers(0, 10, 50),
    }
    datasets.write_store(path, "tiny", "noise", **(arrays | instead))  # type: ignore[arg-type]
    return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A tiny Zarr data set; read only."""
    return make_store(tmp_path_factory.mktemp("data") / "tiny.zarr")


@pytest.fixture(scope="session")
def finished(tmp_path_factory, tiny):
    """A finished run on `tiny`; its folder is read only, copy it to change it."""
    import ffdask

    out = tmp_path_factory.mktemp("finished") / "run"
    return conduct(ffdask.load(None, SMALL | {"data.dataset": str(tiny), "run.out": str(out)}))


# What the tests of the classifier share, imported by those alone.


@pytest.fixture(scope="module")
def dask_as_before():
    """Tasks of joblib's ask their worker for a client; closed out of order, it would stay Dask's default scheduler."""
    import dask

    from ffdask.kept import close_kept

    before = dask.config.get("scheduler", None)
    yield
    close_kept()
    dask.config.set(scheduler=before)
    if before is None:
        del dask.config.config["scheduler"]


@pytest.fixture(scope="module")
def iris():
    """A classifier that has learned iris quickly; not to be fitted again."""
    from classified import IRIS, quick

    return quick().fit(*IRIS)


@pytest.fixture(scope="module")
def digits():
    """Images of digits, and which digits they are."""
    from sklearn.datasets import load_digits

    return load_digits().images[:300].astype(np.uint8) * 15, load_digits().target[:300]


@pytest.fixture(scope="module")
def a_client():
    """The client of a cluster of two workers."""
    from distributed import Client, LocalCluster

    from ffdask.kept import close_kept

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client
        # With the last worker of a process its workers' own clients are closed, and not before.
        close_kept()


@pytest.fixture
def client(a_client):
    """The current client, for one test."""
    with a_client.as_current():
        yield a_client
