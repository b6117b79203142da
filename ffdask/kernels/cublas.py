"""cuBLAS's product of matrices, by CuPy's binding of ``cublasGemmEx``.

cuBLAS counts columns first. A matrix that lies row by row is its transpose there, so ``out = a @ b`` is asked as
``out' = b' a'``, and nothing is copied: neither a transpose, nor some columns of a matrix.
"""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

Matrix = Any
"""An array of CuPy's, which tells its address."""

AS_IT_IS, TRANSPOSED = 0, 1

KINDS = {"float32": 0, "float64": 1, "uint16": 14}
"""Of numbers, cudaDataType_t by NumPy's names; uint16 is bfloat16 by its bits."""

FLOAT32, TF32, FLOAT64 = 68, 77, 70
"""How is added up, cublasComputeType_t."""

BEST = -1
"""The algorithm that cuBLAS takes for a shape."""


class Product:
    """Products of one precision.

    Parameters
    ----------
    tf32 : bool
        Whether float32 factors may be rounded to TF32.
    """

    def __init__(self, tf32: bool = False) -> None:
        self._compute = {"float32": TF32 if tf32 else FLOAT32, "float64": FLOAT64}

    def __call__(self, a: Matrix, b: Matrix, out: Matrix | None = None) -> Matrix:
        """Return ``a @ b``, in `out` if given.

        Parameters
        ----------
        a, b : (n, inner), (inner, width)
            Both float32, float64, or bfloat16 by its bits, which gives float32.
        out : (n, width), optional
            Row by row.

        Raises
        ------
        ValueError
            If shapes or dtypes do not fit: the library is given addresses, and would read on.
        """
        (n, inner), width = a.shape, b.shape[1]
        if out is None:
            out = cupy.empty((n, width), np.float32 if a.dtype == np.uint16 else a.dtype)
        fits = b.shape[0] == inner and out.shape == (n, width) and out.flags.c_contiguous
        if not fits or a.dtype != b.dtype or out.dtype != (np.float32 if a.dtype == np.uint16 else a.dtype):
            raise ValueError(f"a product of {a.dtype} {a.shape} and {b.dtype} {b.shape} into {out.dtype} {out.shape}")
        if not out.size:
            return out
        if not inner:
            out.fill(0)
            return out
        one, zero = (np.array(value, out.dtype) for value in (1, 0))
        a, of_a, lead_a = _lying(a)
        b, of_b, lead_b = _lying(b)
        kind, of_out = KINDS[a.dtype.name], KINDS[out.dtype.name]
        cupy.cuda.cublas.gemmEx(
            cupy.cuda.Device().cublas_handle,
            of_b,
            of_a,
            width,
            n,
            inner,
            one.ctypes.data,
            b.data.ptr,
            kind,
            lead_b,
            a.data.ptr,
            kind,
            lead_a,
            zero.ctypes.data,
            out.data.ptr,
            of_out,
            width,
            self._compute[out.dtype.name],
            BEST,
        )
        return out


def _lying(x: Matrix) -> tuple[Matrix, int, int]:
    """Return a matrix as cuBLAS can read it, whether it reads it transposed, and the distance of its rows (columns)."""
    (down, right), (rows, columns), size = x.strides, x.shape, x.itemsize
    if right == size and (rows == 1 or down >= columns * size):
        return x, AS_IT_IS, max(down // size, columns)
    if down == size and (columns == 1 or right >= rows * size):
        return x, TRANSPOSED, max(right // size, rows)
    return cupy.ascontiguousarray(x), AS_IT_IS, columns
