from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version

import pytest

from ffdask import cli
from ffdask.config import Config, known_keys

TLS = ("--tls-ca", "--tls-cert", "--tls-key")
"""Make no sense one by one."""

ALL = [(group, flag, key) for group, flags in cli.FLAGS.items() for flag, key in flags.items() if flag not in TLS]


@pytest.fixture
def given(monkeypatch):
    """Return the configuration that a command line makes, without running it."""
    import sys

    def configuration(*arguments: str) -> Config:
        parser = cli.parser("train", "test")
        parser.add_argument("graph", nargs="?")
        cli.add_flags(parser)
        monkeypatch.setattr(sys, "argv", ["train", *arguments])
        return cli.configuration(parser.parse_args())

    return configuration


def _help(command, monkeypatch, name: str) -> str:
    monkeypatch.setenv("COLUMNS", "200")
    said = command(name, "--help")
    assert (said.code, said.err) == (0, "")
    return said.out


def test_help_shows_every_flag_in_its_group_with_meaning_and_default(command, monkeypatch):
    text = _help(command, monkeypatch, "train")
    sections = re.split(r"^(\S.*):$", text, flags=re.MULTILINE)
    bodies = dict(zip(sections[1::2], sections[2::2], strict=True))
    described, defaults = cli.descriptions(), Config().tables()
    for group, flag, key in ALL:
        (entry,) = re.findall(rf"^  {flag}(?: [A-Z_]+)?\s+(\S.*)$", bodies[group], flags=re.MULTILINE)
        table, name = key.split(".")
        default = defaults[table].get(name)
        if isinstance(default, bool):
            assert ("(default)" in entry) is (flag == "--threads")
        else:
            assert described[key] in entry
            if default is not None:
                shown = ",".join(map(str, default)) if isinstance(default, list) else default
                assert f"(default: {shown})" in entry
            else:
                assert "default:" not in entry
    assert list(cli.FLAGS) == [name for name in bodies if name in cli.FLAGS], "groups in their order"
    for flag in ("--dry-run", "--set", "--version"):
        assert flag in text


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("evaluate", ["run", "--dataset", "--classifier", "--version"]),
        ("predict", ["run", "images", "--classifier", "--format", "--version"]),
        ("draw", ["graph", "--out", "--graph", "--rounds", "--schedule", "--workers", "--set", "--version"]),
    ],
)
def test_help_of_the_other_commands(command, monkeypatch, name, flags):
    text = _help(command, monkeypatch, name)
    for flag in flags:
        assert re.search(rf"^  {flag}\b", text, flags=re.MULTILINE) or f" {flag} " in text or f"[{flag}]" in text


@pytest.mark.parametrize("name", ["train", "evaluate", "predict", "draw"])
def test_version(command, name):
    said = command(name, "--version")
    assert (said.code, said.out, said.err) == (0, f"ffdask {version('ffdask')}\n", "")


@pytest.mark.parametrize(("group", "flag", "key"), ALL, ids=[flag for _, flag, _ in ALL])
def test_every_flag_has_a_known_key(group, flag, key):
    assert key in known_keys()


def test_texts_are_known_keys():
    assert set(known_keys()) >= cli.TEXTS


VALUES = {
    "--dataset": ("a b", "a b"),
    "--chunk": ("500", 500),
    "--validation": ("60", 60),
    "--overlay": ("append", "append"),
    "--shards": ("dirichlet", "dirichlet"),
    "--alpha": ("0.5", 0.5),
    "--layers": ("20,30", (20, 30)),
    "--objective": ("symba", "symba"),
    "--negatives": ("random", "random"),
    "--candidates": ("3", 3),
    "--classifier": ("goodness", "goodness"),
    "--dropout": ("0.2", 0.2),
    "--epochs": ("3", 3),
    "--batch-size": ("10", 10),
    "--shift": ("0", 0),
    "--optimizer": ("adam", "adam"),
    "--learning-rate": ("0.002", 0.002),
    "--seed": ("9", 9),
    "--kernels": ("numpy", "numpy"),
    "--precision": ("auto", "auto"),
    "--scale": ("0.5", 0.5),
    "--schedule": ("all-layers", "all-layers"),
    "--nodes": ("4", 4),
    "--chapters": ("5", 5),
    "--staleness": ("0", 0),
    "--exchange": ("batch", "batch"),
    "--scheduler": ("127.0.0.1:8786", "127.0.0.1:8786"),
    "--workers": ("2", 2),
    "--units": ("8", 8),
    "--threads": (None, False),
    "--processes": (None, True),
    "--memory-limit": ("2GiB", "2GiB"),
    "--device": ("cpu", "cpu"),
    "--gpu-nodes": ("2,0", (0, 2)),
    "--strict-bits": (None, True),
    "--out": ("7", "7"),
    "--overwrite": (None, True),
    "--checkpoint-every": ("9", 9),
    "--checkpoint-seconds": ("60.5", 60.5),
    "--checkpoints": ("memory://here", "memory://here"),
    "--evaluate-every": ("2", 2),
    "--report": ("true", "true"),
    "--quiet": (None, True),
}


