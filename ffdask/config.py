"""A training graph's declaration: tables of keys, from a TOML file and from flags; every value is checked here, once.

Two stages: `load` checks the declaration alone; `ffdask.resolved.resolve` checks it against the data and the cluster,
and leaves nothing open. The defaults are the default graph, `graphs/mnist.toml`.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from ffdask.errors import BadInput, nearest
from ffdask.head import HeadRecipe
from ffdask.layer import LayerRecipe, Optimizer
from ffdask.objectives import Paired
from ffdask.plugins import Own, entry_of, objective_of, take
from ffdask.shards import DEALT
from ffdask.tables import STRICT, ClusterTable, DataTable, NetworkTable, RunTable, ScheduleTable, TrainingTable

ALLOWED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "goodness": (("sampled", "random", "fixed", "adaptive"), ("softmax", "goodness")),
    "symba": (("sampled", "random", "fixed", "adaptive"), ("softmax", "goodness")),
    "classifier": (("none",), ("all-heads", "last-head")),
}
"""Objective -> the negatives and the classifiers that go with it, its defaults first."""


@checked(frozen=True, kw_only=True, config=STRICT)
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
                if value is None or (key in ("changes", "gpu_nodes") and not value):
                    del table[key]
                elif key == "changes":
                    table[key] = [{name: item for name, item in change.items() if item is not None} for change in value]
                elif isinstance(value, tuple):
                    table[key] = list(value)
                elif isinstance(value, Own):
                    table[key] = str(value)
        return plain


def load(graph: str | Path | None = None, keys: Mapping[str, Any] | None = None) -> Config:
    """Return the configuration of a graph file and of single keys, the keys winning.

    Parameters
    ----------
    graph : path or None
        A TOML file; None takes the default graph.
    keys : mapping, optional
        ``table.key`` -> value. Objective, negatives and schedule may be functions of one's own.

    Raises
    ------
    BadInput
        For a missing or malformed file, unknown keys, wrong types and values, and combinations without sense.

    Examples
    --------
    >>> config = load(keys={"network.layers": [500, 500], "network.objective": "symba"})
    >>> config.network.layers, config.network.negatives
    ((500, 500), 'sampled')
    >>> load(keys={"network.objective": "simba"})
    Traceback (most recent call last):
    ...
    ffdask.errors.BadInput: network.objective: given 'simba'; allowed are classifier, goodness, symba or
    package.module:function of your own (did you mean 'symba'?)
    """
    tables = _read(Path(graph)) if graph is not None else {}
    before = _objective(tables)
    for dotted, value in (keys or {}).items():
        table, _, key = dotted.partition(".")
        if not key or not isinstance(tables.setdefault(table, {}), dict):
            raise BadInput(f"given the key {dotted!r}; a key is table.key, one of: {', '.join(known_keys())}")
        tables[table][key] = value
    _move(tables)
    own = take(tables, Path(graph).parent if graph is not None else None)
    _fill_in(tables, keys or {}, changed=_objective(tables) != before)
    try:
        # By way of JSON: strict checks take a table for a dataclass and a list for a tuple there, and nowhere else.
        config = TypeAdapter(Config).validate_json(json.dumps(tables, default=str), context=own)
    except ValidationError as error:
        where = f"{graph}: " if graph is not None else ""
        # One message a key: a bad list is one mistake, though its items are checked one by one.
        problems = {problem["loc"][:2]: problem for problem in reversed(error.errors())}
        raise BadInput(where + "; ".join(_explain(problem) for problem in reversed(problems.values()))) from None
    _check_alone(config)
    return config


def _move(tables: dict[str, Any]) -> None:
    """Have a key where it is now: graph files and runs of before have it elsewhere."""
    before, now = tables.get("cluster"), tables.setdefault("training", {})
    if isinstance(before, dict) and isinstance(now, dict) and "device" in before:
        now.setdefault("device", before.pop("device"))


def _objective(tables: Mapping[str, Any]) -> Any:
    network = tables.get("network", {})
    return network.get("objective", NetworkTable().objective) if isinstance(network, dict) else None


def _fill_in(tables: dict[str, Any], keys: Mapping[str, Any], changed: bool) -> None:
    """Let negatives and classifier follow the objective where they were left out, or a flag changed the objective."""
    objective = _objective(tables)
    if not isinstance(objective, str) or not (isinstance(objective, Own) or objective in ALLOWED):
        return
    network = tables.setdefault("network", {})
    for key, allowed in zip(("negatives", "classifier"), _allowed(objective), strict=True):
        if f"network.{key}" not in keys and (changed or key not in network):
            network[key] = allowed[0]


def _allowed(objective: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what goes with an objective: with one of one's own, what goes with the table's one of its kind."""
    if isinstance(objective, Own):
        return ALLOWED["goodness" if isinstance(objective_of(objective), Paired) else "classifier"]
    return ALLOWED[objective]


