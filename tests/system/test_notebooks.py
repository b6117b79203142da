"""The notebooks run from their beginning to their end, each in a kernel and a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("nbclient", reason="the extra `docs` is not installed")

DOCS = Path(__file__).parents[2] / "docs"
NAMES = sorted(path.stem for path in (DOCS / "notebooks").glob("*.ipynb"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """One for all of them: MNIST is had once."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs(name, cache, tmp_path):
    stored = (DOCS / "notebooks" / f"{name}.ipynb").read_text()
    ran = subprocess.run(
        [sys.executable, str(DOCS / "run_notebooks.py"), "--check", str(tmp_path), name],
        env=os.environ | {"FFDASK_CACHE": str(cache)},
        capture_output=True,
        text=True,
    )
    print(ran.stdout)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / f"{name}.ipynb").is_file()
    assert (DOCS / "notebooks" / f"{name}.ipynb").read_text() == stored
