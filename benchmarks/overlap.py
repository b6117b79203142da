"""How much of a schedule's ideal its Dask graph reaches, on more nodes than this machine has cores.

Nodes are emulated: the real schedule, with its head, negatives, evaluation and checkpoints, goes through the real graph
and training code to the real workers, and each step waits where it would compute. What a step gives is real: a state is
new memory of the true size, every page written, and whoever reads it checks its digest. Writing and checking count into
the step's time; the wait is what is left of it. A step takes as long as the cost model says, scaled so that the layers'
training steps take `--step` seconds in the mean.

Efficiency is the ideal makespan (list scheduling, free transfers, no overhead) over the measured training seconds. What
is lost is shown for the last run: what the chain of steps that it waited for is made of (`critical_path.py`).

python benchmarks/overlap.py --nodes 4 8 --step 0.5
python benchmarks/overlap.py --nodes 4 --step 0.5 2 --processes
python benchmarks/overlap.py --nodes 64 --layers 64 --width 72 --chapters 128 --step 0.5 0.2 --who
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import critical_path
import interpreter
import numpy as np
from distributed import Client, SpecCluster, Worker
from distributed.diagnostics.plugin import WorkerPlugin
from side_by_side import arguments, median, show, where

from ffdask import blocks, datasets, opening
from ffdask.conduct import conduct, place
from ffdask.config import Config, load
from ffdask.embedded import embedded_cluster
from ffdask.head import HeadState
from ffdask.job import Data, Job
from ffdask.layer import LayerState, frozen
from ffdask.plan import cut_rounds, schedule_of
from ffdask.resolved import resolve
from ffdask.schedules.costs import NOMINAL, Rates, activity_bytes, cost
from ffdask.schedules.ideal import makespan
from ffdask.schedules.steps import Step, static_steps
from ffdask.slots import Slot
from ffdask.tables import ClusterTable

ROWS = 1000
"""Training rows of the data that nobody learns from: one chunk, so that a chapter is one visit."""


class Emulated(WorkerPlugin):
    """Has a worker process wait where a step would compute.

    Parameters
    ----------
    rates : Rates
        By which a step's cost is its time.
    """

    name = "emulated"

    def __init__(self, rates: Rates) -> None:
        self.rates = rates

    def setup(self, worker: Worker) -> None:
        """Put the emulation in the place of what a step does."""
        from ffdask import on_worker, work

        on_worker.perform = partial(emulated, work.perform, self.rates)

    def teardown(self, worker: Worker) -> None:
        """Put back what a step does."""
        from ffdask import on_worker, work

        on_worker.perform = work.perform


def emulated(perform: Any, rates: Rates, job: Job, step: Step, inputs: Mapping[str, Any], data: Data) -> dict[str, Any]:
    """Return what a step gives, of the true sizes, after the time that it would take."""
    begun = time.perf_counter()
    for role, value in inputs.items():
        if isinstance(value, LayerState) and digest(value) != value.steps:
            raise ValueError(f"{role} of {step.name} is not as it was written")
    if step.kind == "negatives":
        # These labels are drawn from the probabilities below, as ever; they cost nothing to speak of.
        given: dict[str, Any] = perform(job, step, inputs, data)
    else:
        pieces = {piece: made(job, step, piece) for piece in step.gives}
        given = {**pieces, "record": {"rows": ROWS, "loss": 0.5, "error": 0.5}}
        if step.layer and step.kind == "train":
            given["record"] |= {"goodness_positive": 1.0, "goodness_negative": 1.0}
    time.sleep(max(0.0, cost(job, step).seconds(rates) - (time.perf_counter() - begun)))
    return given


def made(job: Job, step: Step, piece: str) -> Any:
    """Return a piece of the true size; of a state every page is written, with a digest in place of its step count."""
    if piece == "state" and step.layer:
        value, like = 1 + step.round + 0.01 * step.layer, shapes(job, step.layer)
        arrays = dict(zip(like, blocks.empty(*((shape, np.float32) for shape in like.values())), strict=True))
        for array in arrays.values():
            array.fill(value)
        state = LayerState.of(arrays, 0)
        return frozen(replace(state, steps=digest(state)))
    if piece == "state":
        weights = np.full((sum(job.widths[1:] or job.widths), job.classes), step.round, np.float32)
        return HeadState(weights, weights.copy())
    if piece == "probabilities":
        rows = {visit: job.calendar.order(visit) for visit in step.visits}
        return {visit: (r, np.full((len(r), job.classes), 0.1, np.float32)) for visit, r in rows.items()}
    # Activities stay where they are, and are as large as they would be, but nobody looks at them.
    return np.empty(activity_bytes(job, replace(step, gives=(piece,))), np.uint8)


def shapes(job: Job, layer: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a layer's arrays, by name."""
    fan_in, width = (job.fan_in, *job.widths)[layer - 1], job.widths[layer - 1]
    moments = [(fan_in, width), (width,)] * (2 if job.optimizer.name == "adam" else 1)
    named: dict[str, tuple[int, ...]] = {"weights": (fan_in, width), "bias": (width,), "running_mean": (width,)}
    return named | {f"moment{i}": shape for i, shape in enumerate(moments)}


