"""What the benchmarks share: one whole run as a process of its own, the machine's line, a table, JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def arguments(description: str) -> argparse.ArgumentParser:
    """Return a parser with the flags that every benchmark takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser


def flags_of(keys: dict[str, Any]) -> list[str]:
    """Return the keys as flags of the command line."""
    return [part for key, value in keys.items() for part in ("--set", f"{key}={value}")]


def plain_environment() -> dict[str, str]:
    """Return this process's environment, with BLAS left to itself."""
    return {key: value for key, value in os.environ.items() if not key.startswith("OPENBLAS_")}


def train(
    *flags: str, records: list[dict[str, Any]] | None = None, environment: dict[str, str] | None = None
) -> dict[str, Any]:
    """Run ``python -m ffdask.train`` with `flags`, BLAS left to itself; return its summary, add to its `records`."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "ffdask.train", "--quiet", "--out", str(out), *flags]
        subprocess.run(command, check=True, env=plain_environment() | (environment or {}))
        if records is not None:
            records += [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
        summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary


def commit() -> str:
    """Return the commit that is checked out, and whether its files were changed since."""
    root = Path(__file__).parent
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True)
    # Untracked files do not count: a benchmark's own figures are such.
    asked = ["git", "status", "--porcelain", "--untracked-files=no"]
    dirty = subprocess.run(asked, cwd=root, capture_output=True, text=True).stdout.strip()
    return f"{head.stdout.strip() or 'unknown'}{' with changes' if dirty else ''}"


def where(summary: dict[str, Any]) -> str:
    """Return the commit, the machine and the versions, in a line."""
    print_ = summary["fingerprint"]
    return (
        f"commit {commit()}; {print_['processor']}, "
        f"{os.cpu_count()} cores, {platform.system()}; {print_['blas']}; Python {print_['python']}, "
        f"distributed {print_['distributed']}"
    )


def median(values: list[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def show(title: str, columns: list[str], rows: list[list[Any]], note: str, to: Path | None) -> None:
    """Print a table and its note; write both as JSON where a file is named."""
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] else "right")
    for row in rows:
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row))
    Console(width=120).print(table)
    print(note)
    if to is not None:
        figures = [dict(zip(columns, row, strict=True)) for row in rows]
        to.write_text(json.dumps({"title": title, "rows": figures, "note": note}, indent=2) + "\n")
