"""Whether a given cluster can be expected to work: its workers, and what is installed on them, asked and compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ffdask import machine
from ffdask.embedded import silenced
from ffdask.errors import BadInput, told
from ffdask.health import Finding
from ffdask.scheduler import connect
from ffdask.slots import workers_of
from ffdask.tables import ClusterTable

QUESTION = (
    "{'python': __import__('platform').python_version(), **{str(one.metadata['Name']).lower().replace('_', '-'): "
    "one.version for one in __import__('importlib.metadata', fromlist=['x']).distributions()}}"
)
"""As text: a worker without ffdask could not even load a function of ours. Nothing is changed on a worker."""


def examine_cluster(table: ClusterTable) -> Iterator[Finding]:
    """Yield what is found of the scheduler that `table` names, and of its workers.

    Nothing is changed there: no resource is set, no plugin left.
    """
    with silenced():
        try:
            client = connect(table)
        except BadInput as error:
            yield Finding("scheduler", str(error), "stop", "start it, or correct its address")
            return
        with client:
            workers = workers_of(client)
            threads = sum(int(about["nthreads"]) for about in workers.values())
            said = f"{table.scheduler}: {len(workers)} workers, {threads} threads"
            if not workers:
                yield Finding("scheduler", said, "stop", f"start workers: dask worker {table.scheduler}")
                return
            yield Finding("scheduler", said, values={"workers": len(workers), "threads": threads})
            names = {address: str(about["name"]) for address, about in workers.items()}
            answers = client.run(eval, QUESTION, workers=list(workers), on_error="return")
            yield compared({names[address]: answer for address, answer in answers.items()})


def compared(answers: Mapping[str, Any]) -> Finding:
    """Return how workers' versions differ from this machine's.

    Parameters
    ----------
    answers : mapping
        Worker's name -> version by package, or the exception that it answered with.
    """
    ours = machine.versions()
    wrong: list[str] = []
    unlike: list[str] = []
    for worker, theirs in sorted(answers.items()):
        if isinstance(theirs, Exception):
            wrong.append(f"worker {worker} does not answer ({told(theirs)})")
            continue
        for package, version in ours.items():
            there = theirs.get(package, "absent")
            if there != version:
                stops = package == "ffdask"
                (wrong if stops else unlike).append(f"worker {worker} has {package} {there} (here {version})")
    differing = {"differences": [*wrong, *unlike]}
    if wrong:
        do = f"install ffdask {ours['ffdask']} on every worker, and start it again"
        return Finding("workers", "; ".join([*wrong, *unlike]), "stop", do, differing)
    if unlike:
        do = "a run works, but the same bits are not promised: install the same versions for that"
        return Finding("workers", "; ".join(unlike), "note", do, differing)
    return Finding("workers", "all have the same versions as this machine", values=differing)
