"""The formulas of the reference engine: activations, objectives, their gradients, the optimisers.

Pure functions of float64 arrays, written from ARCHITECTURE.md ("One step of a layer", "Fine-tuning").
Every objective is written apart from its gradient, so that finite differences can hold the two
together. May import `gesda.spec` only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gesda.spec import LayerSpec, NetworkSpec, OptimizerSpec

Float: TypeAlias = NDArray[np.float64]
Bool: TypeAlias = NDArray[np.bool_]

_MEAN_MARGIN = 1e-6  # keeps the sparsity penalty's logarithm and quotient finite


# ---- activations ----------------------------------------------------------------------------------
def activate(name: str, a: Float) -> Float:
    """Values of an activation at pre-activations ``a``, without overflow."""
    if name == "sigmoid":
        return np.asarray(np.exp(-np.logaddexp(0.0, -a)))
    if name == "tanh":
        return np.asarray(np.tanh(a))
    return np.maximum(a, 0.0) if name == "relu" else a.copy()


def slope(name: str, h: Float) -> Float:
    """First derivative of an activation, from its values ``h``."""
    if name == "sigmoid":
        return h * (1.0 - h)
    if name == "tanh":
        return 1.0 - h * h
    return (h > 0.0).astype(np.float64) if name == "relu" else np.ones_like(h)


def curvature(name: str, h: Float) -> Float:
    """Second derivative of an activation, from its values ``h``."""
    if name == "sigmoid":
        return slope(name, h) * (1.0 - 2.0 * h)
    if name == "tanh":
        return -2.0 * h * slope(name, h)
    return np.zeros_like(h)


# ---- one denoising autoencoder --------------------------------------------------------------------
@dataclass(frozen=True)
class LayerStep:
    """What one minibatch gives for one layer.

    ``gradients`` by full parameter name, ``hidden`` the encoding of the corrupted input
    (n_rows, n_hidden), ``losses`` the rows' reconstruction losses (n_rows,).
    """

    gradients: dict[str, Float]
    hidden: Float
    losses: Float


def _emphasis(layer: LayerSpec, corrupted: Bool) -> Float:
    return np.where(corrupted, layer.emphasis[0], layer.emphasis[1])


def _row_losses(layer: LayerSpec, a: Float, x: Float, weight: Float) -> Float:
    """Reconstruction loss of each row, from the decoder's pre-activations ``a``."""
    if layer.loss == "cross_entropy":
        terms = np.maximum(a, 0.0) - a * x + np.log1p(np.exp(-np.abs(a)))
    else:
        terms = 0.5 * (activate(layer.output_activation, a) - x) ** 2
    return np.asarray((weight * terms).sum(axis=1))


def _decoder_weights(layer: LayerSpec, prefix: str, params: Mapping[str, Float]) -> Float:
    return params[prefix + "W"].T if layer.tied else params[prefix + "V"]  # (n_hidden, n_visible)


def encode_layer(spec: NetworkSpec, k: int, params: Mapping[str, Float], x: Float) -> Float:
    """Encode ``x`` (n_rows, n_visible) by layer ``k``, shape (n_rows, n_hidden)."""
    return activate(spec.layers[k].activation, x @ params[f"layers.{k}.W"] + params[f"layers.{k}.b"])


def decode_layer(spec: NetworkSpec, k: int, params: Mapping[str, Float], h: Float) -> Float:
    """Reconstruct layer ``k``'s input from its encoding ``h``, shape (n_rows, n_visible)."""
    layer, prefix = spec.layers[k], f"layers.{k}."
    return activate(layer.output_activation, h @ _decoder_weights(layer, prefix, params) + params[prefix + "c"])


