"""The Python on the documentation's pages runs, each page from its top to its end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PROGRAMS = {
    str(path.relative_to(DOCS)): "\n".join(parts)
    for path in sorted(DOCS.rglob("*.md"))
    if (parts := re.findall(r"^```python\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE))
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_the_tutorial_and_every_guide_have_some():
    guides = {f"how-to/{path.name}" for path in (DOCS / "how-to").glob("*.md")} - {"how-to/index.md"}
    assert {"tutorial.md", *guides} <= PROGRAMS.keys()


@pytest.mark.parametrize("page", PROGRAMS)
def test_a_page_says_what_works(page, tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAMS[page]],
        cwd=tmp_path,
        env=os.environ | {"FFDASK_CACHE": str(tmp_path / "cache"), "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
