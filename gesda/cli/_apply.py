"""``gesda evaluate``, ``predict`` and ``transform``: use a model on data."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gesda.cli._common import (
    UsageError,
    check_output,
    emit,
    labels_like,
    note,
    read_data,
    read_model,
    warnings_as_notes,
    write_array,
)
from gesda.datasets import Dataset


def measure(model: Any, data: Dataset) -> dict[str, float]:
    """Score a fitted model: accuracy or R2 where the data have labels, and the reconstruction error."""
    scores: dict[str, float] = {"n_samples": len(data.X)}
    if data.y is not None and hasattr(model, "classes_"):
        scores |= _accuracy(model, data.X, data.y)
    elif data.y is not None and hasattr(model, "predict"):
        scores |= _regression(model, data)
    scores["reconstruction_error"] = -float(np.mean(model.score_samples(data.X), dtype=np.float64))
    return scores


def _accuracy(model: Any, X: NDArray[Any], y: NDArray[Any]) -> dict[str, float]:
    y = labels_like(y, model.classes_)
    labelled = np.ones(len(y), dtype=bool)
    if y.dtype.kind not in "US" and -1 not in model.classes_:
        labelled = y != -1
    if not labelled.any():
        raise ValueError("none of the samples has a label; give labelled data.")
    strange = sorted(set(y[labelled].tolist()) - set(model.classes_.tolist()))
    if strange:
        shown = ", ".join(map(str, strange[:5]))
        note(f"warning: {len(strange)} of the labels are no classes of the model ({shown}); they count as errors.")
    right = model.predict(X[labelled]) == y[labelled]
    accuracy = float(np.mean(right))
    return {"n_labelled": int(labelled.sum()), "accuracy": accuracy, "error": 1.0 - accuracy}


def _regression(model: Any, data: Dataset) -> dict[str, float]:
    assert data.y is not None
    if data.y.dtype.kind not in "if":
        raise ValueError(f"the labels of {data.name!r} are text, and the model predicts numbers.")
    residual = np.asarray(model.predict(data.X), dtype=np.float64).reshape(len(data.X), -1)[:, 0] - data.y
    spread = float(np.sum((data.y - data.y.mean()) ** 2))
    r2 = 1.0 - float(np.sum(residual**2)) / spread if spread else float("nan")
    return {"r2": r2, "rmse": float(np.sqrt(np.mean(residual**2))), "mae": float(np.mean(np.abs(residual)))}


def evaluate(arguments: argparse.Namespace) -> int:
    """Measure a model on data."""
    model, data = read_model(arguments), read_data(arguments)
    check_features(model, data)
    with warnings_as_notes():
        scores = measure(model, data)
    head = {"command": "evaluate", "model": arguments.model, "data": data.name}
    lines = [f"{name.removeprefix('n_').replace('_', ' ')}: {value:.6g}" for name, value in scores.items()]
    emit(arguments, {**head, **scores}, lines)
    return 0


def predict(arguments: argparse.Namespace) -> int:
    """Predict classes, probabilities or numbers."""
    check_output(arguments.output, (".csv", ".npy"))
    model = read_model(arguments)
    kind = type(model).__name__
    if not hasattr(model, "predict"):
        raise ValueError(f"{arguments.model!r} holds a {kind}, which predicts nothing; use 'gesda transform'.")
    if arguments.proba and not hasattr(model, "predict_proba"):
        raise UsageError(f"--proba needs a classifier, and {arguments.model!r} holds a {kind}.")
    data = read_data(arguments)
    check_features(model, data)
    with warnings_as_notes():
        if arguments.proba:
            values, names = model.predict_proba(data.X), [f"p_{label}" for label in model.classes_]
        else:
            values, names = np.asarray(model.predict(data.X)), ["prediction"]
            if values.ndim == 2:
                names = [f"prediction_{j}" for j in range(values.shape[1])]
    return _write(arguments, values, names, {"command": "predict", "model": arguments.model, "data": data.name})


def transform(arguments: argparse.Namespace) -> int:
    """Encode, reconstruct or score samples."""
    check_output(arguments.output, (".csv", ".npy"))
    if arguments.layer is not None and arguments.give != "encodings":
        raise UsageError("--layer goes with --give encodings only.")
    model, data = read_model(arguments), read_data(arguments)
    check_features(model, data)
    with warnings_as_notes():
        if arguments.give == "encodings":
            values = model.transform(data.X, layer=arguments.layer)
            names = [f"h{j}" for j in range(values.shape[1])]
        elif arguments.give == "reconstructions":
            values = model.reconstruct(data.X)
            names = list(data.feature_names or [f"x{j}" for j in range(values.shape[1])])
        else:
            values, names = model.score_samples(data.X), ["score"]
    return _write(arguments, values, names, {"command": "transform", "model": arguments.model, "data": data.name})


def check_features(model: Any, data: Dataset) -> None:
    """Refuse data with a wrong number of features, and tell the likeliest reason."""
    found, expected = data.X.shape[1], model.n_features_in_
    if found == expected:
        return
    hint = "give data of the kind that the model was trained on"
    if found == expected + 1:
        hint = "if one of the columns is the label, name it with --target"
    elif found == expected - 1:
        hint = "if a feature was taken for the label, see --target"
    raise ValueError(f"{data.name!r} has {found} features, the model expects {expected}; {hint}.")


def _write(arguments: argparse.Namespace, values: NDArray[Any], names: list[str], head: dict[str, Any]) -> int:
    if values.dtype.kind == "O":
        values = values.astype(str)
    if arguments.output == "-" and arguments.json:
        emit(arguments, {**head, "columns": names, "values": values}, [])
        return 0
    write_array(arguments.output, values, names)
    if arguments.output != "-":
        shape = " x ".join(map(str, values.shape))
        emit(
            arguments,
            {**head, "output": arguments.output, "columns": names, "shape": list(values.shape)},
            [f"wrote {shape} values to {arguments.output}"],
        )
    return 0
