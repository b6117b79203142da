"""A configuration with its data and its cluster: nothing left open."""

from __future__ import annotations

from dataclasses import dataclass

from ffdask.calendar import Calendar
from ffdask.changes import PLACES, Change
from ffdask.config import Config
from ffdask.datasets import Dataset
from ffdask.errors import BadInput
from ffdask.job import Job
from ffdask.kernels import DEVICE
from ffdask.labels import Overlay
from ffdask.negatives import Kind
from ffdask.objectives import Scored
from ffdask.plugins import carried_negatives, carried_objective, entry_of, negatives_of, objective_of
from ffdask.schedules import Entry
from ffdask.schedules.steps import Plan
from ffdask.shards import Federation, ShardedCalendar


@dataclass(frozen=True)
class Resolved:
    """A configuration with its data: what is computed (`job`), when and where (`plan`, `entry`)."""

    config: Config
    dataset: Dataset
    job: Job
    plan: Plan
    entry: Entry
    federation: Federation | None = None


def resolve(config: Config, dataset: Dataset, units: int, federation: Federation | None = None) -> Resolved:
    """Check a configuration against the data and the cluster's compute units; return the run with nothing left open.

    Parameters
    ----------
    config : Config
    dataset : Dataset
    units : int
        Of all workers.
    federation : Federation, optional
        The nodes' shards, for a schedule that has them.

    Raises
    ------
    BadInput
        If there are more chapters than visits, or the minibatch, the classes or the rows held out do not fit the data.
    """
    entry, layers = entry_of(config.schedule.name), len(config.network.layers)
    calendar = _sharded(config, federation) if federation else _calendar(config, dataset, entry)
    staleness = config.schedule.staleness
    if staleness is None:
        staleness = layers + 1 if entry.by_visit else 3
    objective, negatives = objective_of(config.network.objective), negatives_of(config.network.negatives)
    reads = _reads(negatives, config.network.classifier)
    plan = Plan(
        layers=layers,
        nodes=federation.shards.nodes if federation else config.schedule.nodes or entry.nodes(layers, units),
        calendar=calendar,
        staleness=staleness,
        trains_head=reads == "probabilities" or config.network.classifier == "softmax",
        reads_probabilities=reads == "probabilities",
        reads_goodness=reads == "goodness",
        paired=negatives is not None,
        sharded=federation is not None,
        by_batch=config.schedule.exchange == "batch",
    )
    for change in config.training.changes:
        check_change(change, config, dataset, calendar)
    overlay: Overlay = "none" if isinstance(objective, Scored) else config.data.overlay
    if overlay == "replace" and dataset.inputs <= dataset.classes:
        raise BadInput(
            f"data.dataset: samples of {' x '.join(map(str, dataset.shape))} have no room for the "
            f"{dataset.classes} inputs of the label; give the label inputs of its own: --overlay append"
        )
    if config.training.shift and len(dataset.shape) == 1:
        raise BadInput(
            f"training.shift (--shift): given {config.training.shift}, but {dataset.name} holds vectors of "
            f"{dataset.inputs} features, not images; only 0 is allowed for them: give --shift 0"
        )
    job = Job(
        fan_in=dataset.inputs + (dataset.classes if overlay == "append" else 0),
        widths=_widths(config),
        classes=dataset.classes,
        calendar=calendar,
        layer=config.layer,
        optimizer=config.optimizer,
        head=config.head,
        objective=carried_objective(config.network.objective),
        negatives=carried_negatives(config.network.negatives),
        overlay=overlay,
        candidates=config.network.candidates or 0,
        shift=config.training.shift,
        # Before they are settled, auto counts as what every machine has.
        kernels=DEVICE if config.training.device == "gpu" else config.training.kernels,
        precision="float32" if config.training.precision == "auto" else config.training.precision,
        changes=config.training.changes,
        gpu_nodes=config.training.gpu_nodes,
    )
    return Resolved(config, dataset, job, plan, entry, federation)


