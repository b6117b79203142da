"""Pages of HTML that hold all they show: a run's report, a comparison. No script, and nothing from another host."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffdask.errors import BadInput
from ffdask.folder import Folder, open_folder
from ffdask.sections import Material, sections

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

SECRET = re.compile(r"(?<=://)[^/\s]*@")
"""Name and password in a URL."""

FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def report(path: str | Path) -> str:
    """Return a finished run's report, a page of HTML that holds all that it shows.

    Parameters
    ----------
    path : path
        The run's folder; nothing is written to it.

    Raises
    ------
    BadInput
        If the folder is no finished run's, or cannot be read.
    """
    folder = open_folder(path)
    return page(
        "report.html",
        folder=folder,
        headline=headline(folder),
        sections=list(sections(Material(folder))),
        configuration=configuration(folder),
        versions=folder.summary.get("versions", {}),
        fingerprint=folder.summary.get("fingerprint", {}),
    )


def headline(folder: Folder) -> list[tuple[str, str, str]]:
    """Return a run's main figures: the figure, what it is, and a note."""
    summary, resolved = folder.summary, folder.resolved
    rows = resolved["dataset"]["test_rows"]
    found = [
        (
            f"{100 * summary['test_accuracy']:.2f} %",
            "right on the test set",
            f"{summary['test_errors']} of {rows} wrong, by {summary['classifier']}",
        )
    ]
    if "validation_accuracy" in summary:
        errors = summary["validation_errors"]
        found.append((f"{100 * summary['validation_accuracy']:.2f} %", "right on rows held out", f"{errors} wrong"))
    found += [
        (
            f"{summary['train_seconds']:.1f} s",
            "of training",
            f"{many(summary['epochs'], 'epoch')}, {many(summary['chapters'], 'chapter')}",
        ),
        (
            f"{100 * summary['utilization']:.0f} %",
            "of the units' time used",
            f"{many(summary['threads'], 'unit')}, {many(summary['workers'], 'worker')}, "
            f"{many(summary['nodes'], 'node')}",
        ),
        (_widths(summary["layers"]), "units of the layers", f"{resolved['objective']} objective"),
        (str(summary["schedule"]), "schedule", many(summary["steps"], "step")),
        (f"{summary['peak_memory_bytes'] / 2**30:.2f} GiB", "memory at most", "of all processes"),
        (str(summary["weights_sha256"])[:12], "digest of the weights", f"seed {summary.get('seed', 'unknown')}"),
    ]
    return found


def _widths(layers: Sequence[int]) -> str:
    """Return the layers' widths; more than two that are alike, one after another, as ``12 x 64``."""
    groups = [(width, len(list(group))) for width, group in itertools.groupby(layers)]
    return "-".join(f"{n} x {width}" if n > 2 else "-".join([str(width)] * n) for width, n in groups)


def configuration(folder: Folder) -> dict[str, list[tuple[str, str, bool]]]:
    """Return the configuration by table: key, value, and whether it is another than the default."""
    defaults = folder.defaults
    return {
        # What auto stood for was nobody's choice.
        table: [
            (key, shown(value), defaults.get(table, {}).get(key) not in (value, "auto")) for key, value in keys.items()
        ]
        for table, keys in folder.tables.items()
    }


def shown(value: Any) -> str:
    """Return a configuration's value as it is written in a flag; without the password of a URL."""
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return SECRET.sub("...@", text.lower() if isinstance(value, bool) else text)


def many(count: int, what: str) -> str:
    """Return ``1 step``, ``2 steps``."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def page(template: str, **what: Any) -> str:
    """Return a page made of a template of ours; whatever it is given is escaped, but for drawings."""
    return _environment().get_template(template).render(what)


@cache
def _environment() -> Environment:
    # Imported here: only those who want a page should wait for it.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("ffdask"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters["flags"] = _flags
    return made


def _flags(text: str) -> Markup:
    """Return a text, escaped, with its flags set as code: they are not cut at a line's end."""
    from markupsafe import Markup, escape

    return Markup(FLAG.sub(r"<code>\g<0></code>", str(escape(text))))


def write_page(text: str, path: str | Path, flag: str = "--out") -> Path:
    """Write a page, whole or not at all; return where.

    Raises
    ------
    BadInput
        If it cannot be written there.
    """
    path = Path(path)
    draft = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise BadInput(f"{flag}: {path} cannot be written ({error.strerror or error}); give another file") from None
    finally:
        draft.unlink(missing_ok=True)
    return path
