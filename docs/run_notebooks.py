"""Execute the notebooks, and store in them what they print.

``python docs/run_notebooks.py [NAME ...]`` does; with ``--check FOLDER`` it executes copies there and leaves those that
are stored as they are. A cell that fails ends it with an error.
"""

from __future__ import annotations

import argparse
import getpass
import os
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parent / "notebooks"

MOST_SECONDS = 300
"""That a cell may take."""

MOST_BYTES = 500_000
"""That a stored notebook may have."""


def executed(source: Path, folder: Path) -> nbformat.NotebookNode:
    """Return a notebook with the outputs that it has when it is executed in `folder`."""
    notebook = nbformat.read(source, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=MOST_SECONDS,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def portable(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Return a notebook whose outputs do not say in which folder it was executed."""
    text = nbformat.writes(notebook)
    for name in {str(folder), str(folder.resolve())}:
        text = text.replace(f"{name}/", "").replace(name, ".")
    return nbformat.reads(text, as_version=4)


def problems(text: str) -> list[str]:
    """Return what a stored notebook must not have in it."""
    notebook = nbformat.reads(text, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    printed = "".join(nbformat.writes(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=outputs)])))
    found = [f"the path {name}" for name in ("/tmp/", "/home/", "/root/", str(Path.home())) if name in printed]
    if len(getpass.getuser()) > 4 and getpass.getuser() in printed:
        found.append("a user's name")
    if any(output.get("name") == "stderr" for output in outputs):
        found.append("something printed as an error")
    if any(output.output_type == "error" for output in outputs):
        found.append("a cell that failed")
    if len(text) > MOST_BYTES:
        found.append(f"{len(text)} bytes, which are more than {MOST_BYTES}")
    return found


def main() -> None:
    """Read the command line, and execute."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="of notebooks, without .ipynb; left out: all")
    parser.add_argument("--check", type=Path, metavar="FOLDER", help="store copies here, and leave the notebooks alone")
    arguments = parser.parse_args()
    sources = [NOTEBOOKS / f"{name}.ipynb" for name in arguments.names] or sorted(NOTEBOOKS.glob("*.ipynb"))
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    for source in sources:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            notebook = portable(executed(source, Path(folder)), Path(folder))
        text = nbformat.writes(notebook) + "\n"
        found = problems(text)
        if found:
            raise SystemExit(f"{source.name}: its outputs have {'; '.join(found)}")
        target = (arguments.check or NOTEBOOKS) / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        print(f"{source.name}: {time.monotonic() - begun:.0f} s, {len(text)} bytes", flush=True)


if __name__ == "__main__":
    main()
