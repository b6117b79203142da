"""What a run leaves in its folder at the end; elsewhere, should the folder's disk be full or gone by then."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffdask import timeline
from ffdask.cluster import Cluster
from ffdask.errors import RunFailed, reason
from ffdask.history import history
from ffdask.network import Network
from ffdask.records import Record, Records
from ffdask.resolved import Resolved
from ffdask.store import RunFolder
from ffdask.summary import figures_of, test, validate

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Ended:
    """A run whose last step is done.

    Attributes
    ----------
    network : Network
    records : Records
        Of every step.
    resolved : Resolved
    cluster : Cluster
    begun : float
        By `time.perf_counter`.
    """

    network: Network
    records: Records
    resolved: Resolved
    cluster: Cluster
    begun: float

    @cached_property
    def steps(self) -> list[Record]:
        """Every step's record; made when it is asked for, for it may take much memory: behind what matters more."""
        return list(self.records.values())

    @cached_property
    def history(self) -> xr.Dataset:
        """By chapter and layer."""
        return history(self.steps, self.resolved.plan.calendar, self.resolved.plan.layers)


def leave(
    folder: RunFolder, ended: Ended, record: Mapping[str, Any], say: Callable[[str], None]
) -> tuple[Path, dict[str, Any]]:
    """Write what a run leaves; return the folder and the summary's figures.

    Parameters
    ----------
    folder : RunFolder
    ended : Ended
    record : mapping
        The configuration with nothing left open.
    say : callable
        Told if the folder cannot be written: all is then in another one, among temporary files.

    Raises
    ------
    RunFailed
        If neither can be written.
    """
    try:
        return folder.path, _write(folder, ended)
    except Exception as error:
        # Whatever it is, the network is worth another try: a full disk, no memory for the thread that writes.
        why = reason(error)
    try:
        other = RunFolder(Path(tempfile.mkdtemp(prefix="ffdask-run-")))
        other.write_configuration(ended.resolved.config.tables(), record)
        say(f"{folder.path} cannot be written ({why}); what was trained goes to {other.path}")
        return other.path, _write(other, ended)
    except Exception as error:
        raise RunFailed(
            f"the run has ended, but can be written neither to {folder.path} ({why}) nor to {tempfile.gettempdir()} "
            f"({reason(error)}): make room"
        ) from error


def _write(folder: RunFolder, ended: Ended) -> dict[str, Any]:
    resolved, cluster, network = ended.resolved, ended.cluster, ended.network
    folder.write_network(network)
    folder.write_records(ended.records.lines())
    folder.write_history(ended.history)
    figures = figures_of(resolved, cluster, ended.steps)
    title = (
        f"{figures['schedule']}: {figures['train_seconds']:.1f} s on {cluster.units} units, "
        f"{100 * figures['utilization']:.0f} % busy"
    )
    timeline.draw(ended.steps, folder.path / "timeline.png", title)
    classifier, threads = resolved.config.network.classifier, os.cpu_count() or 1
    tested = test(network, classifier, resolved.dataset, threads)
    figures = tested | validate(network, classifier, resolved, threads) | figures
    figures |= {"weights_sha256": network.sha256(), "peak_memory_bytes": cluster.peak_memory()}
    figures["total_seconds"] = time.perf_counter() - ended.begun
    folder.write_summary(figures)
    return figures
