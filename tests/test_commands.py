from __future__ import annotations

import importlib
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL

import ffdask
from ffdask import cli
from ffdask.__main__ import COMMANDS, SHELLS, completion, parser

ROOT = Path(ffdask.__file__).parent


def test_names_of_commands_are_never_names_of_what_is_exported():
    assert not set(COMMANDS) & set(ffdask.__all__)
    for name in ffdask.__all__:
        assert getattr(ffdask, name).__class__.__name__ != "module", name


def test_every_command_line_is_listed():
    guarded = {file.stem for file in ROOT.glob("*.py") if "cli.guarded(main)" in file.read_text()}
    assert guarded - {"__main__"} == set(COMMANDS)


@pytest.mark.parametrize("name", [*COMMANDS, "__main__"])
def test_every_command_has_a_version_and_says_what_its_exit_codes_mean(command, monkeypatch, name):
    said = command(name, "--version")
    assert (said.code, said.out, said.err) == (0, f"ffdask {version('ffdask')}\n", "")
    monkeypatch.setenv("COLUMNS", "500")
    said = command(name, "--help")
    assert (said.code, said.err) == (0, "")
    (codes,) = re.findall(r"^exit codes: (.*)$", said.out, flags=re.MULTILINE)
    found = dict(re.findall(r"(\d+) ([^;]+)", codes))
    more = {"train": {"1", "3"}, "doctor": {"1"}}.get(name, set())
    assert found.keys() == {"0", "2", "130"} | more
    assert all(found.values())


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("draw", "predict")])
def test_commands_speak_to_machines(command, name):
    assert "--json" in command(name, "--help").out


# --- python -m ffdask


def test_alone_it_lists_the_commands_with_a_line_each(command):
    said = command("__main__")
    assert (said.code, said.err) == (0, "")
    listed = dict(re.findall(r"^  python -m ffdask\.(\w+) +(\S.*)$", said.out, flags=re.MULTILINE))
    assert list(listed) == list(COMMANDS)
    for name, line in listed.items():
        assert line == importlib.import_module(f"ffdask.{name}").parser().description
        assert len(line) < 90


def test_a_command_is_done_by_its_name(command, finished):
    assert command("__main__", "evaluate", finished.path) == command("evaluate", finished.path)
    said = command("__main__", "evaluate", "none")
    assert (said.code, said.out) == (2, "")
    assert "no run.zarr" in said.err


def test_another_command_is_refused_with_what_there_is(command):
    said = command("__main__", "trian")
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert "'trian'" in said.err
    assert "train" in said.err


def test_it_is_installed_as_a_program():
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["ffdask"].partition(":")
    program = getattr(importlib.import_module(module), function)
    code = f"import sys; sys.argv = ['ffdask', 'report', 'none']; from {module} import {function} as go; go()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert callable(program)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("ffdask: run folder: given none")


# --- completion


