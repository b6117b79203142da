"""The tables of a training graph's declaration: their keys, each with its type, its limits, meaning and default."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Annotated, Any, Literal

from dask.utils import parse_bytes
from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WrapValidator
from pydantic.dataclasses import dataclass as checked
from pydantic_core import PydanticCustomError

from ffdask.changes import Change
from ffdask.errors import BadInput, nearest
from ffdask.kernels import BACKENDS, Backend
from ffdask.negatives import NEGATIVES
from ffdask.objectives import OBJECTIVES
from ffdask.plugins import Own, own
from ffdask.schedules import SCHEDULES
from ffdask.shards import DEALT

CLASSIFIERS = ("softmax", "goodness", "last-head", "all-heads")
"""How a network answers: by its head, by its goodness, or by its layers' own heads."""


def _one_of(allowed: Collection[str]) -> AfterValidator:
    def check(value: str) -> str:
        _check_name(value, allowed)
        return value

    return AfterValidator(check)


def _check_name(value: str, allowed: Collection[str], more: str = "") -> None:
    if value not in allowed:
        text = f"allowed are {', '.join(sorted(allowed))}{more}{nearest(value, allowed)}"
        raise PydanticCustomError("name", "{text}", {"text": text})


def _one_of_or_own(allowed: Collection[str], key: str) -> WrapValidator:
    """Allow names of a table, and ``package.module:function``; `load` has found what that is, and says so."""

    def check(value: Any, text_of: Callable[[Any], str], info: ValidationInfo) -> str:
        if isinstance(value, Own):
            return value
        text = text_of(value)
        if ":" not in text:
            _check_name(text, allowed, " or package.module:function of your own")
            return text
        found = (info.context or {}).get(key)
        try:
            return found if found == text else own(key, text)
        except BadInput as error:
            raise PydanticCustomError("name", "{text}", {"text": f"must be found: {error}"}) from None

    return WrapValidator(check)


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


def _url(value: str) -> str:
    if "://" not in value and value != "none":
        raise PydanticCustomError("url", "must be a URL such as s3://bucket/run, or file:///folder")
    return value


def _shards(value: str) -> str:
    if value not in DEALT and "{node}" not in value:
        text = f"allowed are {', '.join(DEALT)}, or a path with {{node}} in it{nearest(value, DEALT)}"
        raise PydanticCustomError("shards", "{text}", {"text": text})
    return _path(value)


STRICT: Any = {"extra": "forbid", "strict": True}
Count = Annotated[int, Field(strict=True, gt=0, lt=2**31)]
Machines = Annotated[int, Field(strict=True, gt=0, le=4096)]
PathText = Annotated[str, AfterValidator(_path)]


@checked(frozen=True, kw_only=True, config=STRICT)
class DataTable:
    """What is learned from."""

    dataset: Annotated[
        str, Field(min_length=1, description="a known name (mnist, fashion-mnist, kmnist, cifar-10), or a path")
    ] = "mnist"
    chunk: Annotated[Count, Field(description="training rows that travel together")] = 3000
    validation: Annotated[
        int, Field(ge=0, lt=2**31, description="training rows that are held out, to be looked at instead of test rows")
    ] = 0
    shards: Annotated[
        str,
        AfterValidator(_shards),
        Field(description="of a federated run: iid, dirichlet, or a path with {node} to each node's own data"),
    ] = "iid"
    alpha: Annotated[
        float, Field(gt=0, le=1e6, allow_inf_nan=False, description="of dirichlet shards: the smaller, the more skewed")
    ] = 0.3
    overlay: Annotated[
        Literal["replace", "append"],
        Field(description="labels take the first pixels' place, or (no black border) get inputs of their own"),
    ] = "replace"


@checked(frozen=True, kw_only=True, config=STRICT)
class NetworkTable:
    """What learns, and how it answers."""

    layers: Annotated[
        tuple[Count, ...],
        BeforeValidator(lambda value: [value] if isinstance(value, int) else value),
        Field(strict=False, min_length=1, max_length=1000, description="units of each layer, first to last"),
    ] = (1000, 1000, 1000)
    objective: Annotated[
        str, _one_of_or_own(OBJECTIVES, "network.objective"), Field(description="each layer's own loss")
    ] = "goodness"
    negatives: Annotated[
        str,
        _one_of_or_own([*NEGATIVES, "none"], "network.negatives"),
        Field(description="how wrong labels are chosen"),
    ] = "sampled"
    candidates: Annotated[
        Machines | None, Field(description="labels that adaptive negatives by goodness try a row; left out: all")
    ] = None
    classifier: Annotated[str, _one_of(CLASSIFIERS), Field(description="how the network answers")] = "softmax"


