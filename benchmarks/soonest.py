"""Which schedule reaches a test accuracy soonest on two workers: whole runs, with one epoch more each time.

The cool-down of the rate belongs to a run's length, so each length is a run of its own; the shortest that arrives
counts.

    python benchmarks/soonest.py --accuracy 0.984 --seeds 1 2 3
"""

from __future__ import annotations

from typing import Any

from side_by_side import arguments, median, show, train, where


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--accuracy", type=float, default=0.984, help="mean over the seeds that counts as arrived")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--from-epochs", type=int, default=5)
    parser.add_argument("--to-epochs", type=int, default=12)
    given = parser.parse_args()

    def runs(name: str, epochs: int) -> list[dict[str, Any]]:
        flags = ["--schedule", name, "--epochs", str(epochs), "--workers", "2", "--units", "2"]
        return [train(*flags, "--seed", str(seed)) for seed in given.seeds]

    rows, last = [], {}
    # All-layers is the computation of sequential, bit for bit: it arrives after as many epochs, only sooner.
    for names in (["streaming"], ["all-layers", "sequential"]):
        for epochs in range(given.from_epochs, given.to_epochs + 1):
            done = {names[0]: runs(names[0], epochs)}
            accuracy = sum(run["test_accuracy"] for run in done[names[0]]) / len(given.seeds)
            print(f"{names[0]}, {epochs} epochs: {100 * accuracy:.2f} %", flush=True)
            if accuracy >= given.accuracy:
                done |= {name: runs(name, epochs) for name in names[1:]}
                for name, finished in done.items():
                    last = finished[-1]
                    rows.append([name, epochs, 100 * accuracy, median([run["train_seconds"] for run in finished])])
                break
    columns = ["schedule", "epochs", "mean accuracy, %", "train seconds (median)"]
    columns_title = f"the shortest run that reaches {100 * given.accuracy:g} % on two workers, seeds {given.seeds}"
    rows = [[*row[:2], f"{row[2]:.2f}", f"{row[3]:.1f}"] for row in sorted(rows, key=lambda row: row[3])]
    show(columns_title, columns, rows, where(last), given.json)


if __name__ == "__main__":
    main()
