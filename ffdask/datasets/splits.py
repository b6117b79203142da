"""Under which names a file of arrays holds a data set, and the test set of one that has none."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from ffdask.datasets.arrays import ORDER
from ffdask.errors import BadInput

NAMES = (
    ("x_train", "y_train", "x_test", "y_test"),
    ORDER,
    ("images", "labels"),
)
"""Names that are tried in turn, in the order of `ORDER`; of two names, images and labels, a test set is held out."""

TEST_PART = 6
SEED = 6
HELD_OUT = f"the test set is the last 1/{TEST_PART} of a shuffle of its rows (seed {SEED})"


def names_in(have: Collection[str], where: object) -> dict[str, str]:
    """Return the array of `have` for each name in `ORDER`, or for ``images`` and ``labels`` alone.

    Raises
    ------
    BadInput
        `have` has none of the sets of names whole.
    """
    for names in NAMES:
        if set(names) <= set(have):
            return dict(zip(ORDER if len(names) == len(ORDER) else names, names, strict=True))
    nearest = max(NAMES, key=lambda names: (len(set(names) & set(have)), len(names) == len(ORDER)))
    missing = [name for name in nearest if name not in have]
    raise BadInput(
        f"{where} has no {', '.join(missing)}; the arrays {' or '.join(', '.join(names) for names in NAMES)} are "
        "needed: rename its arrays, or give another file"
    )


def held_out(rows: int, where: object) -> np.ndarray:
    """Return which of `rows` rows are the test set, bool (rows,); the same in every run.

    Raises
    ------
    BadInput
        There are too few rows for both sets.
    """
    if rows < TEST_PART:
        raise BadInput(
            f"{where} holds {rows} rows and no test set of its own; at least {TEST_PART} are needed to hold some out: "
            "give more rows, or a test set"
        )
    test = np.zeros(rows, dtype=bool)
    test[np.random.default_rng(SEED).permutation(rows)[-(rows // TEST_PART) :]] = True
    return test


def whole(where: Mapping[str, str]) -> dict[str, str]:
    """Return what to call each of the four arrays, where two stand for four."""
    return {name: where[name if name in where else name.partition("_")[2]] for name in ORDER}
