"""What each kind of negatives costs: seconds and products beside `random`'s of the same classifier, and its accuracy.

By softmax negatives are the head's by-product; by goodness they are steps of their own, and `candidates` says how many
labels of a row these try: the first layer's likeliest. Kinds alternate, seed after seed.

python benchmarks/negatives.py --scale 0.25 --epochs 40 --seeds 0 1
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

from side_by_side import arguments, flags_of, median, show, train, where

from ffdask.conduct import foresee
from ffdask.config import load

GRAPH = Path(__file__).resolve().parents[1] / "graphs" / "paper" / "mnist" / "random-softmax-all-layers.toml"

Kind = tuple[str, str, int | None]
"""Classifier, negatives, candidates."""


def keys_of(kind: Kind, given: Any) -> dict[str, Any]:
    """Return the keys that make the graph one of this kind."""
    classifier, negatives, candidates = kind
    keys = {"network.classifier": classifier, "network.negatives": negatives, "training.scale": given.scale}
    keys |= {"schedule.name": given.schedule}
    keys |= {} if candidates is None else {"network.candidates": candidates}
    keys |= {} if given.rows is None else {"data.validation": 60_000 - given.rows}
    if given.epochs is not None:
        keys |= {"training.epochs": given.epochs, "schedule.chapters": given.chapters or given.epochs}
    return keys


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--scale", type=float, default=0.25, help="times the paper's widths, epochs and chapters")
    parser.add_argument("--epochs", type=int, help="before scaling, with as many chapters; left out: the paper's 100")
    parser.add_argument("--chapters", type=int, help="before scaling; left out: as many as epochs, if those are given")
    parser.add_argument("--rows", type=int, help="of 60,000 that are learned from; the others are held out")
    parser.add_argument("--softmax", nargs="*", default=["random", "fixed", "sampled", "adaptive"], help="kinds by it")
    parser.add_argument("--schedule", default="all-layers")
    parser.add_argument("--candidates", type=int, nargs="*", default=[9, 3, 2], help="by goodness; 9 are all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    kinds: list[Kind] = [("softmax", name, None) for name in given.softmax]
    kinds += [("goodness", "random", None), *(("goodness", "adaptive", tried) for tried in given.candidates)]
    seconds: dict[Kind, list[float]] = {kind: [] for kind in kinds}
    accuracy: dict[Kind, list[float]] = {kind: [] for kind in kinds}
    last: dict[str, Any] = {}
    for seed in given.seeds:
        for kind in kinds:
            keys = keys_of(kind, given) | {"training.seed": seed}
            last = train(str(GRAPH), *flags_of(keys))
            seconds[kind].append(last["train_seconds"])
            accuracy[kind].append(100 * last["test_accuracy"])
            print(f"seed {seed}, {kind}: {accuracy[kind][-1]:.2f} %, {seconds[kind][-1]:.1f} s", flush=True)
    rows = []
    for kind in kinds:
        classifier, negatives, candidates = kind
        base: Kind = (classifier, "random", None)
        more = [100 * (a / b - 1) for a, b in zip(seconds[kind], seconds[base], strict=True)]
        own, others = (foresee(load(GRAPH, keys_of(each, given))).flops for each in (kind, base))
        times = [median(seconds[kind]), f"{median(more):+.0f} %", f"{100 * (own / others - 1):+.0f} %"]
        tried = "-" if candidates is None else candidates
        rows.append([f"{negatives}, by {classifier}", tried, f"{mean(accuracy[kind]):.2f}", *times])
    columns = ["negatives", "candidates", "accuracy, %", "seconds", "over random", "products over random"]
    title = f"{given.schedule}, scale {given.scale:g}, seeds {' '.join(map(str, given.seeds))}"
    show(title, columns, rows, where(last), given.json)


if __name__ == "__main__":
    main()
