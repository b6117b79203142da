"""A configuration from what a program has: data of any kind, and keywords."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ffdask import datasets
from ffdask.config import Config, dotted, known_keys, load
from ffdask.datasets import Dataset
from ffdask.datasets.splits import held_out
from ffdask.errors import BadInput, nearest
from ffdask.flags import FLAGS

KEYWORDS = {
    flag.removeprefix("--").replace("-", "_"): key
    for flags in FLAGS.values()
    for flag, key in flags.items()
    if flag != "--threads"
}
"""Keyword -> key: the flags of the command line with underscores."""


def config_of(
    data: Any, graph: str | Path | None, given: Mapping[str, Any], say: Callable[[str], None] = lambda line: None
) -> Config:
    """Return the configuration of data, a graph file and keywords, the keywords winning.

    Parameters
    ----------
    data : Config, Dataset, str, Path, sequence of arrays, or None
        A known name or a path; images and labels of which a sixth is held out as the test set; training images and
        labels and test images and labels; or a whole configuration, which the keywords change.
    graph : path or None
        A graph file.
    given : mapping
        Keyword (a flag's name with underscores, or ``table.key``) -> value.
    say : callable
        Takes a line for the user.

    Raises
    ------
    BadInput
        For an unknown keyword, data of another kind, and all that `ffdask.config.load` refuses.
    """
    keys = keys_of(given)
    if isinstance(data, Config):
        if graph is not None:
            raise BadInput("fit: given a configuration and a graph file; give one of them")
        if not keys:
            return data
        return load(None, dotted(data.tables()) | keys)
    if isinstance(data, Dataset):
        keys["data.dataset"] = data.path
    elif isinstance(data, str | Path):
        keys["data.dataset"] = str(data)
    elif data is not None:
        # The configuration first: nothing is written for one that is refused.
        load(graph, keys)
        keys["data.dataset"] = _kept(data, say).path
    return load(graph, keys)


def keys_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys that keywords stand for.

    Raises
    ------
    BadInput
        For an unknown one.
    """
    return {_key(name): value for name, value in given.items() if value is not None}


def _key(name: str) -> str:
    if name in KEYWORDS:
        return KEYWORDS[name]
    if name in known_keys():
        return name
    last = [key for key in known_keys() if key.partition(".")[2] == name]
    hint = f" (did you mean **{{{last[0]!r}: ...}}?)" if last else nearest(name, KEYWORDS)
    raise BadInput(f"fit: given {name}, which is no keyword{hint}; they are {', '.join(sorted(KEYWORDS))}")


def _kept(data: Any, say: Callable[[str], None]) -> Dataset:
    if not isinstance(data, tuple | list) or len(data) not in (2, 4):
        raise BadInput(
            f"fit: given {type(data).__name__} as data; give a known name ({', '.join(datasets.KNOWN)}), a path, "
            "(images, labels), or (train_images, train_labels, test_images, test_labels)"
        )
    if len(data) == 4:
        train_images, train_labels, test_images, test_labels = data
        return datasets.from_arrays(train_images, train_labels, test_images, test_labels, say=say)
    images, labels = (np.asarray(part) for part in data)
    if len(images) != len(labels):
        raise BadInput(f"fit: given {len(images)} images and {len(labels)} labels; each image needs its label")
    test = held_out(len(images), "the arrays given")
    return datasets.from_arrays(images[~test], labels[~test], images[test], labels[test], say=say)
