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
from gesda.export.quantization import calibration_inputs, dense_sample, quantize_columns
from gesda.model_io import SCALES, write_tensors

WEIGHTS = ("fp32", "fp16", "int8")
#: A unit is dead whose values differ by no more than this over all the data.
_DEAD_RANGE = 1e-4
_RESUME = "resume."
_LARGEST_HALF = 65504.0


def save_model(model: Any, path: str | os.PathLike[str], *, weights: str = "fp32", calibration: Any = None) -> None:
    """Write a fitted estimator or gesture recogniser to a file for inference, atomically.

    The optimiser's state and the history are left out: training cannot go on from such a file. (A recogniser can
    still be taught gestures: its networks learn from the examples that it remembers.)

    Parameters
    ----------
    model : StackedDenoisingAutoencoder, SdAClassifier, SdARegressor or GestureRecognizer
        Fitted.
    path : str or path-like
        An existing file is replaced.
    weights : {"fp32", "fp16", "int8"}, default="fp32"
        What the weights are rounded to; biases stay in single precision. ``"int8"`` has one scale a column, see
        `gesda.export.quantization`.
    calibration : array-like of shape (n, n_features), or sequences of motion, optional
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
    if type(model).__name__ == "GestureRecognizer":
        tensors, metadata, inputs = _packed_recognizer(model, calibration)
    else:
        check_is_fitted(model, "_parameters")
        inputs = {} if calibration is None else calibration_inputs(model, calibration)
        tensors, metadata = pack(model)
        metadata = _without_history(metadata)
    kept = {name: array for name, array in tensors.items() if _RESUME not in name}
    write_tensors(path, with_weights(kept, weights, inputs), metadata)


def _packed_recognizer(
    model: Any, calibration: Any
) -> tuple[dict[str, NDArray[Any]], dict[str, Any], dict[str, NDArray[np.float32]]]:
    from gesda.deepmotion.recognition.recognizer_file import pack_recognizer

    check_is_fitted(model, "_committee")
    tensors, metadata = pack_recognizer(model)
    networks = {name: _without_history(described) for name, described in metadata["networks"].items()}
    metadata |= {"networks": networks, "state": metadata["state"] | {"history": []}}
    inputs: dict[str, NDArray[np.float32]] = {}
    if calibration is not None:
        rows = model._rows(calibration)
        members = {f"member{k}": member for k, member in enumerate(model._committee.members)}
        for name, network in ({"stack": model._committee.stack} | members).items():
            inputs |= {f"{name}.{key}": values for key, values in calibration_inputs(network, rows).items()}
        inputs["readers.weights"] = rows
    return tensors, metadata, inputs


def _without_history(metadata: dict[str, Any]) -> dict[str, Any]:
    fitted = metadata["fitted"] | {"history": []}
    if "validation_scores" in fitted:
        fitted["validation_scores"] = None
    return metadata | {"fitted": fitted}


def with_weights(
    tensors: Mapping[str, NDArray[Any]], weights: str, inputs: Mapping[str, NDArray[np.float32]]
) -> dict[str, NDArray[Any]]:
    """Round the weight matrices among the arrays of a model.

    Parameters
    ----------
    tensors : mapping of str to ndarray
        By the names of a model file. Matrices, or stacks of them, whose name ends in ``W``, ``V`` or ``weights`` are
        weights.
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
        if weights == "fp32" or name.rpartition(".")[2] not in ("W", "V", "weights"):
            continue
        if weights == "int8":
            matrices = array.reshape(-1, *array.shape[-2:])
            parts = [quantize_columns(matrix, inputs.get(name)) for matrix in matrices]
            rounded[name] = np.stack([part.codes for part in parts]).reshape(array.shape)
            scales = np.stack([part.scales for part in parts])
            rounded[name + SCALES] = scales.reshape(*array.shape[:-2], array.shape[-1])
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
    codes = dense_sample(model, X)
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
