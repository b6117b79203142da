"""Answers of the kind of array that was asked with, lazily where that is lazy."""

from __future__ import annotations

import pickle

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from classified import IRIS, Counted, quick
from sklearn.datasets import load_iris

from ffdask.predicted import Predictor

pytestmark = pytest.mark.usefixtures("dask_as_before")


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


def test_dask_in_and_labels_of_strings(digits):
    X, y = digits
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


def test_a_data_frame_and_its_labels():
    X, y = load_iris(return_X_y=True, as_frame=True)
    named = pd.Series(np.array(["a", "b", "c"])[y], dtype="category")
    assert quick(epochs=10).fit(X, named).score(X, named) > 0.6
