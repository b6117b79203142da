"""The path of somebody who never saw ffdask, as the README tells it: from `pip install` to a picture of an own run."""

from __future__ import annotations

import json
import re
import shlex
import time

import pytest
from PIL import Image

from tests.system.installed import ROOT, Environment

pytestmark = [pytest.mark.whole, pytest.mark.timeout(1800)]

SECONDS, COMMANDS = 300, 3
"""What the path may take."""


def path() -> list[str]:
    """Return the commands of the README's section *Five minutes*, without their comments."""
    (section,) = re.findall(r"^## Five minutes\n(.*?)^## ", (ROOT / "README.md").read_text(), flags=re.M | re.S)
    block = re.findall(r"^```\n(.*?)^```$", section, flags=re.M | re.S)[0]
    return [shlex.join(shlex.split(line, comments=True)) for line in block.splitlines()]


def test_from_pip_install_to_a_picture_of_an_own_run(tmp_path):
    commands = path()
    assert len(commands) <= COMMANDS
    assert commands[0].startswith("pip install ")
    environment, folder = Environment(tmp_path / "new"), tmp_path / "empty"
    folder.mkdir()
    taken = {}
    for command in commands:
        begun = time.monotonic()
        # Installing is of the checkout; all else happens where there is nothing.
        said = environment.run(command, cwd=folder if taken else ROOT)
        taken[command] = time.monotonic() - begun
        assert "Traceback" not in said.stderr
    print("\n".join(f"{seconds:6.1f} s  {command}" for command, seconds in taken.items()))

    (run,) = (folder / "runs").iterdir()
    assert said.stdout.strip() == str((run / "report.html").relative_to(folder))
    summary, text = json.loads((run / "summary.json").read_text()), (run / "report.html").read_text()
    assert (summary["epochs"], summary["steps"] > 100) == (2, True)
    assert summary["test_accuracy"] > 0.95
    assert summary["weights_sha256"] in text
    assert f"{100 * summary['test_accuracy']:.2f} %" in text
    (timeline,) = re.findall(r'<section id="timeline"(.*?)</section>', text, flags=re.S)
    assert "<svg" in timeline or "data:image/png;base64," in timeline
    with Image.open(run / "timeline.png") as picture:
        assert picture.width > 500
    assert sum(taken.values()) < SECONDS
