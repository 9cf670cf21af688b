"""The reference's gradients against finite differences of its objectives, in float64, for every option."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from engine_cases import OPTIMIZERS, covering_rows, draw_seed, layer_from_row, random_state, stack, with_head

from gesda.engine._reference_noise import corrupt, dropout_scale
from gesda.engine.reference import finetune_objective, finetune_step, layer_step, objective
from gesda.spec import NetworkSpec

STEP = 1e-5


def float64(state):
    return {name: array.astype(np.float64) for name, array in state.items()}


def assert_gradients(value, params, gradients):
    """Compare every component with the central difference of ``value(params)``."""
    for name, gradient in gradients.items():
        for index in np.ndindex(gradient.shape):
            moved = {n: p.copy() for n, p in params.items()}
            moved[name][index] += STEP
            above = value(moved)
            moved[name][index] -= 2 * STEP
            difference = (above - value(moved)) / (2 * STEP)
            np.testing.assert_allclose(gradient[index], difference, rtol=1e-6, atol=1e-7, err_msg=f"{name}{index}")


def far_from_kinks(spec, params, x, x_corrupted):
    """Whether no rectifier's pre-activation is so near 0 that a finite difference would cross it."""
    layer, w, b, c = spec.layers[0], *(params[f"layers.0.{name}"] for name in "Wbc")
    a = x_corrupted @ w + b
    h = layer_step(spec, 0, params, x, x_corrupted, np.zeros(x.shape, bool)).hidden
    out = h @ (w.T if layer.tied else params["layers.0.V"]) + c
    return not (layer.activation == "relu" and np.abs(a).min() < 1e-3) and not (
        layer.output_activation == "relu" and np.abs(out).min() < 1e-3
    )


def test_pretraining_gradients_for_every_pair_of_options(rng):
    for row in covering_rows(rng):
        while True:
            spec = NetworkSpec((layer_from_row(row, 5, 4, rng),), seed=draw_seed(rng))
            params, x = float64(random_state(spec, rng)), rng.random((3, 5))
            ids = rng.integers(2**32, size=3, dtype=np.uint32)
            x_corrupted, corrupted = corrupt(spec.layers[0], spec.seed, 0, 1, ids, x)
            if far_from_kinks(spec, params, x, x_corrupted):
                break
        step = layer_step(spec, 0, params, x, x_corrupted, corrupted)
        assert set(step.gradients) == set(params)
        assert_gradients(
            lambda p, args=(x, x_corrupted, corrupted), s=spec: objective(s, 0, p, *args), params, step.gradients
        )


def test_losses_are_the_objective_without_penalties(rng):
    options = {"sparsity": 0.5, "contractive": 0.5, "l2": 0.5, "tied": False}
    spec, free = stack((6, 4), **options), stack((6, 4), tied=False)
    params, x = float64(random_state(spec, rng)), rng.random((7, 6))
    x_corrupted, corrupted = corrupt(spec.layers[0], 1, 0, 0, np.arange(7, dtype=np.uint32), x)
    losses = layer_step(spec, 0, params, x, x_corrupted, corrupted).losses
    np.testing.assert_allclose(losses.mean(), objective(free, 0, params, x, x_corrupted, corrupted), rtol=1e-14)
    assert objective(spec, 0, params, x, x_corrupted, corrupted) > losses.mean() + 0.1


@pytest.mark.parametrize(
    ("kind", "activation", "n_layers"),
    list(itertools.product(["softmax", "linear"], ["sigmoid", "tanh", "linear"], [1, 3])),
)
@pytest.mark.parametrize("rates", [0.0, 0.4])
def test_finetuning_gradients(rng, kind, activation, n_layers, rates):
    spec = with_head(stack((5, 4, 3, 4)[: n_layers + 1], activation=activation), kind, 3, l2=0.1)
    params, x = float64(random_state(spec, rng)), rng.random((4, 5))
    targets = rng.integers(3, size=4) if kind == "softmax" else rng.normal(size=(4, 3))
    weight, ids = rng.random(4), np.arange(4, dtype=np.uint32)
    widths = [5, *(layer.n_hidden for layer in spec.layers)]
    scales = [dropout_scale(rates, draw_seed(rng), k, 0, ids, width) for k, width in enumerate(widths)]
    gradients, losses = finetune_step(spec, params, x, targets, weight, scales)
    assert set(gradients) == {name for name in params if name.endswith((".W", ".b"))}
    assert_gradients(lambda p: finetune_objective(spec, p, x, targets, weight, scales), params, gradients)
    penalty = 0.05 * sum((p**2).sum() for name, p in params.items() if name.endswith("W"))
    value = finetune_objective(spec, params, x, targets, weight, scales)
    np.testing.assert_allclose(losses.mean() + penalty, value, rtol=1e-13)


def test_finetuning_gradients_of_rectifiers(rng):
    spec = with_head(stack((5, 6, 4), activation="relu"), "softmax", 3)
    while True:
        params, x = float64(random_state(spec, rng)), rng.random((4, 5))
        first = x @ params["layers.0.W"] + params["layers.0.b"]
        second = np.maximum(first, 0) @ params["layers.1.W"] + params["layers.1.b"]
        if min(np.abs(first).min(), np.abs(second).min()) > 1e-3:
            break
    args = (x, rng.integers(3, size=4), np.ones(4), [1.0] * 3)
    gradients, _ = finetune_step(spec, params, *args)
    assert_gradients(lambda p: finetune_objective(spec, p, *args), params, gradients)


def test_extreme_logits_have_finite_losses_and_exact_gradients(rng):
    # Far outside the range of exp in float64; filterwarnings turns an overflow into a failure.
    spec = with_head(stack((3, 2)), "softmax", 2)
    params = {name: np.sign(array) * 1e5 for name, array in float64(random_state(spec, rng)).items()}
    x = np.array([[0.0, 0.5, 1.0]])
    step = layer_step(spec, 0, params, x, x, np.zeros((1, 3), bool))
    assert np.isfinite(step.losses).all() and all(np.isfinite(g).all() for g in step.gradients.values())
    _, losses = finetune_step(spec, params, x, np.array([1]), np.ones(1), [1.0, 1.0])
    assert np.isfinite(losses).all()


def test_every_optimizer_has_a_descending_first_step(rng):
    from gesda.engine._reference_math import update

    for optimizer in OPTIMIZERS.values():
        gradient = rng.normal(size=(4, 3))
        parameter, slots = np.zeros((4, 3)), {slot: np.zeros((4, 3)) for slot in optimizer.slots}
        update(optimizer, 0.1, 1, parameter, gradient, slots)
        np.testing.assert_array_equal(np.sign(parameter), -np.sign(gradient))
