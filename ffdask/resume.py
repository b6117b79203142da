"""A run that was stopped goes on: from its last checkpoint, as it was configured, to the same bits."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ffdask import checkpoints
from ffdask.checkpoints import Checkpoint
from ffdask.config import Config, dotted, load
from ffdask.errors import BadInput, reason
from ffdask.store import RunFolder, open_unfinished

Say = Callable[[str], None]

SAME = (
    "layers",
    "objective",
    "negatives",
    "classifier",
    "schedule",
    "own",
    "shards",
    "shard_sha256",
    "epochs",
    "chapters",
    "chunk",
    "staleness",
    "seed",
    "kernels",
    "gpu_nodes",
    "precision",
)
"""What must not differ between a run and its resumption, beside the data."""


def stopped_run(path: str | Path, keys: Mapping[str, Any]) -> Config:
    """Return the configuration of a run that was stopped, to be given to `conduct` with ``resume=path``.

    Parameters
    ----------
    path : path
        The run's folder.
    keys : mapping
        ``table.key`` -> value, of the tables ``cluster`` and ``run`` only: whatever else is the run's own. Another
        ``run.checkpoints`` is where they go from then on.

    Raises
    ------
    BadInput
        If there is no such run, it has ended, or another key is given.
    """
    tables, resolved = open_unfinished(path)
    own = [
        key
        for key in keys
        if key.partition(".")[0] not in ("cluster", "run") or key in ("run.out", "run.overwrite", "run.evaluate_every")
    ]
    if own:
        looks = "; looks at the test set are steps of the schedule" if "run.evaluate_every" in own else ""
        raise BadInput(
            f"--resume: given {', '.join(own)} too; a run goes on as it was configured{looks}: give flags of the "
            "cluster, of checkpoints and of what is said only, or start another run"
        )
    # What `auto` meant when the run began, which runs of before did not write into their configuration.
    recorded = dotted(tables) | {"training.device": resolved.get("device", "cpu")}
    if "cluster.scheduler" in keys:
        # Of another scheduler.
        recorded = {key: value for key, value in recorded.items() if not key.startswith("cluster.tls")}
    return load(None, recorded | {"run.out": str(path)} | dict(keys))


def run_of(path: str | Path) -> str:
    """Return the id of a run that was stopped; an empty one if it was begun before runs had one.

    Raises
    ------
    BadInput
        If there is no such run, or it has ended.
    """
    _, before = open_unfinished(path)
    return str(before.get("run", ""))


def go_on(path: Path, record: Mapping[str, Any], where: str | None, say: Say) -> tuple[RunFolder, Checkpoint | None]:
    """Return a stopped run's folder and its newest checkpoint, if what it computes is still the same.

    Parameters
    ----------
    path : Path
    record : mapping
        The configuration with nothing left open, as it is now.
    where : str or None
        The URL that checkpoints go to, None for the folder: if it is not the one that they went to, they move there.
    say : callable

    Raises
    ------
    BadInput
        If there is no such run, it has ended, or would compute something else now; or if a place of checkpoints cannot
        be read, or the new one is another run's, or cannot be written.
    """
    tables, before = open_unfinished(path)
    # By way of JSON, as the one before was.
    now = json.loads(json.dumps(record))
    different = [key for key in SAME if before.get(key) != now.get(key)]
    if before["dataset"]["sha256"] != now["dataset"]["sha256"]:
        raise BadInput("--resume: the data are not what the run began with; start another run")
    if different:
        raise BadInput(
            f"--resume: {', '.join(f'{key} was {before.get(key)!r} and is {now.get(key)!r}' for key in different)}; "
            "start another run"
        )
    if before["fingerprint"] != now["fingerprint"] or _gpus(before) != _gpus(now):
        say("the same bits are not promised: this machine, or what is installed on it, is not what the run began with")
    folder, run, were = RunFolder(path), before.get("run", ""), tables["run"].get("checkpoints")
    checkpoint = checkpoints.read(were or folder.checkpoints, say, run)
    say(f"going on after round {checkpoint.round}" if checkpoint else "no checkpoint was written: from the start")
    if where != were:
        _move(checkpoint, where or folder.checkpoints, run)
        folder.move_checkpoints(where)
        say(f"checkpoints go to {where or folder.checkpoints} from now on; {were or folder.checkpoints} stays as it is")
    return folder, checkpoint


def _gpus(record: Mapping[str, Any]) -> set[str]:
    return {worker["gpu"] for worker in record["workers"].values() if "gpu" in worker}


def _move(checkpoint: Checkpoint | None, to: str | Path, run: str) -> None:
    """Have the run's checkpoint at a new place before that is recorded: whenever this is broken off, there is one."""
    checkpoints.check_free(to, run)
    if checkpoint is not None:
        try:
            checkpoints.write(to, checkpoint)
        except Exception as error:
            raise BadInput(
                f"run.checkpoints (--checkpoints): given {to}, which cannot be written ({reason(error)}); give another "
                "place"
            ) from None


def how_to_go_on(path: Path, checkpoints_are_written: bool) -> str:
    """Return what to tell whoever stopped a run, or whose run failed."""
    if not checkpoints_are_written:
        return "this run writes no checkpoints, so it cannot be resumed"
    return f"go on from its last checkpoint with: python -m ffdask.train --resume {path}"
