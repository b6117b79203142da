from __future__ import annotations

import doctest
import io
import pickle
import sys
import threading
import weakref

import dask
import dask.array as da
import joblib
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from distributed import Client, LocalCluster
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, make_moons
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

import ffdask
import ffdask.estimator
from ffdask import datasets, fitting
from ffdask.conduct import conduct
from ffdask.estimator import EXPECTED_FAILED_CHECKS, ROWS_IN_PLACE, ForwardForwardClassifier
from ffdask.kept import close_kept
from ffdask.predicted import Predictor
from ffdask.schedules import SCHEDULES

IRIS = load_iris(return_X_y=True)
QUICK = {"layers": (20, 30), "epochs": 2, "batch_size": 20, "random_state": 0}


def quick(**changed):
    return ForwardForwardClassifier(**(QUICK | changed))


@pytest.fixture(autouse=True, scope="module")
def _scheduler():
    """Tasks of joblib's ask their worker for a client; closed out of order, it would stay Dask's default scheduler."""
    before = dask.config.get("scheduler", None)
    yield
    close_kept()
    dask.config.set(scheduler=before)
    if before is None:
        del dask.config.config["scheduler"]


@pytest.fixture(scope="module")
def iris():
    """A classifier that has learned iris quickly; not to be fitted again."""
    return quick().fit(*IRIS)


@pytest.fixture(scope="module")
def images():
    return load_digits().images[:300].astype(np.uint8) * 15, load_digits().target[:300]


@pytest.fixture(scope="module")
def a_client():
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


# What scikit-learn asks of a classifier.


def expected(estimator):
    return EXPECTED_FAILED_CHECKS


@parametrize_with_checks([ForwardForwardClassifier()], expected_failed_checks=expected)
def test_what_scikit_learn_asks(estimator, check):
    check(estimator)


def test_few_checks_are_expected_to_fail():
    assert len(EXPECTED_FAILED_CHECKS) <= 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    [
        {"classifier": "goodness"},
        {"objective": "classifier"},
        {"objective": "symba"},
        {"schedule": "all-layers"},
        {"negatives": "adaptive"},
    ],
    ids=str,
)
def test_what_scikit_learn_asks_whatever_the_parameters(changed):
    check_estimator(ForwardForwardClassifier(**changed), on_skip=None)


@pytest.mark.parametrize("changed", [{}, {"objective": "classifier"}, {"classifier": "goodness"}], ids=str)
def test_the_length_of_a_vector_is_learned_from(changed):
    # Rings differ in nothing but their distance from the middle.
    random = np.random.default_rng(0)
    far, angle = random.permutation([0.5, 2.0] * 150), random.uniform(0, 2 * np.pi, 300)
    X = far[:, None] * np.c_[np.cos(angle), np.sin(angle)]
    model = ForwardForwardClassifier(layers=(100, 100), random_state=0, **changed).fit(X[:200], far[:200] > 1)
    assert model.score(X[200:], far[200:] > 1) > 0.95


def test_scales_of_features_do_not_matter(iris):
    X, y = IRIS
    moved = X * [1e-3, 1e6, 1, 50] + [5, -1e7, 0, 100]
    assert quick().fit(moved, y).predict_proba(moved) == pytest.approx(iris.predict_proba(X), abs=1e-3)


def test_a_value_far_out_is_still_answered(iris):
    probabilities = iris.predict_proba([[1e30, -1e30, 5.0, 3.0]])
    assert np.isfinite(probabilities).all()
    assert probabilities.sum() == pytest.approx(1)


def test_pipelines_searches_and_scores():
    X, y = IRIS
    search = GridSearchCV(
        make_pipeline(MinMaxScaler(), quick(epochs=5)),
        {"forwardforwardclassifier__layers": [(10,), (30, 30)], "forwardforwardclassifier__epochs": np.array([1, 5])},
        cv=2,
    ).fit(X, y)
    assert search.best_score_ > 0.6
    assert len({tuple(scores) for scores in zip(search.cv_results_["mean_test_score"], strict=True)}) > 1
    assert len(cross_val_score(quick(), X, y, cv=3)) == 3


@pytest.mark.parametrize("names", [["b", "a", "c"], [30, 10, 20], [True, False, True], [3.0, 0.0, 2.0]], ids=str)
def test_labels_of_any_kind(names):
    X, y = IRIS
    labels = np.array(names)[y]
    model = quick(epochs=10).fit(X, labels)
    assert list(model.classes_) == sorted(set(names))
    assert model.predict(X).dtype == labels.dtype
    assert model.score(X, labels) > 0.6


