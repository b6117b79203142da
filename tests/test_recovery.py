"""After which faults a run goes on."""

from __future__ import annotations

import pytest

from ffdask.checkpoints import Checkpoint
from ffdask.errors import Lost, RunFailed, StepFailed
from ffdask.interrupts import Interrupts
from ffdask.recovery import DEATHS, STANDSTILLS, Faults, see_through
from ffdask.training import Misplaced


def lost(**at_work):
    error = Lost("gone")
    error.workers, error.at_work = tuple(at_work), at_work
    return error


def failed(step):
    error = StepFailed(f"step {step} failed: by chance")
    error.step = step
    return error


def checkpoint(round_):
    return Checkpoint(round_, {}, {})


def test_a_worker_may_be_lost_in_one_step_after_another():
    faults = Faults()
    for number in range(50):
        faults.weigh(lost(w=(f"step{number}",)), checkpoint(number))


def test_a_step_that_takes_its_worker_along_alone_and_again_ends_the_run():
    faults = Faults()
    faults.weigh(lost(w=("a",)), checkpoint(0))
    faults.weigh(lost(v=("b",)), checkpoint(0))
    with pytest.raises(RunFailed, match="worker v was lost while it did step a, as another was before"):
        faults.weigh(lost(v=("a",)), checkpoint(1))


def test_a_step_beside_others_is_suspected_later():
    faults = Faults()
    for _ in range(DEATHS - 1):
        faults.weigh(lost(w=("a", "b")), checkpoint(0))
    with pytest.raises(RunFailed, match="step a"):
        faults.weigh(lost(w=("a", "c")), checkpoint(0))


def test_a_step_may_fail_once_each():
    faults = Faults()
    for step in "abc":
        faults.weigh(failed(step), checkpoint(0))
    with pytest.raises(StepFailed, match="step b failed"):
        faults.weigh(failed("b"), checkpoint(3))


def test_a_run_that_comes_no_further_ends():
    faults = Faults()
    for _ in range(STANDSTILLS):
        faults.weigh(lost(), None)
    with pytest.raises(RunFailed, match="no checkpoint further"):
        faults.weigh(lost(), None)


class Attempt:
    checkpoint_every = 1

    def __init__(self, outcome, newest):
        self.outcome, self.newest = outcome, newest

    def run(self):
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


def seen_through(outcomes, placements, interrupts=None):
    """The outcome of attempts that end so, each with a checkpoint of its number; and what each began with."""
    begun, said, left, asked = [], [], iter(placements), []

    def begin(placement, newest):
        begun.append((placement, newest.round if newest else None))
        return Attempt(outcomes[len(begun) - 1], checkpoint(len(begun)))

    def place_anew(newest):
        asked.append(newest.round)
        placed = next(left)
        if isinstance(placed, Exception):
            raise placed
        return placed

    network, _ = see_through(begin, "first", place_anew, None, interrupts or Interrupts(), said.append)
    # It must be possible to go on from there where nodes are placed.
    assert sorted(set(asked)) == [newest for _, newest in begun[1:]]
    return network, begun, said


def test_each_beginning_has_the_checkpoint_of_the_one_before_and_is_placed_anew():
    network, begun, said = seen_through(
        [lost(w=("a",)), Misplaced(), failed("b"), "trained"], ["second", Lost("again"), "third", "fourth"]
    )
    assert network == "trained"
    assert begun == [("first", None), ("second", 1), ("third", 2), ("fourth", 3)]
    assert [line.partition(";")[0] for line in said] == ["gone", "workers have joined", "step b failed: by chance"]


def test_workers_that_go_again_and_again_end_the_run(monkeypatch):
    monkeypatch.setattr("ffdask.recovery.AGAIN_SECONDS", 0.0)
    with pytest.raises(RunFailed, match=f"could not be placed, {STANDSTILLS} times: Lost: again"):
        seen_through([lost(w=("a",))], [Lost("again")] * (STANDSTILLS + 5))


def test_what_is_lost_while_the_run_stops_is_not_done_again():
    interrupts = Interrupts()
    interrupts.times = 1
    with pytest.raises(KeyboardInterrupt):
        seen_through([lost(w=("a",))], [], interrupts)


def test_other_failures_end_the_run():
    with pytest.raises(RunFailed, match="the scheduler is gone"):
        seen_through([RunFailed("the scheduler is gone")], [])