def digest(state: LayerState) -> int:
    """Return the CRC of a state's arrays."""
    found = 0
    for array in state.arrays().values():
        found = zlib.crc32(np.ascontiguousarray(array), found)
    return found


def make_rows(folder: Path) -> Path:
    """Write the rows that nobody learns from; return where they are."""
    images = np.zeros((ROWS + 100, 28, 28), np.uint8)
    labels = np.arange(ROWS + 100, dtype=np.uint8) % 10
    path = folder / "rows.npz"
    np.savez(path, x_train=images[:ROWS], y_train=labels[:ROWS], x_test=images[ROWS:], y_test=labels[ROWS:])
    return path


def config_of(given: Any, nodes: int, path: Path) -> Config:
    """Return the run's configuration."""
    layers = given.layers or nodes
    keys: dict[str, Any] = {
        "data.dataset": str(path),
        "data.chunk": ROWS,
        "network.layers": [given.width] * layers,
        "optimizer.name": given.optimizer,
        "training.shift": 0,
        "training.epochs": given.chapters,
        "schedule.name": given.schedule,
        "schedule.nodes": nodes,
        "schedule.chapters": given.chapters,
        "schedule.staleness": nodes - 1,
        "cluster.workers": nodes if given.processes or given.apart else 1,
        "cluster.units": nodes,
        "cluster.processes": given.processes,
        "cluster.share": not given.unshared,
        "run.evaluate_every": given.evaluate_every,
        "run.checkpoint_every": given.checkpoint_every,
        "run.cut_every": given.cut_every,
        "run.overwrite": True,
    }
    return load(None, keys)


