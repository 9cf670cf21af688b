"""From what users have (NumPy, pandas, polars, SciPy sparse, lists) to what engines take.

An engine reads rows of samples: a C-contiguous float32 array, or a CSR array of float32; that of a GPU also float16 and
uint8, and what lies in GPU memory. Everything here either returns that or raises one clear `ValueError` or `TypeError`.
May import scikit-learn and `gesda.engine`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn.utils.validation import check_array, validate_data

from gesda.engine import GpuMatrix, is_gpu_array

#: What an engine reads (see `gesda.engine.Data`).
Data: TypeAlias = "NDArray[np.float32] | scipy.sparse.csr_array | GpuMatrix"

#: Values that a chunk of rows may hold while Python works on it: 32 MiB of float32.
CHUNK_VALUES = 1 << 23


def as_data(X: Any, *, estimator: Any = None, reset: bool = False, name: str = "X", device: str = "cpu") -> Data:
    """Check samples and convert them, once, to what an engine reads.

    Parameters
    ----------
    X : array-like, data frame or sparse matrix of shape (n_samples, n_features)
        Numbers. A float32 C-contiguous array, and a canonical float32 CSR array, are taken as they are,
        without a copy. Sparse data stay sparse.
    estimator : estimator, optional
        Its ``n_features_in_`` and ``feature_names_in_`` are set (``reset=True``) or compared.
    reset : bool, default=False
        Whether `estimator` learns the number and names of the features from X.
    name : str, default="X"
        What error messages call the samples.
    device : str, default="cpu"
        What will compute. For "cuda" dense float16 and uint8 stay as they are, and arrays in GPU memory (CuPy, PyTorch
        and whatever offers ``__cuda_array_interface__`` or DLPack) stay where they are.

    Returns
    -------
    data : ndarray of float32, C-contiguous, scipy.sparse.csr_array of float32, or GpuMatrix
        Shape (n_samples, n_features), finite.

    Raises
    ------
    ValueError
        For NaN, infinity, values too large for float32, a wrong shape, no sample or no feature.
    TypeError
        For sparse data in a shape or of a type that cannot be read, and for data in GPU memory if `device` is another.

    Examples
    --------
    >>> as_data([[0, 1], [2, 3]])
    array([[0., 1.],
           [2., 3.]], dtype=float32)
    >>> as_data([[0.0, 1e39]])
    Traceback (most recent call last):
        ...
    ValueError: Input X contains infinity or a value too large for dtype('float32').
    """
    on_gpu = str(device).startswith("cuda")
    if is_gpu_array(X):
        if not on_gpu:
            raise TypeError(
                f"{name} lies in GPU memory, and device={device!r}: use device='cuda', or copy it to the host "
                f"({name}.get() for CuPy, {name}.cpu() for PyTorch)."
            )
        return _gpu_matrix(X, estimator, reset, name)
    keeps = on_gpu and not scipy.sparse.issparse(X)
    dtype = [np.float32, np.float16, np.uint8] if keeps else np.float32
    options: dict[str, Any] = {"accept_sparse": "csr", "dtype": dtype, "order": "C"}
    # A finite float64 value beyond float32's range becomes infinity here; scikit-learn's check of the
    # result then refuses it by name, so NumPy's warning would only say it twice.
    with np.errstate(over="ignore"):
        if estimator is None:
            checked = check_array(X, input_name=name, **options)
        else:
            checked = validate_data(estimator, X, reset=reset, **options)
    if scipy.sparse.issparse(checked):
        return _canonical(checked)
    dense: NDArray[np.float32] = np.ascontiguousarray(checked)
    return dense


def _gpu_matrix(X: Any, estimator: Any, reset: bool, name: str) -> GpuMatrix:
    matrix = GpuMatrix(X)
    for axis, what in ((0, "sample"), (1, "feature")):
        if matrix.shape[axis] == 0:
            raise ValueError(f"Found array with 0 {what}(s) (shape={matrix.shape}) while a minimum of 1 is required.")
    if not np.isfinite(matrix.limits()).all():
        raise ValueError(f"Input {name} contains NaN or infinity.")
    if estimator is not None:
        validate_data(estimator, matrix, reset=reset, skip_check_array=True)
    return matrix


def _canonical(matrix: Any) -> scipy.sparse.csr_array:
    """A CSR array with sorted column numbers and no duplicates; the caller's matrix stays as it is."""
    array = scipy.sparse.csr_array(matrix)
    if not array.has_canonical_format:
        array = array.copy()
        array.sum_duplicates()
    return array


def data_range(data: Data) -> tuple[float, float]:
    """The least and the greatest value; the zeros that a sparse array leaves out count.

    Examples
    --------
    >>> data_range(scipy.sparse.csr_array([[0, 2], [0, 0]]))
    (0.0, 2.0)
    """
    if isinstance(data, GpuMatrix):
        return data.limits()
    if not scipy.sparse.issparse(data):
        return float(data.min()), float(data.max())
    stored = data.data
    values = [0.0] if stored.size < data.shape[0] * data.shape[1] else []
    if stored.size:
        values += [float(stored.min()), float(stored.max())]
    return min(values), max(values)


def mean_square_norm(data: Data) -> float:
    """Mean over the rows of their squared Euclidean lengths, in float64.

    Examples
    --------
    >>> mean_square_norm(np.array([[3, 4], [0, 1]], dtype=np.float32))
    13.0
    """
    if isinstance(data, GpuMatrix):
        return data.mean_square_norm()
    values = data.data if scipy.sparse.issparse(data) else data.reshape(-1)
    # einsum casts as it goes: no temporary array of the size of the data.
    total = float(np.einsum("i,i->", values, values, dtype=np.float64))
    return total / float(data.shape[0])


def concatenate_rows(first: Data, second: Data) -> Data:
    """One set of samples below the other; sparse when one of them is.

    Raises
    ------
    ValueError
        When the numbers of columns differ.
    """
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"X has {first.shape[1]} features, X_unlabeled has {second.shape[1]}; they must agree.")
    if isinstance(first, GpuMatrix) or isinstance(second, GpuMatrix):
        raise TypeError("X_unlabeled does not go together with data in GPU memory; join them there, with labels of -1.")
    if scipy.sparse.issparse(first) or scipy.sparse.issparse(second):
        parts = [scipy.sparse.csr_array(part) for part in (first, second)]
        return scipy.sparse.csr_array(scipy.sparse.vstack(parts, format="csr", dtype=np.float32))
    return np.concatenate([first, second])


def row_chunks(n_rows: int, n_columns: int, values: int = CHUNK_VALUES) -> Iterator[slice]:
    """Slices that cut rows into chunks of at most `values` values, but of at least one row.

    Examples
    --------
    >>> list(row_chunks(5, 10, values=20))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    step = max(1, values // max(1, n_columns))
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


def dense_rows(data: Data, rows: slice) -> NDArray[np.float32]:
    """Some rows as a dense array."""
    part = data[rows]
    dense: NDArray[np.float32] = part.toarray() if scipy.sparse.issparse(part) else part
    return dense
