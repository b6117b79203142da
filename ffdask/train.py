"""``python -m ffdask.train``: train a network by Forward-Forward on a Dask cluster."""

from __future__ import annotations

from ffdask import cli
from ffdask.progress import Bar
from ffdask.run import dry_run, fit


def main() -> None:
    """Read the command line, train, and print one closing line."""
    parser = cli.parser("train", "Train a network by Forward-Forward on a Dask cluster; leaves a run folder.")
    parser.add_argument("graph", nargs="?", help="a TOML file, such as graphs/mnist.toml; left out: the default graph")
    parser.add_argument("--dry-run", action="store_true", help="check everything, print the plan, and stop")
    cli.add_flags(parser)
    arguments = parser.parse_args()
    config = cli.configuration(arguments)
    if arguments.dry_run:
        print(dry_run(config))
        return
    if config.run.quiet:
        fit(config)
        return
    run = fit(config, say=lambda line: print(line, flush=True), watchers=[Bar()])
    figures = run.summary
    print(
        f"test accuracy {100 * figures['test_accuracy']:.2f} % ({figures['classifier']}, "
        f"{figures['test_errors']} errors) after {figures['train_seconds']:.1f} s of training, "
        f"{figures['threads']} units {100 * figures['utilization']:.0f} % busy: {run.path}"
    )


if __name__ == "__main__":
    cli.guarded(main)
