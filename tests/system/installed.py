"""Environments that ffdask is installed into, as somebody has them who never had it before."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The project's folder."""

OURS = ("PYTHON", "FFDASK_", "NUMBA_", "XDG_", "MPL", "COV_", "PYTEST_", "VIRTUAL_ENV", "DASK_")
"""Beginnings of the names of variables that are of whoever runs the tests."""


def interpreter(version: str) -> str | None:
    """Return the path of a Python of a version, such as ``3.12``, that runs here; None without one.

    It is looked for as this process's own, on the path, and among pyenv's versions.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [sys.executable, shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"))]
    for path in filter(None, found):
        # What is on the path may be pyenv's, which says that it has none.
        asked = [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        if subprocess.run(asked, capture_output=True, text=True).stdout.strip() == version:
            return str(path)
    return None


class Environment:
    """A virtual environment in which nothing is installed yet, with a home in which nothing is.

    Parameters
    ----------
    folder : Path
        Where it is made.
    python : str
        The interpreter that it is of.
    """

    def __init__(self, folder: Path, python: str = sys.executable) -> None:
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        self.bin = folder / "venv" / "bin"
        self.variables = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        self.variables |= {"HOME": str(self.home), "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}"}
        self.variables |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
        subprocess.run([python, "-m", "venv", self.bin.parent], env=self.variables, check=True)

    def run(self, *command: object, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, or a line that a shell splits; hold it to its exit code."""
        words = list(map(str, command)) if len(command) > 1 else ["bash", "-c", str(command[0])]
        done = subprocess.run(words, cwd=cwd, env=self.variables, capture_output=True, text=True, timeout=900)
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done
