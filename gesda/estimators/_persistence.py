"""Estimators to and from model files: which array and which JSON value holds what, and the checks of a file.

Arrays: the network's parameters under their names in `gesda.spec.NetworkSpec.parameter_shapes` (a
regressor's head in the targets' own units); ``resume.*`` what only continued training needs; ``classes``,
``target_mean`` and ``target_scale``. Metadata: ``estimator`` (class name), ``gesda_version``, ``params``,
``network`` (the spec) and ``fitted``.
"""

from __future__ import annotations

import dataclasses
import math
import os
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from gesda.estimators._base import Runtime, StackMixin
from gesda.model_io import ModelFileError, read_tensors, take_weights, write_tensors
from gesda.spec import HeadSpec, LayerSpec, NetworkSpec, OptimizerSpec

_RESUME = "resume."
_UNSAVED = ("callbacks",)


def _classes() -> dict[str, type[StackMixin]]:
    from gesda.estimators.autoencoder import StackedDenoisingAutoencoder
    from gesda.estimators.classifier import SdAClassifier
    from gesda.estimators.regressor import SdARegressor

    return {cls.__name__: cls for cls in (StackedDenoisingAutoencoder, SdAClassifier, SdARegressor)}


# ---- writing --------------------------------------------------------------------------------------
def save(estimator: Any, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator."""
    write_tensors(path, *pack(estimator))


def pack(estimator: Any) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Give all that `unpack` makes the estimator of again, for programs that keep it in a file of their own.

    Parameters
    ----------
    estimator : StackedDenoisingAutoencoder, SdAClassifier or SdARegressor
        Fitted.

    Returns
    -------
    tensors : dict of str to ndarray
        Not copies.
    metadata : dict
        What JSON can hold.

    Raises
    ------
    gesda.model_io.ModelFileError
        For an estimator of another class.
    """
    name = type(estimator).__name__
    if _classes().get(name) is not type(estimator):
        raise ModelFileError(f"{name} is not one of GeSdA's own estimators ({', '.join(_classes())}); save those.")
    import gesda

    tensors: dict[str, NDArray[Any]] = dict(estimator._parameters)
    tensors.update({_RESUME + key: value for key, value in estimator._resume.items()})
    names = getattr(estimator, "feature_names_in_", None)
    fitted: dict[str, Any] = {
        "n_features_in": int(estimator.n_features_in_),
        "feature_names_in": None if names is None else [str(text) for text in names],
        "limits": list(estimator._limits),
        "progress": estimator._progress,
        "history": estimator.history_,
        "device": estimator.device_,
    }
    if name == "SdAClassifier":
        if estimator.classes_.dtype.kind in "biuf":
            tensors["classes"] = estimator.classes_
            fitted["classes"] = None
        else:
            fitted["classes"] = [str(label) for label in estimator.classes_]
    if name == "SdARegressor":
        tensors["target_mean"], tensors["target_scale"] = estimator.target_mean_, estimator.target_scale_
        fitted["targets_1d"] = bool(estimator._targets_1d)
    if name != "StackedDenoisingAutoencoder":
        fitted["best_validation_score"] = estimator.best_validation_score_
        fitted["validation_scores"] = estimator.validation_scores_
    metadata = {
        "estimator": name,
        "gesda_version": gesda.__version__,
        "params": {key: _to_json(key, value) for key, value in estimator.get_params(deep=False).items()},
        "network": dataclasses.asdict(estimator._spec),
        "fitted": fitted,
    }
    return tensors, metadata


def _to_json(name: str, value: Any) -> Any:
    if name in _UNSAVED or (name == "random_state" and not isinstance(value, int | np.integer)):
        return None
    if isinstance(value, dict):  # class_weight: JSON knows text as keys only
        return {"pairs": [[_to_json("", key), _to_json("", weight)] for key, weight in value.items()]}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return [_to_json("", entry) for entry in value]
    return value


# ---- reading --------------------------------------------------------------------------------------
def load(path: str | os.PathLike[str], expected: type | None = None) -> Any:
    """Read a fitted estimator from a model file.

    Parameters
    ----------
    path : str or path-like
        A file that an estimator's ``save`` wrote.
    expected : type, optional
        Refuse an estimator of another class.

    Returns
    -------
    estimator : StackedDenoisingAutoencoder, SdAClassifier or SdARegressor
        It predicts the same bits as the saved one. Nothing in the file is executed.

    Raises
    ------
    gesda.model_io.ModelFileError
        A `ValueError`: when the file is damaged, no model, or that of another class.
    """
    tensors, metadata = read_tensors(path)
    shown = repr(os.fspath(path))
    try:
        estimator = unpack(tensors, metadata)
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error).rstrip(".")
        raise ModelFileError(
            f"{shown}: the file does not describe a model ({reason}); restore it from a copy or train the model again."
        ) from error
    if expected is not None and not isinstance(estimator, expected):
        raise ModelFileError(
            f"{shown}: the file holds a {type(estimator).__name__}, not a {expected.__name__}; load it with gesda.load."
        )
    return estimator


