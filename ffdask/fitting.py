"""Training on arrays that a program holds: in place, in this thread, or as a run on a cluster; the same bits."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffdask import divergence, machine
from ffdask.conduct import conduct
from ffdask.config import Config
from ffdask.datasets import Dataset, from_arrays, write_store
from ffdask.errors import BadInput
from ffdask.head import HeadState
from ffdask.inline import train_inline
from ffdask.job import Data, Job
from ffdask.kept import kept_client
from ffdask.layer import LayerState
from ffdask.network import Network
from ffdask.plan import schedule_of
from ffdask.plugins import entry_of
from ffdask.precision import here, settle
from ffdask.resolved import resolve
from ffdask.schedules.steps import Step
from ffdask.surroundings import current_client
from ffdask.tables import ClusterTable

Labels = NDArray[np.uint8]

LOOKED_AT = 1000
"""Training rows, the first ones, that a run looks at in the place of the test rows that it was not given."""


@dataclass(frozen=True)
class GoingOn(Job):
    """A job whose layers begin as those of `before`, where that is given."""

    before: Network | None = None

    def initial_layer(self, layer: int) -> LayerState:
        """Return layer number `layer`'s state before any step."""
        return super().initial_layer(layer) if self.before is None else self.before.states[layer - 1]

    def initial_head(self) -> HeadState:
        """Return the head before any step."""
        return super().initial_head() if self.before is None or self.before.head is None else self.before.head


def in_place(
    config: Config, images: NDArray[Any], labels: Labels, classes: int, before: Network | None = None
) -> Network:
    """Train in this thread, with no cluster.

    Parameters
    ----------
    config : Config
    images : (n, ...) uint8 or float32
    labels : (n,) uint8
        Below `classes`.
    classes : int
    before : Network, optional
        To go on with; its layers must be those of `config`.

    Raises
    ------
    BadInput
        If the configuration does not fit the data, or `before`.
    Diverged
        When training leads nowhere.
    """
    if entry_of(config.schedule.name).sharded:
        raise BadInput(
            f"schedule.name (--schedule): given {config.schedule.name!r}, whose nodes have rows of their own, for "
            "training in one thread; take another schedule, or outside tasks give `out`, which asks for a run"
        )
    config = settle(config, here, lambda line: None)
    shape, name = images.shape[1:], "the rows given"
    resolved = resolve(config, Dataset(name, "", "", len(images), 0, shape, classes, name, str(images.dtype)), 1)
    job = GoingOn(**vars(resolved.job), before=before)
    if before is not None:
        _check_alike(before, resolved.job)
    train = (images, labels)
    data = Data.of(job.calendar, train, lambda: (images[:LOOKED_AT], labels[:LOOKED_AT]))

    def watch(step: Step, record: dict[str, Any]) -> None:
        divergence.check(step, record, job.optimizer.learning_rate)

    with machine.one_thread():
        return train_inline(job, resolved.plan, schedule_of(resolved), data, watch)[0]


def _check_alike(before: Network, job: Job) -> None:
    """Check that a network can be gone on with."""
    shapes = [{name: array.shape for name, array in state.arrays().items()} for state in before.states]
    wanted = [
        {name: array.shape for name, array in job.initial_layer(layer).arrays().items()}
        for layer in range(1, len(job.widths) + 1)
    ]
    if shapes != wanted or before.overlay != job.overlay:
        raise BadInput(
            "partial_fit: the network so far has other layers, another objective, overlay or optimizer than are given "
            "now; give those again, or begin anew with fit"
        )


def as_run(config: Config, images: Any, labels: Labels, classes: int) -> Network:
    """Train on the cluster that `config` asks for, or the current client's, else on the one that the process keeps.

    A run folder that `config` names is kept, and its data in the cache; else nothing is left.

    Parameters
    ----------
    config : Config
    images : (n, ...) uint8 or float32
        NumPy's, or a dask.array, which is read block by block.
    labels : (n,) uint8
        Below `classes`, each of which has a row.
    classes : int

    Raises
    ------
    BadInput, Diverged, RunFailed
        As `ffdask.conduct.conduct`.
    """
    client = (current_client() or kept_client(config.cluster)) if config.cluster == ClusterTable() else None
    with contextlib.ExitStack() as stack:
        four = (images, labels, images[:LOOKED_AT], labels[:LOOKED_AT])
        if config.run.out is not None:
            dataset = from_arrays(*four, name="rows given to fit, the first looked at again as test rows")
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ffdask-fit-")))
            dataset = write_store(folder / "data.zarr", "rows given to fit", "arrays of a program", *four, classes)
            config = replace(config, run=replace(config.run, out=str(folder / "run")))
        return conduct(replace(config, data=replace(config.data, dataset=dataset.path)), client=client).network
