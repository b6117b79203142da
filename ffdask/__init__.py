"""ffdask: Forward-Forward training as a dynamic Dask task graph.

`fit` begins a run; `from_arrays` makes a data set of what a program holds; `open_run` opens what a run left; the
command lines are ``python -m ffdask.train``, ``ffdask.evaluate`` and ``ffdask.predict``. Papers, by the short
names that docstrings use:

[FF] G. Hinton, *The Forward-Forward Algorithm: Some Preliminary Investigations*, arXiv 2212.13345 (2022).

[PFF] E. Aktemur et al., *Going Forward-Forward in Distributed Deep Learning*, arXiv 2404.08573 v2 (2024).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ffdask import callbacks as callbacks
    from ffdask import dashboard as dashboard
    from ffdask import datasets as datasets
    from ffdask import errors as errors
    from ffdask import schedules as schedules
    from ffdask.comparison import compare_runs as compare_runs
    from ffdask.config import Config as Config
    from ffdask.config import load as load
    from ffdask.datasets import from_arrays as from_arrays
    from ffdask.estimator import ForwardForwardClassifier as ForwardForwardClassifier
    from ffdask.run import Run as Run
    from ffdask.run import fit as fit
    from ffdask.run import open_run as open_run

__all__ = ["Config", "Run", "compare_runs", "fit", "from_arrays", "load", "open_run"]

_NAMES = {
    "Config": "ffdask.config",
    "ForwardForwardClassifier": "ffdask.estimator",
    "Run": "ffdask.run",
    "compare_runs": "ffdask.comparison",
    "fit": "ffdask.run",
    "from_arrays": "ffdask.datasets",
    "load": "ffdask.config",
    "open_run": "ffdask.run",
}
"""Name -> the module it is in, imported when somebody asks for the name: Dask and Zarr take most of a second."""

_MODULES = ("callbacks", "dashboard", "datasets", "errors", "schedules")
"""Modules that are there, too, as ``ffdask.<name>``, with no import of their own."""


def __getattr__(name: str) -> Any:
    import importlib

    if name in _MODULES:
        return importlib.import_module(f"ffdask.{name}")
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES, *_MODULES})
