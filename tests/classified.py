"""What the tests of the classifier share: quick classifiers, and rows that know how many of them are in memory."""

from __future__ import annotations

import pickle
import threading
import weakref

import dask.array as da
import numpy as np
from sklearn.datasets import load_iris

from ffdask import ForwardForwardClassifier

IRIS = load_iris(return_X_y=True)
QUICK = {"layers": (20, 30), "epochs": 2, "batch_size": 20, "random_state": 0}


def quick(**changed):
    return ForwardForwardClassifier(**(QUICK | changed))


def clone_of(model):
    return pickle.loads(pickle.dumps(model))


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
