"""What a stacked denoising autoencoder is and how an epoch of it runs.

Plain, validated, immutable records that every part of GeSdA shares, and the one table of names and
codes (activations, losses, noises, optimisers) that the C++ core and the CUDA kernels repeat.
Imports nothing of gesda.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

# ---- names and codes ------------------------------------------------------------------------------
# kernels/math.hpp repeats the codes as enumerations; tests/test_spec.py holds the two together.
ACTIVATIONS = {"sigmoid": 0, "tanh": 1, "relu": 2, "linear": 3}
LOSSES = {"cross_entropy": 0, "squared_error": 1}
NOISES = {"none": 0, "masking": 1, "gaussian": 2, "salt_and_pepper": 3, "swap": 4}
OPTIMIZERS = {"sgd": 0, "momentum": 1, "adam": 2}
HEADS = {"softmax": 0, "linear": 1}
HANDOFFS = {"clean": 0, "noisy": 1}
PRECISIONS = ("fp32", "bf16", "tf32", "fp16")

#: Purpose of a Philox stream; the stream word of the counter is ``purpose << 16 | layer``.
STREAMS = {"corruption": 0, "partner": 1, "dropout": 2}

#: Closed range of an activation's values, None where it has none.
ACTIVATION_RANGES: Mapping[str, tuple[float, float] | None] = {
    "sigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "relu": None,
    "linear": None,
}


def _check_name(parameter: str, value: str, table: Mapping[str, Any]) -> None:
    if value not in table:
        known = ", ".join(repr(name) for name in table)
        raise ValueError(f"{parameter} must be one of {known}; got {value!r}.")


def _check_number(
    parameter: str, value: float, low: float, high: float = math.inf, *, open_low: bool = False, open_high: bool = False
) -> None:
    fits = (value > low if open_low else value >= low) and (value < high if open_high else value <= high)
    if not (math.isfinite(value) and fits):
        interval = f"{'(' if open_low else '['}{low:g}, {high:g}{')' if open_high or high == math.inf else ']'}"
        raise ValueError(f"{parameter} must be a finite number in {interval}; got {value!r}.")


# ---- the network ----------------------------------------------------------------------------------
@dataclass(frozen=True)
class LayerSpec:
    """One denoising autoencoder of the stack.

    Parameters
    ----------
    n_visible, n_hidden : int
        Width of the input and of the encoding.
    activation : {"sigmoid", "tanh", "relu", "linear"}
        Encoder's activation ``s`` in ``h = s(x~ W + b)``.
    output_activation : {"sigmoid", "tanh", "relu", "linear"}
        Decoder's activation ``r`` in ``z = r(h W.T + c)``.
    loss : {"cross_entropy", "squared_error"}
        Summed over components, averaged over the rows of a minibatch. Cross-entropy needs the
        sigmoid output and inputs in [0, 1]; squared error is ``1/2 ||z - x||^2``.
    tied : bool
        Whether the decoder uses ``W.T``; otherwise it has a matrix ``V`` (n_hidden, n_visible).
    noise : {"none", "masking", "gaussian", "salt_and_pepper", "swap"}
        How the input is corrupted.
    noise_level : float
        Probability of corruption per component; for gaussian noise its standard deviation.
    noise_range : tuple of two floats
        The minimum and the maximum that salt-and-pepper noise sets a component to.
    emphasis : tuple of two floats
        Weights of the loss on corrupted and on uncorrupted components [1]_, section 4.2.
    sparsity, sparsity_target : float
        Weight of ``sum_j KL(target || mean_j)``, where ``mean_j`` is hidden unit j's mean over the
        minibatch; sigmoid encoders only.
    contractive : float
        Weight of the squared Frobenius norm of the encoder's Jacobian at its (corrupted) input,
        averaged over the rows [2]_.
    l2 : float
        Weight of ``1/2 ||W||^2`` (and of ``1/2 ||V||^2``); biases are free.

    References
    ----------
    .. [1] P. Vincent et al., "Stacked Denoising Autoencoders", JMLR 11, 2010.
    .. [2] S. Rifai et al., "Contractive Auto-Encoders", ICML 2011.
    """

    n_visible: int
    n_hidden: int
    activation: str = "sigmoid"
    output_activation: str = "sigmoid"
    loss: str = "cross_entropy"
    tied: bool = True
    noise: str = "masking"
    noise_level: float = 0.25
    noise_range: tuple[float, float] = (0.0, 1.0)
    emphasis: tuple[float, float] = (1.0, 1.0)
    sparsity: float = 0.0
    sparsity_target: float = 0.05
    contractive: float = 0.0
    l2: float = 0.0

    def __post_init__(self) -> None:
        for name in ("n_visible", "n_hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)!r}.")
        _check_name("activation", self.activation, ACTIVATIONS)
        _check_name("output_activation", self.output_activation, ACTIVATIONS)
        _check_name("loss", self.loss, LOSSES)
        _check_name("noise", self.noise, NOISES)
        _check_number("noise_level", self.noise_level, 0.0, math.inf if self.noise == "gaussian" else 1.0)
        if not (all(map(math.isfinite, self.noise_range)) and self.noise_range[0] <= self.noise_range[1]):
            raise ValueError(f"noise_range must be two finite numbers in order; got {self.noise_range!r}.")
        for weight in self.emphasis:
            _check_number("emphasis", weight, 0.0)
        if self.emphasis != (1.0, 1.0) and self.noise in ("gaussian", "none"):
            raise ValueError(
                f"emphasis needs a noise that corrupts some components and spares others (masking, "
                f"salt_and_pepper, swap); the noise is {self.noise!r}."
            )
        if self.loss == "cross_entropy" and self.output_activation != "sigmoid":
            raise ValueError(
                f"the cross_entropy loss needs output_activation='sigmoid'; got {self.output_activation!r}. "
                f"Use reconstruction_loss='squared_error' for other outputs."
            )
        for name in ("sparsity", "contractive", "l2"):
            _check_number(name, getattr(self, name), 0.0)
        _check_number("sparsity_target", self.sparsity_target, 0.0, 1.0, open_low=True, open_high=True)
        if self.sparsity and self.activation != "sigmoid":
            raise ValueError(f"sparsity needs activation='sigmoid'; got {self.activation!r}.")


@dataclass(frozen=True)
class OptimizerSpec:
    """How gradients become updates.

    ``sgd``: ``p -= rate g``. ``momentum``: ``v = momentum v - rate g``, ``p += v``, or with
    ``nesterov`` ``p += momentum v - rate g``. ``adam``: Kingma and Ba 2015, algorithm 1.
    """

    kind: str = "sgd"
    momentum: float = 0.9
    nesterov: bool = False
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        _check_name("solver", self.kind, OPTIMIZERS)
        _check_number("momentum", self.momentum, 0.0, 1.0, open_high=True)
        _check_number("beta_1", self.beta_1, 0.0, 1.0, open_high=True)
        _check_number("beta_2", self.beta_2, 0.0, 1.0, open_high=True)
        _check_number("epsilon", self.epsilon, 0.0, open_low=True)

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the state arrays kept for each parameter array."""
        return {"sgd": (), "momentum": ("velocity",), "adam": ("mean", "variance")}[self.kind]


