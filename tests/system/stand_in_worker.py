"""A preload of `dask worker` in tests: its machine has a GPU, which is the stand-in for CuPy."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import standin

from ffdask import accelerator
from ffdask.driver import Graphics

accelerator.devices = lambda: Graphics([os.environ.get("FFDASK_TEST_CARD", "Card 0")], (9, 0), 12040)
accelerator._wheels = lambda: ["numpy"]
for_good = standin.in_the_place_of_cupy()
for_good.__enter__()
