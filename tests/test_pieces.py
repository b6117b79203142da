"""A checkpoint's pieces: whatever their sizes, what is read is what was written; small arrays share one of Zarr's."""

from __future__ import annotations

import copy
from zipfile import ZipFile

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import ZipStore

from ffdask import pieces
from ffdask.calendar import Visit
from ffdask.head import HeadState
from ffdask.layer import Optimizer, initial_state
from ffdask.schedules.steps import Need


def some(seed: int, layers: int, width: int, rows: int) -> dict[Need, object]:
    rng = np.random.default_rng(seed)
    states = [initial_state(seed, layer, 5, width, Optimizer(name="adam")) for layer in range(1, layers + 1)]
    head = HeadState(rng.random((width, 3), np.float32), np.zeros((width, 3), np.float32))
    seen = {
        Visit(0, chunk): (rng.permutation(rows).astype(np.uint32), rng.random((rows, 3), np.float32))
        for chunk in range(2)
    }
    named = {Need(f"train_layer{layer}-chapter000", "state"): state for layer, state in enumerate(states, start=1)}
    return {**named, Need("head-chapter000", "state"): head, Need("head-chapter000", "probabilities"): seen}


def same(one: dict[Need, object], other: dict[Need, object]) -> None:
    assert list(one) == list(other)
    for need in one:
        (kind, arrays, more), (kind_, arrays_, more_) = pieces.taken_apart(one[need]), pieces.taken_apart(other[need])
        assert (kind, more, list(arrays)) == (kind_, more_, list(arrays_))
        for name, array in arrays.items():
            assert array.dtype == arrays_[name].dtype
            np.testing.assert_array_equal(array, arrays_[name])
            assert not arrays_[name].flags.writeable


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 99), layers=st.integers(1, 4), width=st.integers(1, 9), rows=st.integers(0, 5),
    small=st.sampled_from([0, 1, 60, 200, 1 << 20]),
)  # fmt: skip
def test_what_is_read_is_what_was_written(tmp_path_factory, seed, layers, width, rows, small):
    path = tmp_path_factory.mktemp("pieces") / "pieces.zip"
    given_ = some(seed, layers, width, rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "SMALL", small)
        described = pieces.write(path, given_)
    same(given_, pieces.read(path, described))


def test_a_hundred_layers_of_small_arrays_are_few_for_zarr(tmp_path):
    described = pieces.write(tmp_path / "pieces.zip", some(1, 100, 8, 4))
    with ZipFile(tmp_path / "pieces.zip") as file:
        assert len(file.namelist()) < 12
    same(some(1, 100, 8, 4), pieces.read(tmp_path / "pieces.zip", described))


def test_a_checkpoint_that_was_written_before_there_were_parts_is_read(tmp_path):
    given_ = some(2, 2, 6, 3)
    with ZipStore(tmp_path / "old.zip", mode="w") as store:
        group, described = zarr.create_group(store), []
        for index, (need, value) in enumerate(given_.items()):
            kind, named, more = pieces.taken_apart(value)
            for key, array in named.items():
                group.create_array(f"{index}/{key}", data=array, compressors=None)
            described.append({"step": need.step, "piece": need.piece, "kind": kind, **more})
    same(given_, pieces.read(tmp_path / "old.zip", described))


@pytest.mark.parametrize(
    "lie",
    [
        {"start": -1}, {"start": 10**6}, {"dtype": "object"},
        {"shape": [10**9, 10**9]}, {"shape": [-1, -5]}, {"shape": [6, -1]},
    ],
)  # fmt: skip
def test_what_is_said_of_a_part_is_not_believed(tmp_path, lie):
    described = copy.deepcopy(pieces.write(tmp_path / "pieces.zip", some(3, 2, 6, 3)))
    described[0]["parts"]["weights"] |= lie
    with pytest.raises((ValueError, KeyError)):
        pieces.read(tmp_path / "pieces.zip", described)
