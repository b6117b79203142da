"""What the command lines share: flags made from the configuration's keys, messages, exit codes."""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Collection, Mapping
from importlib.metadata import version
from typing import Any, NoReturn

from pydantic import TypeAdapter

from ffdask.config import Config, load, parse_value
from ffdask.errors import BadInput, FFDaskError, nearest
from ffdask.flags import FLAGS, TEXTS
from ffdask.network import Network

EXIT_CODES = {
    0: "done",
    1: "failed on the way",
    2: "something given cannot work, said before any work starts",
    3: "training diverged",
    130: "stopped by Ctrl-C",
}
"""What a command's exit code means."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one message, and exits with 2."""

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with 2."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser(command: str, description: str, codes: Mapping[int, str] | None = None) -> Parser:
    """Return a parser for ``python -m ffdask.<command>``.

    Parameters
    ----------
    command : str
    description : str
        One line.
    codes : mapping, optional
        Exit codes that mean something of their own here, beside 0, 2 and 130.
    """
    known = {code: EXIT_CODES[code] for code in (0, 2, 130)} | dict(codes or {})
    made = Parser(
        prog=f"python -m ffdask.{command}",
        description=description,
        epilog="exit codes: " + "; ".join(f"{code} {known[code]}" for code in sorted(known)),
        allow_abbrev=False,
        fromfile_prefix_chars=None,
    )
    made.add_argument("--version", action="version", version=f"ffdask {version('ffdask')}")
    return made


def count(text: str) -> int:
    """Return a flag's value as a number from 1."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"given {text!r}; it takes a whole number from 1")
    return int(text)


def add_flags(to: argparse.ArgumentParser, without: Collection[str] = ()) -> None:
    """Add the configuration's flags, grouped, each with its meaning and default from the configuration.

    Those named in `without` are left out, for a command that has nothing to do with them.
    """
    described, defaults = descriptions(), Config().tables()
    for group, flags in FLAGS.items():
        section = to.add_argument_group(group)
        for flag, key in flags.items():
            if flag in without:
                continue
            table, name = key.split(".")
            default = defaults[table].get(name)
            shown = ",".join(map(str, default)) if isinstance(default, list) else default
            if isinstance(default, bool):
                means = "workers are threads of one process (default)" if flag == "--threads" else described[key]
                value = flag != "--threads"
                section.add_argument(flag, dest=key, action="store_const", const=value, default=None, help=means)
            else:
                note = f"{described[key]}" + (f" (default: {shown})" if default is not None else "")
                section.add_argument(flag, dest=key, metavar=name.upper(), default=None, help=note.replace("%", "%%"))
    to.add_argument(
        "--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="any other key of the graph file"
    )


def descriptions() -> dict[str, str]:
    """Return every key's one-line meaning, by ``table.key``."""
    schema = TypeAdapter(Config).json_schema()
    found = {}
    for table, reference in schema["properties"].items():
        name = (reference.get("$ref") or reference["allOf"][0]["$ref"]).rsplit("/", 1)[-1]
        for key, property_ in schema["$defs"][name]["properties"].items():
            found[f"{table}.{key}"] = property_.get("description", "")
    return found


def configuration(arguments: argparse.Namespace) -> Config:
    """Return the configuration of the graph file and the flags, the flags winning."""
    return load(arguments.graph, keys(arguments))


def keys(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the keys that the flags give."""
    given: dict[str, Any] = {}
    for text in arguments.set:
        key, equals, value = text.partition("=")
        if not equals:
            raise BadInput(f"--set: given {text!r}; it takes TABLE.KEY=VALUE, such as optimizer.momentum=0.8")
        given[key.strip()] = value.strip() if key.strip() in TEXTS else parse_value(value.strip())
    for flags in FLAGS.values():
        for key in flags.values():
            value = getattr(arguments, key, None)
            if value is not None:
                given[key] = parse_value(value) if isinstance(value, str) and key not in TEXTS else value
    return given


def add_json(to: argparse.ArgumentParser, what: str) -> None:
    """Add ``--json``, by which a command prints one JSON object for machines, and whatever else it says as errors."""
    to.add_argument("--json", action="store_true", help=f"print {what} as one JSON object, and nothing else")


def say_beside(line: str) -> None:
    """Print a line for people where standard output is for machines."""
    print(line, file=sys.stderr, flush=True)


def print_json(what: Mapping[str, Any]) -> None:
    """Print a mapping as one line of JSON; what JSON has no number for (NaN) is null."""
    print(json.dumps(_plain(what), allow_nan=False), flush=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def add_run(to: argparse.ArgumentParser) -> None:
    """Add what every command over a finished run takes: its folder, and by which classifier it answers."""
    to.add_argument("run", help="the run's folder")
    to.add_argument("--classifier", help="one that the run has (default: the run's own)")


def classifier(arguments: argparse.Namespace, network: Network, recorded: dict[str, Any]) -> str:
    """Return the classifier that a command names, or the run's own.

    Raises
    ------
    BadInput
        If the run's network has no such classifier.
    """
    given, allowed = arguments.classifier or recorded["classifier"], network.classifiers()
    if given not in allowed:
        hint = nearest(given, allowed)
        raise BadInput(f"--classifier: given {given!r}; this run has {', '.join(allowed)}{hint}")
    return str(given)


def _with_notes(message: str, error: BaseException) -> str:
    """Return a message with what was noted on its way, such as how to go on."""
    return "; ".join([message, *getattr(error, "__notes__", [])])


def guarded(main: Callable[[], None]) -> None:
    """Run a command: an error of ours is one line and its exit code; Ctrl-C is 130; a closed pipe is silent.

    It is the last thing that its process does: behind it Ctrl-C is ignored.
    """
    # What a library warns of is for its developers; what matters to the user is a message of ours.
    warnings.simplefilter("ignore")
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    try:
        main()
        sys.stdout.flush()
    except FFDaskError as error:
        print(f"ffdask: {' '.join(_with_notes(str(error), error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)
    except MemoryError as error:
        print(f"ffdask: {_with_notes('there is no memory left', error)}", file=sys.stderr)
        sys.exit(FFDaskError.exit_code)
    except KeyboardInterrupt as stop:
        print(f"ffdask: {_with_notes('stopped', stop)}", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        # What is left in the buffer must not be flushed into the closed pipe once more at the end.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        sys.exit(128 + signal.SIGPIPE)
    finally:
        # Nothing of ours is left to stop. What libraries put away at the interpreter's end takes some seconds at most;
        # broken off, it would print where it was.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
