"""A training graph's declaration: tables of keys, from a TOML file and from flags; every value is checked here, once.

Two stages: `load` checks the declaration alone; `Config.resolve` checks it against the data and the cluster, and
leaves nothing open. The defaults are the default graph, `graphs/mnist.toml`.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from dask.utils import parse_bytes
from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked
from pydantic_core import PydanticCustomError

from ffdask.calendar import Calendar
from ffdask.datasets import Dataset
from ffdask.errors import BadInput, nearest
from ffdask.layer import LayerRecipe, Optimizer
from ffdask.negatives import FROM_PROBABILITIES, NEGATIVES
from ffdask.network import HeadRecipe
from ffdask.objectives import OBJECTIVES
from ffdask.schedules import SCHEDULES, Entry
from ffdask.schedules.steps import Plan
from ffdask.work import Job

ALLOWED: frozenset[tuple[str, str, str]] = frozenset(
    ("goodness", negatives, classifier) for negatives in NEGATIVES for classifier in ("softmax", "goodness")
)
"""The (objective, negatives, classifier) triples that make sense."""


def _one_of(allowed: Collection[str]) -> AfterValidator:
    def check(value: str) -> str:
        if value not in allowed:
            raise PydanticCustomError(
                "name", "{text}", {"text": f"allowed are {', '.join(sorted(allowed))}{nearest(value, allowed)}"}
            )
        return value

    return AfterValidator(check)


def _memory(value: str) -> str:
    try:
        enough = parse_bytes(value) > 0
    except ValueError:
        enough = False
    if not enough:
        raise PydanticCustomError("memory", "must be an amount of memory such as '4GiB'")
    return value


def _path(value: str) -> str:
    if "\0" in value:
        raise PydanticCustomError("path", "must be a path, without a zero byte")
    return value


_strict: Any = {"extra": "forbid", "strict": True}
Count = Annotated[int, Field(strict=True, gt=0, lt=2**31)]
Machines = Annotated[int, Field(strict=True, gt=0, le=4096)]
PathText = Annotated[str, AfterValidator(_path)]


@checked(frozen=True, kw_only=True, config=_strict)
class DataTable:
    """What is learned from."""

    dataset: Annotated[
        str, Field(min_length=1, description="a known name (mnist), or a path to IDX files, npz or Zarr")
    ] = "mnist"
    chunk: Annotated[Count, Field(description="training rows that travel together")] = 3000


@checked(frozen=True, kw_only=True, config=_strict)
class NetworkTable:
    """What learns, and how it answers."""

    layers: Annotated[
        tuple[Count, ...],
        BeforeValidator(lambda value: [value] if isinstance(value, int) else value),
        Field(strict=False, min_length=1, max_length=1000, description="units of each layer, first to last"),
    ] = (1000, 1000, 1000)
    objective: Annotated[str, _one_of(OBJECTIVES), Field(description="each layer's own loss")] = "goodness"
    negatives: Annotated[str, _one_of([*NEGATIVES, "none"]), Field(description="how wrong labels are chosen")] = (
        "sampled"
    )
    classifier: Annotated[str, _one_of(["softmax", "goodness"]), Field(description="how the network answers")] = (
        "softmax"
    )


@checked(frozen=True, kw_only=True, config=_strict)
class TrainingTable:
    """How much is learned."""

    epochs: Annotated[Count, Field(description="passes over the training rows")] = 12
    batch_size: Annotated[Count, Field(description="rows in a minibatch")] = 100
    shift: Annotated[int, Field(ge=0, le=16, description="pixels by which images are shifted at random")] = 1
    seed: Annotated[int, Field(ge=0, lt=2**63, description="of every draw")] = 0


@checked(frozen=True, kw_only=True, config=_strict)
class ScheduleTable:
    """Which step waits for which, and which node runs it."""

    name: Annotated[str, _one_of(SCHEDULES), Field(description="of the schedule")] = "streaming"
    nodes: Annotated[Machines | None, Field(description="that share the work; left out: as the schedule likes it")] = (
        None
    )
    chapters: Annotated[Count | None, Field(description="into which the epochs are cut; left out: two an epoch")] = None
    staleness: Annotated[
        int | None,
        Field(ge=0, lt=2**31, description="chapters (visits) by which negatives lag; left out: 3 (layers + 1)"),
    ] = None


@checked(frozen=True, kw_only=True, config=_strict)
class ClusterTable:
    """Who works."""

    scheduler: Annotated[
        str | None, Field(min_length=1, description="address of a Dask scheduler; left out: a cluster of one's own")
    ] = None
    workers: Annotated[Machines | None, Field(description="Dask workers; left out: one (or all that there are)")] = None
    units: Annotated[
        Machines | None, Field(description="steps at a time, all workers together; left out: one a core")
    ] = None
    processes: Annotated[bool, Field(description="whether workers are processes of their own")] = False
    memory_limit: Annotated[str | None, AfterValidator(_memory), Field(description="of each worker process")] = None
    device: Annotated[Literal["auto", "cpu", "gpu"], Field(description="what computes")] = "auto"
    wait: Annotated[
        float, Field(gt=0, le=86400, allow_inf_nan=False, description="seconds to wait for given workers")
    ] = 60.0
    strict_bits: Annotated[bool, Field(description="refuse workers whose bits may differ")] = False


@checked(frozen=True, kw_only=True, config=_strict)
class RunTable:
    """What is left behind, and what is said."""

    out: Annotated[
        PathText | None, Field(min_length=1, description="the run's folder; left out: a dated one under runs/")
    ] = None
    overwrite: Annotated[bool, Field(description="replace an existing run folder")] = False
    evaluate_every: Annotated[
        int, Field(ge=0, lt=2**31, description="chapters between looks at the test set; 0: the end only")
    ] = 0
    cut_every: Annotated[Count, Field(description="chapters between cuts of the task graph")] = 4
    report: Annotated[PathText | None, Field(min_length=1, description="file for Dask's performance report")] = None
    quiet: Annotated[bool, Field(description="print nothing")] = False


@checked(frozen=True, kw_only=True, config=_strict)
class Config:
    """A training graph: every key of every table, checked; immutable.

    Raises
    ------
    BadInput
        By `load`, with the key, what was given and what is allowed.
    """

    data: DataTable = DataTable()
    network: NetworkTable = NetworkTable()
    training: TrainingTable = TrainingTable()
    layer: LayerRecipe = LayerRecipe()
    optimizer: Optimizer = Optimizer()
    head: HeadRecipe = HeadRecipe()
    schedule: ScheduleTable = ScheduleTable()
    cluster: ClusterTable = ClusterTable()
    run: RunTable = RunTable()

    def tables(self) -> dict[str, dict[str, Any]]:
        """Return the tables as TOML would hold them: keys that were left out are left out."""
        plain: dict[str, dict[str, Any]] = dataclasses.asdict(self)
        for table in plain.values():
            for key, value in list(table.items()):
                if value is None:
                    del table[key]
                elif isinstance(value, tuple):
                    table[key] = list(value)
        return plain

    def resolve(self, dataset: Dataset, units: int) -> Resolved:
        """Check against the data and the cluster's compute units; return the run with nothing left open.

        Raises
        ------
        BadInput
            If there are more chapters than visits, or the minibatch or the classes do not fit the data.
        """
        entry = SCHEDULES[self.schedule.name]
        rows, chunk, batch = dataset.train_rows, self.data.chunk, self.training.batch_size
        smallest = min(chunk, rows)
        if batch > smallest:
            raise BadInput(
                f"training.batch_size (--batch-size): given {batch}, but a chunk has {smallest} rows "
                f"(data.chunk {chunk}, {rows} training rows); make the minibatch smaller or the chunk larger"
            )
        if dataset.height * dataset.width <= dataset.classes:
            raise BadInput(
                f"data.dataset: images of {dataset.height} x {dataset.width} have no room for the "
                f"{dataset.classes} inputs of the label"
            )
        visits = self.training.epochs * -(-rows // chunk)
        chapters = self.schedule.chapters or min(2 * self.training.epochs, visits)
        if chapters > visits:
            raise BadInput(
                f"schedule.chapters (--chapters): given {chapters}, but {self.training.epochs} epochs of "
                f"{visits // self.training.epochs} chunks are only {visits} visits; "
                f"take at most {visits} chapters, more epochs or a smaller chunk"
            )
        layers = len(self.network.layers)
        calendar = Calendar(
            rows,
            chunk,
            batch,
            self.training.epochs,
            chapters,
            entry.by_visit,
            self.training.seed,
            self.optimizer.cooldown,
        )
        staleness = self.schedule.staleness
        if staleness is None:
            staleness = layers + 1 if entry.by_visit else 3
        reads = self.network.negatives in FROM_PROBABILITIES
        plan = Plan(
            layers=layers,
            nodes=self.schedule.nodes or entry.nodes(layers, units),
            calendar=calendar,
            staleness=staleness,
            trains_head=reads or self.network.classifier == "softmax",
            reads_probabilities=reads,
        )
        job = Job(
            fan_in=dataset.height * dataset.width,
            widths=self.network.layers,
            classes=dataset.classes,
            calendar=calendar,
            layer=self.layer,
            optimizer=self.optimizer,
            head=self.head,
            objective=self.network.objective,
            negatives=self.network.negatives,
            shift=self.training.shift,
        )
        return Resolved(self, dataset, job, plan, entry)


@dataclass(frozen=True)
class Resolved:
    """A configuration with its data: what is computed (`job`), when and where (`plan`, `entry`)."""

    config: Config
    dataset: Dataset
    job: Job
    plan: Plan
    entry: Entry


def load(graph: str | Path | None = None, keys: Mapping[str, Any] | None = None) -> Config:
    """Return the configuration of a graph file and of single keys, the keys winning.

    Parameters
    ----------
    graph : path or None
        A TOML file; None takes the default graph.
    keys : mapping, optional
        ``table.key`` -> value.

    Raises
    ------
    BadInput
        For a missing or malformed file, unknown keys, wrong types and values, and combinations without sense.
    """
    tables = _read(Path(graph)) if graph is not None else {}
    for dotted, value in (keys or {}).items():
        table, _, key = dotted.partition(".")
        if not key or not isinstance(tables.setdefault(table, {}), dict):
            raise BadInput(f"given the key {dotted!r}; a key is table.key, one of: {', '.join(known_keys())}")
        tables[table][key] = value
    try:
        # By way of JSON: strict checks take a table for a dataclass and a list for a tuple there, and nowhere else.
        config = TypeAdapter(Config).validate_json(json.dumps(tables, default=str))
    except ValidationError as error:
        where = f"{graph}: " if graph is not None else ""
        # One message a key: a bad list is one mistake, though its items are checked one by one.
        problems = {problem["loc"][:2]: problem for problem in reversed(error.errors())}
        raise BadInput(where + "; ".join(_explain(problem) for problem in reversed(problems.values()))) from None
    _check_alone(config)
    return config


def known_keys() -> list[str]:
    """Return every key as ``table.key``."""
    return [f"{table}.{key}" for table, keys in dataclasses.asdict(Config()).items() for key in keys]


def parse_value(text: str) -> Any:
    """Return what a flag's text means: a TOML value if it is one, a list if it has commas, else the text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        pass
    if "," in text and not text.startswith(("[", '"', "'")):
        return [parse_value(part.strip()) for part in text.split(",")]
    return text


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise BadInput(f"graph file: given {path}, which does not exist; graphs/ has examples") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"graph file: given {path}, which cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"graph file: given {path}, which is not TOML: {error}") from None


