"""``python -m ffdask``: the commands, and their completion for a shell; ``python -m ffdask train ...`` does one.

Installed, it is the program ``ffdask``.
"""

from __future__ import annotations

import importlib
import sys

from ffdask import cli
from ffdask.errors import BadInput

COMMANDS = ("train", "evaluate", "predict", "draw", "report", "compare", "doctor")
"""Each is a module with a `parser` and a `main`."""

SHELLS = ("bash", "zsh")

FOLDERS, FILES = ("run", "runs", "resume"), ("graph", "images", "out", "tls_ca", "tls_cert", "tls_key")
"""Flags and arguments, by their last name, that a shell completes by folders and by files."""


def parser() -> cli.Parser:
    """Return what reads the command line, if it is none of a command."""
    made = cli.parser("", "Forward-Forward training as a dynamic Dask task graph.")
    made.prog = "python -m ffdask"
    made.add_argument(
        "--print-completion", choices=SHELLS, metavar="SHELL", help="print what bash or zsh is to source, to complete"
    )
    return made


def main() -> None:
    """List the commands, print a completion, or do a command."""
    if sys.argv[1:] and sys.argv[1] in COMMANDS:
        name = sys.argv.pop(1)
        importlib.import_module(f"ffdask.{name}").main()
        return
    made = parser()
    made.add_argument("command", nargs="?", choices=COMMANDS, metavar="command", help="with what it takes; see below")
    arguments = made.parse_args()
    if arguments.print_completion is not None:
        print(completion(arguments.print_completion))
        return
    print(made.description, end="\n\n")
    for name, of in _parsers().items():
        print(f"  python -m ffdask.{name:<9} {of.description}")
    print("\nEach takes --help; python -m ffdask COMMAND ... is the same.")


def completion(shell: str) -> str:
    """Return a shell's completion of the program ``ffdask`` and all that it takes.

    Raises
    ------
    BadInput
        If the library that makes it is not installed.
    """
    try:
        import shtab
    except ImportError:
        raise BadInput(
            "--print-completion: shtab is not installed; pip install 'ffdask[completion]', then ask again"
        ) from None
    whole = parser()
    whole.prog = "ffdask"
    commands = whole.add_subparsers(dest="command")
    for name, of in _parsers().items():
        for action in of._actions:
            last = action.dest.rpartition(".")[2]
            kind = shtab.DIRECTORY if last in FOLDERS else shtab.FILE if last in FILES else None
            if kind and action.nargs != 0:
                action.complete = kind  # type: ignore[attr-defined]
        commands.add_parser(name, parents=[of], add_help=False, description=of.description, help=of.description)
    return str(shtab.complete(whole, shell))


def _parsers() -> dict[str, cli.Parser]:
    return {name: importlib.import_module(f"ffdask.{name}").parser() for name in COMMANDS}


def program() -> None:
    """Do what the command line says, as the installed program."""
    cli.guarded(main)


if __name__ == "__main__":
    program()
