"""What takes time, or may not be installed, is imported by those who need it, not by `import ffdask`."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import ffdask
from ffdask.__main__ import COMMANDS

SLOW = {"numba", "pandas", "xarray", "matplotlib", "networkx", "bokeh"}
"""What some of ffdask needs, some of the time."""

OPTIONAL = {
    "cupy", "dask_cuda", "hypothesis", "IPython", "ipywidgets", "joblib", "ml_dtypes", "mlflow", "onednn", "pytest",
    "s3fs", "shtab", "sklearn", "tensorboard", "tensorboardX", "torch", "tqdm",
}  # fmt: skip
"""What ffdask can be used with, and without."""


def _imported_by(statement: str) -> set[str]:
    """Return the packages, and built-in modules, that a statement imports in a new process."""
    code = f"import sys; before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_importing_ffdask_imports_nothing_but_itself():
    assert _imported_by("import ffdask") - set(sys.stdlib_module_names) == {"ffdask"}


def test_what_is_optional_is_imported_by_no_command_and_no_public_name():
    modules = ", ".join(f"ffdask.{name}" for name in (*COMMANDS, "__main__", *ffdask._MODULES))
    imported = _imported_by(f"import {modules}; [getattr(ffdask, name) for name in ffdask.__all__]") & OPTIONAL
    # Zarr imports CuPy wherever it is installed.
    assert not imported - _imported_by("import zarr")


def test_what_is_slow_waits_until_it_is_needed():
    # Drawing is the one command that is of networkx.
    modules = ", ".join(f"ffdask.{name}" for name in (*COMMANDS, "__main__", "dashboard") if name != "draw")
    assert not _imported_by(f"import {modules}; ffdask.fit, ffdask.load, ffdask.open_run") & SLOW


def test_this_test_sees_what_is_imported():
    assert {"numba", "ffdask"} <= _imported_by("import ffdask.kernels.fused")


def test_every_public_name_is_there_and_listed():
    assert set(ffdask.__all__) == set(ffdask._NAMES) - {"ForwardForwardClassifier"}
    assert set(dir(ffdask)) >= {*ffdask._NAMES, *ffdask._MODULES}
    for name in ffdask.__all__:
        assert getattr(ffdask, name) is getattr(importlib.import_module(ffdask._NAMES[name]), name)
    for name in ffdask._MODULES:
        assert getattr(ffdask, name) is importlib.import_module(f"ffdask.{name}")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ffdask.nothing  # noqa: B018


def test_modules_need_no_import_of_their_own():
    code = "import ffdask; print(ffdask.callbacks.EarlyStopping.__name__, ffdask.errors.BadInput.exit_code)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["EarlyStopping", "2"]