def slowed(config: Config, seconds: float, nodes: int) -> tuple[Rates, float, float]:
    """Return the rates at which the mean training step takes `seconds`, the ideal makespan, and the ideal speed-up."""
    dataset = datasets.obtain(config.data.dataset)
    resolved = resolve(config, dataset, nodes)
    steps = static_steps(resolved.entry.steps, resolved.plan)
    trained = [cost(resolved.job, step).seconds() for step in steps if step.kind == "train"]
    factor = seconds / (sum(trained) / len(trained))
    n = NOMINAL
    rates = Rates(n.flops / factor, n.traffic / factor, n.activity / factor, n.call * factor)
    count = config.cluster.workers or 1
    slots = [Slot("", f"worker{i}", nodes // count) for i in range(count)]
    ahead = place(resolved, slots, rates)[1]
    return rates, makespan(ahead.timed), ahead.speed_up


def measured(config: Config, rates: Rates, folder: Path) -> dict[str, Any]:
    """Return the summary of an emulated run."""
    out = replace(config.run, out=str(folder / "run"))
    before, opening.embedded_cluster = opening.embedded_cluster, partial(emulating, rates)
    try:
        return conduct(replace(config, run=out)).summary
    finally:
        opening.embedded_cluster = before


@contextlib.contextmanager
def emulating(rates: Rates, table: ClusterTable) -> Iterator[SpecCluster]:
    """Start an embedded cluster whose workers wait where a step would compute."""
    with embedded_cluster(table) as started, Client(started, set_as_default=False) as client:
        client.register_plugin(Emulated(rates))
        yield started


def lost(config: Config, rates: Rates, nodes: int, folder: Path) -> list[list[Any]]:
    """Return what the chain of steps is made of that an emulated run's end waited for."""
    resolved = resolve(config, datasets.obtain(config.data.dataset), nodes)
    records = [json.loads(line) for line in (folder / "run" / "records.jsonl").read_text().splitlines()]
    steps = static_steps(schedule_of(resolved), resolved.plan)
    return critical_path.parts_of(
        records, steps, lambda step: cost(resolved.job, step).seconds(rates), cut_rounds(resolved)
    )


def _peak(summary: dict[str, Any]) -> float:
    return float(summary["peak_memory_bytes"]) / 1e9


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[4])
    parser.add_argument("--step", type=float, nargs="+", default=[0.5], help="seconds of a training step, in the mean")
    parser.add_argument("--layers", type=int, help="left out: as many as nodes")
    parser.add_argument("--width", type=int, default=2000, help="of all layers; 2000 by 2000 with Adam are 48 MB")
    parser.add_argument("--optimizer", default="adam", choices=("adam", "momentum"))
    parser.add_argument("--schedule", default="all-layers")
    parser.add_argument("--chapters", type=int, default=100)
    parser.add_argument("--evaluate-every", type=int, default=10, help="chapters")
    parser.add_argument("--checkpoint-every", type=int, default=4, help="chapters")
    parser.add_argument("--cut-every", type=int, default=4, help="chapters")
    parser.add_argument("--processes", action="store_true", help="a worker process for each node; else threads of one")
    parser.add_argument("--unshared", action="store_true", help="processes send states, and map none")
    parser.add_argument("--apart", action="store_true", help="a worker for each node, all in one process")
    parser.add_argument("--who", action="store_true", help="show who holds the interpreter in this process (py-spy)")
    parser.add_argument("--repeats", type=int, default=1)
    given = parser.parse_args()
    rows: list[list[Any]] = []
    last: dict[str, Any] = {}
    parts: list[list[Any]] = []
    holders: interpreter.Holders | None = None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = make_rows(folder)
        for nodes in given.nodes:
            for step in given.step:
                config = config_of(given, nodes, path)
                rates, ideal, speed_up = slowed(config, step, nodes)
                seconds = []
                for _ in range(given.repeats):
                    with interpreter.watched() if given.who else contextlib.nullcontext() as holders:
                        last = measured(config, rates, folder)
                    seconds.append(last["train_seconds"])
                found = median(seconds)
                where_ = "processes" if given.processes else "workers" if given.apart else "threads"
                where_ += ", unshared" if given.unshared else ""
                figures = (ideal, found, ideal / found, speed_up, speed_up * ideal / found)
                rows.append([f"{nodes} {where_}", len(config.network.layers), step, *figures, _peak(last)])
                parts = lost(config, rates, nodes, folder)
    columns = ["nodes", "layers", "step, s", "ideal, s", "measured, s", "efficiency", "ideal speed-up", "speed-up"]
    title = f"{given.schedule}, width {given.width}, {given.chapters} chapters, medians of {given.repeats}"
    show(title, [*columns, "peak, GB"], rows, where(last), given.json)
    show("of the last run", critical_path.COLUMNS, parts, "", None)
    if holders:
        show("of the last run", interpreter.COLUMNS, holders.rows(), "", None)


if __name__ == "__main__":
    main()