def test_feature_names_of_a_data_frame():
    X, y = load_iris(return_X_y=True, as_frame=True)
    model = quick().fit(X, y)
    assert list(model.feature_names_in_) == list(X.columns)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(X[X.columns[::-1]])
    assert (model.predict(X) == quick().fit(*IRIS).predict(IRIS[0])).all()
    # What was named before is not remembered.
    assert not hasattr(model.fit(da.from_array(IRIS[0]), y), "feature_names_in_")


def test_equal_seeds_equal_bits(iris):
    again = quick().fit(*IRIS).network_.sha256()
    assert again == iris.network_.sha256()
    assert quick(random_state=1).fit(*IRIS).network_.sha256() != again
    drawn = [quick(random_state=np.random.RandomState(5)).fit(*IRIS) for _ in range(2)]
    assert drawn[0].network_.sha256() == drawn[1].network_.sha256()
    assert quick(random_state=drawn[0].seed_).fit(*IRIS).network_.sha256() == drawn[0].network_.sha256()
    assert quick(random_state=None).fit(*IRIS).seed_ != quick(random_state=None).fit(*IRIS).seed_


@pytest.mark.parametrize("library", [pickle, joblib], ids=["pickle", "joblib"])
def test_it_is_kept_like_any_other(iris, library):
    file = io.BytesIO()
    library.dump(iris, file)
    file.seek(0)
    kept = library.load(file)
    assert (kept.predict_proba(IRIS[0]) == iris.predict_proba(IRIS[0])).all()
    assert kept.partial_fit(*IRIS).network_.sha256() == clone_of(iris).partial_fit(*IRIS).network_.sha256()


def clone_of(model):
    return pickle.loads(pickle.dumps(model))


def test_its_diagram():
    assert "layers" in quick()._repr_html_()


def test_parameters_stay_untouched():
    given = {"layers": np.array([20, 30]), "keys": {"layer.dropout": np.float32(0.1)}}
    model = quick(**given)
    assert model.layers is given["layers"]
    model.fit(*IRIS)
    assert model.layers is given["layers"]
    assert model.keys is given["keys"]
    assert [state.weights.shape for state in model.network_.states] == [(8, 20), (20, 30)]
    assert clone(model).keys == given["keys"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"layers": ()}, "network.layers"),
        ({"epochs": 0}, "training.epochs: given 0"),
        ({"objective": "godness"}, "did you mean 'goodness'"),
        ({"objective": "classifier", "negatives": "random"}, "do not go together"),
        ({"schedule": "streeming"}, "did you mean 'streaming'"),
        ({"batch_size": 1000}, "training.batch_size .* a chunk has 150 rows"),
        ({"learning_rate": -1.0}, "optimizer.learning_rate: given -1.0"),
        ({"random_state": -1}, "training.seed: given -1"),
        ({"keys": {"layer.dropoff": 1}}, "did you mean 'dropout'"),
        ({"keys": {"training.epochs": 1}}, "'training.epochs', which is what epochs is for"),
        ({"keys": {"data.dataset": "mnist"}}, "'data.dataset', which is what X is for"),
        ({"keys": {"training.shift": 1}}, "vectors of 5 features"),
        ({"keys": ["layer.dropout"]}, "must be a dict"),
        ({"schedule": "federated"}, "rows of their own"),
    ],
    ids=str,
)
def test_parameters_are_checked_when_it_is_fitted_in_ffdasks_words(changed, message):
    model = quick(**changed)
    with pytest.raises(ffdask.estimator.BadInput, match=message):
        model.fit(*IRIS)


def test_labels_are_bounded():
    X = np.random.default_rng(0).normal(size=(600, 3))
    with pytest.raises(ValueError, match="257 classes; 2 to 256 classes are allowed"):
        quick().fit(X, np.arange(600) % 257)
    model = quick(epochs=1).fit(X, np.arange(600) % 256)
    assert model.predict_proba(X).shape == (600, 256)
    with pytest.raises(ValueError, match="one class, 'a'; 2 to 256"):
        quick().fit(X, ["a"] * 600)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_a_run_can_diverge_of_is_told_in_place():
    with pytest.raises(ffdask.errors.Diverged, match="smaller learning rate"):
        quick(learning_rate=1e12).fit(*IRIS)


# Probabilities.


