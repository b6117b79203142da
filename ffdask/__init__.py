"""ffdask: Forward-Forward training as a dynamic Dask task graph.

`fit` begins a run; `from_arrays` makes a data set of what a program holds; `open_run` opens what a run left; the
command lines are ``python -m ffdask.train``, ``ffdask.evaluate`` and ``ffdask.predict``. Papers, by the short
names that docstrings use:

[FF] G. Hinton, *The Forward-Forward Algorithm: Some Preliminary Investigations*, arXiv 2212.13345 (2022).

[PFF] E. Aktemur et al., *Going Forward-Forward in Distributed Deep Learning*, arXiv 2404.08573 v2 (2024).
"""

from typing import TYPE_CHECKING, Any

from ffdask.config import Config, load
from ffdask.datasets import from_arrays
from ffdask.run import Run, fit, open_run

__all__ = ["Config", "Run", "compare_runs", "fit", "from_arrays", "load", "open_run"]

if TYPE_CHECKING:
    from ffdask.comparison import compare_runs as compare_runs
    from ffdask.estimator import ForwardForwardClassifier as ForwardForwardClassifier

_LATER = {"ForwardForwardClassifier": "ffdask.estimator", "compare_runs": "ffdask.comparison"}
"""What is imported when somebody asks for it, and from where: it needs an optional package, or time."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LATER[name]), name)