def _explain(problem: Any) -> str:
    """Return one pydantic error in our words: the key, what was given, what is allowed."""
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        tables = dataclasses.asdict(Config())
        if len(problem["loc"]) == 1:
            return f"unknown table or key {where!r}{nearest(where, tables)}; tables are {', '.join(tables)}"
        table, key = (str(part) for part in problem["loc"][:2])
        elsewhere = [known for known in known_keys() if known.endswith(f".{key}")]
        hint = nearest(key, tables[table]) or (f" (did you mean {elsewhere[0]!r}?)" if elsewhere else "")
        return f"unknown key {where!r}{hint}; table [{table}] has {', '.join(tables[table])}"
    if problem["type"] == "literal_error":
        allowed = problem["ctx"]["expected"]
        hint = nearest(problem["input"], allowed.split("'"))
        return f"{where}: given {problem['input']!r}; allowed are {allowed}{hint}"
    message = problem["msg"].removeprefix("Input ").removeprefix("Tuple ").removeprefix("should ")
    must = message if message.startswith(("must", "allowed")) else f"must {message}"
    return f"{where}: given {problem['input']!r}; {must}"


def _check_alone(config: Config) -> None:
    """Check what needs neither data nor cluster but more than one key."""
    network = config.network
    triple = (network.objective, network.negatives, network.classifier)
    if triple not in ALLOWED:
        table = "; ".join(", ".join(row) for row in sorted(ALLOWED))
        raise BadInput(
            f"network: objective, negatives and classifier given as {', '.join(triple)}, which do not go together; "
            f"allowed are: {table}"
        )
    if config.training.batch_size > config.data.chunk:
        raise BadInput(
            f"training.batch_size (--batch-size): given {config.training.batch_size}, larger than data.chunk "
            f"({config.data.chunk}); minibatches never cross a chunk"
        )
