"""Whether a run can be expected to work on this machine: each thing that it needs, looked at, and what to do."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import psutil
from dask.system import CPU_COUNT
from packaging.requirements import Requirement
from threadpoolctl import threadpool_info

from ffdask import blocks, datasets, machine
from ffdask.accelerator import graphics
from ffdask.embedded import machine_memory
from ffdask.errors import told
from ffdask.kernels import BACKENDS, Backend, without_bfloat16
from ffdask.opening import open_cluster
from ffdask.speed import PAIRS, WIDTH, measure
from ffdask.tables import ClusterTable

State = Literal["ok", "note", "stop"]
"""Nothing to do; something to know; something that would stop a run."""

STATES: tuple[State, ...] = get_args(State)

ROOM = 200 << 20
"""Bytes that a disk should have free: a data set's store, or a run's folder with its checkpoints."""

ENOUGH_MEMORY = 3 << 29
"""Bytes that the default job takes at most, with some to spare."""


@dataclass(frozen=True)
class Finding:
    """What was found of one thing.

    Attributes
    ----------
    name : str
    said : str
        In words.
    state : str
    do : str
        What to do about it; empty if nothing.
    values : dict
        The same for machines.
    """

    name: str
    said: str
    state: State = "ok"
    do: str = ""
    values: dict[str, Any] = field(default_factory=dict)


def examine(seconds: float = 5.0) -> Iterator[Finding]:
    """Yield what is found of this machine, a thing at a time.

    Parameters
    ----------
    seconds : float
        That the test of speed takes, about.
    """
    for name, look in LOOKS.items():
        yield from _looked(name, look)
    yield from _looked("speed", lambda: speed(seconds))


def _looked(name: str, look: Callable[[], Finding]) -> Iterator[Finding]:
    try:
        yield look()
    except Exception as error:
        # Whatever it is, that is what was found; the other things are looked at all the same.
        yield Finding(name, told(error), "stop", "what is installed here may be damaged: install ffdask anew")


def installed() -> Finding:
    """Look at the packages that ffdask requires: whether they are there, and new enough."""
    versions, wrong = machine.versions(), []
    for line in importlib.metadata.requires("ffdask") or ():
        needed = Requirement(line)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        version = _version(needed.name)
        if version is None or not needed.specifier.contains(version, prereleases=True):
            wrong.append(f"'{needed.name}{needed.specifier}'")
    said = ", ".join(f"{name} {version}" for name, version in versions.items() if version != "absent")
    if wrong:
        do = f"pip install {' '.join(wrong)}"
        return Finding(
            "packages", f"{said}; missing or too old: {', '.join(wrong)}", "stop", do, {"versions": versions}
        )
    return Finding("packages", said, values={"versions": versions})


def optional() -> Finding:
    """Look at the packages of ffdask's extras."""
    there, lacking = {}, {}
    for line in importlib.metadata.requires("ffdask") or ():
        needed = Requirement(line)
        extra = _extra(needed)
        if extra in ("", "test"):
            continue
        version = _version(needed.name)
        if version is None:
            lacking[needed.name] = extra
        else:
            there[needed.name] = version
    said = [f"{name} {version}" for name, version in there.items()]
    said += [f"{name} absent (ffdask[{extra}])" for name, extra in lacking.items()]
    return Finding("optional", ", ".join(said) or "none", values={"there": there, "lacking": lacking})


def _extra(needed: Requirement) -> str:
    """Return the extra that a requirement belongs to; empty for one that is always there."""
    text = str(needed.marker or "")
    return text.partition("extra == ")[2].strip("\"' ") if "extra" in text else ""


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def blas() -> Finding:
    """Look at the libraries that multiply matrices, and their threads."""
    found = [library for library in threadpool_info() if library["user_api"] == "blas"]
    if not found:
        return Finding("blas", "none that can be held at one thread: bits may depend on its threads", "note")
    said = [
        f"{library['internal_api']} {library['version']} ({library.get('architecture') or 'unknown processor'}), "
        f"{library['num_threads']} threads, one in training"
        for library in found
    ]
    return Finding("blas", "; ".join(said), values={"libraries": found})


def processor() -> Finding:
    """Look at the cores that may be used, and whether others use them."""
    there, load = os.cpu_count() or 1, os.getloadavg()[0]
    said = f"{machine.fingerprint()['processor']}: {CPU_COUNT} of {there} cores may be used, load {load:.1f}"
    values = {"cores": CPU_COUNT, "there": there, "load": load}
    if load > 0.5 * there:
        return Finding("processor", said, "note", "others work on this machine: figures of time mean little", values)
    return Finding("processor", said, values=values)


