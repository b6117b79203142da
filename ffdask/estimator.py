"""Forward-Forward networks for people who live in scikit-learn: `ForwardForwardClassifier`.

Needs scikit-learn: ``pip install 'ffdask[sklearn]'``.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    from joblib.parallel import get_active_backend
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.metrics import accuracy_score
    from sklearn.preprocessing import StandardScaler
    from sklearn.utils import assert_all_finite, check_random_state, column_or_1d
    from sklearn.utils.multiclass import check_classification_targets, unique_labels
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        f"ForwardForwardClassifier needs scikit-learn 1.6 or later ({error}): pip install 'ffdask[sklearn]'"
    ) from error

from ffdask import draws, kinds
from ffdask.config import Config
from ffdask.datasets.arrays import MOST_CLASSES
from ffdask.errors import BadInput
from ffdask.fitting import as_run, in_place
from ffdask.network import Network
from ffdask.parameters import PARAMETERS, configuration, plain, usual_batch
from ffdask.predicted import Predictor
from ffdask.surroundings import in_task
from ffdask.treatment import Treatment

EXPECTED_FAILED_CHECKS: dict[str, str] = {}
"""Checks of scikit-learn's `check_estimator` that this classifier is known to fail -> why: none."""

ROWS_IN_PLACE = 1000
"""Up to so many rows `fit` trains in the calling thread: starting a cluster would take longer than the training."""


