"""What a run's time is made of: the chain of steps that its end waited for, and what lay between them.

Back from the step that ended last: before a step comes whichever ended last of what it needs and of what its node did
before. Between the two lies what Dask, the client and the worker took to have the one follow the other.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ffdask.schedules.steps import Step

COLUMNS = ["the last step's chain", "times", "seconds", "mean, ms", "longest, ms", "before"]


def parts_of(
    records: Iterable[Mapping[str, Any]], steps: Iterable[Step], seconds: Callable[[Step], float], cut_every: int
) -> list[list[Any]]:
    """Return the rows of a table: what the chain's steps should have taken, what more they took, and what lay between.

    Parameters
    ----------
    records : iterable of mappings
        Of all steps.
    steps : iterable of Step
        In the schedule's order.
    seconds : callable
        Returns what a step should take.
    cut_every : int
        Rounds between cuts of the graph, behind which a state is handed on by the client.
    """
    found = {record["name"]: record for record in records}
    by_name = {step.name: step for step in steps}
    # A node may begin a step while another of its own goes on: it waited for those that had ended.
    of_node: dict[int, list[str]] = {}
    for name in sorted(found, key=lambda name: float(found[name]["stop"])):
        of_node.setdefault(by_name[name].node, []).append(name)
    ends = {node: [float(found[name]["stop"]) for name in names] for node, names in of_node.items()}
    parts: dict[str, list[tuple[float, str]]] = {}
    name = max(found, key=lambda name: float(found[name]["stop"]))
    while name:
        step, record = by_name[name], found[name]
        took, should = record["stop"] - record["start"], seconds(step)
        parts.setdefault("steps, as long as asked", []).append((should, name))
        parts.setdefault("steps, beyond that", []).append((took - should, name))
        waited = {need.step: role.rstrip("0123456789") for role, need in step.needs.items()}
        ended = bisect_left(ends[step.node], record["start"])
        if ended:
            waited.setdefault(of_node[step.node][ended - 1], "its node")
        if not waited:
            break
        last = max(waited, key=lambda each: float(found[each]["stop"]))
        what, earlier = waited[last], by_name[last]
        if what == "state" and (step.round // cut_every) > (earlier.round // cut_every):
            what = "state, cut"
        parts.setdefault(f"between: waits for {what}", []).append((record["start"] - found[last]["stop"], name))
        name = last
    rows: list[list[Any]] = []
    for part, each in parts.items():
        longest, where = max(each)
        total = sum(one for one, _ in each)
        rows.append([part, len(each), total, 1e3 * total / len(each), 1e3 * longest, where])
    return rows
