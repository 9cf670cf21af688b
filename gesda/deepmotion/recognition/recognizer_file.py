"""A recogniser to and from one model file: parameters, features, networks, memory, threshold.

Arrays: ``features.*``, ``stack.*`` and ``member0.*``... (what `gesda.estimators.pack` gives), ``memory.*`` and
``familiarity.*``. Metadata: ``estimator``, ``params``, ``state`` and the networks' own.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gesda.deepmotion.features import Augmentation, MotionFeatures
from gesda.deepmotion.recognition.committee import Committee
from gesda.deepmotion.recognition.familiarity import Familiarity
from gesda.deepmotion.recognition.labels import Labels, as_name
from gesda.deepmotion.recognition.linear_reader import LinearReader
from gesda.deepmotion.recognition.memory import Memory
from gesda.estimators import pack, unpack
from gesda.model_io import ModelFileError, read_tensors, take_weights, write_tensors

_NAME = "GestureRecognizer"
_MOST_MEMBERS = 100


def save(recognizer: Any, path: str | os.PathLike[str]) -> None:
    """Write a fitted recogniser."""
    write_tensors(path, *pack_recognizer(recognizer))


def pack_recognizer(recognizer: Any) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Give the arrays and the metadata of a fitted recogniser's file."""
    import gesda

    params = recognizer.get_params(deep=False)
    params["callbacks"] = None
    if not isinstance(params["random_state"], int | np.integer):
        params["random_state"] = None
    if params["augmentation"] is not None:
        params["augmentation"] = dataclasses.asdict(params["augmentation"])
    committee, features, memory = recognizer._committee, recognizer._features, recognizer._memory
    tensors = {f"features.{name}": array for name, array in features.arrays().items()}
    networks = {"stack": committee.stack} | {f"member{k}": member for k, member in enumerate(committee.members)}
    described = {}
    for name, network in networks.items():
        arrays, described[name] = pack(network)
        tensors |= {f"{name}.{key}": array for key, array in arrays.items()}
    for part in LinearReader._fields:
        tensors[f"readers.{part}"] = np.stack([getattr(reader, part) for reader in committee.readers])
    # Half precision is finer than any sensor that the motions came from.
    tensors["memory.motions"] = np.clip(memory.motions, -6e4, 6e4).astype(np.float16)
    for name in ("durations", "labels", "folds", "pretrained"):
        tensors[f"memory.{name}"] = getattr(memory, name)
    if recognizer._familiarity is not None:
        tensors |= {f"familiarity.{name}": array for name, array in recognizer._familiarity.arrays().items()}
    state = {
        "names": list(recognizer._labels.names),
        "outputs": [int(output) for output in committee.outputs],
        "n_channels": recognizer.n_channels_,
        "rate": recognizer.rate_,
        "normalization": recognizer.normalization_,
        "seed": recognizer._seed,
        "taught": recognizer._taught,
        "optimism": recognizer._optimism,
        "history": recognizer.history_,
    }
    metadata = {
        "estimator": _NAME,
        "gesda_version": gesda.__version__,
        "params": params,
        "state": state,
        "networks": described,
    }
    return tensors, metadata


def load(path: str | os.PathLike[str], cls: type[Any]) -> Any:
    """Read a recogniser; every bad file ends in one `ModelFileError`."""
    tensors, metadata = read_tensors(path)
    shown = repr(os.fspath(path))
    if metadata.get("estimator") != _NAME:
        raise ModelFileError(
            f"{shown}: the file holds {metadata.get('estimator')!r:.60}, not a {_NAME}; load it with gesda.load."
        )
    try:
        return _restore(tensors, metadata, cls)
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error).rstrip(".")
        raise ModelFileError(
            f"{shown}: the file does not describe a recogniser ({reason}); restore it from a copy or train it again."
        ) from error