def memory() -> Finding:
    """Look at the memory that this process may take."""
    limit, free = machine_memory(), psutil.virtual_memory().available
    said = f"{limit / 2**30:.1f} GiB may be used, {min(free, limit) / 2**30:.1f} GiB are free"
    values = {"limit_bytes": limit, "free_bytes": free}
    if min(free, limit) < ENOUGH_MEMORY:
        return Finding("memory", said, "note", "--dry-run says what a run takes; take smaller --layers", values)
    return Finding("memory", said, values=values)


def shared_memory() -> Finding:
    """Look at the memory by which worker processes hand on states."""
    problem = blocks.out_of_reach([blocks.probe()])
    if problem:
        return Finding("sharing", problem, "note", "with --processes, states travel by Dask's connections: slower")
    return Finding("sharing", "worker processes can map each other's states")


def gpu() -> Finding:
    """Look at the GPU."""
    said, values = graphics()
    return Finding("gpu", said, values=values)


def bfloat16() -> Finding:
    """Look at products of bfloat16 numbers."""
    problem = without_bfloat16()
    return Finding("bfloat16", f"none: {problem}" if problem else "there is", values={"there": not problem})


def cache() -> Finding:
    """Look at the folder of data sets, and at what is in it."""
    folder, kept = datasets.cache_folder(), datasets.kept()
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0
    named = [f"{dataset.name} ({dataset.train_rows} + {dataset.test_rows} rows)" for dataset in kept]
    said = f"{folder}: {', '.join(named) or 'no data set yet'}; {size / 2**20:.0f} MiB"
    values = {"folder": str(folder), "datasets": [dataset.name for dataset in kept], "bytes": size}
    return _writable("cache", folder, said, "set FFDASK_CACHE to a folder that can be written", values)


def runs() -> Finding:
    """Look at where runs are left if no folder is named."""
    folder = Path("runs").absolute()
    return _writable("runs", folder, str(folder), "name another folder by --out", {"folder": str(folder)})


def _writable(name: str, folder: Path, said: str, do: str, values: dict[str, Any]) -> Finding:
    above = folder
    while not above.exists():
        above = above.parent
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        return Finding(name, f"{said}; {above} cannot be written", "stop", do, values)
    free = shutil.disk_usage(above).free
    if free < ROOM:
        return Finding(name, f"{said}; its disk has {free / 2**20:.0f} MiB left", "stop", f"make room, or {do}", values)
    return Finding(name, f"{said}; its disk has {free / 2**30:.0f} GiB left", values=values)


def cluster() -> Finding:
    """Look whether a cluster of one's own starts, and works."""
    with open_cluster(ClusterTable(units=1), "doctor", lambda line: None) as own:
        (answer,) = own.on_each_worker(sum, [1, 2, 3]).values()
    if answer != 6:
        return Finding("cluster", f"a worker of one's own adds 1, 2 and 3 to {answer}", "stop", "install Dask anew")
    return Finding("cluster", "one of one's own starts and works")


def speed(seconds: float) -> Finding:
    """Train a layer of a standard shape by each kind of kernels, on one thread and on all cores."""
    parts: list[tuple[Backend, Literal["float32", "bfloat16"], int]] = [(BACKENDS[0], "float32", 1)]
    parts += [(BACKENDS[0], "float32", CPU_COUNT)] if CPU_COUNT > 1 else []
    parts += [(BACKENDS[0], "bfloat16", CPU_COUNT)] if not without_bfloat16() else []
    said, values = [], {}
    with machine.one_thread():
        for kernels, precision, threads in parts:
            found = measure(seconds / len(parts), threads, kernels, precision)
            name = f"{precision}, {threads} thread{'s' * (threads != 1)}"
            said.append(f"{name}: {found.steps / found.seconds:.0f} steps/s, {found.gflops:.0f} GFLOP/s")
            values[name] = {"steps_per_second": found.steps / found.seconds, "gflops": found.gflops}
    return Finding("speed", f"{WIDTH} units, {PAIRS} pairs a step: {'; '.join(said)}", values=values)


LOOKS: dict[str, Callable[[], Finding]] = {
    "packages": installed,
    "optional": optional,
    "processor": processor,
    "blas": blas,
    "memory": memory,
    "sharing": shared_memory,
    "gpu": gpu,
    "bfloat16": bfloat16,
    "cache": cache,
    "runs": runs,
    "cluster": cluster,
}
"""What is looked at, in this order, each by itself."""
