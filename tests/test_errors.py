from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffdask.errors import BadInput, Diverged, FFDaskError, RunFailed, nearest, reason


@pytest.mark.parametrize(
    ("kind", "code", "builtin"),
    [
        (FFDaskError, 1, Exception),
        (BadInput, 2, ValueError),
        (Diverged, 3, ArithmeticError),
        (RunFailed, 1, RuntimeError),
    ],
)
def test_each_error_has_its_exit_code_and_is_a_builtin_one(kind, code, builtin):
    assert kind("x").exit_code == code
    assert issubclass(kind, FFDaskError)
    assert issubclass(kind, builtin)


@pytest.mark.parametrize(
    ("given_", "allowed", "hint"),
    [
        ("streeming", ["streaming", "sequential"], " (did you mean 'streaming'?)"),
        ("epoch", ("epochs", "seed"), " (did you mean 'epochs'?)"),
        ("epochs", {"epochs": 1}, " (did you mean 'epochs'?)"),
        ("xyzzy", ["streaming", "sequential"], ""),
        ("", ["streaming"], ""),
        ("x", [], ""),
    ],
)
def test_nearest_names_what_was_probably_meant(given_, allowed, hint):
    assert nearest(given_, allowed) == hint


def test_nearest_takes_what_is_no_text():
    assert nearest(12, [12, 300]) == " (did you mean '12'?)"  # type: ignore[arg-type, list-item]


@given(st.text(max_size=20), st.lists(st.text(min_size=1, max_size=20), max_size=5))
def test_nearest_says_nothing_or_one_allowed_name(given_, allowed):
    hint = nearest(given_, allowed)
    assert hint == "" or hint in {f" (did you mean {name!r}?)" for name in allowed}


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("an odd one"), "OSError: an odd one"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_a_reason_is_the_systems_own_or_names_the_exception(error, why):
    assert reason(error) == why


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (BadInput("given 1; give 2"), 2, "ffdask: given 1; give 2\n"),
        (Diverged("layer 1"), 3, "ffdask: layer 1\n"),
        (RunFailed("step x"), 1, "ffdask: step x\n"),
        (KeyboardInterrupt(), 130, "ffdask: stopped\n"),
    ],
)
def test_a_command_ends_with_one_line_and_its_code(command, monkeypatch, raised, code, line):
    def main():
        raise raised

    monkeypatch.setattr("ffdask.train.main", main)
    said = command("train")
    assert (said.code, said.err, said.out) == (code, line, "")


def test_an_error_that_is_not_ours_keeps_its_traceback(command, monkeypatch):
    def main():
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr("ffdask.train.main", main)
    with pytest.raises(ZeroDivisionError):
        command("train")
