"""``python -m ffdask.report RUN``: a finished run's report, one page of HTML, with no cluster."""

from __future__ import annotations

from pathlib import Path

from ffdask import cli
from ffdask.pages import report, write_page


def parser() -> cli.Parser:
    """Return what reads the command line."""
    made = cli.parser("report", "Write a finished run's report: one page of HTML that holds all it shows.")
    made.add_argument("run", help="the run's folder")
    made.add_argument("--out", metavar="FILE", help="the page (default: report.html in the run's folder)")
    cli.add_json(made, "what was written")
    return made


def main() -> None:
    """Read the command line, write the page, and say where it is."""
    arguments = parser().parse_args()
    page = report(arguments.run)
    path = write_page(page, arguments.out or Path(arguments.run) / "report.html")
    if arguments.json:
        cli.print_json({"run": arguments.run, "report": str(path), "bytes": path.stat().st_size})
    else:
        print(path)


if __name__ == "__main__":
    cli.guarded(main)
