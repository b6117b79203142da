from __future__ import annotations

import numpy as np
import standin

from ffdask.head import empty_head
from ffdask.layer import LayerState, Optimizer, initial_state
from ffdask.resident import home, moved, on_device, read_only


def on_a_device(value):
    return moved(value, lambda array: standin.ndarray(array.copy()))


def state() -> LayerState:
    return initial_state(0, 1, 4, 3, Optimizer(name="adam"), classes=2)


def test_every_array_is_moved_and_nothing_else():
    pieces = {
        "state": state(),
        "head": empty_head(3, 2),
        "labels": [np.arange(3)],
        "rows": (7, np.ones(2)),
        "of": "train",
    }
    there = on_a_device(pieces)
    arrays = [*there["state"].arrays().values(), *there["head"].arrays().values(), there["labels"][0], there["rows"][1]]
    assert len(arrays) == 13
    assert all(on_device(array) and not isinstance(array, np.ndarray) for array in arrays)
    assert (there["rows"][0], there["of"], there["state"].steps) == (7, "train", 0)
    back = home(there)
    assert isinstance(back["state"], LayerState)
    for name, array in pieces["state"].arrays().items():
        np.testing.assert_array_equal(back["state"].arrays()[name], array, strict=True)
    np.testing.assert_array_equal(back["labels"][0], [0, 1, 2])


def test_what_comes_home_is_read_only_and_what_is_home_stays_as_it_is():
    here, there = np.ones(3), standin.ndarray(np.ones(3))
    found = home([here, there])
    assert found[0] is here
    assert here.flags.writeable
    assert not found[1].flags.writeable


def test_arrays_are_marked_read_only_where_that_can_be():
    assert not read_only(np.ones(3)).flags.writeable
    there = standin.ndarray(np.ones(3))
    assert read_only(there) is there
