"""What a worker must have that a run uses, and what it is given for the time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distributed import Client, Worker
from distributed.diagnostics.plugin import WorkerPlugin

from ffdask import blocks, machine
from ffdask.embedded import resource_name
from ffdask.errors import BadInput
from ffdask.slots import Slot


class OneThread(WorkerPlugin):
    """Holds a worker's BLAS at one thread while a run uses the worker.

    The run's end restores what there was; a run whose process is killed leaves its worker at one thread.
    """

    def __init__(self, run: str) -> None:
        self.name = f"ffdask-one-thread-{run}"

    def setup(self, worker: Worker) -> None:
        """Hold the whole process at one thread."""
        machine.hold_one_thread()

    def teardown(self, worker: Worker) -> None:
        """Let go; the last run that does restores what there was."""
        machine.let_go()


class Sharing(WorkerPlugin):
    """Has a worker's process put large arrays where the host's other processes can map them, while a run uses it."""

    def __init__(self, run: str) -> None:
        self.name = f"ffdask-sharing-{run}"

    def setup(self, worker: Worker) -> None:
        """Begin; a worker that comes back after a loss begins again."""
        blocks.begin()

    def teardown(self, worker: Worker) -> None:
        """End; the last run that does lets go of what nobody uses."""
        blocks.end()


def check_versions(client: Client, workers: Sequence[str] | dict[str, Any]) -> None:
    """Refuse workers without ffdask, or with another version: before anything of ours is sent to them.

    Raises
    ------
    BadInput
        If there is one.
    OSError
        If one of them goes meanwhile.
    """
    ours = machine.versions()["ffdask"]
    # `eval` of text: a worker without ffdask could not even load a function of ours.
    question = "__import__('importlib.metadata', fromlist=['version']).version('ffdask')"
    answers = client.run(eval, question, workers=list(workers), on_error="return")
    wrong = {
        address: "has no ffdask" if isinstance(answer, Exception) else f"has ffdask {answer}"
        for address, answer in answers.items()
        if answer != ours
    }
    gone = [answer for answer in answers.values() if isinstance(answer, OSError)]
    if gone:
        raise gone[0]
    if wrong:
        listed = "; ".join(f"worker {address} {what}" for address, what in sorted(wrong.items()))
        raise BadInput(f"cluster: {listed}; every worker needs ffdask {ours}: install it there and start it again")


def unregister(client: Client, name: str) -> None:
    """Take a plugin of ours off a cluster's workers."""
    # The cluster may be gone by now: there is nothing to restore then.
    with contextlib.suppress(Exception):
        client.unregister_worker_plugin(name)


def slot_of(client: Client, address: str, info: dict[str, Any], gpu: bool = False) -> Slot:
    """Return a worker's slot; one that came without our resource is given it, in units of its threads.

    A worker started with ``--resources ffdask=k`` has k units. What else it offers stays as it is.

    Raises
    ------
    BadInput
        If that is none.
    """
    resources = info["resources"]
    name = str(info["name"])
    own = resource_name(name)
    if own in resources:
        return Slot(address, name, int(resources[own]), gpu)
    units = int(resources.get("ffdask", info["nthreads"]))
    if units < 1:
        raise BadInput(f"cluster: worker {name} came with the resource ffdask={units}; it needs at least one unit")
    client.run(_set_resource, own, units, workers=[address])
    return Slot(address, name, units, gpu)


async def _set_resource(name: str, units: int, dask_worker: Worker) -> None:
    await dask_worker.set_resources(**{name: units})


def check_bits(fingerprints: dict[str, dict[str, str]], strict: bool, say: Callable[[str], None]) -> None:
    """Compare each worker's fingerprint with this process's: a warning, or with `strict` an error.

    Raises
    ------
    BadInput
        With `strict`, if one differs.
    """
    ours = machine.fingerprint()
    unlike = []
    for worker, theirs in fingerprints.items():
        different = [f"{key} {theirs.get(key)!r} (here {ours[key]!r})" for key in ours if theirs.get(key) != ours[key]]
        if different:
            unlike.append(f"worker {worker}: {', '.join(different)}")
    if unlike and strict:
        raise BadInput(
            f"cluster.strict_bits (--strict-bits): {'; '.join(unlike)}; the bits may differ there: use like workers, "
            "or leave the flag out"
        )
    if unlike:
        say(f"the same bits are not promised: {'; '.join(unlike)}")


def check_gpus(fingerprints: Mapping[str, Mapping[str, str]], strict: bool, say: Callable[[str], None]) -> None:
    """Compare the workers' GPUs with each other, of those whose fingerprint has one: as `check_bits`.

    Raises
    ------
    BadInput
        With `strict`, if they are not alike.
    """
    found = {worker: theirs["gpu"] for worker, theirs in fingerprints.items() if "gpu" in theirs}
    if len(set(found.values())) < 2:
        return
    unlike = "; ".join(f"worker {worker}: {gpu}" for worker, gpu in found.items())
    if strict:
        raise BadInput(f"cluster.strict_bits (--strict-bits): {unlike}; use like GPUs, or leave the flag out")
    say(f"the same bits are not promised: {unlike}")