@checked(frozen=True, kw_only=True, config=STRICT)
class TrainingTable:
    """How much is learned."""

    epochs: Annotated[Count, Field(description="passes over the training rows")] = 12
    batch_size: Annotated[Count, Field(description="rows in a minibatch")] = 100
    shift: Annotated[int, Field(ge=0, le=16, description="pixels by which images are shifted at random")] = 1
    seed: Annotated[int, Field(ge=0, lt=2**63, description="of every draw")] = 0
    device: Annotated[
        Literal["auto", "cpu", "gpu"],
        Field(description="what computes; gpu needs an NVIDIA one, and ffdask[gpu]; auto: gpu if all workers have one"),
    ] = "cpu"
    gpu_nodes: Annotated[
        tuple[Annotated[int, Field(ge=0, lt=4096)], ...],
        BeforeValidator(lambda value: [value] if isinstance(value, int) else value),
        AfterValidator(lambda value: tuple(sorted(set(value)))),
        Field(
            strict=False,
            max_length=4096,
            description="numbers of the nodes that a GPU computes, the others a CPU; left out: all by device",
        ),
    ] = ()
    kernels: Annotated[
        Backend, Field(description="a CPU's hot loops: compiled, or NumPy's; alike but for rounding")
    ] = BACKENDS[0]
    precision: Annotated[
        Literal["float32", "tf32", "bfloat16", "auto"],
        Field(
            description="of products; tf32 on GPUs only; bfloat16 on GPUs, or with AVX512-BF16 or AMX and "
            "ffdask[bfloat16]; auto: bfloat16 if all have it"
        ),
    ] = "float32"
    scale: Annotated[
        float,
        Field(gt=0, le=100, allow_inf_nan=False, description="times the epochs and the widths (to a multiple of 8)"),
    ] = 1.0
    changes: Annotated[
        tuple[Change, ...],
        Field(
            strict=False,
            max_length=10_000,
            description="what is different from a chapter on: chapter, learning_rate, ...",
        ),
    ] = ()


@checked(frozen=True, kw_only=True, config=STRICT)
class ScheduleTable:
    """Which step waits for which, and which node runs it."""

    name: Annotated[
        str,
        _one_of_or_own(SCHEDULES, "schedule.name"),
        Field(description="of the schedule, or package.module:function of your own"),
    ] = "streaming"
    nodes: Annotated[Machines | None, Field(description="that share the work; left out: as the schedule likes it")] = (
        None
    )
    chapters: Annotated[Count | None, Field(description="into which the epochs are cut; left out: two an epoch")] = None
    staleness: Annotated[
        int | None,
        Field(ge=0, lt=2**31, description="chapters (visits) by which negatives lag; left out: 3 (layers + 1)"),
    ] = None
    exchange: Annotated[
        Literal["batch", "chunk"], Field(description="what streaming's layers hand on at a time; the same result")
    ] = "chunk"


@checked(frozen=True, kw_only=True, config=STRICT)
class ClusterTable:
    """Who works."""

    scheduler: Annotated[
        Annotated[str, Field(min_length=1)] | None,
        AfterValidator(lambda value: None if value == "none" else value),
        Field(description="address of a Dask scheduler; left out, or none: a cluster of one's own"),
    ] = None
    tls_ca: Annotated[
        PathText | None, Field(min_length=1, description="file of the authority that a tls:// scheduler is signed by")
    ] = None
    tls_cert: Annotated[PathText | None, Field(min_length=1, description="file of the certificate to show it")] = None
    tls_key: Annotated[PathText | None, Field(min_length=1, description="file of that certificate's key")] = None
    workers: Annotated[Machines | None, Field(description="Dask workers; left out: one (or all that there are)")] = None
    units: Annotated[
        Machines | None, Field(description="steps at a time, all workers together; left out: one a core")
    ] = None
    processes: Annotated[bool, Field(description="whether workers are processes of their own")] = False
    share: Annotated[bool, Field(description="whether worker processes of one's own map each other's states")] = True
    memory_limit: Annotated[str | None, AfterValidator(_memory), Field(description="of each worker process")] = None
    wait: Annotated[
        float, Field(gt=0, le=86400, allow_inf_nan=False, description="seconds to wait for given workers")
    ] = 60.0
    strict_bits: Annotated[bool, Field(description="refuse workers whose bits may differ")] = False


@checked(frozen=True, kw_only=True, config=STRICT)
class RunTable:
    """What is left behind, and what is said."""

    out: Annotated[
        PathText | None, Field(min_length=1, description="the run's folder; left out: a dated one under runs/")
    ] = None
    overwrite: Annotated[bool, Field(description="replace an existing run folder")] = False
    evaluate_every: Annotated[
        int, Field(ge=0, lt=2**31, description="chapters between looks at the test set; 0: the end only")
    ] = 0
    checkpoint_every: Annotated[
        int | None,
        Field(
            ge=0,
            lt=2**31,
            description="chapters between checkpoints, from which --resume goes on; 0: none; left out: four, or more "
            "where writing would take over 2 % of the time",
        ),
    ] = None
    checkpoint_seconds: Annotated[
        float | None,
        Field(gt=0, allow_inf_nan=False, description="after which a checkpoint is due too; left out: by chapters only"),
    ] = None
    checkpoints: Annotated[
        Annotated[PathText, AfterValidator(_url)] | None,
        AfterValidator(lambda value: None if value == "none" else value),
        Field(description="URL to keep checkpoints at, as fsspec has them; left out, or none: the run's folder"),
    ] = None
    cut_every: Annotated[Count, Field(description="chapters between cuts of the task graph")] = 4
    report: Annotated[PathText | None, Field(min_length=1, description="file for Dask's performance report")] = None
    quiet: Annotated[bool, Field(description="print nothing")] = False
