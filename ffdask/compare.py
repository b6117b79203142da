"""``python -m ffdask.compare RUN RUN...``: finished runs side by side, with no cluster."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ffdask import cli
from ffdask.comparison import Comparison, compare_runs
from ffdask.errors import BadInput, nearest
from ffdask.pages import write_page
from ffdask.picture import write

SUFFIXES = (".html", ".svg", ".png", ".pdf")
"""What a comparison may be written as: the page, or its curves alone."""


def parser() -> cli.Parser:
    """Return what reads the command line."""
    made = cli.parser("compare", "Compare finished runs: configurations, figures and curves, with no cluster.")
    made.add_argument("runs", nargs="+", metavar="run", help="two or more runs' folders")
    made.add_argument("--out", metavar="FILE", help="html (table and curves), or svg, png or pdf (curves)")
    cli.add_json(made, "the table")
    return made


def main() -> None:
    """Read the command line, compare, and print the table."""
    arguments = parser().parse_args()
    if arguments.out is not None and (suffix := Path(arguments.out).suffix.lower()) not in SUFFIXES:
        allowed = f"allowed are {', '.join(SUFFIXES)}{nearest(suffix, SUFFIXES)}"
        raise BadInput(f"--out: given {arguments.out!r}, whose suffix is {suffix!r}; {allowed}")
    comparison = compare_runs(*arguments.runs)
    if arguments.out is not None:
        if suffix == ".html":
            write_page(comparison.html(), arguments.out)
        else:
            write(comparison.figure(), arguments.out)
    if arguments.json:
        cli.print_json({"same_weights": comparison.same_weights, "runs": comparison.table})
    else:
        _print(comparison)


def _print(comparison: Comparison) -> None:
    # To a file or a pipe each row is one line, however long.
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 10_000)
    table = Table("", *(escape(name) for name in comparison.names))
    for what, values in comparison.rows():
        alike = len(set(values)) == 1
        table.add_row(Text(what), *(Text(value, style="dim" if alike else "cyan") for value in values))
    console.print(table)
    console.print(Text(comparison.verdict()))


if __name__ == "__main__":
    cli.guarded(main)
