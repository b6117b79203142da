"""What pages show is made by the code that they are about, while they are built: pictures, helps, tables of keys."""

from __future__ import annotations

import dataclasses
import importlib
import io
import os
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

from docutils import nodes
from docutils.parsers.rst.directives.images import Figure
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from ffdask import cli, draw
from ffdask.__main__ import COMMANDS
from ffdask.__main__ import parser as listing
from ffdask.config import Config
from ffdask.errors import FFDaskError
from ffdask.flags import FLAGS

WIDTH = "100"
"""Columns of a command's help."""


class Drawn(Figure):
    """``{drawn} --schedule all-layers``: what ``python -m ffdask.draw`` draws with these flags."""

    def run(self) -> list[nodes.Node]:
        """Draw it, and show the file, with the command below it."""
        flags = self.arguments[0].split()
        folder = Path(self.state.document.settings.env.srcdir) / "_made"
        folder.mkdir(exist_ok=True)
        name = re.sub(r"[^a-z0-9]+", "-", self.arguments[0].lower()).strip("-") + ".svg"
        argv = ["ffdask.draw", *flags, "--out", str(folder / name)]
        try:
            with mock.patch.object(sys, "argv", argv), redirect_stdout(io.StringIO()):
                draw.main()
        except FFDaskError as error:
            raise self.error(f"{self.arguments[0]}: {error}") from error
        command = f"python -m ffdask.draw {self.arguments[0]}"
        self.arguments = [f"/_made/{name}"]
        self.options.setdefault("alt", " ".join(self.content) or command)
        (figure,) = super().run()
        figure += nodes.legend("", nodes.paragraph("", "", nodes.literal("", command)))
        return [figure]


class Help(SphinxDirective):
    """``{command-help} train``: what the command says of itself; without a name, the list of commands."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Ask its parser."""
        name = self.arguments[0] if self.arguments else None
        if name is not None and name not in COMMANDS:
            raise self.error(f"{name} is none of {', '.join(COMMANDS)}")
        with mock.patch.dict(os.environ, {"COLUMNS": WIDTH, "NO_COLOR": "1"}):
            made = listing() if name is None else importlib.import_module(f"ffdask.{name}").parser()
            text = made.format_help()
        return [nodes.literal_block(text, text, language="text")]


class Keys(SphinxDirective):
    """``{keys} training``: a table of the configuration: its keys, flags, defaults, meanings."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Ask the configuration."""
        table, described = self.arguments[0], cli.descriptions()
        part = getattr(Config(), table, None)
        if part is None:
            raise self.error(f"{table} is no table of the configuration")
        flag_of = {key: flag for flags in FLAGS.values() for flag, key in flags.items() if flag != "--threads"}
        rows = [
            [
                nodes.literal("", field.name),
                _code(flag_of.get(f"{table}.{field.name}")),
                _code(_shown(getattr(part, field.name))),
                nodes.Text(described[f"{table}.{field.name}"]),
            ]
            for field in dataclasses.fields(part)
        ]
        return [_table(("key", "flag", "default", "meaning"), rows)]


class Codes(SphinxDirective):
    """``{exit-codes}``: what the commands' exit codes mean."""

    def run(self) -> list[nodes.Node]:
        """Ask `ffdask.cli`."""
        rows: list[list[nodes.Node]] = [
            [nodes.literal("", str(code)), nodes.Text(means)] for code, means in cli.EXIT_CODES.items()
        ]
        return [_table(("code", "means"), rows)]


def _shown(value: Any) -> str | None:
    if value is None or value == ():
        return None
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _code(text: str | None) -> nodes.Node:
    return nodes.Text("") if text is None else nodes.literal("", text)


def _table(titles: tuple[str, ...], rows: list[list[nodes.Node]]) -> nodes.table:
    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in titles), cols=len(titles))
    group += nodes.thead("", _row([nodes.Text(title) for title in titles]))
    group += nodes.tbody("", *map(_row, rows))
    return nodes.table("", group, classes=["colwidths-auto"])


def _row(cells: list[nodes.Node]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells))


def _plain(app: Sphinx, env: Any, node: nodes.Element, contents: nodes.TextElement) -> nodes.Node | None:
    """Show a docstring's name as it is where it is none of what is documented: an argument, an inner room."""
    return contents if node.get("reftype") == "obj" else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx of them."""
    app.add_directive("drawn", Drawn)
    app.add_directive("command-help", Help)
    app.add_directive("keys", Keys)
    app.add_directive("exit-codes", Codes)
    app.connect("missing-reference", _plain)
    return {"parallel_read_safe": True}