BESIDE = {
    "--candidates": ["--negatives", "adaptive", "--classifier", "goodness"],
    "--shards": ["--schedule", "federated"],
    "--gpu-nodes": ["--nodes", "3"],
}
"""What a flag makes no sense without."""


@pytest.mark.parametrize(("group", "flag", "key"), ALL, ids=[flag for _, flag, _ in ALL])
def test_every_flag_reaches_its_key_and_no_other(given, group, flag, key):
    text, value = VALUES[flag]
    beside = BESIDE.get(flag, [])
    config = given(*beside, flag, *([text] if text is not None else []))
    table, name = key.split(".")
    assert getattr(getattr(config, table), name) == value
    changed, default = config.tables(), given(*beside).tables()
    changed[table].pop(name, None)
    default[table].pop(name, None)
    assert changed == default


def test_the_flags_of_tls_reach_their_keys(given):
    table = given("--scheduler", "tls://h:1", *(part for flag in TLS for part in (flag, __file__))).cluster
    assert (table.tls_ca, table.tls_cert, table.tls_key) == (__file__,) * 3
    assert given("--scheduler", "none").cluster.scheduler is None


def test_flags_win_over_set_which_wins_over_the_file(given, tmp_path):
    file = tmp_path / "g.toml"
    file.write_text("[training]\nepochs = 1\nseed = 1\nbatch_size = 11\n")
    config = given(str(file), "--set", "training.epochs=2", "--set", "training.seed=2", "--epochs", "3")
    assert (config.training.epochs, config.training.seed, config.training.batch_size) == (3, 2, 11)


@pytest.mark.parametrize(
    ("text", "table", "key", "value"),
    [
        ("optimizer.momentum=0.8", "optimizer", "momentum", 0.8),
        ("head.rate = 1", "head", "rate", 1.0),
        ("run.cut_every=7", "run", "cut_every", 7),
        ("network.layers=[3, 4]", "network", "layers", (3, 4)),
        ("network.layers=3,4", "network", "layers", (3, 4)),
        ("cluster.strict_bits=true", "cluster", "strict_bits", True),
        ("run.out=12", "run", "out", "12"),
        ("data.dataset=a=b", "data", "dataset", "a=b"),
    ],
)
def test_set_reaches_any_key(given, text, table, key, value):
    assert getattr(getattr(given("--set", text), table), key) == value


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--set", "training.epochs"], ["--set: given 'training.epochs'", "TABLE.KEY=VALUE"]),
        (["--set", "epochs=3"], ["'epochs'", "table.key", "training.epochs"]),
        (["--set", "optimizer.momentun=0.8"], ["'optimizer.momentun'", "did you mean 'momentum'?"]),
        (["--epoch", "3"], ["--epoch", "--help"]),
        (["--epochs"], ["--epochs", "expected one argument", "--help"]),
        (["a.toml", "b.toml"], ["b.toml", "--help"]),
    ],
)
def test_what_is_no_command_line_is_one_line_and_2(command, arguments, says):
    said = command("train", *arguments)
    assert said.code == 2
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    for part in says:
        assert part in said.err


@pytest.mark.parametrize("name", ["evaluate", "predict"])
def test_the_other_commands_refuse_in_one_line_too(command, name, tmp_path):
    for arguments in ([], [tmp_path / "none", tmp_path / "x.png"][: 1 + (name == "predict")]):
        said = command(name, *arguments)
        assert (said.code, said.out, len(said.err.splitlines())) == (2, "", 1)


def test_a_dry_run_prints_the_plan_and_writes_nothing(command, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["--chunk", 100, "--batch-size", 20, "--layers", "20,30", "--epochs", 1]
    said = command("train", "--dry-run", "--dataset", tiny, *small)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("data ")
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_mnist_needs_no_mnist(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = command("train", "--dry-run", "--schedule", "sequential")
    assert (said.code, said.err) == (0, "")
    assert "not on this machine: it would be fetched" in said.out
    assert "60000 training rows" in said.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("body", "code"), [("pass", 0), ("raise KeyboardInterrupt", 130)])
def test_ctrl_c_at_the_very_end_of_a_command_prints_nothing(body, code):
    """Where Dask puts away a cluster that could not be closed before, say."""
    program = f"""
import atexit, os, signal
from ffdask import cli

def main():
    {body}

atexit.register(os.kill, os.getpid(), signal.SIGINT)
cli.guarded(main)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == code
    assert ended.stderr == ("ffdask: stopped\n" if code else "")
