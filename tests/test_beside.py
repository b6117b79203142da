"""What a federated node keeps beside its shard: whole or absent, read only as it was written."""

from __future__ import annotations

import errno
from types import SimpleNamespace

import numpy as np
import pytest

from ffdask import beside
from ffdask.beside import fetch, keep
from ffdask.calendar import Visit
from ffdask.errors import StepFailed
from ffdask.pieces import Beside

SEEN = {Visit(1, 4): (np.arange(3), np.eye(3, 10, dtype=np.float32)), Visit(2, 0): (np.arange(2), np.ones((2, 10)))}


@pytest.fixture
def node(tmp_path, monkeypatch):
    """A node, as the first arguments of whatever is done for it; its shard lies in `tmp_path`."""
    monkeypatch.setattr(beside, "folder_of", lambda job, dataset, node: tmp_path / f"shard{node}.zarr.ffdask")
    return SimpleNamespace(), SimpleNamespace(), 0


def test_what_is_kept_comes_back_read_only(node):
    kept = keep(*node, {"probabilities": SEEN}, "probabilities", "run.0-negatives")
    found = fetch(*node, "probabilities", kept, "probabilities of negatives")["probabilities"].value
    assert list(found) == list(SEEN)
    for rows, probabilities in zip(found.values(), SEEN.values(), strict=True):
        for one, other in zip(rows, probabilities, strict=True):
            np.testing.assert_array_equal(one, other)
            assert not one.flags.writeable


def test_where_nothing_is_seen_yet_nothing_comes_back(node):
    kept = keep(*node, {"probabilities": {}}, "probabilities", "run.0-negatives")
    assert fetch(*node, "probabilities", kept, "probabilities")["probabilities"].value == {}


@pytest.mark.parametrize("begun", [b"", b"a part"])
def test_of_what_cannot_be_kept_nothing_stays_and_it_is_said(node, tmp_path, monkeypatch, begun):
    def full(file, **arrays):
        file.write(begun)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert keep(*node, {"probabilities": SEEN}, "probabilities", "run.0-negatives") == "No space left on device"
    assert list((tmp_path / "shard0.zarr.ffdask").iterdir()) == []


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_file_that_is_not_as_it_was_is_named(node, tmp_path, damage):
    kept = keep(*node, {"probabilities": SEEN}, "probabilities", "run.0-negatives")
    assert isinstance(kept, Beside)
    path = tmp_path / "shard0.zarr.ffdask" / kept.name
    path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(StepFailed, match=rf"{path} (cannot be read .*node 0|is not as the checkpoint knows it)"):
        fetch(*node, "probabilities", kept, "probabilities of negatives")
