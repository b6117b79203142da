"""A run on disk: its configuration, before the first step; its weights, history, summary and picture at the end.

``run.zarr`` holds the configuration (attributes), ``weights/layer<l>/...``, ``weights/head/weights`` and ``history``
(readable by `xarray.open_zarr`). Nothing in a run folder is ever unpickled.
"""

from __future__ import annotations

import datetime
import itertools
import json
import os
import re
import shutil
import uuid
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import zarr

from ffdask.changes import Change
from ffdask.datasets import Dataset
from ffdask.errors import BadInput, reason
from ffdask.head import HeadState, layers_read
from ffdask.labels import Overlay
from ffdask.layer import LayerState
from ffdask.network import Network

if TYPE_CHECKING:
    import xarray as xr

FORMAT = 2
"""Of the run folder's layout; raised when it changes."""

LARGEST_CHANGES = 4 << 20
"""Bytes of ``changes.json`` that are read: more than any that is written."""


class RunFolder:
    """A run's folder.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def checkpoints(self) -> Path:
        """Return the folder of the run's checkpoints."""
        return self.path / "checkpoints"

    @property
    def zarr(self) -> Path:
        """Return the path of the run's Zarr store."""
        return self.path / "run.zarr"

    def write_configuration(self, tables: Mapping[str, Any], resolved: Mapping[str, Any]) -> None:
        """Write what is computed, as given (`tables`) and with nothing left open (`resolved`).

        Raises
        ------
        BadInput
            If it cannot be written.
        """
        attributes = {"format": FORMAT, "configuration": dict(tables), "resolved": dict(resolved)}
        try:
            zarr.create_group(str(self.zarr), attributes=attributes)
        except OSError as error:
            # Half of it would be nobody's run, which a second try could not replace.
            shutil.rmtree(self.zarr, ignore_errors=True)
            raise BadInput(
                f"run.out (--out): given {self.path}, which cannot be written ({reason(error)}); make room, or give "
                "another folder"
            ) from None

    def move_checkpoints(self, where: str | None) -> None:
        """Record that the run's checkpoints are at a URL from now on, or, for None, in its folder.

        Raises
        ------
        BadInput
            If it cannot be written.
        """
        try:
            attributes = zarr.open_group(str(self.zarr)).attrs
            tables: Any = attributes["configuration"]
            attributes["configuration"] = tables | {"run": {**tables["run"], "checkpoints": where}}
        except OSError as error:
            raise BadInput(f"--resume: given {self.path}, which cannot be written ({reason(error)})") from None

    def write_changes(self, changes: Sequence[Change]) -> None:
        """Write the changes that were made to the configuration while the run went; raises OSError if it cannot."""
        draft = self.path / "changes.json.tmp"
        with draft.open("w") as file:
            json.dump([change.table() for change in changes], file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path / "changes.json")

    def write_network(self, network: Network) -> None:
        """Write every layer's weights, biases, moments and running mean, and the head's."""
        # Over what a run left that was killed in the midst of this.
        group = zarr.open_group(str(self.zarr)).create_group("weights", overwrite=True)
        group.attrs["classes"] = network.classes
        group.attrs["overlay"] = network.overlay
        group.attrs["layers"] = len(network.states)
        named: dict[str, LayerState | HeadState] = {f"layer{i}": s for i, s in enumerate(network.states, start=1)}
        if network.head:
            named["head"] = network.head
        for name, state in named.items():
            part = group.create_group(name)
            for key, array in state.arrays().items():
                part.create_array(key, data=np.asarray(array))
            if isinstance(state, LayerState):
                part.attrs["steps"] = state.steps

    def write_history(self, history: xr.Dataset) -> None:
        """Write the history, for `xarray.open_zarr(folder / "run.zarr", group="history")`."""
        history.to_zarr(self.zarr, group="history", mode="w", consolidated=False, zarr_format=3)

    def write_records(self, lines: Iterable[bytes]) -> None:
        """Write ``records.jsonl``: what each step was, on which worker, from when to when, and its figures."""
        with (self.path / "records.jsonl").open("wb") as file:
            file.writelines(lines)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write ``summary.json``: the figures of the run."""
        draft = self.path / "summary.json.tmp"
        draft.write_text(json.dumps(dict(summary), indent=2) + "\n")
        # It says that the run has ended: whole, or not at all.
        draft.replace(self.path / "summary.json")


def prepare(out: str | None, overwrite: bool) -> RunFolder:
    """Make the folder of a new run.

    Parameters
    ----------
    out : str or None
        The folder; None takes a fresh dated one under ``runs/``.
    overwrite : bool
        Whether a run folder that exists is replaced.

    Raises
    ------
    BadInput
        If the folder exists and may not be replaced (it is never replaced if it is not a run's), or cannot be written.
    """
    try:
        path = _fresh() if out is None else _made(Path(out), overwrite)
        probe = path / f".probe-{uuid.uuid4().hex}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise BadInput(
            f"run.out (--out): given {out}, which cannot be written ({reason(error)}); give a folder that can"
        ) from None
    return RunFolder(path)


def _fresh() -> Path:
    """Make and return a dated folder that nobody else has, however many ask in the same second."""
    stamp = datetime.datetime.now().strftime("%Y-%m-%d-%H%M%S")
    for attempt in itertools.count(1):
        path = Path("runs") / (stamp if attempt == 1 else f"{stamp}-{attempt}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if not Path("runs").is_dir():
                raise
        else:
            return path
    raise AssertionError("there is always another number")


def _made(path: Path, overwrite: bool) -> Path:
    """Make and return the folder `path`, in the place of a run's if it may be."""
    if path.exists():
        _refuse(path, overwrite)
        # A link is a name for the folder behind it: the run is replaced there, and the name stays.
        if any(path.iterdir()):
            shutil.rmtree(path.resolve())
    path.resolve().mkdir(parents=True, exist_ok=True)
    return path


def _refuse(path: Path, overwrite: bool) -> None:
    """Raise BadInput if `path` may not become a new run's folder."""
    if path.is_dir() and not any(path.iterdir()):
        return
    if not _is_run(path):
        raise BadInput(f"run.out (--out): given {path}, which exists and is no run folder; give another one")
    if not overwrite:
        raise BadInput(
            f"run.out (--out): given {path}, which holds a run; give another folder, or --overwrite to replace it"
        )


def _is_run(path: Path) -> bool:
    """Return whether a folder's ``run.zarr`` is one that we wrote: anything else is never deleted."""
    try:
        attributes = json.loads((path / "run.zarr" / "zarr.json").read_text())["attributes"]
        return "format" in attributes and "configuration" in attributes
    except (OSError, ValueError, KeyError, TypeError):
        return False


def check_out(out: str | None, overwrite: bool) -> None:
    """Raise BadInput if `prepare` would refuse; nothing is made or removed."""
    path = Path(out) if out is not None else Path("runs")
    try:
        if out is not None and path.exists():
            _refuse(path, overwrite)
        above = path
        while not above.exists():
            above = above.parent
    except OSError as error:
        raise BadInput(
            f"run.out (--out): given {out}, which cannot be written ({reason(error)}); give another one"
        ) from None
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise BadInput(f"run.out (--out): given {path}, but {above} cannot be written; give a folder that can")


def open_network(path: str | Path) -> tuple[Network, dict[str, Any]]:
    """Open a finished run.

    Parameters
    ----------
    path : path
        The run's folder.

    Returns
    -------
    network : Network
    resolved : dict
        The recorded configuration with nothing left open, with the dataset's identity.

    Raises
    ------
    BadInput
        If the folder is no run's, or the run did not end, or an array does not fit the others.
    """
    store = Path(path) / "run.zarr"
    if not store.is_dir():
        raise BadInput(f"run folder: given {path}, which has no run.zarr; give the folder that a run left")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            root: Any = zarr.open_group(str(store), mode="r", zarr_format=3)
            resolved = _resolved(root)
            if "weights" not in root:
                raise BadInput(f"run folder: given {path}, whose run has not ended: there are no weights in it")
            group = root["weights"]
            count, classes = int(group.attrs["layers"]), int(group.attrs["classes"])
            states = tuple(_layer(group[f"layer{i}"]) for i in range(1, count + 1))
            head = _head(group["head"]) if "head" in group else None
            overlay: Any = group.attrs["overlay"]
            if overlay not in get_args(Overlay):
                raise ValueError(f"its overlay is {overlay!r}")
    except BadInput:
        raise
    except Exception as error:
        raise _unreadable(path, error) from None
    _check_fit(path, states, head, classes, overlay)
    return Network(states, head, classes, overlay), resolved


def _resolved(root: Any) -> dict[str, Any]:
    if root.attrs["format"] != FORMAT:
        raise ValueError(f"its format is {root.attrs['format']!r}, this ffdask reads {FORMAT}")
    resolved: dict[str, Any] = dict(root.attrs["resolved"])
    Dataset(**resolved["dataset"])
    if not isinstance(resolved["classifier"], str):
        raise ValueError("its classifier is not a name")
    if resolved.get("device", "cpu") not in ("cpu", "gpu"):
        raise ValueError(f"its device is {resolved['device']!r}")
    if not re.fullmatch(r"\w{0,64}", resolved.get("run", "")):
        raise ValueError(f"its run's id is {resolved['run']!r}")
    return resolved


def _array(group: Any, name: str) -> np.ndarray:
    array = group[name]
    if array.dtype != np.float32 or array.nbytes > 2**34:
        raise ValueError(f"{name} is {array.dtype} of {array.nbytes} bytes")
    values = np.asarray(array[...])
    values.setflags(write=False)
    return values


def _layer(group: Any) -> LayerState:
    return LayerState.of({name: _array(group, name) for name in group}, int(group.attrs["steps"]))


def _head(group: Any) -> HeadState:
    return HeadState(_array(group, "weights"), _array(group, "moment"))


def _check_fit(
    path: str | Path, states: tuple[LayerState, ...], head: HeadState | None, classes: int, overlay: Overlay
) -> None:
    def check(fits: bool, what: str) -> None:
        if not fits:
            raise BadInput(f"run folder: given {path}, where {what}")

    check(bool(states), "there is no layer")
    check(states[0].weights.ndim == 2, "layer 1's weights do not fit")
    fan_in = states[0].weights.shape[0]
    # A label takes inputs, its own or the first pixels'; without one there may be fewer inputs than classes.
    check(1 < classes < (fan_in if overlay != "none" else 2**31), f"{classes} classes do not fit {fan_in} inputs")
    check((overlay == "none") == (states[0].head is not None), f"an overlay of {overlay!r} does not fit its heads")
    for number, state in enumerate(states, start=1):
        check(state.weights.ndim == 2 and state.weights.shape[0] == fan_in, f"layer {number}'s weights do not fit")
        width = state.weights.shape[1:]
        check(state.bias.shape == state.running_mean.shape == width, f"layer {number}'s bias or mean does not fit")
        shapes = [moment.shape for moment in state.moments]
        fitting = [state.weights.shape, state.bias.shape] * (len(shapes) // 2)
        check(shapes == fitting, f"layer {number}'s moments do not fit")
        fan_in = state.weights.shape[1]
        check((state.head is None) == (states[0].head is None), "some layers have heads of their own and some have not")
        if state.head is not None:
            shapes = [state.head.weights.shape, state.head.moment.shape]
            check(shapes == [(fan_in, classes)] * 2, f"layer {number}'s own head does not fit")
    if head is not None:
        rows = sum(states[layer - 1].weights.shape[1] for layer in layers_read(len(states)))
        check(head.weights.shape == head.moment.shape == (rows, classes), "the head does not fit the layers")


def open_unfinished(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a run's configuration, as given (tables) and as resolved, if the run has not ended.

    Raises
    ------
    BadInput
        If the folder is no run's, cannot be read, or its run has ended.
    """
    store = Path(path) / "run.zarr"
    if not store.is_dir():
        raise BadInput(f"--resume: given {path}, which has no run.zarr; give the folder of a run that was stopped")
    try:
        root: Any = zarr.open_group(str(store), mode="r", zarr_format=3)
        tables, resolved = _tables(root, Path(path)), _resolved(root)
        ended = (Path(path) / "summary.json").exists()
    except Exception as error:
        raise BadInput(f"--resume: given {path}, which cannot be read: {type(error).__name__}: {error}") from None
    if ended:
        raise BadInput(f"--resume: given {path}, whose run has ended; start another one, or evaluate this one")
    return tables, resolved


def open_configuration(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a run's configuration, as given (tables) and as resolved, whether or not the run has ended.

    Raises
    ------
    BadInput
        If the folder is no run's, or cannot be read.
    """
    store = Path(path) / "run.zarr"
    if not store.is_dir():
        raise BadInput(f"run folder: given {path}, which has no run.zarr; give the folder that a run left")
    try:
        root: Any = zarr.open_group(str(store), mode="r", zarr_format=3)
        return _tables(root, Path(path)), _resolved(root)
    except Exception as error:
        raise _unreadable(path, error) from None


def _unreadable(path: str | Path, error: Exception) -> BadInput:
    return BadInput(f"run folder: given {path}, which cannot be read: {type(error).__name__}: {error}")


def _tables(root: Any, path: Path) -> dict[str, Any]:
    """Return a run's configuration as given, with what was changed while it went."""
    tables, file = dict(root.attrs["configuration"]), path / "changes.json"
    if file.exists():
        if file.stat().st_size > LARGEST_CHANGES:
            raise ValueError(f"{file.name} has {file.stat().st_size} bytes")
        tables["training"] = tables.get("training", {}) | {"changes": json.loads(file.read_text())}
    return tables


def recorded_digest(path: str | Path) -> str | None:
    """Return the digest of the weights as the run's summary has it; None where there is none."""
    try:
        summary = json.loads((Path(path) / "summary.json").read_text())
    except (OSError, ValueError):
        return None
    return summary.get("weights_sha256") if isinstance(summary, dict) else None
