from __future__ import annotations

import pytest

from ffdask import driver
from ffdask.driver import Graphics, shared_out


@pytest.mark.parametrize(
    ("names", "given", "seen"),
    [
        ([], None, [None, None, None]),
        (["A"], None, [None, None, None]),
        (["A", "B"], None, ["0", "1", "0"]),
        (["A", "B"], "3,5", ["3", "5", "3"]),
        (["A", "B", "C"], "GPU-7,GPU-8,GPU-9", ["GPU-7", "GPU-8", "GPU-9"]),
    ],
)
def test_each_worker_process_sees_one_gpu_in_turn(monkeypatch, names, given, seen):
    monkeypatch.setattr(driver, "devices", lambda: Graphics(names))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert [environment.get("CUDA_VISIBLE_DEVICES") for environment in shared_out(3)] == seen
