"""``python -m ffdask.draw GRAPH``: the schedule as a picture, or the Dask graph itself, with no cluster."""

from __future__ import annotations

from ffdask import cli
from ffdask.conduct import foresee
from ffdask.graph_picture import graph_picture, graph_text
from ffdask.picture import check_file, timeline_picture, timeline_text, write


def parser() -> cli.Parser:
    """Return what reads the command line."""
    made = cli.parser("draw", "Draw a training graph's schedule, or its Dask graph; nothing is trained or fetched.")
    made.add_argument("graph", nargs="?", help="a TOML file, such as graphs/mnist.toml; left out: the default graph")
    made.add_argument("--out", metavar="FILE", help="svg, png, pdf or txt (default: text to the terminal)")
    made.add_argument("--graph", dest="tasks", action="store_true", help="draw the Dask graph: tasks and what flows")
    made.add_argument("--rounds", type=cli.count, help="chapters (visits) drawn, at most what can be read")
    cli.add_flags(made, without=("--out", "--overwrite", "--report", "--quiet"))
    return made


def main() -> None:
    """Read the command line, draw, and say what is drawn."""
    arguments = parser().parse_args()
    if arguments.out is not None:
        check_file(arguments.out)
    forecast = foresee(cli.configuration(arguments))
    as_text = arguments.out is None or arguments.out.lower().endswith(".txt")
    timeline, tasks = (timeline_text, graph_text) if as_text else (timeline_picture, graph_picture)
    picture = (tasks if arguments.tasks else timeline)(forecast, arguments.rounds)
    if arguments.out is None:
        print(picture)
    else:
        write(picture, arguments.out)


if __name__ == "__main__":
    cli.guarded(main)
