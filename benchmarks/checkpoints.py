"""What checkpoints and cuts of the graph cost a run, beside the same run without them; alternating.

*neither*: no checkpoint, and a graph that is never cut, so that a lost worker costs the run. *cuts*: the graph is cut
as by default. *both*: as by default, with checkpoints, which then see to it themselves that they do not come too often.

python benchmarks/checkpoints.py --repeats 5
"""

from __future__ import annotations

import os
from typing import Any

from side_by_side import arguments, median, show, train, where

NEVER = "1000000"
KINDS = {
    "neither": ("--checkpoint-every", "0", "--set", f"run.cut_every={NEVER}"),
    "cuts": ("--checkpoint-every", "0"),
    "both": (),
}


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("flags", nargs="*", default=["--epochs", "2"], help="of the job; behind --")
    given = parser.parse_args()
    train(*given.flags)  # the data set is fetched, the kernels are compiled
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    last: dict[str, Any] = {}
    for _ in range(given.repeats):
        for kind, flags in KINDS.items():
            last = train(*given.flags, *flags)
            found[kind].append(last["train_seconds"])
    least = found["neither"]
    rows = []
    for kind, each in found.items():
        # Of one turn, so that what the machine does meanwhile is in both.
        more = median([one / other for one, other in zip(each, least, strict=True)]) - 1
        rows.append([kind, median(each), min(each), f"{100 * more:+.1f} %"])
    title = f"training seconds ({' '.join(given.flags)}), {os.cpu_count()} cores, medians of {given.repeats}"
    show(title, ["what is done", "median, s", "least, s", "more, turn by turn"], rows, where(last), given.json)


if __name__ == "__main__":
    main()