@pytest.fixture(scope="module")
def in_bash(tmp_path_factory):
    """Return what bash, with our completion, makes of a line's last word."""
    script = tmp_path_factory.mktemp("completion") / "ffdask.bash"
    script.write_text(completion("bash"))

    def complete(*words: str) -> set[str]:
        given = " ".join(f"'{word}'" for word in ("ffdask", *words))
        line = (
            f"source {script}; COMP_WORDS=({given}); COMP_CWORD={len(words)}; "
            f"_shtab_ffdask ffdask '{words[-1]}' x; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        )
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    return complete


def test_bash_completes_commands_and_flags(in_bash):
    assert in_bash("") >= set(COMMANDS)
    assert in_bash("tr") == {"train"}
    assert in_bash("train", "--learn") == {"--learning-rate"}
    assert in_bash("predict", "--format", "") == {"csv", "jsonl"}
    assert in_bash("compare", "--j") == {"--json"}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_completion_for_each_shell(command, shell):
    said = command("__main__", "--print-completion", shell)
    assert (said.code, said.err) == (0, "")
    for name in COMMANDS:
        assert name in said.out
    assert "--checkpoint-every" in said.out
    assert "python -m" not in re.sub(r"#.*", "", said.out) or shell != "bash"


def test_a_shell_that_there_is_none_for(command):
    said = command("__main__", "--print-completion", "fish")
    assert (said.code, said.out) == (2, "")
    assert "'fish'" in said.err


def test_without_the_library_it_is_said_how_to_get_it(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    said = command("__main__", "--print-completion", "bash")
    assert (said.code, said.out) == (2, "")
    assert "pip install 'ffdask[completion]'" in said.err
    assert parser().prog == "python -m ffdask"


# --- --json


def test_train_closes_with_one_object(command, tiny, tmp_path):
    out = tmp_path / "run"
    flags = ["--chunk", "100", "--layers", "20,30", "--epochs", "1", "--batch-size", "20", "--units", "2"]
    said = command("train", "--dataset", tiny, *flags, "--out", out, "--json")
    assert (said.code, said.out.count("\n")) == (0, 1), said.err
    summary = json.loads((out / "summary.json").read_text())
    assert json.loads(said.out) == {"run": str(out), **summary}
    assert summary["layers"] == SMALL["network.layers"]


def test_train_says_everything_else_as_errors(command, tmp_path):
    data, rng = tmp_path / "data.npz", np.random.default_rng(0)
    np.savez(data, images=rng.integers(0, 256, (120, 6, 6), np.uint8), labels=rng.integers(0, 10, 120))
    flags = ["--chunk", "50", "--layers", "8", "--epochs", "1", "--batch-size", "10", "--units", "1"]
    said = command("train", "--dataset", data, *flags, "--out", tmp_path / "run", "--json")
    assert (said.code, said.out.count("\n")) == (0, 1), said.err
    assert "converting" in said.err
    again = [*flags, "--out", tmp_path / "run", "--overwrite", "--json", "--quiet"]
    said = command("train", "--dataset", data, *again)
    assert (said.code, said.err, said.out.count("\n")) == (0, "", 1)


def test_a_plan_is_to_be_read(command, tiny):
    said = command("train", "--dataset", tiny, "--dry-run", "--json")
    assert (said.code, said.out) == (2, "")
    assert "--json: given with --dry-run" in said.err


def test_evaluate_says_the_same_to_machines(command, finished):
    lines = dict(line.split(" ", 1) for line in command("evaluate", finished.path).out.splitlines())
    said = command("evaluate", finished.path, "--json")
    assert (said.code, said.err, said.out.count("\n")) == (0, "", 1)
    found = json.loads(said.out)
    assert found["as_recorded"] is True
    assert lines["weights_sha256"] == f"{found['weights_sha256']} as recorded"
    for name in ("test_accuracy", "test_accuracy_softmax", "test_accuracy_goodness"):
        assert lines[name] == f"{found[name]:.4f}"
    assert int(lines["test_errors"]) == found["test_errors"]


def test_what_json_has_no_number_for_is_null(capsys):
    cli.print_json({"nan": float("nan"), "list": [1, (2.5, float("inf"))], "path": Path("a"), 1: None, "yes": True})
    text = capsys.readouterr().out
    assert json.loads(text) == {"nan": None, "list": [1, [2.5, None]], "path": "a", "1": None, "yes": True}


# --- colours


def _in_a_terminal(*arguments: object, **environment: str) -> str:
    """Return what a command prints to a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "ffdask.compare", *map(str, arguments)],
        stdout=theirs,
        env={**os.environ, "TERM": "xterm-256color", **environment},
    )
    os.close(theirs)
    found = b""
    while True:
        try:
            part = os.read(ours, 1 << 16)
        except OSError:
            break
        if not part:
            break
        found += part
    os.close(ours)
    assert process.wait() == 0
    return found.decode()


def test_colours_are_for_terminals_whose_user_wants_them(finished, tmp_path):
    other = shutil.copytree(finished.path, tmp_path / "other")
    summary = json.loads((other / "summary.json").read_text())
    (other / "summary.json").write_text(json.dumps(summary | {"train_seconds": 1e6}))
    plain = _in_a_terminal(finished.path, other, NO_COLOR="1")
    styled = _in_a_terminal(finished.path, other, NO_COLOR="")
    assert "All ended with the same weights" in plain
    assert "All ended with the same weights" in styled
    colours = re.compile(r"\x1b\[(?:\d+;)*3\d")
    assert colours.search(styled)
    assert not colours.search(plain)


def test_where_there_is_no_terminal_no_command_has_colours(command, finished, tiny, tmp_path):
    small = ["--dataset", tiny, "--chunk", 100, "--layers", "20,30", "--batch-size", 20, "--epochs", 1, "--units", 2]
    given = {
        "train": [*small, "--out", tmp_path / "run"],
        "evaluate": [finished.path],
        "predict": [finished.path, tiny],
        "draw": small,
        "report": [finished.path, "--out", tmp_path / "report.html"],
        "compare": [finished.path, finished.path],
        "doctor": ["--seconds", 0.05],
        "__main__": [],
    }
    assert given.keys() == {*COMMANDS, "__main__"}
    for name, arguments in given.items():
        said = command(name, *arguments)
        assert said.out, said.err
        assert "\x1b" not in said.out + said.err, name
        assert "\x1b" not in (refused := command(name, "--no-such-flag")).out + refused.err, name
        assert (refused.code, refused.err.count("\n")) == (2, 1)
