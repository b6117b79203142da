"""A run whose folder cannot be written at the end."""

from __future__ import annotations

import shutil

import pytest

from ffdask.errors import RunFailed
from ffdask.records import Records
from ffdask.store import RunFolder, open_network


def failing(monkeypatch, error, times):
    """Have the network be written only after so many failures."""
    real, left = RunFolder.write_network, [times]

    def write(folder, network):
        if left[0]:
            left[0] -= 1
            raise error
        real(folder, network)

    monkeypatch.setattr(RunFolder, "write_network", write)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(OSError(28, "No space left on device"), "No space left on device"), (MemoryError("none"), "MemoryError: none")],
)
def test_what_was_trained_goes_elsewhere(train, undisturbed, monkeypatch, error, reason):
    expected = undisturbed.summary["weights_sha256"]
    failing(monkeypatch, error, 1)
    said = []
    run = train(say=said.append)
    assert any(f"cannot be written ({reason}" in line and f"goes to {run.path}" in line for line in said), said
    assert run.summary["weights_sha256"] == expected
    network, _ = open_network(run.path)
    assert network.sha256() == expected
    shutil.rmtree(run.path)


def test_no_memory_for_the_records_loses_no_network(train, undisturbed, monkeypatch):
    expected = undisturbed.summary["weights_sha256"]
    real, left = Records.values, [1]

    def values(records):
        if left[0]:
            left[0] -= 1
            raise MemoryError
        return real(records)

    monkeypatch.setattr(Records, "values", values)
    said = []
    run = train(say=said.append)
    assert any("cannot be written (MemoryError" in line and f"goes to {run.path}" in line for line in said), said
    assert run.summary["weights_sha256"] == expected
    assert len((run.path / "records.jsonl").read_text().splitlines()) == run.summary["steps"]
    shutil.rmtree(run.path)


def test_where_nothing_can_be_written_it_is_said(train, monkeypatch):
    failing(monkeypatch, OSError(28, "No space left on device"), 2)
    with pytest.raises(
        RunFailed, match=r"can be written neither to .* \(No space left on device\): make room"
    ) as caught:
        train()
    assert any("--resume" in note for note in caught.value.__notes__)
