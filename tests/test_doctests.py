"""The examples in docstrings run, and say what happens; and there are some."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import ffdask
from ffdask import kept

MODULES = [
    "ffdask",
    *(found.name for found in pkgutil.walk_packages(ffdask.__path__, "ffdask.") if not found.name.endswith("__main__")),
]


EXTRAS = {"cupy"}
"""Without which some modules cannot be imported; CI looks at their examples where it has all extras."""


def _examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    tests = {}
    for name in MODULES:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in EXTRAS:
                raise
            continue
        for test in finder.find(module, name):
            # What a package gives on is found there, too.
            if test.examples:
                tests.setdefault((test.filename, test.lineno), test)
    return list(tests.values())


EXAMPLES = _examples()


@pytest.fixture(autouse=True, scope="module")
def _closed():
    yield
    kept.close_kept()


def test_the_main_functions_have_examples():
    named = {test.name for test in EXAMPLES}
    assert {"ffdask.run.fit", "ffdask.run.open_run", "ffdask.config.load", "ffdask.comparison.compare_runs"} <= named
    assert len(EXAMPLES) >= 10


@pytest.mark.parametrize("test", EXAMPLES, ids=lambda test: test.name)
def test_an_example_says_what_happens(test, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    outcome = runner.run(test)
    assert outcome.attempted
    assert not outcome.failed, capsys.readouterr().out
