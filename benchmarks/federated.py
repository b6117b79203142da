"""What shards cost: federated training, even and skewed, against central training at the same epochs.

python benchmarks/federated.py --seeds 1 2 3
"""

from __future__ import annotations

from statistics import mean
from typing import Any

from side_by_side import arguments, show, train, where

KINDS: dict[str, list[str]] = {
    "central (all-layers)": ["--schedule", "all-layers"],
    "federated, iid": ["--schedule", "federated"],
    "federated, dirichlet": ["--schedule", "federated", "--shards", "dirichlet"],
}


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--layers", default="1000,1000,1000")
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--alpha", type=float, default=0.3, help="of the Dirichlet distribution")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    given = parser.parse_args()
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    last: dict[str, Any] = {}
    for seed in given.seeds:
        for kind, flags in KINDS.items():
            same = ["--epochs", str(given.epochs), "--layers", given.layers, "--nodes", str(given.nodes)]
            skew = ["--alpha", str(given.alpha)] if "dirichlet" in flags else []
            last = train(*flags, *same, *skew, "--seed", str(seed))
            found[kind].append(100 * last["test_accuracy"])
            print(f"seed {seed}, {kind}: {found[kind][-1]:.2f} %", flush=True)
    central = mean(next(iter(found.values())))
    rows = [
        [kind, f"{mean(each):.2f} %", " ".join(f"{one:.2f}" for one in each), f"{mean(each) - central:+.2f}"]
        for kind, each in found.items()
    ]
    title = f"{given.layers}, {given.epochs} epochs, {given.nodes} nodes, alpha {given.alpha:g}, by softmax"
    show(title, ["training", "mean accuracy", "each seed", "points"], rows, where(last), given.json)


if __name__ == "__main__":
    main()