@dataclass(frozen=True)
class HeadSpec:
    """The supervised output on top of the stack, and how the whole network is fine-tuned.

    Parameters
    ----------
    kind : {"softmax", "linear"}
        Softmax with cross-entropy over class indices, or linear with ``1/2 ||y - t||^2``.
    n_outputs : int
        Classes, or regression targets.
    optimizer : OptimizerSpec
    l2 : float
        Weight of ``1/2 ||W||^2`` over all weight matrices of the network.
    dropout : tuple of float
        Dropout rates: of the input, then of each layer's encoding (so one more than layers).
        Kept values are scaled by ``1 / (1 - rate)``.
    """

    kind: str
    n_outputs: int
    optimizer: OptimizerSpec = field(default_factory=OptimizerSpec)
    l2: float = 0.0
    dropout: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _check_name("head", self.kind, HEADS)
        if self.n_outputs < 1:
            raise ValueError(f"n_outputs must be at least 1; got {self.n_outputs!r}.")
        _check_number("alpha", self.l2, 0.0)
        for rate in self.dropout:
            _check_number("dropout", rate, 0.0, 1.0, open_high=True)


@dataclass(frozen=True)
class NetworkSpec:
    """A stack of layers, the optimiser that pretrains it, an optional head, and the seed of the noise.

    ``seed`` is the 64-bit Philox key: with it, every corruption and dropout mask is a pure function
    of (layer, epoch, sample id, column).
    """

    layers: tuple[LayerSpec, ...]
    optimizer: OptimizerSpec = field(default_factory=OptimizerSpec)
    head: HeadSpec | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("a network needs at least one layer.")
        for k in range(1, len(self.layers)):
            if self.layers[k].n_visible != self.layers[k - 1].n_hidden:
                raise ValueError(
                    f"layer {k} reads {self.layers[k].n_visible} values, layer {k - 1} writes "
                    f"{self.layers[k - 1].n_hidden}."
                )
        if self.head is not None and self.head.dropout and len(self.head.dropout) != len(self.layers) + 1:
            raise ValueError(
                f"dropout needs one rate for the input and one for each of the {len(self.layers)} layers; "
                f"got {len(self.head.dropout)}."
            )
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed must fit into 64 bits; got {self.seed!r}.")

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter array, in a fixed order.

        ``layers.k.W`` (n_visible, n_hidden), ``layers.k.b`` (n_hidden,), ``layers.k.c`` (n_visible,),
        untied also ``layers.k.V`` (n_hidden, n_visible); ``head.W`` (n_hidden, n_outputs), ``head.b``.
        """
        shapes: dict[str, tuple[int, ...]] = {}
        for k, layer in enumerate(self.layers):
            shapes[f"layers.{k}.W"] = (layer.n_visible, layer.n_hidden)
            shapes[f"layers.{k}.b"] = (layer.n_hidden,)
            shapes[f"layers.{k}.c"] = (layer.n_visible,)
            if not layer.tied:
                shapes[f"layers.{k}.V"] = (layer.n_hidden, layer.n_visible)
        if self.head is not None:
            shapes["head.W"] = (self.layers[-1].n_hidden, self.head.n_outputs)
            shapes["head.b"] = (self.head.n_outputs,)
        return shapes

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every array that `Engine.get_state` returns.

        The parameters; ``pretrain.<parameter>.<slot>`` for the layers' parameters and
        ``pretrain.steps`` (n_layers,), the updates made; with a head ``finetune.<parameter>.<slot>``
        for ``layers.k.W``, ``layers.k.b`` and the head, and ``finetune.steps`` (1,).
        """
        shapes = self.parameter_shapes()
        state = dict(shapes)
        for name, shape in shapes.items():
            if name.startswith("layers."):
                state.update({f"pretrain.{name}.{slot}": shape for slot in self.optimizer.slots})
        state["pretrain.steps"] = (len(self.layers),)
        if self.head is not None:
            for name, shape in shapes.items():
                if name.endswith((".W", ".b")):
                    state.update({f"finetune.{name}.{slot}": shape for slot in self.head.optimizer.slots})
            state["finetune.steps"] = (1,)
        return state