def check_change(change: Change, config: Config, dataset: Dataset, calendar: Calendar) -> None:
    """Check what may change in a run, and from which chapter on.

    Raises
    ------
    BadInput
        If nothing changes, the run has no such chapter, or what was begun cannot change so.
    """
    if not change.values():
        raise BadInput(f"training.changes: nothing changes; what may is {', '.join(PLACES)}")
    if change.chapter >= calendar.chapters:
        raise BadInput(
            f"training.changes: given chapter {change.chapter}; the run's are 0 to {calendar.chapters - 1}, and a "
            "change is for one that is not in work yet"
        )
    if change.ends and not change.chapter:
        raise BadInput("training.changes: given an end before chapter 0; the first chapter is always trained")
    if change.shift and len(dataset.shape) == 1:
        raise BadInput(f"training.changes: given shift {change.shift}, but {dataset.name} holds vectors, not images")
    if change.negatives is None:
        return
    before, negatives = negatives_of(config.network.negatives), negatives_of(change.negatives)
    reads = {_reads(kind, config.network.classifier) for kind in (before, negatives)}
    if before is None or not reads <= {_reads(before, config.network.classifier), "nothing"}:
        raise BadInput(
            f"training.changes: given negatives {change.negatives}, in a run that began with "
            f"{config.network.negatives}: its steps do not bring what these would read; begin with "
            "those that read most (sampled, adaptive)"
        )


def _reads(negatives: Kind | None, classifier: str) -> str:
    """Return what negatives read of the network: nothing, probabilities or goodness."""
    if negatives is None:
        return "nothing"
    if negatives.reads == "classifier":
        return "goodness" if classifier == "goodness" else "probabilities"
    return negatives.reads


def _widths(config: Config) -> tuple[int, ...]:
    """Return the layers' widths, scaled to a multiple of 8 where they are scaled."""
    scale, widths = config.training.scale, config.network.layers
    return widths if scale == 1 else tuple(max(8, 8 * round(width * scale / 8)) for width in widths)


def _sharded(config: Config, federation: Federation) -> ShardedCalendar:
    rows, chunk, nodes = federation.rows, config.data.chunk, federation.shards.nodes
    epochs = max(1, round(config.training.epochs * config.training.scale))
    most = nodes * epochs * min(-(-part // chunk) for part in rows)
    chapters = config.schedule.chapters or min(2 * epochs * nodes, most)
    if chapters % nodes or chapters > most:
        raise BadInput(
            f"schedule.chapters (--chapters): given {chapters}; {nodes} federated nodes take a multiple of {nodes}, at "
            f"most {most}: the smallest shard has {min(rows)} rows in chunks of {chunk} (--chunk), {epochs} epochs"
        )
    return ShardedCalendar(
        sum(rows),
        chunk,
        config.training.batch_size,
        epochs,
        chapters,
        by_visit=False,
        seed=config.training.seed,
        cooldown=config.optimizer.cooldown,
        validation=config.data.validation,
        shards=rows,
        origin=federation.shards,
        sha256=federation.sha256,
    )


def _calendar(config: Config, dataset: Dataset, entry: Entry) -> Calendar:
    rows, chunk, batch = dataset.train_rows - config.data.validation, config.data.chunk, config.training.batch_size
    if rows < 1:
        raise BadInput(
            f"data.validation (--validation): given {config.data.validation} of {dataset.train_rows} training rows, "
            "which leaves none to train on; hold out fewer"
        )
    smallest = min(chunk, rows)
    if batch > smallest:
        raise BadInput(
            f"training.batch_size (--batch-size): given {batch}, but a chunk has {smallest} rows "
            f"(data.chunk {chunk}, {rows} training rows); make the minibatch smaller or the chunk larger"
        )
    epochs = max(1, round(config.training.epochs * config.training.scale))
    visits = epochs * -(-rows // chunk)
    chapters = config.schedule.chapters or min(2 * epochs, visits)
    if chapters > visits:
        raise BadInput(
            f"schedule.chapters (--chapters): given {chapters}, but {epochs} epochs of "
            f"{visits // epochs} chunks are only {visits} visits; "
            f"take at most {visits} chapters, more epochs or a smaller chunk"
        )
    return Calendar(
        rows,
        chunk,
        batch,
        epochs,
        chapters,
        entry.by_visit,
        config.training.seed,
        config.optimizer.cooldown,
        config.data.validation,
    )