def _restore(tensors: dict[str, NDArray[Any]], metadata: dict[str, Any], cls: type[Any]) -> Any:
    params, state, described = metadata["params"], metadata["state"], metadata["networks"]
    if set(params) != set(cls._get_param_names()):
        raise ValueError("its parameters are not those of this version")
    params = {name: tuple(value) if isinstance(value, list) else value for name, value in params.items()}
    if params["augmentation"] is not None:
        params["augmentation"] = Augmentation(**{name: float(value) for name, value in params["augmentation"].items()})
    recognizer = cls(**params)
    recognizer._check()
    n_channels = state["n_channels"]
    names = tuple(state["names"])
    labels = Labels()
    for name in names:
        if as_name(name, labels) in labels.names or type(name) not in (int, str):
            raise ValueError(f"the gesture {name!r:.60} is there twice")
        labels = labels.with_name(name)

    features = MotionFeatures(normalization=state["normalization"], **recognizer._feature_options())
    features.restore(_under(tensors, "features."))
    expected = n_channels // 3 if recognizer.orientation == "magnitude" else n_channels
    if type(n_channels) is not int or features.n_motion_channels != expected:
        raise ValueError(f"n_channels is {n_channels!r:.60}, which the features do not fit")

    n_members = len(described) - 1
    if not 1 <= n_members <= _MOST_MEMBERS:
        raise ValueError(f"it has {n_members} members")
    stack = unpack(_under(tensors, "stack."), described["stack"])
    members = [unpack(_under(tensors, f"member{k}."), described[f"member{k}"]) for k in range(n_members)]
    outputs = state["outputs"]
    width = features.n_features
    for network in (stack, *members):
        if type(network).__name__ != "SdAClassifier" or network.n_features_in_ != width:
            raise ValueError("its networks do not fit its features")
        if network.activation != "tanh":
            raise ValueError(f"its networks have the activation {network.activation!r:.60}")
        if [weights.shape for weights in network.coefs_[:-1]] != [weights.shape for weights in stack.coefs_[:-1]]:
            raise ValueError("its networks are of different widths")
    if len(outputs) != len(names) or len(set(outputs)) != len(outputs):
        raise ValueError("its outputs are not one for each gesture")
    if not all(type(output) is int and 0 <= output < min(m.n_outputs_ for m in members) for output in outputs):
        raise ValueError("its outputs are not those of its networks")
    weights, bias = take_weights(tensors, "readers.weights"), tensors.pop("readers.bias")
    if weights.shape != (n_members, width, len(names)) or bias.shape != (n_members, len(names)):
        raise ValueError("its linear readers do not fit its features and gestures")
    if not (weights.dtype == bias.dtype == np.float32 and np.isfinite(weights).all() and np.isfinite(bias).all()):
        raise ValueError("its linear readers hold impossible values")
    committee = Committee(stack, members, list(map(LinearReader, weights, bias)), outputs)

    motions, *known = (
        tensors.pop(f"memory.{name}") for name in ("motions", "durations", "labels", "folds", "pretrained")
    )
    memory = Memory(motions.astype(np.float32), *known)
    _check_memory(memory, features, len(names), n_members)
    arrays = _under(tensors, "familiarity.")
    familiarity = Familiarity.restore(arrays, n_members, len(names), committee.n_hidden) if names else None
    if tensors:
        raise ValueError(f"it has an array named {min(tensors)!r:.60}")
    rate = state["rate"]
    if rate is not None and not (isinstance(rate, float) and 0 < rate < float("inf")):
        raise ValueError(f"rate is {rate!r:.60}")
    for count in (state["seed"], state["taught"]):
        if type(count) is not int or not 0 <= count < 2**31:
            raise ValueError(f"its seed is {count!r:.60}")
    if not (isinstance(state["optimism"], float) and 0 <= state["optimism"] < float("inf")):
        raise ValueError(f"its optimism is {state['optimism']!r:.60}")
    history = state["history"]
    if not (isinstance(history, list) and all(isinstance(record, dict) for record in history)):
        raise ValueError("its history is no list of records")

    recognizer._features, recognizer._committee, recognizer._labels = features, committee, labels
    recognizer._memory, recognizer._familiarity = memory, familiarity
    recognizer._seed, recognizer._taught, recognizer._optimism = state["seed"], state["taught"], state["optimism"]
    recognizer.threshold_ = -np.inf if familiarity is None else familiarity.threshold
    recognizer.n_channels_, recognizer.rate_ = n_channels, rate
    recognizer.normalization_, recognizer.history_ = state["normalization"], history
    return recognizer


def _under(tensors: dict[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    """Take the arrays whose names begin with a prefix out, named by the rest."""
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors.pop(name) for name in names}


def _check_memory(memory: Memory, features: MotionFeatures, n_classes: int, n_members: int) -> None:
    n = len(memory)
    shape = (n, features.n_steps, features.n_motion_channels)
    if memory.motions.shape != shape or any(
        a.shape != (n,) for a in (memory.durations, memory.folds, memory.pretrained)
    ):
        raise ValueError("its memory has arrays of different lengths")
    if (
        memory.labels.ndim != 1
        or memory.labels.dtype.kind != "i"
        or not np.array_equal(np.unique(memory.labels), np.arange(n_classes))
    ):
        raise ValueError("its memory has not an example of each gesture")
    if memory.pretrained.dtype != np.bool_:
        raise ValueError("its memory does not say what was pretrained on")
    if memory.folds.dtype.kind != "i" or (n and not -1 <= memory.folds.min() <= memory.folds.max() < n_members):
        raise ValueError("its memory has impossible folds")
    if not (np.isfinite(memory.motions).all() and np.isfinite(memory.durations).all()):
        raise ValueError("its memory holds NaN or infinity")
    if n and memory.durations.min() < 1:
        raise ValueError("its memory holds impossible durations")
