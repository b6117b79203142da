"""Fashion-MNIST from Debian: its package's folder, or the package itself, unpacked but never installed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from ffdask.datasets.arrays import CLASSES, Arrays
from ffdask.datasets.files import read_folder
from ffdask.errors import BadInput

PACKAGE = "dataset-fashion-mnist"
INSTALLED = Path("/usr/share/datasets/fashion-mnist")
APT_SECONDS = 300.0
UNPACK_SECONDS = 60.0


def fetch(say: Callable[[str], None]) -> tuple[Arrays, str]:
    """Return the arrays from the package and a phrase that names it; no rights of root are needed.

    Raises
    ------
    BadInput
        There is no apt, it failed, or the package is not what it should be.
    """
    with tempfile.TemporaryDirectory(prefix="ffdask-debian-") as folder:
        say(f"asking apt for {PACKAGE} (31 MB)")
        package = download(Path(folder))
        say(f"unpacking {package.name}")
        unpacked = Path(folder) / "unpacked"
        # Unpacks files and runs nothing: the package's own scripts lie in another part of it.
        _run([_tool("dpkg-deb"), "-x", str(package), str(unpacked)], Path(folder), UNPACK_SECONDS)
        return read_folder(unpacked / INSTALLED.relative_to("/"), CLASSES), f"Debian package {package.name}"


def download(folder: Path) -> Path:
    """Let apt download the package into `folder`, checked against the archive's signed lists; return its path."""
    command = [_tool("apt-get"), "download", "-q", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=30"]
    _run([*command, PACKAGE], folder, APT_SECONDS)
    packages = sorted(folder.glob(f"{PACKAGE}_*.deb"))
    if not packages:
        raise BadInput("apt-get left no package")
    return packages[0]


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise BadInput(f"this machine has no {name}")
    return found


def _run(command: list[str], folder: Path, seconds: float) -> None:
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as exc:
        raise BadInput(f"{name} was not done after {seconds:g} s") from exc
    except OSError as exc:
        raise BadInput(f"{name} could not be started ({exc.strerror or exc})") from exc
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith(("E:", "dpkg-deb: error"))] or lines
        raise BadInput(f"{name} failed ({errors[-1] if errors else f'exit status {done.returncode}'})")