@pytest.mark.parametrize(
    ("objective", "classifier"),
    [("goodness", "softmax"), ("goodness", "goodness"), ("classifier", "all-heads"), ("classifier", "last-head")],
)
def test_probabilities_are_the_networks_class_scores(objective, classifier):
    model = quick(objective=objective, classifier=classifier).fit(*IRIS)
    probabilities = model.predict_proba(IRIS[0])
    assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-12)
    assert (model.classes_[probabilities.argmax(axis=1)] == model.predict(IRIS[0])).all()
    scores = model.network_.scores(model.treatment_(IRIS[0]), classifier, ffdask.kernels.named("numpy"))
    if classifier == "goodness":
        scores = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert probabilities == pytest.approx(scores, abs=1e-5)


def test_an_answer_does_not_depend_on_what_is_asked_beside_it(iris):
    alone = np.concatenate([iris.predict_proba(row[None]) for row in IRIS[0]])
    assert alone == pytest.approx(iris.predict_proba(IRIS[0]), abs=1e-13)


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


# Images.


def test_images(images):
    X, y = images
    model = ForwardForwardClassifier((100, 100), epochs=20, random_state=0).fit(X, y)
    assert (model.n_features_in_, model.shape_in_) == (64, (8, 8))
    assert model.score(X, y) > 0.9
    floats = clone(model).fit(X / np.float32(255), y)
    assert floats.score(X / np.float32(255), y) > 0.9
    with pytest.raises(ValueError, match=r"float32, but those learned from were of integers"):
        model.predict(X / np.float32(255))
    with pytest.raises(ValueError, match=r"shape \(4, 16\); those learned from had shape \(8, 8\)"):
        model.predict(X.reshape(-1, 4, 16))
    with pytest.raises(ValueError, match="256; 0 to 255 are allowed"):
        model.predict(np.where(X == 0, 256, X.astype(int)))