def objective(
    spec: NetworkSpec, layer_index: int, params: Mapping[str, Float], x: Float, x_corrupted: Float, corrupted: Bool
) -> float:
    """Compute what a layer's gradients are the gradients of: mean reconstruction loss and penalties.

    Parameters
    ----------
    spec : NetworkSpec
    layer_index : int
    params : mapping of str to ndarray of float64
        The layer's parameters under their names of `NetworkSpec.parameter_shapes`.
    x, x_corrupted : ndarray of float64, shape (n_rows, n_visible)
        The clean minibatch and its corrupted copy.
    corrupted : ndarray of bool, shape (n_rows, n_visible)
        The components that count as corrupted, for the emphasis.

    Returns
    -------
    value : float
    """
    layer, prefix = spec.layers[layer_index], f"layers.{layer_index}."
    w = params[prefix + "W"]
    h = encode_layer(spec, layer_index, params, x_corrupted)
    a = h @ _decoder_weights(layer, prefix, params) + params[prefix + "c"]
    value = _row_losses(layer, a, x, _emphasis(layer, corrupted)).mean()
    if layer.sparsity:
        rho = layer.sparsity_target
        mean = np.clip(h.mean(axis=0), _MEAN_MARGIN, 1.0 - _MEAN_MARGIN)
        divergence = rho * np.log(rho / mean) + (1.0 - rho) * np.log((1.0 - rho) / (1.0 - mean))
        value += layer.sparsity * divergence.sum()
    if layer.contractive:
        squared_norms = (slope(layer.activation, h) ** 2) @ (w**2).sum(axis=0)
        value += layer.contractive * squared_norms.mean()
    value += 0.5 * layer.l2 * (w**2).sum()
    if not layer.tied:
        value += 0.5 * layer.l2 * (params[prefix + "V"] ** 2).sum()
    return float(value)


def layer_step(
    spec: NetworkSpec, layer_index: int, params: Mapping[str, Float], x: Float, x_corrupted: Float, corrupted: Bool
) -> LayerStep:
    """Compute the gradients of `objective` with respect to the layer's parameters; parameters as there."""
    layer, prefix = spec.layers[layer_index], f"layers.{layer_index}."
    w, decoder = params[prefix + "W"], _decoder_weights(layer, prefix, params)
    n_rows = len(x)
    weight = _emphasis(layer, corrupted)

    h = encode_layer(spec, layer_index, params, x_corrupted)  # (B, n_hidden)
    a = h @ decoder + params[prefix + "c"]  # (B, n_visible)
    z = activate(layer.output_activation, a)
    d = weight * (z - x)
    if layer.loss == "squared_error":
        d = d * slope(layer.output_activation, z)

    s1 = slope(layer.activation, h)
    e = (d @ decoder.T) * s1
    if layer.sparsity:
        rho = layer.sparsity_target
        mean = np.clip(h.mean(axis=0), _MEAN_MARGIN, 1.0 - _MEAN_MARGIN)
        e = e + layer.sparsity * (-rho / mean + (1.0 - rho) / (1.0 - mean)) * s1
    if layer.contractive:
        e = e + 2.0 * layer.contractive * s1 * curvature(layer.activation, h) * (w**2).sum(axis=0)

    dw = x_corrupted.T @ e / n_rows
    gradients = {prefix + "b": e.mean(axis=0), prefix + "c": d.mean(axis=0)}
    if layer.tied:
        dw = dw + d.T @ h / n_rows
    else:
        gradients[prefix + "V"] = h.T @ d / n_rows + layer.l2 * params[prefix + "V"]
    dw = dw + layer.l2 * w
    if layer.contractive:
        dw = dw + 2.0 * layer.contractive * (s1**2).mean(axis=0) * w
    gradients[prefix + "W"] = dw
    return LayerStep(gradients, h, _row_losses(layer, a, x, weight))


