from __future__ import annotations

import doctest
import io
import pickle
import sys

import dask.array as da
import joblib
import numpy as np
import pytest
from classified import IRIS, clone_of, quick
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

import ffdask
import ffdask.estimator
from ffdask.estimator import EXPECTED_FAILED_CHECKS, ForwardForwardClassifier

pytestmark = pytest.mark.usefixtures("dask_as_before")


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


# Images.


def test_images(digits):
    X, y = digits
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


def test_images_in_colour_and_of_two_levels(digits):
    X, y = digits
    colour = np.stack([X, X // 2, 255 - X], axis=-1)
    assert quick().fit(colour, y).predict(colour).shape == (300,)
    levels = ForwardForwardClassifier((100, 100), epochs=20, random_state=0).fit(X > 100, y)
    assert levels.score(X > 100, y) > 0.8
    with pytest.raises(ValueError, match=r"\(n, h, w, channels\) is taken"):
        quick().fit(colour[..., None], y)


def test_images_go_on_too(digits):
    X, y = digits
    model = quick(batch_size=None)
    for part in np.array_split(np.arange(300), 3):
        model.partial_fit(X[part], y[part], classes=range(10))
    assert model.network_.states[0].steps == 30
    with pytest.raises(ValueError, match="those learned from were of integers"):
        model.partial_fit(X / 255, y)


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