def test_images_in_colour_and_of_two_levels(images):
    X, y = images
    colour = np.stack([X, X // 2, 255 - X], axis=-1)
    assert quick().fit(colour, y).predict(colour).shape == (300,)
    levels = ForwardForwardClassifier((100, 100), epochs=20, random_state=0).fit(X > 100, y)
    assert levels.score(X > 100, y) > 0.8
    with pytest.raises(ValueError, match=r"\(n, h, w, channels\) is taken"):
        quick().fit(colour[..., None], y)


def test_images_go_on_too(images):
    X, y = images
    model = quick(batch_size=None)
    for part in np.array_split(np.arange(300), 3):
        model.partial_fit(X[part], y[part], classes=range(10))
    assert model.network_.states[0].steps == 30
    with pytest.raises(ValueError, match="those learned from were of integers"):
        model.partial_fit(X / 255, y)


# Kinds of arrays.


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_xarray_in_xarray_out(iris, method):
    X, _ = IRIS
    names = [f"plant{i}" for i in range(150)]
    given = xr.DataArray(X, dims=("plant", "part"), coords={"plant": names, "bed": ("plant", np.arange(150) % 3)})
    answer = getattr(iris, method)(given)
    assert isinstance(answer, xr.DataArray)
    assert list(answer.plant.values) == names
    assert (answer.bed.values == np.arange(150) % 3).all()
    assert (answer.values == getattr(iris, method)(X)).all()
    if method == "predict_proba":
        assert answer.dims == ("plant", "class")
        assert (answer["class"].values == iris.classes_).all()
    else:
        assert answer.dims == ("plant",)
    true = given.assign_coords({"class": ("plant", IRIS[1])})
    assert (getattr(iris, method)(true)["class"].values == IRIS[1]).all()
    lazy = getattr(iris, method)(given.chunk(plant=50))
    assert dask.is_dask_collection(lazy)
    assert (lazy == answer).all().compute()
    assert quick().fit(given, xr.DataArray(IRIS[1], dims="plant")).network_.sha256() == iris.network_.sha256()
    assert iris.score(given, xr.DataArray(IRIS[1], dims="plant")) == iris.score(*IRIS)


@pytest.mark.parametrize("chunks", [(50, 4), (40, 3)], ids=str)
@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_dask_in_dask_out(iris, method, chunks):
    X, y = (da.from_array(array, chunks[: array.ndim]) for array in IRIS)
    answer, known = getattr(iris, method)(X), getattr(iris, method)(IRIS[0])
    assert isinstance(answer, da.Array)
    assert (answer.shape, answer.dtype, answer.chunks[0]) == (known.shape, known.dtype, X.chunks[0])
    assert answer.compute() == pytest.approx(known, abs=1e-13)
    assert iris.score(X, y) == iris.score(*IRIS)
    # Rows that were never counted are answered just so.
    some = X[X[:, 0] > 5]
    assert getattr(iris, method)(some).compute() == pytest.approx(known[IRIS[0][:, 0] > 5], abs=1e-13)


def test_dask_in_and_labels_of_strings(images):
    X, y = images
    names = np.array([f"digit {label}" for label in y], object)
    model = quick().fit(da.from_array(X, (100, 8, 4)), names)
    answer = model.predict(da.from_array(X, (64, 8, 8)))
    assert (answer.compute() == model.predict(X)).all()
    assert model.predict_proba(da.from_array(X, (64, 8, 4))).compute().shape == (300, 10)


def test_a_lazy_answer_of_what_is_not_finite_says_so(iris):
    X = IRIS[0].copy()
    X[70, 2] = np.nan
    answer = iris.predict(da.from_array(X, (50, 4)))
    with pytest.raises(ValueError, match="value in row 20 is nan"):
        answer.compute()


def test_what_is_wrong_with_a_lazy_array_is_said_at_once(iris):
    X = da.from_array(IRIS[0], (50, 4))
    with pytest.raises(ValueError, match="X has 3 features"):
        iris.predict(X[:, :3])
    with pytest.raises(ValueError, match="numbers of shape"):
        iris.predict(X[:, 0])
    with pytest.raises(ValueError, match="numbers of shape"):
        iris.predict(X.astype(str))
    with pytest.raises(ValueError, match="compute_chunk_sizes"):
        quick().fit(X[X[:, 0] > 0], IRIS[1])
    with pytest.raises(ValueError, match="to_dask_array"):
        iris.predict(dask.delayed(IRIS[0]))


class Counted:
    """A dask.array of made-up rows that knows how many of its chunks are in memory."""

    def __init__(self, rows, chunk, features=4):
        self.now = self.most = self.made = 0
        self._lock = threading.Lock()
        self.array = da.map_blocks(
            self._block, chunks=((chunk,) * (rows // chunk), (features,)), dtype=float, meta=np.empty((0, 0))
        )

    def _block(self, block_info=None):
        (first, last), (_, features) = block_info[None]["array-location"]
        block = np.random.default_rng(first).normal(size=(last - first, features))
        with self._lock:
            self.now, self.made = self.now + 1, self.made + 1
            self.most = max(self.most, self.now)
        weakref.finalize(block, self._gone)
        return block

    def _gone(self):
        with self._lock:
            self.now -= 1

    def __deepcopy__(self, memo):
        return self

    def __dask_tokenize__(self):
        return id(self)


def test_predict_of_a_dask_array_is_lazy_and_goes_chunk_by_chunk(iris):
    counted = Counted(rows=6000, chunk=100)
    answer = iris.predict(counted.array)
    assert counted.made == 0
    with dask.config.set(scheduler="threads", num_workers=2):
        labels = answer.compute()
    assert (counted.made, len(labels)) == (60, 6000)
    assert counted.most <= 4


def test_the_network_travels_once(iris):
    graph = iris.predict(da.zeros((3000, 4), chunks=(100, 4))).__dask_graph__()
    holding = [key for key, task in dict(graph).items() if b"ffdask.predicted" in pickle.dumps(task)]
    assert len(holding) == 1
    answers = dask.get(dict(graph), holding[0])
    assert isinstance(answers, Predictor)
    assert len(pickle.dumps(answers)) < 0.7 * len(pickle.dumps(iris.network_))
    # Asked twice, it is known.
    assert holding[0] in dict(iris.predict_proba(da.ones((30, 4))).__dask_graph__())


# In place and on clusters.


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


# How it is found.


def test_it_is_found_when_it_is_asked_for():
    assert ffdask.ForwardForwardClassifier is ForwardForwardClassifier
    with pytest.raises(AttributeError, match="no attribute 'Forward'"):
        ffdask.Forward  # noqa: B018


def test_without_scikit_learn_a_message_names_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "ffdask.estimator")
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    with pytest.raises(ImportError, match=r"pip install 'ffdask\[sklearn\]'"):
        ffdask.ForwardForwardClassifier  # noqa: B018


def test_its_examples():
    assert doctest.testmod(ffdask.estimator).attempted >= 4
    assert doctest.testmod(ffdask.estimator).failed == 0


def test_every_schedule_that_shares_rows_trains_in_place(iris):
    for name, entry in SCHEDULES.items():
        if not entry.sharded:
            assert quick(schedule=name, epochs=1).fit(*IRIS).network_.states[0].steps


def test_a_data_frame_and_its_labels():
    X, y = load_iris(return_X_y=True, as_frame=True)
    named = pd.Series(np.array(["a", "b", "c"])[y], dtype="category")
    assert quick(epochs=10).fit(X, named).score(X, named) > 0.6
