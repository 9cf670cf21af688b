"""Samples that a user has in GPU memory already (CuPy, PyTorch, JAX, Numba): what is asked of them, computed there.

Imports CuPy where it is used; imports nothing of gesda.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_CUDA = 2  # DLPack's kDLCUDA
_KEPT = (np.float32, np.float16, np.uint8)  # types that the kernels read
_CHUNK_VALUES = 1 << 26


def is_gpu_array(X: Any) -> bool:
    """Whether an object offers GPU memory, by ``__cuda_array_interface__`` or DLPack."""
    try:
        if hasattr(X, "__cuda_array_interface__"):
            return True
        return hasattr(X, "__dlpack_device__") and int(X.__dlpack_device__()[0]) == _CUDA
    except (RuntimeError, BufferError, TypeError):  # a tensor that asks for gradients, a read-only array
        return False


class GpuMatrix:
    """A matrix in GPU memory, shared with whoever made it.

    Parameters
    ----------
    X : object with ``__cuda_array_interface__`` or DLPack
        Numbers, (n_samples, n_columns). float32, float16 and uint8 stay as they are, without a copy if the rows are
        contiguous; other types become float32.

    Raises
    ------
    RuntimeError
        Without CuPy.
    ValueError
        For an array that is no matrix.
    TypeError
        For values that are no real numbers.
    """

    ndim = 2

    def __init__(self, X: Any) -> None:
        try:
            import cupy
        except ImportError as error:
            raise RuntimeError("data in GPU memory need CuPy: pip install 'gesda[cuda]'.") from error
        array = cupy.asarray(X) if hasattr(X, "__cuda_array_interface__") else cupy.from_dlpack(X)
        if array.ndim != 2:
            raise ValueError(f"Expected 2D array, got an array of {array.ndim} dimensions in GPU memory.")
        if array.dtype.kind not in "fiub":
            raise TypeError(f"X must hold real numbers; got {array.dtype}.")
        self._cupy = cupy
        self.array = cupy.ascontiguousarray(array, dtype=array.dtype if array.dtype in _KEPT else np.float32)
        self.shape: tuple[int, int] = self.array.shape

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        interface: dict[str, Any] = self.array.__cuda_array_interface__
        return interface

    def __getitem__(self, rows: Any) -> NDArray[np.float32]:
        """Rows as a float32 array on the host."""
        values: NDArray[np.float32] = self._cupy.asnumpy(self.array[rows]).astype(np.float32, copy=False)
        return values

    def limits(self) -> tuple[float, float]:
        """The least and the greatest value; NaN where there is one."""
        return float(self.array.min()), float(self.array.max())

    def mean_square_norm(self) -> float:
        """Mean over the rows of their squared Euclidean lengths."""
        rows, total = max(1, _CHUNK_VALUES // self.shape[1]), 0.0
        for first in range(0, self.shape[0], rows):
            part = self.array[first : first + rows].astype(np.float32, copy=False)
            total += float((part * part).sum(dtype=np.float64))
        return total / self.shape[0]
