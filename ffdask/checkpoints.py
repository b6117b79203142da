"""Checkpoints: a cut through the pipeline, from which a run goes on to the same bits; each is whole or absent.

A checkpoint holds whatever steps of later rounds may read of the rounds up to its own: layer states, heads, the
probabilities that negatives are drawn from. It is one Zarr store in a zip file, one file of records, and, written last,
a small manifest with the SHA-256 of both: what no manifest names does not exist. Nothing in it is ever unpickled.

All of them bear their run's id, so that runs which were given one place neither read nor remove each other's.
"""

from __future__ import annotations

import json
import re
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffdask import pieces
from ffdask.errors import BadInput, reason, told
from ffdask.places import Place, place_at, sha256_of
from ffdask.records import Records
from ffdask.schedules.steps import Need

KEPT = 2
"""Checkpoints that are kept: the newest, and the one before should it be damaged."""

MOST_FILES = 64
"""Of records, that a manifest names."""

LARGEST_MANIFEST = 1 << 26
"""Bytes that a manifest may have."""

MANIFEST = re.compile(r"(?P<name>round\d{7,}(-(?P<run>\w+))?)\.json")
FILE = re.compile(r"round\d{7,}(-\w+)?\.(jsonl|zarr\.zip)")


@dataclass(frozen=True)
class Checkpoint:
    """A run after all steps of the rounds up to `round`.

    Attributes
    ----------
    round : int
    pieces : mapping of Need to value
        What later steps may read.
    records : Records
        Of every step of those rounds.
    run : str
        The run's id; empty in a run that was begun before runs had one.
    """

    round: int
    pieces: Mapping[Need, Any]
    records: Records
    run: str = ""


Manifest = dict[str, Any]


def write(where: str | Path, checkpoint: Checkpoint, before: Manifest | None = None) -> Manifest:
    """Write a checkpoint to a folder or a URL; older ones of its run but the last are removed.

    Parameters
    ----------
    where : path or URL
    checkpoint : Checkpoint
    before : dict, optional
        The manifest of the same run's checkpoint before, which is there: its files of records are named again, and
        only what came since is written.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    OSError
        If it cannot be written; the older ones are then untouched.
    """
    place, name = place_at(where), _name(checkpoint.round, checkpoint.run)
    if before is not None and not set(before["records"]) <= set(place.names()):
        # Somebody made room.
        before = None
    # Now and then all records are written into one file, so that no manifest names too many.
    if before is not None and (len(before["records"]) >= MOST_FILES or before["round"] >= checkpoint.round):
        before = None
    older = {file: before["files"][file] for file in before["records"]} if before else {}
    arrays, records, files = f"{name}.zarr.zip", f"{name}.jsonl", dict[str, str]()
    try:
        with place.making(arrays) as path:
            described = pieces.write(path, checkpoint.pieces)
            digest = sha256_of(path)
        files[arrays] = digest
        with place.making(records) as path:
            with path.open("wb") as file:
                file.writelines(checkpoint.records.lines(before["round"] if before else -1))
            digest = sha256_of(path)
        files[records] = digest
        manifest = {
            "run": checkpoint.run,
            "round": checkpoint.round,
            "pieces": described,
            "records": [*older, records],
            "files": older | files,
        }
        with place.making(f"{name}.json") as path:
            path.write_text(json.dumps(manifest))
    except Exception:
        # What no manifest names takes up nobody's place.
        for put in files:
            with suppress(Exception):
                place.remove(put)
        raise
    _forget_old(place, name, checkpoint.run)
    return manifest


def _name(round_: int, run: str) -> str:
    return f"round{round_:07d}{f'-{run}' if run else ''}"


class Writer:
    """Writes a run's checkpoints on a thread of its own, so that no step waits for a disk.

    While one is being written the newest of those that came since waits; the others are left out. What cannot be
    written is said, and the checkpoint before stays: what is computed is not lost by it.

    Parameters
    ----------
    where : path or URL
    say : callable
        Takes a line for the user.
    """

    def __init__(self, where: str | Path, say: Callable[[str], None]) -> None:
        self.where, self.say = where, say
        self._thread = ThreadPoolExecutor(1, "ffdask-checkpoints")
        self._newest: deque[Checkpoint] = deque(maxlen=1)
        self._written: deque[Manifest] = deque(maxlen=KEPT)
        self._begun: float | None = None
        self._took = 0.0

    @property
    def seconds(self) -> float:
        """Return how long the checkpoint that is being written has taken so far, or else the last one took."""
        begun = self._begun
        return self._took if begun is None else max(self._took, time.monotonic() - begun)

    @property
    def oldest(self) -> int:
        """Round of the oldest checkpoint that is kept, as far as this wrote them; -1 until then."""
        return int(self._written[0]["round"]) if len(self._written) == KEPT else -1

    def write(self, checkpoint: Checkpoint) -> None:
        """Have a checkpoint written, in the place of one that still waits."""
        # Not with the call: a call that is left out would hold on to its checkpoint until its turn comes.
        self._newest.append(checkpoint)
        try:
            self._thread.submit(self._write_newest)
        except RuntimeError as error:
            # No memory for a thread: the next checkpoint tries again.
            self.say(f"a checkpoint could not be written ({error}); the run goes on without")

    def close(self) -> None:
        """Return when the last checkpoint has been written."""
        self._thread.shutdown()

    def _write_newest(self) -> None:
        if not self._newest:
            # The call before took it.
            return
        self._begun = begun = time.monotonic()
        try:
            before = self._written[-1] if self._written else None
            self._written.append(write(self.where, self._newest.pop(), before))
        except Exception as error:
            self.say(f"a checkpoint could not be written ({reason(error)}); the run goes on without")
        finally:
            self._took, self._begun = time.monotonic() - begun, None


