"""How long it takes from the command to its first training step, and to the end of that.

Each time a process of its own. *warm*: data in the cache, compiled kernels on the disk. *first use*: the kernels are
compiled (once a user and machine). *numpy*: nothing to compile at all.

python benchmarks/start.py --repeats 5
"""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any

from side_by_side import arguments, median, show, train, where

KINDS = {"warm": "numba", "first use": "numba", "numpy": "numpy"}


def started(kind: str, flags: list[str]) -> tuple[float, float, dict[str, Any]]:
    """Return the seconds to the first training step's start and to its end, and the run's summary."""
    records: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as cache:
        fresh = {"NUMBA_CACHE_DIR": cache} if kind == "first use" else {}
        begun = time.time()
        summary = train(*flags, "--kernels", KINDS[kind], records=records, environment=fresh)
    first = min((record for record in records if record["kind"] == "train"), key=lambda record: record["start"])
    return first["start"] - begun, first["stop"] - begun, summary


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("flags", nargs="*", default=["--epochs", "1"], help="of the job; behind --")
    given = parser.parse_args()
    train(*given.flags)  # the data set is fetched, the kernels are compiled
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    last: dict[str, Any] = {}
    for _ in range(given.repeats):
        for kind in KINDS:
            start, stop, last = started(kind, given.flags)
            found[kind].append((start, stop))
    rows = [[kind, median([a for a, _ in each]), median([b for _, b in each])] for kind, each in found.items()]
    columns = ["kernels", "first step begins, s", "first step is done, s"]
    title = (
        f"from the command to training ({' '.join(given.flags)}), {os.cpu_count()} cores, medians of {given.repeats}"
    )
    show(title, columns, rows, where(last), given.json)


if __name__ == "__main__":
    main()
