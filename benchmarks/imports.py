"""How long importing takes: `import ffdask`, its first use, and a command; and the libraries that it goes to.

Each time a process of its own, the kinds by turns; *beyond Python* is without what an empty Python takes. The second
table is by ``python -X importtime``: a library's own modules, without those of others that they import.

python benchmarks/imports.py --repeats 15
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from collections import Counter

from side_by_side import arguments, commit, median, show

KINDS = {
    "python itself": "pass",
    "import ffdask": "import ffdask",
    "ffdask.fit": "import ffdask; ffdask.fit",
    "ffdask.train": "import ffdask.train",
    "python -m ffdask": "import ffdask.__main__",
}

LINE = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\w+)")


def seconds(statement: str) -> float:
    """Return how long a new process takes with a statement."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - begun


def libraries(statement: str) -> Counter[str]:
    """Return library -> seconds in its own modules, of those that a statement imports."""
    asked = [sys.executable, "-X", "importtime", "-c", statement]
    said = subprocess.run(asked, check=True, capture_output=True, text=True).stderr
    found: Counter[str] = Counter()
    for microseconds, name in LINE.findall(said):
        found["Python's own" if name in sys.stdlib_module_names else name] += int(microseconds) / 1e6
    return found


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--most", type=int, default=8, help="libraries that are shown")
    given = parser.parse_args()
    for statement in KINDS.values():  # byte code is on the disk, and files are in memory
        seconds(statement)
    taken: dict[str, list[float]] = {kind: [] for kind in KINDS}
    spent: dict[str, list[float]] = {}
    for _ in range(given.repeats):
        for kind, statement in KINDS.items():
            taken[kind].append(seconds(statement))
        for name, time_ in libraries(KINDS["ffdask.fit"]).items():
            spent.setdefault(name, []).append(time_)
    empty = median(taken["python itself"])
    rows = [[kind, median(found), median(found) - empty] for kind, found in taken.items()]
    note = (
        f"commit {commit()}; {os.cpu_count()} cores, {platform.system()}; Python {platform.python_version()}; "
        f"load {os.getloadavg()[0]:.1f}"
    )
    title = f"seconds of a process, medians of {given.repeats}"
    show(title, ["statement", "seconds", "beyond Python"], rows, note, given.json)
    most = Counter({name: median(found) for name, found in spent.items()}).most_common(given.most)
    show("of ffdask.fit, in own modules", ["library", "seconds"], [[*row] for row in most], note, None)


if __name__ == "__main__":
    main()