def unpack(tensors: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> Any:
    """Make an estimator of what `pack` gave, checking all of it.

    Parameters
    ----------
    tensors : dict of str to ndarray
        Used up: what belongs to the estimator is taken out.
    metadata : dict

    Returns
    -------
    estimator : StackedDenoisingAutoencoder, SdAClassifier or SdARegressor

    Raises
    ------
    AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError
        Where the content describes no estimator.
    """
    cls = _classes().get(str(metadata["estimator"]))
    if cls is None:
        if metadata["estimator"] == "GestureRecognizer":
            _refuse("it holds a GestureRecognizer, which gesda.deepmotion.GestureRecognizer.load reads")
        raise ValueError(f"unknown estimator {metadata['estimator']!r:.60}")
    fitted = _mapping(metadata["fitted"], "fitted")
    estimator: Any = cls(**_params(cls, _mapping(metadata["params"], "params")))
    estimator._check()
    spec = _network(_mapping(metadata["network"], "network"))
    _check_network(cls.__name__, spec, fitted)
    shapes = spec.parameter_shapes()
    parameters = {name: take_weights(tensors, name) for name in shapes}
    resume = {name[len(_RESUME) :]: tensors.pop(name) for name in list(tensors) if name.startswith(_RESUME)}
    for name, array in parameters.items():
        _check_array(name, array, shapes[name], np.float32)
    states = spec.state_shapes()
    for name, array in resume.items():
        if name not in states:
            _refuse(f"it has an array named {_RESUME + name!r:.60}")
        _check_array(_RESUME + name, array, states[name])

    estimator._spec, estimator._parameters, estimator._resume = spec, parameters, resume
    low, high = (float(limit) for limit in fitted["limits"])
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        _refuse(f"limits are {fitted['limits']!r:.60}")
    estimator._limits = (low, high)
    progress = _mapping(fitted["progress"], "progress")
    estimator._progress = {name: _count(progress[name], name) for name in ("pretrain", "finetune", "calls")}
    estimator.n_features_in_ = spec.layers[0].n_visible
    if fitted["feature_names_in"] is not None:
        names = fitted["feature_names_in"]
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            _refuse("feature_names_in are no list of text")
        if len(names) != estimator.n_features_in_:
            _refuse(f"it has {len(names)} feature names for {estimator.n_features_in_} features")
        estimator.feature_names_in_ = np.array(names, dtype=object)
    estimator.device_ = str(fitted["device"])
    estimator.history_ = _history(fitted["history"], len(spec.layers))
    if cls.__name__ == "SdAClassifier":
        _restore_classes(estimator, tensors, fitted)
    if cls.__name__ == "SdARegressor":
        _restore_targets(estimator, tensors, fitted)
    if spec.head is not None:
        estimator.best_validation_score_ = _optional_number(fitted["best_validation_score"])
        scores = fitted["validation_scores"]
        estimator.validation_scores_ = None if scores is None else [_optional_number(score) for score in scores]
    if tensors:
        _refuse(f"it has an array named {min(tensors)!r:.60}")
    estimator._summarise()
    estimator._runtime = Runtime()
    return estimator


def _params(cls: type[Any], params: dict[str, Any]) -> dict[str, Any]:
    known = set(cls._get_param_names())
    if set(params) != known:
        _refuse(f"its parameters are not those of {cls.__name__}: {sorted(set(params) ^ known)[:3]!r:.120}")
    restored = {}
    for name, value in params.items():
        if isinstance(value, dict):
            if name != "class_weight":
                _refuse(f"{name} is {value!r:.60}")
            value = {key: weight for key, weight in value["pairs"]}
        restored[name] = tuple(value) if name == "hidden_layer_sizes" and isinstance(value, list) else value
    return restored


def _network(content: dict[str, Any]) -> NetworkSpec:
    """The spec from its JSON form; lists become tuples, and each number is checked to be one."""
    layers = []
    for layer in content["layers"]:
        fields = _typed(LayerSpec(1, 1), layer, "layer")
        layers.append(LayerSpec(**fields))
    head = None
    if content["head"] is not None:
        fields = dict(_mapping(content["head"], "head"))
        optimizer = OptimizerSpec(**_typed(OptimizerSpec(), fields.pop("optimizer"), "optimizer"))
        fields["dropout"] = tuple(float(rate) for rate in fields["dropout"])
        head = HeadSpec(optimizer=optimizer, **_typed(HeadSpec("softmax", 1), fields, "head", ("optimizer",)))
    optimizer = OptimizerSpec(**_typed(OptimizerSpec(), content["optimizer"], "optimizer"))
    seed = content["seed"]
    if type(seed) is not int or set(content) != {"layers", "head", "optimizer", "seed"}:
        _refuse("its network is malformed")
    return NetworkSpec(tuple(layers), optimizer, head, seed)


def _typed(example: Any, content: Any, what: str, left_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """Fields of the same names and kinds as the example's."""
    content = _mapping(content, what)
    names = {field.name for field in dataclasses.fields(example)} - set(left_out)
    if set(content) != names:
        _refuse(f"its {what} has other fields than this version's: {sorted(set(content) ^ names)[:3]!r:.120}")
    fields = {}
    for name, value in content.items():
        kind = type(getattr(example, name))
        if kind is tuple and isinstance(value, list | tuple):
            expected = len(getattr(example, name))
            if expected and len(value) != expected:
                _refuse(f"{name} has {len(value)} entries")
            value = tuple(float(entry) for entry in value)
        elif kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            _refuse(f"{name} is {value!r:.60}")
        fields[name] = value
    return fields


def _check_network(name: str, spec: NetworkSpec, fitted: dict[str, Any]) -> None:
    head = {"SdAClassifier": "softmax", "SdARegressor": "linear"}.get(name)
    if (spec.head and spec.head.kind) != head:
        _refuse(f"its head does not fit a {name}")
    if _count(fitted["n_features_in"], "n_features_in") != spec.layers[0].n_visible:
        _refuse(f"n_features_in={fitted['n_features_in']} does not fit the first layer")


def _restore_classes(estimator: Any, tensors: dict[str, NDArray[Any]], fitted: dict[str, Any]) -> None:
    labels = fitted["classes"]
    if labels is None:
        classes = tensors.pop("classes")
    elif isinstance(labels, list) and all(isinstance(label, str) for label in labels):
        classes = np.array(labels)
    else:
        _refuse("its classes are no list of text")
    if classes.shape != (estimator.n_outputs_,) or not np.array_equal(np.unique(classes), classes):
        _refuse("its classes are not sorted, not distinct, or not as many as the network's outputs")
    estimator.classes_ = classes


def _restore_targets(estimator: Any, tensors: dict[str, NDArray[Any]], fitted: dict[str, Any]) -> None:
    shape = (estimator.n_outputs_,)
    for name in ("target_mean", "target_scale"):
        _check_array(name, tensors[name], shape, np.float64)
    estimator.target_mean_, estimator.target_scale_ = tensors.pop("target_mean"), tensors.pop("target_scale")
    if not (estimator.target_scale_ > 0).all():
        _refuse("target_scale is not above zero")
    if type(fitted["targets_1d"]) is not bool or (fitted["targets_1d"] and shape != (1,)):
        _refuse("targets_1d does not fit the network")
    estimator._targets_1d = fitted["targets_1d"]


# ---- small checks ---------------------------------------------------------------------------------
def _refuse(reason: str) -> NoReturn:
    raise ValueError(reason)


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _refuse(f"{what} is no JSON object")
    content: dict[str, Any] = value
    return content


def _count(value: Any, what: str) -> int:
    if type(value) is not int or not 0 <= value < 2**31:
        _refuse(f"{what} is {value!r:.60}")
    number: int = value
    return number


def _optional_number(value: Any) -> float | None:
    return None if value is None else float(value)


def _check_array(name: str, array: NDArray[Any], shape: tuple[int, ...], dtype: Any = None) -> None:
    if array.shape != shape:
        _refuse(f"the array {name!r} has shape {array.shape}, the network needs {shape}")
    if (dtype is not None and array.dtype != dtype) or array.dtype.kind not in "fi":
        _refuse(f"the array {name!r} is {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        _refuse(f"the array {name!r} holds NaN or infinity")


def _history(records: Any, n_layers: int) -> list[dict[str, Any]]:
    """Records with the fields that the estimators read."""
    if not isinstance(records, list):
        _refuse("history is no list")
    for record in records:
        _mapping(record, "a record of the history")
        float(record["loss"]), _count(record["epoch"], "epoch")
        if record["phase"] not in ("pretrain", "finetune"):
            _refuse(f"the history has the phase {record['phase']!r:.60}")
        if record["phase"] == "pretrain" and _count(record["layer"], "layer") >= n_layers:
            _refuse(f"the history has the layer {record['layer']}")
    return records
