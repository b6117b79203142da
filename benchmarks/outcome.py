"""What became of a disturbed run: judged by the network that it left, or that its resumption left."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path

from scene import command
from side_by_side import plain_environment

from ffdask.store import open_network

SAME, FROM_CHECKPOINT, ANEW = "same bits", "resumed from a checkpoint", "begun anew"
UNDISTURBED = "not disturbed"
GOOD = (SAME, FROM_CHECKPOINT, ANEW, UNDISTURBED)
"""Each of them with the bits of the undisturbed run."""

LONGEST = 180.0
"""Seconds until a run counts as hung."""


def judge(code: int, out: str, err: str, folder: Path, flags: list[str], expected: str) -> str:
    """Return what became of a run that ended with an exit code; one that stopped is gone on with, and that judged.

    Parameters
    ----------
    code : int
    out, err : str
        What it printed.
    folder : Path
        Where it was to be.
    flags : list of str
        With which to begin it again, if it left nothing to go on with.
    expected : str
        The digest of the undisturbed run.
    """
    if "Traceback" in err:
        return "a traceback"
    moved = folder.with_name("elsewhere")
    # Python hands a signal back to the system while it shuts down, when all is written and said.
    if code == 0 or (code in (-signal.SIGINT, -signal.SIGTERM) and (folder / "summary.json").exists()):
        # The folder may also have been taken away when all was written, while the cluster closed.
        other = [line.rpartition(" ")[2] for line in out.splitlines() if "what was trained goes to" in line]
        other += [str(moved)] if (moved / "summary.json").exists() else []
        return SAME if digest(Path(other[-1]) if other else folder) == expected else "different bits"
    # A library that is refused memory may end the process itself, as LLVM does: then it is as if it were killed.
    if code not in (1, 130, -signal.SIGKILL, -signal.SIGABRT, -signal.SIGTERM, -signal.SIGINT):
        return f"exit code {code}"
    if moved.exists():
        folder.unlink(missing_ok=True)
        moved.rename(folder)
    if (folder / "checkpoints").is_file():
        (folder / "checkpoints").unlink()
    if not (folder / "run.zarr" / "zarr.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        return _again(folder, "--out", str(folder), *flags) or _same(folder, expected, ANEW)
    if code in (1, 130) and "--resume" not in err:
        return f"exit code {code}, and no word how to go on"
    there = list((folder / "checkpoints").glob("round*.json"))
    said: list[str] = []
    # On threads of its own, whatever it ran on before.
    failed = _again(folder, "--resume", str(folder), "--scheduler", "none", "--threads", said=said)
    if failed:
        return failed
    if any("going on after round" in line for line in said):
        return _same(folder, expected, FROM_CHECKPOINT)
    return "begun anew beside a checkpoint" if there else _same(folder, expected, ANEW)


def _again(folder: Path, *flags: str, said: list[str] | None = None) -> str:
    """Run the command once more; return what went wrong, and add to the lines that it said."""
    own = folder.parent / "driver"
    own.mkdir(exist_ok=True)
    done = subprocess.run(
        command(*flags), env=plain_environment(), capture_output=True, text=True, timeout=LONGEST, cwd=own
    )
    if said is not None:
        said += done.stdout.splitlines()
    return f"not resumed: {done.stderr.strip()[-300:]}" if done.returncode else ""


def _same(folder: Path, expected: str, how: str) -> str:
    return how if digest(folder) == expected else f"different bits, {how}"


def digest(folder: Path) -> str:
    """Return the digest of the network in a run's folder, which its summary must name."""
    network, _ = open_network(folder)
    named = json.loads((folder / "summary.json").read_text())["weights_sha256"]
    return str(named) if network.sha256() == named else "another than the summary's"
