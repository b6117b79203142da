"""Kinds of arrays: answers are of the kind of what was asked about, NumPy, dask.array or xarray."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from dask.base import is_dask_collection, tokenize
from dask.delayed import delayed

from ffdask.errors import BadInput

if TYPE_CHECKING:
    from ffdask.predicted import Predictor
    from ffdask.treatment import Treatment


def is_labelled(given: Any) -> bool:
    """Return whether `given` is an `xarray.DataArray`; if xarray was never imported, nothing is."""
    xarray = sys.modules.get("xarray")
    return xarray is not None and isinstance(given, xarray.DataArray)


def bare(given: Any) -> Any:
    """Return the array in a DataArray, and anything else as it is."""
    return given.data if is_labelled(given) else given


def is_lazy(given: Any) -> bool:
    """Return whether `given` is a `dask.array`.

    Raises
    ------
    BadInput
        If it is another collection of Dask's.
    """
    if not is_dask_collection(given):
        return False
    arrays = sys.modules.get("dask.array")
    if arrays is None or not isinstance(given, arrays.Array):
        raise BadInput(
            f"given a {type(given).__module__}.{type(given).__name__}; of Dask's collections only arrays are taken: "
            "of a data frame, give to_dask_array(lengths=True)"
        )
    return True


def whole_samples(array: Any) -> Any:
    """Return a dask.array whose chunks hold whole samples: cut along the rows only."""
    return array.rechunk(dict.fromkeys(range(1, array.ndim), -1))


def values_of(array: Any) -> int:
    """Return how many values a sample of a dask.array has.

    Raises
    ------
    BadInput
        If it is no array of numbers, one of too few dimensions, or of unknown sizes.
    """
    shape, kind = array.shape[1:], np.dtype(array.dtype).kind
    if not shape or kind not in "biuf" or not all(isinstance(size, int) for size in shape):
        raise BadInput(
            f"X is a dask.array of {array.dtype} of shape {array.shape}; numbers of shape (n, features), (n, h, w) or "
            "(n, h, w, channels) are taken, of known sizes but for n"
        )
    return math.prod(shape)


def blocks_of(samples: Any) -> Iterator[Any]:
    """Yield an array's samples as NumPy's: of a dask.array a chunk at a time, else all."""
    if not is_lazy(samples):
        yield samples
        return
    samples = whole_samples(samples)
    for index in range(samples.numblocks[0]):
        yield np.asarray(samples.blocks[index].compute())


def treated(treatment: Treatment, samples: Any) -> Any:
    """Return samples as a network takes them, of a dask.array lazily."""
    if not is_lazy(samples):
        return treatment(samples)
    samples = whole_samples(samples)
    rest = treatment.shape_after
    return samples.map_blocks(treatment, dtype=treatment.dtype, chunks=(samples.chunks[0], *((size,) for size in rest)))


def answered(answers: Predictor, method: str, asked: Any) -> Any:
    """Return ``answers.<method>`` for a dask.array of samples (n, ...): lazy, a chunk for a chunk.

    The answers are one task that every chunk's task reads, so they travel once to each worker.
    """
    asked = whole_samples(asked)
    one = delayed(answers, pure=True, traverse=False, name=f"ffdask_answers-{tokenize(answers)}")
    many = method == "probabilities"
    chunks = (asked.chunks[0], (len(answers.classes),)) if many else (asked.chunks[0],)
    return asked.map_blocks(
        _block,
        one,
        method,
        chunks=chunks,
        drop_axis=list(range(len(chunks), asked.ndim)),
        meta=np.empty((0,) * len(chunks), np.float64 if many else answers.classes.dtype),
        token=f"ffdask_{method}",
    )


def _block(samples: Any, answers: Predictor, method: str) -> Any:
    return getattr(answers, method)(np.asarray(samples))


def labelled_as(asked: Any, answer: Any, classes: Any) -> Any:
    """Return an answer (n,) or (n, classes) with the names of the rows of the DataArray that was asked about."""
    rows = asked.dims[0]
    coords = {name: value for name, value in asked.coords.items() if set(value.dims) <= {rows}}
    if answer.ndim == 1:
        return type(asked)(answer, coords=coords, dims=(rows,))
    name = "class" if "class" not in {*asked.dims, *asked.coords} else "class_"
    return type(asked)(answer, coords=coords | {name: classes}, dims=(rows, name))
