"""The conda environments say what pyproject.toml says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CPU, GPU = "environment.yml", "environment-gpu.yml"


def _split(requirement: str) -> tuple[str, str]:
    name, at_least, bound = requirement.replace(" ", "").partition(">=")
    return name, at_least + bound


def _wanted() -> dict[str, str]:
    """Return name -> bound of the project's own dependencies as conda spells them."""
    wanted = {"python": PROJECT["requires-python"]}
    for requirement in PROJECT["dependencies"]:
        name, bound = _split(requirement)
        base, extra = re.fullmatch(r"([\w.-]+)(?:\[(\w+)\])?", name).groups()
        assert extra in (None, "distributed"), "a new extra: say how conda spells it"
        wanted |= {base: bound} | ({"distributed": bound} if extra else {})
    return wanted


def _environment(file: str) -> dict[str, str]:
    content = yaml.safe_load((ROOT / file).read_text())
    assert content["channels"] == ["conda-forge"]
    assert all(isinstance(line, str) for line in content["dependencies"]), "no pip section: conda has them all"
    return dict(map(_split, content["dependencies"]))


@pytest.mark.parametrize("file", [CPU, GPU])
def test_every_dependency_has_the_bound_of_pyproject(file):
    environment = _environment(file)
    assert {name: environment.get(name) for name in _wanted()} == _wanted()


def test_nothing_else_is_in_the_environment():
    assert set(_environment(CPU)) - set(_wanted()) == {"pip"}


def test_the_gpu_environment_adds_cupy_with_pyprojects_bound():
    cpu, gpu = _environment(CPU), _environment(GPU)
    (extra,) = PROJECT["optional-dependencies"]["gpu"]
    name, bound = _split(extra)
    assert name.startswith("cupy")
    assert gpu == cpu | {"cupy": bound}


def test_the_environments_have_names_of_their_own():
    names = [yaml.safe_load((ROOT / file).read_text())["name"] for file in (CPU, GPU)]
    assert names == ["ffdask", "ffdask-gpu"]