class ForwardForwardClassifier(ClassifierMixin, BaseEstimator):
    """A network trained by Forward-Forward, as a classifier of scikit-learn's.

    Up to 1,000 rows, and inside a task of Dask's or a parallel job of joblib's, it is trained in the calling thread;
    otherwise as a run on the cluster of the current Dask client, or on an embedded one. The bits are the same.

    Vectors are standardised, by means and deviations that `fit` remembers, and get one constant value more, since a
    network sees only the direction of its input. Images are taken as they are: integers 0 to 255, or floats, best in
    [0, 1]. Labels have inputs of their own before a sample's.

    Parameters
    ----------
    layers : tuple of int
        Units of each layer.
    epochs : int
        Passes of `fit` over the rows.
    objective : str or callable
        Each layer's own loss: ``"goodness"``, ``"symba"``, ``"classifier"``, or one's own.
    negatives : str, callable or None
        How wrong labels are chosen; None takes the objective's default (``"sampled"``).
    classifier : str or None
        How the network answers; None takes the objective's default (``"softmax"``).
    schedule : str or callable
        Which step waits for which.
    batch_size : int or None
        Rows in a minibatch; None takes a tenth of the rows, but 10 at least and 100 at most.
    learning_rate : float
    random_state : int, numpy.random.RandomState or None
        Seed of every draw, ffdask's ``training.seed``; equal ones give equal bits. None draws one.
    keys : dict or None
        More keys of a training graph, ``table.key`` -> value, such as ``{"layer.dropout": 0.2, "training.shift": 1}``.
        One of the tables ``cluster`` and ``run`` makes every `fit` a run.
    out : str or None
        Folder to keep the run in (`ffdask.open_run` opens it), which makes every `fit` a run. None keeps none.

    Attributes
    ----------
    classes_ : (classes,)
        The labels, sorted.
    n_features_in_ : int
        Values of one sample.
    feature_names_in_ : (features,)
        Of a data frame whose columns are named by strings.
    shape_in_ : tuple of int
        Of one sample.
    network_ : ffdask.network.Network
        With ``network_.sha256()``, the digest of its weights.
    treatment_ : ffdask.treatment.Treatment
        What is done to samples before the network sees them.
    classifier_ : str
        By which it answers.
    seed_ : int

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from ffdask import ForwardForwardClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = ForwardForwardClassifier(layers=(50, 50), random_state=0).fit(X, y)
    >>> model.score(X, y) > 0.9
    True
    >>> model.predict_proba(X[:2]).shape
    (2, 3)

    In a grid search over Dask, each fit is a task::

        with joblib.parallel_backend("dask"):
            GridSearchCV(ForwardForwardClassifier(), {"layers": [(100, 100), (500, 500)]}).fit(X, y)
    """

    def __init__(
        self,
        layers: Any = (200, 200),
        *,
        epochs: int = 30,
        objective: Any = "goodness",
        negatives: Any = None,
        classifier: str | None = None,
        schedule: Any = "streaming",
        batch_size: int | None = None,
        learning_rate: float = 0.01,
        random_state: Any = None,
        keys: Mapping[str, Any] | None = None,
        out: str | None = None,
    ) -> None:
        self.layers = layers
        self.epochs = epochs
        self.objective = objective
        self.negatives = negatives
        self.classifier = classifier
        self.schedule = schedule
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state
        self.keys = keys
        self.out = out

    def fit(self, X: Any, y: Any) -> ForwardForwardClassifier:
        """Train a network anew.

        Parameters
        ----------
        X : (n, features), (n, height, width) or (n, height, width, channels)
            NumPy, a data frame (vectors), xarray or dask.array; for a run, a dask.array goes chunk by chunk into a
            store, from which the workers read.
        y : (n,)
            Labels of any kind, of 2 to 256 classes.

        Raises
        ------
        BadInput
            A `ValueError`: for values of parameters and for data that ffdask cannot work with.
        Diverged, RunFailed
            When training cannot go on.
        """
        samples, labels = self._samples(X, anew=True), self._labels(y)
        classes, rows, seed = unique_labels(labels), len(labels), self._drawn_seed()
        _check(samples, labels, classes)
        config, here = self._config(rows, seed), self._in_place(rows)
        if here and kinds.is_lazy(samples):
            samples = samples.compute()
        scaler = StandardScaler()
        treatment = _treatment(samples, scaler)
        treated, codes = kinds.treated(treatment, samples), _codes(labels, classes)
        train = in_place if here else as_run
        network = train(config, treated, codes, len(classes))
        return self._now(network, config, treatment, classes, seed, scaler, calls=0)

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> ForwardForwardClassifier:
        """Train the layers further, from where they are: one pass over the rows, at the full learning rate.

        Always in the calling thread: `out`, and keys of the tables ``cluster`` and ``run``, are for `fit`. Means and
        deviations follow the rows seen so far; each call's draws are its own.

        Parameters
        ----------
        X : (n, ...)
            As `fit` takes it, a part of the data at a time.
        y : (n,)
        classes : (classes,)
            All labels that there will be; at the first call, if there was no `fit`.

        Raises
        ------
        BadInput, Diverged
            As `fit`.
        """
        before: Network | None = getattr(self, "network_", None)
        if before is None and classes is None:
            raise BadInput("partial_fit: classes is None; at the first call, give all labels that there will be")
        known = self.classes_ if classes is None else unique_labels(classes)
        if before is not None and not np.array_equal(known, self.classes_):
            raise BadInput(f"partial_fit: given the classes {known}, but they were {self.classes_}; leave them out")
        samples, labels = self._samples(X, anew=before is None), self._labels(y)
        _check(samples, labels, known)
        if kinds.is_lazy(samples):
            samples = samples.compute()
        if before is None:
            seed, calls, scaler = self._drawn_seed(), 0, StandardScaler()
        else:
            # A copy: a call that fails leaves nothing behind.
            seed, calls, scaler = self.seed_, self._calls, deepcopy(self._scaler)
        rows = len(labels)
        size = usual_batch(rows) if self.batch_size is None else self.batch_size
        once = {
            "training.epochs": 1,
            # The last part of the data may be smaller than a minibatch.
            "training.batch_size": min(size, rows) if isinstance(size, numbers.Integral) else size,
            "optimizer.cooldown": 1.0,
            "data.validation": 0,
            "schedule.chapters": None,
        }
        config = self._config(rows, int(draws.generator(seed, "partial-fit", calls).integers(2**62)), once)
        treatment = self.treatment_ if before is not None and samples.ndim > 2 else _treatment(samples, scaler)
        network = in_place(config, treatment(samples), _codes(labels, known), len(known), before)
        return self._now(network, config, treatment, known, seed, scaler, calls + 1)

    def predict(self, X: Any) -> Any:
        """Return each sample's label (n,), in the kind of array that `X` is; of a dask.array lazily.

        Parameters
        ----------
        X : (n, ...)
            As `fit` takes it.
        """
        return self._answered(X, "labels")

    def predict_proba(self, X: Any) -> Any:
        """Return each class's probability (n, classes) float64, in the order of `classes_`, in the kind that `X` is.

        By the classifiers ``softmax`` and ``last-head`` the head's own, by ``all-heads`` the mean of the layers' heads.
        By ``goodness`` the softmax of the classes' scores, each the goodness of the sample under that label over the
        width, summed over the layers read: what "exactly one label is right" makes of it. It orders classes as
        `predict` does, but was never fitted to frequencies; `sklearn.calibration.CalibratedClassifierCV` does that.

        Parameters
        ----------
        X : (n, ...)
            As `fit` takes it.
        """
        return self._answered(X, "probabilities")

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the share of samples that `predict` labels as `y` (n,) does.

        Parameters
        ----------
        X : (n, ...)
            As `fit` takes it.
        y : (n,)
        sample_weight : (n,), optional
        """
        return float(accuracy_score(np.asarray(y), np.asarray(self.predict(X)), sample_weight=sample_weight))

    def _answered(self, X: Any, method: str) -> Any:
        check_is_fitted(self, "network_")
        samples = self._samples(X)
        answers = Predictor.of(self.network_, self.classifier_, self.treatment_, self.classes_)
        lazy = kinds.is_lazy(samples)
        answer = kinds.answered(answers, method, samples) if lazy else getattr(answers, method)(samples)
        return kinds.labelled_as(X, answer, self.classes_) if kinds.is_labelled(X) else answer

    def _samples(self, X: Any, anew: bool = False) -> Any:
        """Return samples (n, ...) as NumPy's, or a dask.array as it is; like those learned from, or `anew`."""
        given = kinds.bare(X)
        if kinds.is_lazy(given):
            # Its values are looked at when they are there; scikit-learn counts features, and forgets their names.
            nothing = np.empty((0, kinds.values_of(given)))
            validate_data(self, nothing, reset=anew, skip_check_array=True)
        elif getattr(given, "ndim", 2) > 2:
            images = np.asarray(given)
            flat = validate_data(self, images.reshape(len(images), -1), reset=anew)
            given = flat.reshape(images.shape)
        else:
            given = validate_data(self, given, reset=anew)
        if given.ndim > 4:
            raise BadInput(f"X has shape {given.shape}; (n, features), (n, h, w) or (n, h, w, channels) is taken")
        if not anew and given.shape[1:] != self.shape_in_:
            raise BadInput(f"X holds samples of shape {given.shape[1:]}; those learned from had shape {self.shape_in_}")
        return given

    @staticmethod
    def _labels(y: Any) -> NDArray[Any]:
        if y is None:
            raise BadInput("fit requires y to be passed, but the target y is None")
        labels: NDArray[Any] = column_or_1d(np.asarray(kinds.bare(y)), warn=True)
        assert_all_finite(labels, input_name="y")
        check_classification_targets(labels)
        return labels

    def _drawn_seed(self) -> int:
        if isinstance(self.random_state, numbers.Integral):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _config(self, rows: int, seed: int, instead: Mapping[str, Any] | None = None) -> Config:
        given = {name: getattr(self, name) for name in PARAMETERS} | {"random_state": seed}
        return configuration(given, self.keys, rows, instead or {})

    def _in_place(self, rows: int) -> bool:
        """Return whether so many rows are trained on in the calling thread."""
        asked = [key for key in self.keys or {} if key.partition(".")[0] in ("cluster", "run")]
        asked += ["out"] if self.out is not None else []
        if in_task() or (get_active_backend()[0].nesting_level or 0) > 0:
            if asked:
                raise BadInput(
                    f"given {', '.join(asked)} inside a task of Dask's or a parallel job of joblib's, where fit trains "
                    "in place and there is no run; leave that out"
                )
            return True
        return rows <= ROWS_IN_PLACE and not asked

    def _now(
        self,
        network: Network,
        config: Config,
        treatment: Treatment,
        classes: NDArray[Any],
        seed: int,
        scaler: StandardScaler,
        calls: int,
    ) -> ForwardForwardClassifier:
        """Remember what was fitted: all of it, or nothing."""
        self.network_, self.classifier_, self.treatment_ = network, config.network.classifier, treatment
        self.classes_, self.seed_, self.shape_in_ = classes, seed, treatment.shape
        self._scaler, self._calls = scaler, calls
        return self