# ---- an epoch -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class PretrainPlan:
    """One epoch of pretraining, complete: an engine runs it without asking back.

    At step s every layer takes the clean encoding of minibatch s by the layers under it, **with their
    weights at the start of step s**; then all training layers update (DESIGN: CrossPre).

    Parameters
    ----------
    epoch : int
        Global epoch; part of the noise's counter.
    order : ndarray of uint32, shape (n_visits,)
        Sample ids (row numbers of the data) in the order of their visit.
    batch_size : int
        The last minibatch may be smaller and is averaged over its real size.
    training : tuple of bool
        Per layer of the network: whether it updates. Layers above the last training one are idle;
        the others that do not train only encode.
    learning_rates : tuple of float
        Per layer; only those of training layers matter.
    first_layer : int
        The layer that reads the data: 0, or k when the data are cached encodings by layers 0..k-1.
    handoff : {"clean", "noisy"}
        What a training layer gives to the next one: the encoding of its clean input, or the encoding
        of its corrupted input, which it computes anyway. Layers that do not train always give the clean one.
    """

    epoch: int
    order: NDArray[np.uint32]
    batch_size: int
    training: tuple[bool, ...]
    learning_rates: tuple[float, ...]
    first_layer: int = 0
    handoff: str = "clean"

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {self.batch_size!r}.")
        if len(self.training) != len(self.learning_rates):
            raise ValueError("training and learning_rates need one entry per layer.")
        if not any(self.training[self.first_layer :]) or any(self.training[: self.first_layer]):
            raise ValueError("a plan trains at least one layer, and none below first_layer.")
        _check_name("handoff", self.handoff, HANDOFFS)


@dataclass(frozen=True)
class FinetunePlan:
    """One epoch of supervised fine-tuning of the whole network.

    ``order`` lists the labelled training rows only; ``epoch`` counts fine-tuning epochs from 0 and is
    part of the dropout masks' counter.
    """

    epoch: int
    order: NDArray[np.uint32]
    batch_size: int
    learning_rate: float

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {self.batch_size!r}.")


@dataclass(frozen=True)
class PretrainStats:
    """What an epoch of pretraining gave.

    ``loss`` and ``seconds`` have one entry per layer: the mean reconstruction loss over the visited
    samples, emphasis included and penalties not (NaN for a layer that did not train), and the share
    of the epoch's wall-clock time spent on the layer. ``completed`` is False after an interruption.
    """

    loss: tuple[float, ...]
    seconds: tuple[float, ...]
    completed: bool = True


@dataclass(frozen=True)
class FinetuneStats:
    """What an epoch of fine-tuning gave: mean (weighted) loss over the visited samples, seconds."""

    loss: float
    seconds: float
    completed: bool = True
