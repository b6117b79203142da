"""The wheel and the source archive: built, installed where nothing is, and tried, by each Python that is said to do."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.system.installed import ROOT, Environment, interpreter

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CLASSIFIER = "Programming Language :: Python :: 3."
VERSIONS = sorted(line.rpartition(" ")[2] for line in PROJECT["classifiers"] if line.startswith(CLASSIFIER))
HERE = "{}.{}".format(*sys.version_info)

NEED_MORE = {"ffdask.estimator"}
"""Modules that need what only an extra installs, and say so."""

BEHIND = {f"ffdask.kernels.{name}" for name in ("cublas", "device", "launches", "memory", "recorded", "uploaded")}
"""Modules that need CuPy, which nothing imports before it was found."""


@dataclass(frozen=True)
class Built:
    """What a build made, and what lies in each, by its path there."""

    wheel: Path
    archive: Path
    in_wheel: set[str]
    in_archive: set[str]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Built:
    """The source archive, and the wheel that was made of the archive alone."""
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run([sys.executable, "-m", "build", "--outdir", out, ROOT], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (archive,) = out.glob("*.whl"), out.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        in_archive = {member.name.partition("/")[2] for member in opened if member.isfile()}
    return Built(wheel, archive, set(zipfile.ZipFile(wheel).namelist()), in_archive)


def _tracked() -> set[str]:
    asked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if asked.returncode:
        pytest.skip("this is no git checkout: nothing says which files are the project's")
    return {name for name in asked.stdout.splitlines() if (ROOT / name).exists()}


def test_the_archive_has_every_file_of_the_project(built):
    assert _tracked() <= built.in_archive
    pictures = set(re.findall(r"\]\(((?:docs|benchmarks)/[^)#]+)\)", (ROOT / "README.md").read_text()))
    assert {"docs/timeline.png"} <= pictures <= built.in_archive


def test_the_wheel_has_the_package_and_nothing_else(built):
    tracked = {name for name in _tracked() if name.startswith("ffdask/")}
    assert {"ffdask/py.typed", "ffdask/templates/report.html"} <= tracked <= built.in_wheel
    assert {name.split("/")[0] for name in built.in_wheel} == {"ffdask", f"ffdask-{version('ffdask')}.dist-info"}
    assert not [name for name in built.in_wheel if "__pycache__" in name]


def test_the_wheel_says_what_the_project_says(built):
    with zipfile.ZipFile(built.wheel) as opened:
        (name,) = (name for name in opened.namelist() if name.endswith("METADATA"))
        fields, _, description = opened.read(name).decode().partition("\n\n")
        assert any(name.endswith("licenses/LICENSE") for name in opened.namelist())
    assert description.startswith("# ffdask\n")
    assert f"Requires-Python: {PROJECT['requires-python']}" in fields
    assert fields.count("Requires-Dist:") == sum(map(len, PROJECT["optional-dependencies"].values())) + len(
        PROJECT["dependencies"]
    )


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """Return an environment of a Python's version with the wheel and what it needs, and with nothing else."""
    made: dict[str, Environment] = {}

    def of(wanted: str) -> Environment:
        python = interpreter(wanted)
        if python is None:
            pytest.skip(f"no Python {wanted} here: not the test's own, not on the path, not among pyenv's")
        if wanted not in made:
            made[wanted] = Environment(tmp_path_factory.mktemp(f"python{wanted}"), python)
            made[wanted].run("pip", "install", "--quiet", built.wheel, cwd=made[wanted].home)
        return made[wanted]

    return of


def test_some_python_that_is_said_to_do_is_here():
    assert len(VERSIONS) >= 3
    assert HERE in VERSIONS, f"the tests run by Python {HERE}, of which pyproject.toml says nothing"


IMPORT_ALL = """
import json, pkgutil, importlib, sys
import ffdask

failed, modules = {}, [module.name for module in pkgutil.walk_packages(ffdask.__path__, "ffdask.")]
for name in modules:
    try:
        importlib.import_module(name)
    except ImportError as error:
        failed[name] = str(error)
print(json.dumps({"file": ffdask.__file__, "modules": modules, "failed": failed}))
"""


@pytest.mark.parametrize("wanted", VERSIONS)
def test_every_module_is_imported_but_those_that_need_an_extra(installed, built, wanted, tmp_path):
    environment = installed(wanted)
    said = json.loads(environment.run("python", "-c", IMPORT_ALL, cwd=tmp_path).stdout)
    assert Path(said["file"]).is_relative_to(environment.bin.parent)
    files = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in built.in_wheel}
    assert {name for name in files if name.startswith("ffdask.")} >= set(said["modules"])
    assert len(said["modules"]) >= 100
    assert said["failed"].keys() == NEED_MORE | BEHIND
    assert all("pip install 'ffdask[" in said["failed"][name] for name in NEED_MORE)
    assert all("cupy" in said["failed"][name] for name in BEHIND)


@pytest.mark.parametrize("wanted", VERSIONS)
def test_it_trains_and_shows_what_it_did(installed, wanted, tmp_path):
    environment = installed(wanted)
    for command in ("python -m ffdask", "ffdask", "ffdask doctor"):
        said = environment.run(f"{command} --version", cwd=tmp_path)
        assert (said.stdout, said.stderr) == (f"ffdask {version('ffdask')}\n", "")
    made = "np.savez('made.npz', images=rng.integers(0, 256, (600, 8, 8), np.uint8), labels=rng.integers(0, 10, 600))"
    environment.run("python", "-c", f"import numpy as np; rng = np.random.default_rng(0); {made}", cwd=tmp_path)
    flags = "--dataset made.npz --layers 20,30 --chunk 100 --batch-size 20 --epochs 2 --out run"
    said = environment.run(f"python -W error::DeprecationWarning:ffdask -m ffdask.train {flags} --quiet", cwd=tmp_path)
    assert said.stderr == ""
    assert environment.run("python -m ffdask.report run", cwd=tmp_path).stdout == "run/report.html\n"
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["weights_sha256"] in (tmp_path / "run" / "report.html").read_text()
    assert summary["fingerprint"]["python"].startswith(f"{wanted}.")
    assert "as recorded" in environment.run("ffdask evaluate run", cwd=tmp_path).stdout


def test_its_types_are_found_where_it_is_installed(installed, tmp_path):
    """By somebody else's mypy, to whom a package without py.typed, and a name that comes late, would be Any."""
    python = installed(HERE).bin / "python"
    (tmp_path / "own.py").write_text("import ffdask\n\nreveal_type(ffdask.fit())\nffdask.open_run(3)\n")
    asked = [sys.executable, "-m", "mypy", "--python-executable", python, "--follow-imports", "silent", "own.py"]
    said = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True).stdout
    assert 'Revealed type is "ffdask.run.Run"' in said
    assert '"open_run" has incompatible type "int"' in said
