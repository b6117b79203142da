"""Fitting: in place or as a run, to the same bits; and a part at a time."""

from __future__ import annotations

import dask
import dask.array as da
import joblib
import numpy as np
import pytest
from classified import IRIS, QUICK, Counted, clone_of, quick
from sklearn.datasets import make_moons
from sklearn.model_selection import GridSearchCV, cross_val_score

import ffdask
import ffdask.estimator
from ffdask import datasets, fitting
from ffdask.conduct import conduct
from ffdask.estimator import ROWS_IN_PLACE
from ffdask.schedules import SCHEDULES

pytestmark = pytest.mark.usefixtures("dask_as_before")


def data_of(model, X, y):
    """Return the data set that a run needs to do what `model` did."""
    return datasets.from_arrays(
        model.treatment_(X), y.astype(np.uint8), model.treatment_(X[:9]), y[:9].astype(np.uint8)
    )


@pytest.mark.parametrize("schedule", ["streaming", "all-layers", "worst-layer"])
def test_the_bits_are_those_of_a_run_on_a_cluster(schedule, tmp_path):
    X, y = IRIS
    model = quick(schedule=schedule).fit(X, y)
    keys = {
        "data.dataset": data_of(model, X, y).path,
        "data.overlay": "append",
        "network.layers": [20, 30],
        "training.epochs": 2,
        "training.batch_size": 20,
        "training.shift": 0,
        "schedule.name": schedule,
        "run.out": str(tmp_path / "run"),
        "cluster.units": 2,
    }
    assert conduct(ffdask.load(keys=keys)).network.sha256() == model.network_.sha256()


@pytest.fixture
def runs(monkeypatch):
    """The runs that are conducted, by their configuration and client."""
    conducted = []

    def noted(config, client=None):
        conducted.append((config, client))
        return conduct(config, client=client)

    monkeypatch.setattr(fitting, "conduct", noted)
    return conducted


def many(rows=ROWS_IN_PLACE + 200):
    X, y = make_moons(rows, noise=0.1, random_state=0)
    return X, np.array(["left", "right"])[y]


