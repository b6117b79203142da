"""Rows for benchmarks that ask nothing of what is learned: made in a moment, no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def make_rows(path: Path, rows: int = 600) -> None:
    """Write small images whose bright pixel tells the class."""
    random, split = np.random.default_rng(0), {}
    for name, count in (("train", rows), ("test", 200)):
        labels = random.integers(0, 10, count).astype(np.uint8)
        images = random.integers(0, 60, (count, 8, 8)).astype(np.uint8)
        images[np.arange(count), 2 + labels // 5, labels % 5] = 255
        split |= {f"x_{name}": images, f"y_{name}": labels}
    np.savez(path, **split)
