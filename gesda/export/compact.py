"""Model files for small machines: without what only training needs, with weights of 16 or 8 bits, without dead units.

What is written is a model file like any other: `gesda.load` reads it (weights as float32 again), libgesda runs it.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from gesda.estimators import pack
from gesda.export.quantization import quantize_columns
from gesda.ingest import dense_rows
from gesda.model_io import SCALES, write_tensors

WEIGHTS = ("fp32", "fp16", "int8")
#: A unit is dead whose values differ by no more than this over all the data.
_DEAD_RANGE = 1e-4
#: Rows of data that choose the scales; more change nothing.
_MOST_ROWS = 4096
_RESUME = "resume."
_LARGEST_HALF = 65504.0


def save_model(
    model: Any, path: str | os.PathLike[str], *, weights: str = "fp32", calibration: ArrayLike | None = None
) -> None:
    """Write a fitted estimator to a file for inference, atomically.

    The optimiser's state and the history are left out: training cannot go on from such a file.

    Parameters
    ----------
    model : StackedDenoisingAutoencoder, SdAClassifier or SdARegressor
        Fitted.
    path : str or path-like
        An existing file is replaced.
    weights : {"fp32", "fp16", "int8"}, default="fp32"
        What the weights are rounded to; biases stay in single precision. ``"int8"`` has one scale a column, see
        `gesda.export.quantization`.
    calibration : array-like of shape (n, n_features), optional
        Data like those that the model will see: scales are chosen by them.

    Raises
    ------
    ValueError
        For other weights, calibration data that do not fit, or weights beyond half precision.
    sklearn.exceptions.NotFittedError
        Before fit.
    gesda.model_io.ModelFileError
        When the file cannot be written.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from gesda import StackedDenoisingAutoencoder, load
    >>> X = np.random.default_rng(0).random((50, 20), dtype=np.float32)
    >>> model = StackedDenoisingAutoencoder((10,), pretrain_epochs=1, random_state=0).fit(X)
    >>> path = os.path.join(tempfile.mkdtemp(), "small.gesda")
    >>> save_model(model, path, weights="int8", calibration=X)
    >>> bool(np.allclose(load(path).transform(X), model.transform(X), atol=0.01))
    True
    """
    check_is_fitted(model, "_parameters")
    inputs = {} if calibration is None else _inputs_of_layers(model, _rows(model, calibration, _MOST_ROWS))
    tensors, metadata = pack(model)
    tensors = {name: array for name, array in tensors.items() if not name.startswith(_RESUME)}
    fitted = metadata["fitted"] | {"history": []}
    if "validation_scores" in fitted:
        fitted["validation_scores"] = None
    write_tensors(path, with_weights(tensors, weights, inputs), metadata | {"fitted": fitted})


def with_weights(
    tensors: Mapping[str, NDArray[Any]], weights: str, inputs: Mapping[str, NDArray[np.float32]]
) -> dict[str, NDArray[Any]]:
    """Round the weight matrices among the arrays of a model.

    Parameters
    ----------
    tensors : mapping of str to ndarray
        By the names of a model file. Matrices named ``W`` and ``V``, the last part of the name, are weights.
    weights : {"fp32", "fp16", "int8"}
    inputs : mapping of str to ndarray (n, n_inputs)
        What the products with weights see, by the weights' names; some or none.

    Returns
    -------
    dict of str to ndarray
    """
    if weights not in WEIGHTS:
        raise ValueError(f"weights must be one of {', '.join(map(repr, WEIGHTS))}; got {weights!r}.")
    rounded = dict(tensors)
    for name, array in tensors.items():
        if weights == "fp32" or name.rpartition(".")[2] not in ("W", "V"):
            continue
        if weights == "int8":
            rounded[name], rounded[name + SCALES] = quantize_columns(array, inputs.get(name))
        elif np.abs(array).max(initial=0.0) > _LARGEST_HALF:
            raise ValueError(f"the array {name!r} holds weights beyond {_LARGEST_HALF:g}, which half precision cannot.")
        else:
            rounded[name] = array.astype(np.float16)
    return rounded


def without_dead_units(model: Any, X: ArrayLike) -> Any:
    """Leave out hidden units that are constant over data, as training may leave them.

    What a unit hands on, always the same, goes into the biases of the layers above and below, so what a head answers
    stays what it is on data like these. Reconstructions change a little where the layer above restored a dead unit as
    something else than its constant. The encodings of a stack without a head keep all their units.

    Parameters
    ----------
    model : StackedDenoisingAutoencoder, SdAClassifier or SdARegressor
        Fitted; it is not changed.
    X : array-like of shape (n, n_features)
        Data like those that the model will see, the more the better.

    Returns
    -------
    model
        A smaller one, for inference.

    Examples
    --------
    >>> import numpy as np
    >>> from gesda import SdAClassifier
    >>> X = np.random.default_rng(0).random((80, 4), dtype=np.float32)
    >>> model = SdAClassifier((30, 5), activation="relu", pretrain_epochs=0, max_iter=5, random_state=0)
    >>> smaller = without_dead_units(model.fit(X, X[:, 0] > 0.5), X)
    >>> bool(np.allclose(smaller.predict_proba(X), model.predict_proba(X), atol=1e-3))
    True
    """
    check_is_fitted(model, "_parameters")
    codes = _rows(model, X)
    spec, parameters = model._spec, {name: array.copy() for name, array in model._parameters.items()}
    layers = list(spec.layers)
    n_prunable = len(layers) if spec.head is not None else len(layers) - 1
    for k in range(n_prunable):
        codes = model._run("encode", codes, first_layer=k, n_layers=k + 1)
        kept = np.ptp(codes, axis=0) > _DEAD_RANGE
        if kept.all():
            continue
        if not kept.any():
            kept[0] = True  # a layer has a unit at least
        constant = codes[:, ~kept].mean(axis=0, dtype=np.float64).astype(np.float32)
        _fold(parameters, layers[k], k, f"layers.{k + 1}" if k + 1 < len(layers) else "head", kept, constant)
        layers[k] = replace(layers[k], n_hidden=int(kept.sum()))
        if k + 1 < len(layers):
            layers[k + 1] = replace(layers[k + 1], n_visible=int(kept.sum()))
    smaller = copy.deepcopy(model)
    smaller._spec = replace(spec, layers=tuple(layers))
    smaller._parameters, smaller._resume = parameters, {}
    smaller.hidden_layer_sizes = tuple(layer.n_hidden for layer in layers)
    smaller._summarise()
    return smaller


def _fold(
    parameters: dict[str, NDArray[np.float32]],
    layer: Any,
    k: int,
    above: str,
    kept: NDArray[np.bool_],
    constant: NDArray[np.float32],
) -> None:
    """Take units of layer k out; biases take over what they always gave."""
    W, W_above = parameters[f"layers.{k}.W"], parameters[f"{above}.W"]
    decoder = W.T if layer.tied else parameters[f"layers.{k}.V"]  # (n_hidden, n_visible)
    parameters[f"layers.{k}.c"] = parameters[f"layers.{k}.c"] + constant @ decoder[~kept]
    parameters[f"{above}.b"] = parameters[f"{above}.b"] + constant @ W_above[~kept]
    parameters[f"layers.{k}.W"] = np.ascontiguousarray(W[:, kept])
    parameters[f"layers.{k}.b"] = parameters[f"layers.{k}.b"][kept]
    if not layer.tied:
        parameters[f"layers.{k}.V"] = np.ascontiguousarray(decoder[kept])
    parameters[f"{above}.W"] = np.ascontiguousarray(W_above[kept])
    if f"{above}.c" in parameters:  # what the layer above restores
        parameters[f"{above}.c"] = parameters[f"{above}.c"][kept]
    if f"{above}.V" in parameters:
        parameters[f"{above}.V"] = np.ascontiguousarray(parameters[f"{above}.V"][:, kept])


def _rows(model: Any, X: ArrayLike, most: int | None = None) -> NDArray[np.float32]:
    """Checked rows of data, dense; of more than `most`, evenly chosen ones."""
    data = model._data(X)
    step = 1 if most is None else max(1, -(-data.shape[0] // most))
    return np.ascontiguousarray(dense_rows(data, slice(0, data.shape[0]))[::step])


def _inputs_of_layers(model: Any, rows: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """What each product of the network sees, by the name of its weights."""
    inputs, values = {}, rows
    for k in range(len(model._spec.layers)):
        inputs[f"layers.{k}.W"] = values
        values = model._run("encode", values, first_layer=k, n_layers=k + 1)
        inputs[f"layers.{k}.V"] = values  # close to what comes down
    return inputs | {"head.W": values}
