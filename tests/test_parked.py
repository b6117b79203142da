"""Steps that wait are woken by what they wait for, in the schedule's order, and hold on to what they will read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ffdask.parked import Parked
from ffdask.schedules.steps import Need, Step

STATE, LABELS = Need("train_layer1-chapter000", "state"), Need("negatives-chapter000", "labels")


def step(layer: int, round_: int, *needs: Need) -> Step:
    return Step("train", round_, 0, layer, {str(i): need for i, need in enumerate(needs)}, ("state",))


def test_a_step_waits_at_one_need_and_is_woken_by_it():
    parked = Parked()
    assert (len(parked), parked.oldest(), list(parked.steps)) == (0, None, [])
    later, sooner = step(2, 2, STATE, LABELS), step(1, 1, STATE)
    parked.park(7, later, STATE)
    parked.park(3, sooner, STATE)
    assert list(parked.steps) == [sooner, later]
    assert parked.oldest() == (1, 0)
    assert set(parked.named) == {STATE, LABELS}
    assert parked.wake([LABELS]) == []
    assert parked.wake([STATE, LABELS]) == [(3, sooner), (7, later)]
    assert (len(parked), parked.oldest(), set(parked.named)) == (0, None, set())


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([STATE, LABELS]))), st.sampled_from([STATE, LABELS]))
def test_those_that_wait_for_something_else_go_on_waiting(waits, woken):
    parked = Parked()
    for order, (round_, need) in enumerate(waits):
        parked.park(order, step(order, round_, STATE, LABELS), need)
    found = parked.wake([woken])
    assert [order for order, _ in found] == [order for order, (_, need) in enumerate(waits) if need == woken]
    left = [round_ for round_, need in waits if need != woken]
    assert len(parked) == len(left)
    assert parked.oldest() == ((min(left), 0) if left else None)
    assert set(parked.named) == ({STATE, LABELS} if left else set())
