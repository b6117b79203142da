"""``python -m ffdask.doctor``: whether a run can be expected to work here, and what to do if not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict

from rich.console import Console
from rich.text import Text

from ffdask import cli
from ffdask.cluster_health import examine_cluster
from ffdask.config import load
from ffdask.errors import BadInput
from ffdask.health import Finding, examine
from ffdask.tables import ClusterTable

STYLES = {"ok": "green", "note": "yellow", "stop": "bold red"}

CLUSTER = {"--scheduler": "scheduler", "--tls-ca": "tls_ca", "--tls-cert": "tls_cert", "--tls-key": "tls_key"}
"""Flags, each with its key in the configuration's table."""


def parser() -> cli.Parser:
    """Return what reads the command line."""
    made = cli.parser(
        "doctor",
        "Say whether a run can be expected to work here, and what to do if not.",
        {0: "a run can be expected to work", 1: "something would stop it"},
    )
    made.add_argument("--scheduler", metavar="ADDRESS", help="look at this cluster's workers too")
    for flag in ("--tls-ca", "--tls-cert", "--tls-key"):
        made.add_argument(flag, metavar="FILE", help="as train takes it, for a scheduler at tls://")
    made.add_argument("--seconds", type=float, default=5.0, help="that the test of speed takes (default: 5)")
    cli.add_json(made, "what was found")
    return made


def main() -> None:
    """Read the command line, look, and print what was found."""
    arguments = parser().parse_args()
    if not 0 < arguments.seconds <= 600:
        raise BadInput(f"--seconds: given {arguments.seconds:g}; it takes seconds above 0, at most 600")
    given = {f"cluster.{key}": getattr(arguments, flag[2:].replace("-", "_")) for flag, key in CLUSTER.items()}
    table = load(None, {key: value for key, value in given.items() if value is not None}).cluster
    console, found = Console(file=sys.stdout, soft_wrap=True), []
    for finding in _all(arguments.seconds, table):
        found.append(finding)
        if not arguments.json:
            console.print(_line(finding))
    works = all(finding.state != "stop" for finding in found)
    if arguments.json:
        cli.print_json({"expected_to_work": works, "findings": [asdict(finding) for finding in found]})
    else:
        console.print("a run can be expected to work" if works else "a run would be stopped: see above what to do")
    if not works:
        sys.exit(1)


def _all(seconds: float, table: ClusterTable) -> Iterator[Finding]:
    yield from examine(seconds)
    if table.scheduler is not None:
        yield from examine_cluster(table)


def _line(finding: Finding) -> Text:
    line = Text.assemble((f"{finding.state:<5}", STYLES[finding.state]), f"{finding.name:<10} {finding.said}")
    return line.append(f"\n{'':15} -> {finding.do}") if finding.do else line


if __name__ == "__main__":
    cli.guarded(main)