def _check(samples: Any, labels: NDArray[Any], classes: NDArray[Any]) -> None:
    if samples.shape[0] != len(labels):
        raise BadInput(
            f"X holds {samples.shape[0]} samples and y {len(labels)} labels; there must be one for each; of a "
            "dask.array whose rows were never counted, call compute_chunk_sizes()"
        )
    if not 2 <= len(classes) <= MOST_CLASSES:
        held = f"one class, {plain(classes[0])!r}" if len(classes) == 1 else f"{len(classes)} classes"
        raise BadInput(f"y holds {held}; 2 to {MOST_CLASSES} classes are allowed, since labels are kept as bytes")
    strange = np.setdiff1d(labels, classes)
    if len(strange):
        raise BadInput(f"y holds {plain(strange[0])!r}, which is none of the classes given: {classes}")


def _codes(labels: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.uint8]:
    return np.asarray(np.searchsorted(classes, labels), np.uint8)


def _treatment(samples: Any, scaler: StandardScaler) -> Treatment:
    """Return what to do to samples like these; of vectors, `scaler` has then seen these too."""
    if samples.ndim > 2:
        return Treatment.of_images(samples.shape[1:], samples.dtype)
    for block in kinds.blocks_of(samples):
        scaler.partial_fit(block)
    return Treatment.of_vectors(scaler.mean_, scaler.scale_)