def dotted(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the keys of tables as `load` takes them: ``table.key`` -> value."""
    return {f"{table}.{key}": value for table, part in tables.items() for key, value in part.items()}


def known_keys() -> list[str]:
    """Return every key as ``table.key``."""
    return list(dotted(dataclasses.asdict(Config())))


def parse_value(text: str) -> Any:
    """Return what a flag's text means: a TOML value if it is one, a list if it has commas, else the text.

    Examples
    --------
    >>> parse_value("0.01"), parse_value("500,500"), parse_value("mnist")
    (0.01, [500, 500], 'mnist')
    """
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
    negatives, classifiers = _allowed(network.objective)
    # Negatives of one's own lie over rows wherever the table's do.
    fitting = "none" not in negatives if isinstance(network.negatives, Own) else network.negatives in negatives
    if not fitting or network.classifier not in classifiers:
        table = "; ".join(f"{name} with {' | '.join(ns)} and {' | '.join(cs)}" for name, (ns, cs) in ALLOWED.items())
        given = f"{network.objective}, {network.negatives}, {network.classifier}"
        raise BadInput(
            f"network: objective, negatives and classifier given as {given}, which do not go together; "
            f"allowed are: {table}"
        )
    _check_tls(config.cluster)
    if network.candidates and not (network.negatives == "adaptive" and network.classifier == "goodness"):
        raise BadInput(
            f"network.candidates (--candidates): given {network.candidates}, which only adaptive negatives with the "
            "goodness classifier try; leave it out"
        )
    sharded = entry_of(config.schedule.name).sharded
    if config.data.shards != "iid" and not sharded:
        raise BadInput(
            f"data.shards (--shards): given {config.data.shards!r} with {config.schedule.name}, whose nodes share all "
            "rows; only federated has shards"
        )
    if config.data.validation and sharded and config.data.shards not in DEALT:
        raise BadInput(
            "data.validation (--validation): rows cannot be held out of shards that are the nodes' own; leave it out"
        )
    if config.schedule.exchange == "batch" and not entry_of(config.schedule.name).by_visit:
        raise BadInput(
            f"schedule.exchange (--exchange): given 'batch' with {config.schedule.name}, whose nodes exchange states "
            "after each chapter; only streaming hands on minibatches"
        )
    _check_gpu_nodes(config)
    if config.training.batch_size > config.data.chunk:
        raise BadInput(
            f"training.batch_size (--batch-size): given {config.training.batch_size}, larger than data.chunk "
            f"({config.data.chunk}); minibatches never cross a chunk"
        )


def _check_gpu_nodes(config: Config) -> None:
    """Check that the configuration alone says which node computes on what: bits follow from it."""
    given, nodes = config.training.gpu_nodes, config.schedule.nodes
    if not given:
        return
    what = f"training.gpu_nodes (--gpu-nodes): given {', '.join(map(str, given))}"
    if config.training.device != "cpu":
        raise BadInput(
            f"{what} with training.device {config.training.device!r}, which is for all nodes; leave out one of them "
            "(nodes that are not named compute on a CPU)"
        )
    if nodes is None:
        raise BadInput(f"{what}, but not how many nodes there are, which might follow from the cluster; give --nodes")
    if given[-1] >= nodes:
        raise BadInput(f"{what}; the run's nodes are 0 to {nodes - 1} (--nodes {nodes})")


def _check_tls(cluster: ClusterTable) -> None:
    files = {"--tls-ca": cluster.tls_ca, "--tls-cert": cluster.tls_cert, "--tls-key": cluster.tls_key}
    given = [flag for flag, file in files.items() if file is not None]
    if not given:
        return
    if len(given) < len(files):
        raise BadInput(f"cluster: given {' and '.join(given)}; TLS takes all of {', '.join(files)}")
    if cluster.scheduler is None or not cluster.scheduler.startswith("tls://"):
        raise BadInput(
            f"cluster: given {', '.join(files)} with the scheduler {cluster.scheduler!r}; TLS is for a given one: "
            "--scheduler tls://host:8786"
        )
    for flag, file in files.items():
        if not Path(str(file)).is_file():
            raise BadInput(f"cluster ({flag}): given {file}, which is no file")