def read(where: str | Path, say: Callable[[str], None], run: str = "") -> Checkpoint | None:
    """Return a run's newest whole checkpoint, None if there is none; a damaged one is named and passed over.

    Parameters
    ----------
    where : path or URL
    say : callable
        Takes a line for the user; also if there are checkpoints of other runs, which are left alone.
    run : str
        The run's id.

    Raises
    ------
    BadInput
        If a URL cannot be read.
    """
    place, names = place_at(where), _names(where)
    if others := runs_among(names) - {run}:
        say(f"{where} holds checkpoints of {_listed(others)} too; they are left alone")
    for name in sorted(_manifests(names, run), reverse=True):
        try:
            return _read(place, name, run)
        except Exception as error:
            # Whatever is wrong with its bytes, the one before may still be whole.
            say(f"checkpoint {name} is damaged ({error or type(error).__name__}); looking for the one before")
    return None


def check_free(where: str | Path, run: str = "") -> None:
    """Refuse a place that holds checkpoints of another run than `run`, if it is named.

    Raises
    ------
    BadInput
        If there are some, or a URL cannot be read.
    """
    others = runs_among(_names(where)) - ({run} if run else set())
    if others:
        raise BadInput(
            f"run.checkpoints (--checkpoints): given {where}, which holds the checkpoints of {_listed(others)}; give "
            "each run a place of its own, go on with the run that they are of (--resume), or remove them"
        )


def runs_among(names: Sequence[str]) -> set[str]:
    """Return the ids of the runs of which there are manifests among some files' names."""
    return {match["run"] or "" for name in names if (match := MANIFEST.fullmatch(name))}


def _listed(runs: set[str]) -> str:
    return ", ".join(f"run {run}" if run else "a run without an id" for run in sorted(runs))


def _names(where: str | Path) -> list[str]:
    try:
        return place_at(where).names()
    except Exception as error:
        raise BadInput(f"checkpoints: {where} cannot be read: {told(error)}") from None


def _manifests(names: Sequence[str], run: str) -> list[str]:
    """Return whose manifests are among some files' names, of a run."""
    found = (MANIFEST.fullmatch(name) for name in names)
    return [match["name"] for match in found if match and (match["run"] or "") == run]


def _read(place: Place, name: str, run: str) -> Checkpoint:
    with place.got(f"{name}.json") as path:
        given = _json(path)
    if given.get("run", "") != run:
        raise ValueError(f"it is of run {given.get('run')!r}, whatever its name")
    with ExitStack() as stack:
        paths = [stack.enter_context(place.got(_file(file))) for file in (f"{name}.zarr.zip", *given["records"])]
        for path in paths:
            if sha256_of(path) != given["files"][path.name]:
                raise ValueError(f"{path.name} is not as it was written")
        records = Records.of_lines(line for path in paths[1:] for line in path.read_bytes().splitlines())
        return Checkpoint(int(given["round"]), pieces.read(paths[0], given["pieces"]), records, run)


def _file(name: str) -> str:
    """Return a file's name out of a manifest, which names nothing beside it."""
    if not FILE.fullmatch(name):
        raise ValueError(f"it names a file {name!r}")
    return name


def _json(path: Path) -> Any:
    if path.stat().st_size > LARGEST_MANIFEST:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes")
    return json.loads(path.read_text())


def _forget_old(place: Place, newest: str, run: str) -> None:
    """Remove all of a run's checkpoints before `newest` but the last few, manifests first, and what no manifest names.

    Later ones, which a resumed run found damaged, take up nobody's place; they are written again in their turn.
    """
    own = re.compile(rf"(round\d{{7,}}{re.escape(f'-{run}' if run else '')})\..*")
    names = {name: match[1] for name in place.names() if (match := own.fullmatch(name)) and match[1] <= newest}
    manifests = sorted(_manifests(list(names), run), reverse=True)
    for manifest in manifests[KEPT:]:
        place.remove(f"{manifest}.json")
    kept = {f"{manifest}.json" for manifest in manifests}
    for manifest in manifests[:KEPT]:
        with suppress(ValueError, KeyError, TypeError), place.got(f"{manifest}.json") as path:
            kept |= _json(path)["files"].keys()
    for name, of in names.items():
        # What a damaged manifest named is not known: what bears its name stays.
        if name not in kept and of not in manifests[:KEPT]:
            place.remove(name)
