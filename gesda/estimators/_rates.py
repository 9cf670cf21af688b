"""Learning rates and batch sizes for those who gave none: what "auto" stands for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gesda.spec import ACTIVATION_RANGES, HeadSpec, LayerSpec


def learning_rates(
    checked: Mapping[str, Any], layers: tuple[LayerSpec, ...], head: HeadSpec | None, square_norm: float
) -> tuple[tuple[float, ...], float]:
    """Learning rates with "auto" filled in: one of pretraining for each layer, and that of fine-tuning.

    "auto" is 0.001 for adam. For sgd it is 0.1, and less where that would overshoot. The curvature of a
    squared error grows with the squared length of what its weights multiply: an output's with the
    encoding's, tied weights' also with the input's. Steps much longer than the inverse curvature (with
    momentum 0.9) diverge, so the rate is at most ``0.5 / (1 + E|h|^2 + E|x|^2)``. The gradient of a
    cross-entropy is bounded, and only unbounded activations need care there.

    Parameters
    ----------
    checked : mapping
        From `check_parameters`.
    layers : tuple of LayerSpec
    head : HeadSpec or None
    square_norm : float
        Mean squared length of the samples.
    """
    lengths = [square_norm]  # of each layer's input, then of the last encoding; bounds or expected values
    for layer in layers:
        if layer.activation in ("sigmoid", "tanh"):
            lengths.append(layer.n_hidden / (3.0 if layer.activation == "sigmoid" else 1.0))
        else:  # Glorot's and He's weights keep the mean square of a component
            lengths.append(lengths[-1] * layer.n_hidden / layer.n_visible)
    pretrain = []
    for k, (layer, rate) in enumerate(zip(layers, checked["pretrain_learning_rate"], strict=True)):
        if rate == "auto":
            rate = 0.001 if checked["pretrain_solver"] == "adam" else 0.1
            if checked["pretrain_solver"] == "sgd" and layer.loss == "squared_error":
                rate = min(rate, 0.5 / (1.0 + lengths[k] + lengths[k + 1]))
        pretrain.append(rate)
    if head is None:
        return tuple(pretrain), math.nan
    rate = checked["learning_rate_init"]
    if rate == "auto":
        rate = 0.001 if checked["solver"] == "adam" else 0.1
        if checked["solver"] == "sgd":
            unbounded = any(ACTIVATION_RANGES[layer.activation] is None for layer in layers)
            longest = max(lengths) if unbounded else lengths[-1]
            if head.kind == "linear":
                rate = min(rate, 0.5 / (1.0 + longest))
            elif unbounded:
                rate = min(rate, 5.0 / (1.0 + longest))
    return tuple(pretrain), rate


def batch_size(given: int | str, n_rows: int, *, one_epoch: bool) -> int:
    """Rows of a minibatch, with "auto" filled in.

    "auto" is 128, and less where that left fewer than 25 updates an epoch: on small data the number of
    updates, not their noise, limits what is learnt. A call of `partial_fit` brings its own batch.
    """
    if isinstance(given, str):
        return 128 if one_epoch else min(128, max(4, n_rows // 25))
    return given
