"""``python -m ffdask.train``: train a network by Forward-Forward on a Dask cluster."""

from __future__ import annotations

import argparse
from typing import Any

from ffdask import cli
from ffdask.conduct import conduct, dry_run
from ffdask.config import Config
from ffdask.errors import BadInput
from ffdask.progress import Bar
from ffdask.resume import stopped_run


def parser() -> cli.Parser:
    """Return what reads the command line."""
    made = cli.parser(
        "train",
        "Train a network by Forward-Forward on a Dask cluster; leaves a run folder.",
        {1: "a step failed", 3: cli.EXIT_CODES[3], 130: "stopped by Ctrl-C, which says how to go on"},
    )
    made.add_argument("graph", nargs="?", help="a TOML file, such as graphs/mnist.toml; left out: the default graph")
    made.add_argument("--dry-run", action="store_true", help="check everything, print the plan, and stop")
    made.add_argument("--resume", metavar="RUN", help="go on with a stopped run from its last checkpoint")
    cli.add_json(made, "the run's folder and summary at the end")
    cli.add_flags(made)
    return made


def main() -> None:
    """Read the command line, train, and print one closing line."""
    arguments = parser().parse_args()
    if arguments.resume is not None and (arguments.graph is not None or arguments.dry_run):
        raise BadInput("--resume: given with a graph or --dry-run; a stopped run goes on as it was configured")
    config = cli.configuration(arguments) if arguments.resume is None else _stopped(arguments)
    if arguments.json and arguments.dry_run:
        raise BadInput("--json: given with --dry-run, whose plan is text to be read; leave one of them out")
    if arguments.dry_run:
        print(dry_run(config))
        return
    if arguments.json:
        quiet: dict[str, Any] = {} if config.run.quiet else {"say": cli.say_beside}
        run = conduct(config, resume=arguments.resume, **quiet)
        cli.print_json({"run": str(run.path), **run.summary})
        return
    if config.run.quiet:
        conduct(config, resume=arguments.resume)
        return
    run = conduct(config, say=lambda line: print(line, flush=True), watchers=[Bar()], resume=arguments.resume)
    figures = run.summary
    print(
        f"test accuracy {100 * figures['test_accuracy']:.2f} % ({figures['classifier']}, "
        f"{figures['test_errors']} errors) after {figures['train_seconds']:.1f} s of training, "
        f"{figures['threads']} units {100 * figures['utilization']:.0f} % busy: {run.path}"
    )


def _stopped(arguments: argparse.Namespace) -> Config:
    return stopped_run(arguments.resume, cli.keys(arguments))


if __name__ == "__main__":
    cli.guarded(main)
