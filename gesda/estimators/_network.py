"""From an estimator's constructor parameters to a checked network: specs and initial weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gesda.engine import check_device
from gesda.ingest import row_chunks
from gesda.schedule import RATE_SCHEDULES, SCHEDULES
from gesda.spec import (
    ACTIVATION_RANGES,
    ACTIVATIONS,
    HANDOFFS,
    LOSSES,
    NOISES,
    PRECISIONS,
    HeadSpec,
    LayerSpec,
    NetworkSpec,
    OptimizerSpec,
)

#: An interval of numbers: low, high (not included), whether low is included.
_Interval = tuple[float, float, bool]
_POSITIVE: _Interval = (0.0, math.inf, False)
_NOT_NEGATIVE: _Interval = (0.0, math.inf, True)
_FRACTION: _Interval = (0.0, 1.0, True)
_OPEN_FRACTION: _Interval = (0.0, 1.0, False)

SOLVERS = ("sgd", "adam")


_NAMES: dict[str, Sequence[str]] = {
    "activation": tuple(ACTIVATIONS),
    "noise": tuple(NOISES),
    "reconstruction_loss": ("auto", *LOSSES),
    "schedule": SCHEDULES,
    "handoff": tuple(HANDOFFS),
    "solver": SOLVERS,
    "pretrain_solver": SOLVERS,
    "learning_rate": RATE_SCHEDULES,
    "precision": PRECISIONS,
}
_REALS: dict[str, _Interval] = {
    "noise_level": _NOT_NEGATIVE,
    "sparsity": _NOT_NEGATIVE,
    "sparsity_target": _OPEN_FRACTION,
    "contractive": _NOT_NEGATIVE,
    "pretrain_alpha": _NOT_NEGATIVE,
    "pretrain_momentum": _FRACTION,
    "learning_rate_decay": _NOT_NEGATIVE,
    "momentum": _FRACTION,
    "beta_1": _FRACTION,
    "beta_2": _FRACTION,
    "epsilon": _POSITIVE,
    "alpha": _NOT_NEGATIVE,
    "dropout": _FRACTION,
    "input_dropout": _FRACTION,
    "validation_fraction": _OPEN_FRACTION,
    "tol": _NOT_NEGATIVE,
}
_INTEGERS: dict[str, int] = {
    "pretrain_epochs": 0,
    "max_iter": 0,
    "n_iter_no_change": 1,
    "probe_size": 0,
}
_BOOLEANS = ("tied_weights", "nesterovs_momentum", "early_stopping", "warm_start", "tune")

#: Parameters that take one value, or one for each layer (besides `emphasis` and `pretrain_learning_rate`).
PER_LAYER = (
    "activation",
    "noise",
    "noise_level",
    "reconstruction_loss",
    "tied_weights",
    "sparsity",
    "sparsity_target",
    "contractive",
    "pretrain_alpha",
    "pretrain_epochs",
    "dropout",
)


# ---- checks ---------------------------------------------------------------------------------------
def check_parameters(params: Mapping[str, Any]) -> dict[str, Any]:
    """Check constructor parameters one by one and give each layer its own.

    Parameters
    ----------
    params : mapping
        What an estimator's ``get_params(deep=False)`` returns.

    Returns
    -------
    checked : dict
        The same names; `PER_LAYER` parameters and ``emphasis`` as tuples with one entry per layer.

    Raises
    ------
    ValueError
        Naming the first parameter that does not fit, and what would.
    """
    checked = dict(params)
    sizes = params["hidden_layer_sizes"]
    sizes = (sizes,) if not _is_sequence(sizes) else tuple(sizes)
    if not sizes or not all(_is_integer(size) and size >= 1 for size in sizes):
        raise ValueError(
            f"hidden_layer_sizes must be an integer of at least 1, or one for each layer; "
            f"got {params['hidden_layer_sizes']!r}."
        )
    checked["hidden_layer_sizes"] = tuple(int(size) for size in sizes)
    for name in params:
        if name in PER_LAYER:
            values = _per_layer(name, params[name], len(sizes))
            checked[name] = tuple(_check_value(name, value) for value in values)
        elif name in _NAMES or name in _REALS or name in _INTEGERS or name in _BOOLEANS:
            checked[name] = _check_value(name, params[name])
    if "learning_rate_init" in params:
        checked["learning_rate_init"] = _check_rate("learning_rate_init", params["learning_rate_init"])
    rates = _per_layer("pretrain_learning_rate", params["pretrain_learning_rate"], len(sizes))
    checked["pretrain_learning_rate"] = tuple(_check_rate("pretrain_learning_rate", rate) for rate in rates)
    checked["emphasis"] = _check_emphasis(params["emphasis"], len(sizes))
    stagger = params["stagger"]
    if not (isinstance(stagger, str) and stagger == "auto"):
        if not (_is_integer(stagger) and stagger >= 0):
            raise ValueError(f"stagger must be an integer of at least 0 or 'auto'; got {stagger!r}.")
        checked["stagger"] = int(stagger)
    batch_size = params["batch_size"]
    if not (isinstance(batch_size, str) and batch_size == "auto"):
        if not (_is_integer(batch_size) and batch_size >= 1):
            raise ValueError(f"batch_size must be 'auto' or an integer of at least 1; got {batch_size!r}.")
        checked["batch_size"] = int(batch_size)
    checked["device"] = check_device(params["device"])
    limit = params["memory_limit"]
    if limit is not None and not (_is_integer(limit) and limit >= 1):
        raise ValueError(f"memory_limit must be None or a number of bytes of at least 1; got {limit!r}.")
    n_jobs = params["n_jobs"]
    if n_jobs is not None and not (_is_integer(n_jobs) and n_jobs != 0):
        raise ValueError(f"n_jobs must be None, a number of threads, or -1 for all; got {n_jobs!r}.")
    return checked


def _check_value(name: str, value: Any) -> Any:
    if name in _NAMES:
        if not (isinstance(value, str) and value in _NAMES[name]):
            known = ", ".join(repr(known) for known in _NAMES[name])
            raise ValueError(f"{name} must be one of {known}; got {value!r}.")
        return str(value)
    if name in _BOOLEANS:
        if not isinstance(value, bool | np.bool_):
            raise ValueError(f"{name} must be True or False; got {value!r}.")
        return bool(value)
    if name in _INTEGERS:
        if not (_is_integer(value) and value >= _INTEGERS[name]):
            raise ValueError(f"{name} must be an integer of at least {_INTEGERS[name]}; got {value!r}.")
        return int(value)
    low, high, low_fits = _REALS[name]
    number = float(value) if _is_real(value) else math.nan
    if not (low <= number < high and (low_fits or low < number)):
        raise ValueError(f"{name} must be a number in {'[' if low_fits else '('}{low:g}, {high:g}); got {value!r}.")
    return number


def _check_rate(name: str, value: Any) -> float | str:
    if isinstance(value, str) and value == "auto":
        return "auto"
    if not (_is_real(value) and 0 < value < math.inf):
        raise ValueError(f"{name} must be 'auto' or a finite number above 0; got {value!r}.")
    return float(value)


def _check_emphasis(value: Any, n_layers: int) -> tuple[tuple[float, float], ...]:
    def pair(entry: Any) -> tuple[float, float]:
        if entry is None:
            return (1.0, 1.0)
        if _is_sequence(entry) and len(entry) == 2:
            low_high = tuple(entry)
            if all(_is_real(weight) and 0 <= weight < math.inf for weight in low_high) and any(low_high):
                return (float(low_high[0]), float(low_high[1]))
        raise ValueError(
            f"emphasis must be None or the two weights of corrupted and uncorrupted components, finite, at "
            f"least 0 and not both 0, or a list with one of these for each of the {n_layers} layers; got {value!r}."
        )

    if _is_sequence(value) and not all(_is_real(entry) for entry in value):
        if len(value) != n_layers:
            raise ValueError(f"emphasis has {len(value)} entries; give one pair, or one for each of {n_layers} layers.")
        return tuple(pair(entry) for entry in value)
    return (pair(value),) * n_layers


def _per_layer(name: str, value: Any, n_layers: int) -> tuple[Any, ...]:
    if not _is_sequence(value):
        return (value,) * n_layers
    if len(value) != n_layers:
        raise ValueError(f"{name} has {len(value)} values; give one, or one for each of the {n_layers} layers.")
    return tuple(value)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes)


def _is_real(value: Any) -> bool:
    kind: type = type(value)
    return issubclass(kind, Real) and not issubclass(kind, bool | np.bool_)


def _is_integer(value: Any) -> bool:
    kind: type = type(value)
    return issubclass(kind, Integral) and not issubclass(kind, bool | np.bool_)


# ---- specs ----------------------------------------------------------------------------------------
def build_layers(checked: Mapping[str, Any], n_features: int, limits: tuple[float, float]) -> tuple[LayerSpec, ...]:
    """The stack for data with `n_features` columns and values within `limits`.

    ``reconstruction_loss="auto"`` takes cross-entropy where a layer's input lies in [0, 1] (the data,
    or the encoding of a sigmoid layer), otherwise squared error; the decoder's activation has the range
    of the layer's input.

    Parameters
    ----------
    checked : mapping
        From `check_parameters`.
    n_features : int
    limits : tuple of two floats
        The data's least and greatest value.

    Raises
    ------
    ValueError
        For cross-entropy on values outside [0, 1], salt-and-pepper noise on values without bounds, and
        what `gesda.spec.LayerSpec` refuses.
    """
    sizes = checked["hidden_layer_sizes"]
    layers = []
    for k, n_hidden in enumerate(sizes):
        below = checked["activation"][k - 1] if k else None
        loss, output = _reconstruction(checked["reconstruction_loss"][k], k, below, limits)
        noise = checked["noise"][k]
        noise_range = (0.0, 1.0)
        if noise == "salt_and_pepper":
            bounds = limits if below is None else ACTIVATION_RANGES[below]
            if bounds is None:
                raise ValueError(
                    f"noise='salt_and_pepper' sets components to the minimum or the maximum of a layer's input, and "
                    f"layer {k} reads the {below} encoding of layer {k - 1}, which has none; use 'masking' or "
                    f"'gaussian' noise there, or a sigmoid or tanh layer below."
                )
            noise_range = bounds
        layers.append(
            LayerSpec(
                n_visible=sizes[k - 1] if k else n_features,
                n_hidden=n_hidden,
                activation=checked["activation"][k],
                output_activation=output,
                loss=loss,
                tied=checked["tied_weights"][k],
                noise=noise,
                noise_level=checked["noise_level"][k],
                noise_range=noise_range,
                emphasis=checked["emphasis"][k],
                sparsity=checked["sparsity"][k],
                sparsity_target=checked["sparsity_target"][k],
                contractive=checked["contractive"][k],
                l2=checked["pretrain_alpha"][k],
            )
        )
    return tuple(layers)


def check_limits(layers: tuple[LayerSpec, ...], limits: tuple[float, float]) -> None:
    """Refuse data outside [0, 1] for a first layer with cross-entropy."""
    if layers[0].loss == "cross_entropy" and not (limits[0] >= 0.0 and limits[1] <= 1.0):
        raise ValueError(
            f"the cross_entropy reconstruction loss needs inputs in [0, 1]; X ranges from {limits[0]:g} to "
            f"{limits[1]:g}. Scale X with sklearn.preprocessing.MinMaxScaler, or use "
            f"reconstruction_loss='squared_error'."
        )


def _reconstruction(loss: str, k: int, below: str | None, limits: tuple[float, float]) -> tuple[str, str]:
    """Loss and decoder activation of layer k over an encoding (`below`) or, for None, over the data."""
    if below is None:
        in_unit = limits[0] >= 0.0 and limits[1] <= 1.0
        if loss == "auto":
            loss = "cross_entropy" if in_unit else "squared_error"
        elif loss == "cross_entropy" and not in_unit:
            raise ValueError(
                f"reconstruction_loss='cross_entropy' needs inputs in [0, 1]; X ranges from {limits[0]:g} to "
                f"{limits[1]:g}. Scale X with sklearn.preprocessing.MinMaxScaler, or use 'squared_error'."
            )
        return loss, "sigmoid" if loss == "cross_entropy" else "linear"
    if loss == "auto":
        loss = "cross_entropy" if below == "sigmoid" else "squared_error"
    elif loss == "cross_entropy" and below != "sigmoid":
        raise ValueError(
            f"reconstruction_loss='cross_entropy' needs inputs in [0, 1], and layer {k} reads the {below} encoding of "
            f"layer {k - 1}; use 'squared_error' there, or a sigmoid layer below."
        )
    return loss, below if below in ("sigmoid", "tanh") else "linear"


def pretrain_optimizer(checked: Mapping[str, Any]) -> OptimizerSpec:
    """The optimiser of pretraining; ``"sgd"`` with a momentum is the momentum optimiser."""
    return _optimizer(checked, checked["pretrain_solver"], checked["pretrain_momentum"])


def head_spec(checked: Mapping[str, Any], kind: str, n_outputs: int) -> HeadSpec:
    """The supervised output and how the network is fine-tuned."""
    return HeadSpec(
        kind=kind,
        n_outputs=n_outputs,
        optimizer=_optimizer(checked, checked["solver"], checked["momentum"]),
        l2=checked["alpha"],
        dropout=(checked["input_dropout"], *checked["dropout"]),
    )


def _optimizer(checked: Mapping[str, Any], solver: str, momentum: float) -> OptimizerSpec:
    kind = "momentum" if solver == "sgd" and momentum > 0 else solver
    return OptimizerSpec(
        kind=kind,
        momentum=momentum,
        nesterov=checked["nesterovs_momentum"],
        beta_1=checked["beta_1"],
        beta_2=checked["beta_2"],
        epsilon=checked["epsilon"],
    )


# ---- initial weights ------------------------------------------------------------------------------
def initial_parameters(spec: NetworkSpec, rng: np.random.Generator) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Random weights, the same for every engine; one array at a time, for they may be large.

    Uniform in [-a, a] with n inputs and m outputs of a matrix: ``a = sqrt(6 / (n + m))`` for tanh and
    linear units and four times that for sigmoid units [1]_, ``a = sqrt(6 / n)`` for relu [2]_. A decoder
    matrix of its own is drawn likewise for the decoder's activation. Biases and the head start at zero:
    a new head then says the same for every sample, and the layers below learn from its second step on.

    Parameters
    ----------
    spec : NetworkSpec
    rng : numpy.random.Generator

    References
    ----------
    .. [1] X. Glorot and Y. Bengio, "Understanding the difficulty of training deep feedforward neural
       networks", AISTATS 2010.
    .. [2] K. He et al., "Delving deep into rectifiers", ICCV 2015.
    """
    for name, shape in spec.parameter_shapes().items():
        value = np.zeros(shape, dtype=np.float32)
        if name.startswith("layers.") and name.endswith((".W", ".V")):
            layer = spec.layers[int(name.split(".")[1])]
            limit = _limit(layer.activation if name.endswith(".W") else layer.output_activation, *shape)
            for rows in row_chunks(shape[0], shape[1], values=65536):  # the generator's numbers are float64
                value[rows] = rng.uniform(-limit, limit, size=value[rows].shape)
        yield name, value


def _limit(activation: str, n_in: int, n_out: int) -> float:
    if activation == "relu":
        return math.sqrt(6.0 / n_in)
    return math.sqrt(6.0 / (n_in + n_out)) * (4.0 if activation == "sigmoid" else 1.0)
