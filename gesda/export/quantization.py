"""Weights in 8 bits: whole numbers from -127 to 127 with one scale a column.

Symmetric and linear: ``W[i, j]`` is about ``codes[i, j] * scales[j]``. A column's scale is a compromise between
clipping its largest weights and rounding the others; where data are given, it is the one that changes the layer's
pre-activations least, in the mean square over the data.

Imports NumPy and gesda.ingest.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gesda.ingest import dense_rows

#: Scales tried, as shares of that which clips nothing.
_SHARES = np.linspace(1.0, 0.6, 17)
#: Rows of data that choose the scales; more change nothing.
_MOST_ROWS = 4096
#: Columns tried at a time: bounds the memory.
_COLUMNS = 256


class QuantizedWeights(NamedTuple):
    """Weights as whole numbers.

    Attributes
    ----------
    codes : ndarray of int8, shape (n_inputs, n_outputs)
        From -127 to 127.
    scales : ndarray of float32, shape (n_outputs,)
        Above 0.
    """

    codes: NDArray[np.int8]
    scales: NDArray[np.float32]

    @property
    def weights(self) -> NDArray[np.float32]:
        """The weights that these stand for."""
        return self.codes.astype(np.float32) * self.scales


def quantize_columns(weights: NDArray[np.float32], inputs: NDArray[np.float32] | None = None) -> QuantizedWeights:
    """Round weights to 8 bits.

    Parameters
    ----------
    weights : ndarray of float32, shape (n_inputs, n_outputs)
        Finite.
    inputs : ndarray of float32, shape (n, n_inputs), optional
        What the layer sees: scales are chosen by what rounding does to ``inputs @ weights``.

    Returns
    -------
    QuantizedWeights

    Examples
    --------
    >>> import numpy as np
    >>> quantized = quantize_columns(np.array([[0.5], [-1.27], [0.011]], dtype=np.float32))
    >>> quantized.codes.ravel().tolist(), round(float(quantized.scales[0]), 4)
    ([50, -127, 1], 0.01)
    """
    largest = np.abs(weights).max(axis=0, initial=0.0).astype(np.float64)
    full = np.where(largest > 0.0, largest / 127.0, 1.0)
    if inputs is None:
        return _rounded(weights, full)
    # The error of a column e is e.T (X.T X / n) e: one small product instead of one with all the data.
    moments = (inputs.T @ inputs).astype(np.float64) / max(len(inputs), 1)
    best, scales = np.full(len(full), np.inf), full.copy()
    for share in _SHARES:
        for begin in range(0, len(full), _COLUMNS):
            part = slice(begin, begin + _COLUMNS)
            error = _rounded(weights[:, part], share * full[part]).weights.astype(np.float64) - weights[:, part]
            cost = np.einsum("ij,ij->j", error, moments @ error)
            better = cost < best[part]
            best[part] = np.where(better, cost, best[part])
            scales[part] = np.where(better, share * full[part], scales[part])
    return _rounded(weights, scales)


def _rounded(weights: NDArray[np.float32], scales: NDArray[np.float64]) -> QuantizedWeights:
    kept = np.maximum(scales, np.finfo(np.float32).tiny).astype(np.float32)
    codes = np.clip(np.rint(weights / kept), -127, 127).astype(np.int8)
    return QuantizedWeights(codes, kept)


def dense_sample(model: Any, X: ArrayLike, most: int | None = None) -> NDArray[np.float32]:
    """Check data for a fitted estimator; give its rows as a dense array, of more than `most` evenly chosen ones.

    Parameters
    ----------
    model : estimator
    X : array-like of shape (n, n_features)
    most : int, optional

    Returns
    -------
    rows : ndarray of float32
    """
    data = model._data(X)
    step = 1 if most is None else max(1, -(-data.shape[0] // most))
    return np.ascontiguousarray(dense_rows(data, slice(0, data.shape[0]))[::step])


def calibration_inputs(model: Any, X: ArrayLike) -> dict[str, NDArray[np.float32]]:
    """What each product of a network sees, by the name of its weights.

    Parameters
    ----------
    model : estimator
        Fitted.
    X : array-like of shape (n, n_features)

    Returns
    -------
    inputs : dict of str to ndarray of float32, shape (n, n_inputs)
    """
    values = dense_sample(model, X, _MOST_ROWS)
    inputs = {}
    for k in range(len(model._spec.layers)):
        inputs[f"layers.{k}.W"] = values
        values = model._run("encode", values, first_layer=k, n_layers=k + 1)
        inputs[f"layers.{k}.V"] = values  # close to what comes down
    return inputs | {"head.W": values}