# ---- the whole network, supervised ----------------------------------------------------------------
def softmax(a: Float) -> Float:
    """Row-wise softmax without overflow."""
    powers = np.exp(a - a.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _supervised_losses(kind: str, a: Float, targets: NDArray[Any]) -> Float:
    """Loss of each row, from the head's pre-activations ``a`` (n_rows, n_outputs)."""
    if kind == "softmax":
        top = a.max(axis=1)
        log_sum = top + np.log(np.exp(a - top[:, None]).sum(axis=1))
        return np.asarray(log_sum - a[np.arange(len(a)), targets])
    return np.asarray(0.5 * ((a - targets) ** 2).sum(axis=1))


def _forward(
    spec: NetworkSpec, params: Mapping[str, Float], x: Float, scales: Sequence[Float | float]
) -> tuple[list[Float], list[Float], Float]:
    """Run the whole network.

    Returns each layer's input after dropout (the head's too), each layer's encoding before dropout,
    and the head's pre-activations.
    """
    inputs, encodings = [x * scales[0]], []
    for k in range(len(spec.layers)):
        encodings.append(encode_layer(spec, k, params, inputs[-1]))
        inputs.append(encodings[-1] * scales[k + 1])
    return inputs, encodings, inputs[-1] @ params["head.W"] + params["head.b"]


def finetune_objective(
    spec: NetworkSpec,
    params: Mapping[str, Float],
    x: Float,
    targets: NDArray[Any],
    sample_weight: Float,
    scales: Sequence[Float | float],
) -> float:
    """Compute what is fine-tuned: ``1/B sum_r weight_r loss_r`` and the L2 penalty.

    Parameters
    ----------
    spec : NetworkSpec
        With a head.
    params : mapping of str to ndarray of float64
    x : ndarray of float64, shape (n_rows, n_visible)
    targets : ndarray of int, shape (n_rows,), or of float, shape (n_rows, n_outputs)
        Class indices for a softmax head, values for a linear one.
    sample_weight : ndarray of float64, shape (n_rows,)
    scales : sequence of ndarray or float
        Dropout's factors of the input and of each layer's encoding (n_rows, width).

    Returns
    -------
    value : float
    """
    assert spec.head is not None
    *_, a = _forward(spec, params, x, scales)
    value = (sample_weight * _supervised_losses(spec.head.kind, a, targets)).mean()
    weights = [params[f"layers.{k}.W"] for k in range(len(spec.layers))] + [params["head.W"]]
    return float(value + 0.5 * spec.head.l2 * sum((w**2).sum() for w in weights))


def finetune_step(
    spec: NetworkSpec,
    params: Mapping[str, Float],
    x: Float,
    targets: NDArray[Any],
    sample_weight: Float,
    scales: Sequence[Float | float],
) -> tuple[dict[str, Float], Float]:
    """Compute the gradients of `finetune_objective` by name, and the rows' weighted losses (n_rows,)."""
    assert spec.head is not None
    inputs, encodings, a = _forward(spec, params, x, scales)
    if spec.head.kind == "softmax":
        d = softmax(a)
        d[np.arange(len(a)), targets] -= 1.0
    else:
        d = a - targets
    d = d * sample_weight[:, None] / len(x)
    losses = sample_weight * _supervised_losses(spec.head.kind, a, targets)

    gradients = {
        "head.W": inputs[-1].T @ d + spec.head.l2 * params["head.W"],
        "head.b": d.sum(axis=0),
    }
    below = d @ params["head.W"].T  # gradient with respect to the encoding after dropout
    for k in reversed(range(len(spec.layers))):
        w = params[f"layers.{k}.W"]
        e = below * scales[k + 1] * slope(spec.layers[k].activation, encodings[k])
        gradients[f"layers.{k}.W"] = inputs[k].T @ e + spec.head.l2 * w
        gradients[f"layers.{k}.b"] = e.sum(axis=0)
        below = e @ w.T
    return gradients, losses


# ---- optimisers -----------------------------------------------------------------------------------
def update(
    optimizer: OptimizerSpec, rate: float, t: int, parameter: Float, gradient: Float, slots: Mapping[str, Float]
) -> None:
    """Update a parameter array and its optimiser state in place.

    Parameters
    ----------
    optimizer : OptimizerSpec
    rate : float
        Learning rate.
    t : int
        Number of this update, from 1; Adam's bias correction needs it.
    parameter, gradient : ndarray of float64
    slots : mapping of str to ndarray of float64
        The parameter's state arrays, by `OptimizerSpec.slots`.
    """
    if optimizer.kind == "sgd":
        parameter -= rate * gradient
    elif optimizer.kind == "momentum":
        velocity = slots["velocity"]
        velocity *= optimizer.momentum
        velocity -= rate * gradient
        parameter += optimizer.momentum * velocity - rate * gradient if optimizer.nesterov else velocity
    else:
        mean, variance = slots["mean"], slots["variance"]
        mean *= optimizer.beta_1
        mean += (1.0 - optimizer.beta_1) * gradient
        variance *= optimizer.beta_2
        variance += (1.0 - optimizer.beta_2) * gradient**2
        corrected = np.sqrt(variance / (1.0 - optimizer.beta_2**t)) + optimizer.epsilon
        parameter -= rate / (1.0 - optimizer.beta_1**t) * mean / corrected