def test_few_rows_need_no_run_and_many_are_one(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    X, y = many()
    quick().fit(X[:ROWS_IN_PLACE], y[:ROWS_IN_PLACE])
    assert not runs
    model = quick(epochs=4).fit(X, y)
    assert len(runs) == 1
    assert model.score(X, y) > 0.8
    # Nothing is left of it.
    assert not list(tmp_path.glob("ffdask*"))
    assert not datasets.cache_folder().exists()
    monkeypatch.setattr(ffdask.estimator, "ROWS_IN_PLACE", len(X))
    assert quick(epochs=4).fit(X, y).network_.sha256() == model.network_.sha256()
    assert len(runs) == 1


def test_a_run_folder_is_kept_where_it_is_asked_for(runs, tmp_path):
    model = quick(out=tmp_path / "run").fit(*IRIS)
    network, recorded = ffdask.store.open_network(tmp_path / "run")
    assert network.sha256() == model.network_.sha256() == quick().fit(*IRIS).network_.sha256()
    # Its data are there, to evaluate it by.
    assert datasets.describe(recorded["dataset"]["path"]).train_rows == 150
    with pytest.raises(ValueError, match=r"run\.out"):
        quick(out=str(tmp_path / "run")).fit(*IRIS)


def test_keys_of_the_cluster_ask_for_a_run(runs):
    quick(keys={"cluster.units": 1}, schedule="federated").fit(*IRIS)
    assert len(runs) == 1


def test_the_current_client_is_used(runs, client):
    X, y = many()
    model = quick().fit(da.from_array(X, (100, 2)), da.from_array(y, 100))
    quick(keys={"cluster.units": 1}).fit(X, y)
    assert [used for _, used in runs] == [client, None]
    assert model.score(X, y) > 0.5


def test_fit_of_a_large_dask_array_goes_chunk_by_chunk(runs):
    counted = Counted(rows=6000, chunk=500)
    y = np.arange(6000) % 2
    with dask.config.set(scheduler="threads", num_workers=2):
        model = quick(epochs=1, batch_size=100).fit(counted.array, y)
    assert counted.most <= 4
    assert model.treatment_.mean == pytest.approx(counted.array.mean(axis=0).compute(), abs=1e-12)
    assert len(runs) == 1


def test_a_grid_search_over_dask_trains_inside_its_tasks(runs, client):
    X, y = many()
    grid = {"layers": [(10,), (20, 30)], "learning_rate": [0.01, 0.03]}
    with joblib.parallel_backend("dask"):
        there = GridSearchCV(quick(), grid, cv=2, refit=False).fit(X, y)
    assert not runs
    here = GridSearchCV(quick(), grid, cv=2).fit(X, y)
    assert len(runs) == 1
    assert (there.cv_results_["mean_test_score"] == here.cv_results_["mean_test_score"]).all()
    assert client.submit(lambda: quick().fit(X, y).network_.sha256()).result() == quick().fit(X, y).network_.sha256()


def test_other_parallel_jobs_train_in_place_too(runs):
    X, y = many()
    with joblib.parallel_backend("threading", n_jobs=2):
        scores = cross_val_score(quick(), np.r_[X, X], np.r_[y, y], cv=2)
    assert not runs
    assert (scores > 0.5).all()


def test_a_run_that_is_asked_for_in_a_task_is_refused(client, tmp_path):
    model = quick(out=str(tmp_path / "run"), keys={"run.quiet": True})
    with pytest.raises(ValueError, match=r"given run.quiet, out inside a task"):
        client.submit(model.fit, *IRIS).result()


def test_every_schedule_that_shares_rows_trains_in_place(iris):
    for name, entry in SCHEDULES.items():
        if not entry.sharded:
            assert quick(schedule=name, epochs=1).fit(*IRIS).network_.states[0].steps


# More training.


def test_partial_fit_goes_on_from_the_states_that_are_there(iris):
    X, y = IRIS
    model = clone_of(iris)
    before = model.network_
    model.partial_fit(X, y)
    assert [state.steps for state in before.states] == [2 * 8] * 2
    assert [state.steps for state in model.network_.states] == [3 * 8] * 2
    moved = np.abs(model.network_.states[0].weights - before.states[0].weights).max()
    # One pass moves weights a little from where they were; anew they would be elsewhere.
    assert (
        0
        < moved
        < 0.2
        < np.abs(quick(random_state=9).fit(X, y).network_.states[0].weights - before.states[0].weights).max()
    )
    assert before.sha256() == iris.network_.sha256()


def test_partial_fit_learns_what_comes_a_part_at_a_time():
    X, y = IRIS
    order = np.random.default_rng(0).permutation(150)
    model = quick(layers=(50, 50), batch_size=None)
    for epoch in range(15):
        for rows in np.array_split(order, 3):
            model.partial_fit(X[rows], y[rows], classes=None if epoch else [0, 1, 2])
    assert model.score(X, y) > 0.85
    assert model.treatment_.mean == pytest.approx(X.mean(axis=0))
    again = quick(layers=(50, 50), batch_size=None)
    for epoch in range(15):
        for rows in np.array_split(order, 3):
            again.partial_fit(X[rows], y[rows], classes=None if epoch else [0, 1, 2])
    assert again.network_.sha256() == model.network_.sha256()


def test_partial_fit_draws_anew_each_time(monkeypatch):
    seeds = []

    def noted(config, *rest):
        seeds.append(config.training.seed)
        return fitting.in_place(config, *rest)

    monkeypatch.setattr(ffdask.estimator, "in_place", noted)
    model = quick().fit(*IRIS)
    for _ in range(3):
        model.partial_fit(*IRIS)
    assert len(set(seeds)) == 4
    assert model.fit(*IRIS).partial_fit(*IRIS).seed_ == 0
    assert seeds[4:] == seeds[:2]


@pytest.mark.filterwarnings("ignore:invalid value")
def test_partial_fit_says_what_does_not_fit(iris):
    X, y = IRIS
    with pytest.raises(ValueError, match="classes is None; at the first call"):
        quick().partial_fit(X, y)
    with pytest.raises(ValueError, match="9, which is none of the classes"):
        quick().partial_fit(X, np.where(y, y, 9), classes=[0, 1, 2])
    for size, message in ((0, "given 0"), ("ten", "given 'ten'")):
        with pytest.raises(ValueError, match=f"training.batch_size: {message}"):
            quick(batch_size=size).partial_fit(X, y, classes=[0, 1, 2])
    small = quick(batch_size=np.int64(20)).partial_fit(X[:7], y[:7], classes=[0, 1, 2])
    assert small.network_.states[0].steps == 1
    with pytest.raises(ValueError, match="they were"):
        clone_of(iris).partial_fit(X, y, classes=[0, 1])
    for changed in (
        {"layers": (20, 40)},
        {"layers": (20,)},
        {"objective": "classifier"},
        {"keys": {"optimizer.name": "adam"}},
    ):
        with pytest.raises(ValueError, match="other layers"):
            clone_of(iris).set_params(**changed).partial_fit(X, y)
    failed = clone_of(iris)
    with pytest.raises(ffdask.errors.Diverged):
        failed.set_params(learning_rate=1e12).partial_fit(X * 2, y)
    assert failed.predict_proba(X) == pytest.approx(iris.predict_proba(X))
    assert failed.set_params(**QUICK | {"learning_rate": 0.01}).partial_fit(X, y).network_.sha256() == (
        clone_of(iris).partial_fit(X, y).network_.sha256()
    )
