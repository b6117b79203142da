"""Which schedule reaches a test accuracy soonest on two workers: whole runs, with one epoch more each time.

The cool-down of the rate belongs to a run's length, so each length is a run of its own; the shortest that arrives
counts.

    python benchmarks/soonest.py --accuracy 0.984 --seeds 1 2 3
"""

from __future__ import annotations

from side_by_side import arguments, median, show, train, where

SCHEDULES = ("sequential", "all-layers", "streaming")


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--accuracy", type=float, default=0.984, help="mean over the seeds that counts as arrived")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--from-epochs", type=int, default=3)
    parser.add_argument("--to-epochs", type=int, default=12)
    given = parser.parse_args()
    rows, last = [], {}
    waiting = set(SCHEDULES)
    for epochs in range(given.from_epochs, given.to_epochs + 1):
        for name in [name for name in SCHEDULES if name in waiting]:
            flags = ["--schedule", name, "--epochs", str(epochs), "--workers", "2", "--units", "2"]
            runs = [train(*flags, "--seed", str(seed)) for seed in given.seeds]
            last = runs[-1]
            accuracy = sum(run["test_accuracy"] for run in runs) / len(runs)
            if accuracy >= given.accuracy:
                waiting.discard(name)
                rows.append([name, epochs, 100 * accuracy, median([run["train_seconds"] for run in runs])])
    columns = ["schedule", "epochs", "mean accuracy, %", "train seconds (median)"]
    columns_title = f"the shortest run that reaches {100 * given.accuracy:g} % on two workers, seeds {given.seeds}"
    rows = [[*row[:2], f"{row[2]:.2f}", f"{row[3]:.1f}"] for row in sorted(rows, key=lambda row: row[3])]
    show(columns_title, columns, rows, where(last), given.json)


if __name__ == "__main__":
    main()
