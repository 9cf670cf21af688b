"""JAX: one jitted call runs an epoch as a lax.scan over its minibatches, with donated parameters.

Masks compare 16-bit draws; threefry and rbg keys are both tried, and so are two products and one
product over stacked operands for dW. No loss is computed where the gradient does not need it.
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, nn

from contenders.problem import Run, make_problem


def _pretrain(case: dict[str, Any], implementation: str, stacked: bool) -> Run:
    problem = make_problem(case)
    rate = case["rate"] / case["batch"]
    threshold = round(case["noise"] * 65536)
    data, order = jnp.asarray(problem.x), jnp.asarray(problem.order.astype("int32"))
    state = [jnp.asarray(p[0]) for p in (problem.weights, problem.hidden_biases, problem.visible_biases)]
    key = jax.random.key(case["seed"], impl=implementation)

    def epoch(parameters: Any, epoch_key: Any, data: Any) -> Any:
        def step(carry: Any, batch: Any) -> Any:
            W, b, c = carry
            rows, step_key = batch
            x = jnp.take(data, rows, axis=0, mode="clip")
            noisy = jnp.where(jax.random.bits(step_key, x.shape, jnp.uint16) < threshold, 0.0, x)
            h = nn.sigmoid(noisy @ W + b)
            d = nn.sigmoid(h @ W.T + c) - x
            e = (d @ W) * h * (1 - h)
            gradient = jnp.concatenate([noisy, d]).T @ jnp.concatenate([e, h]) if stacked else noisy.T @ e + d.T @ h
            return (W - rate * gradient, b - rate * e.sum(0), c - rate * d.sum(0)), None

        keys = jax.random.split(epoch_key, order.shape[0])
        return lax.scan(step, parameters, (order, keys))[0]

    compiled = jax.jit(epoch, donate_argnums=0)
    parameters = tuple(state)
    number = 0

    def run(epochs: int) -> None:
        nonlocal parameters, number
        for _ in range(epochs):
            parameters = compiled(parameters, jax.random.fold_in(key, number), data)
            number += 1
        jax.block_until_ready(parameters)

    return Run(run, lambda: [np.asarray(parameters[0])])


def _finetune(case: dict[str, Any]) -> Run:
    problem = make_problem(case)
    rate = case["rate"]
    momentum = case["momentum"] if case["optimizer"] == "momentum" else 0.0
    data, labels = jnp.asarray(problem.x), jnp.asarray(problem.labels)
    order = jnp.asarray(problem.order.astype("int32"))
    parameters = [(jnp.asarray(W), jnp.asarray(b)) for W, b in zip(problem.weights, problem.hidden_biases, strict=True)]
    velocities = jax.tree.map(jnp.zeros_like, parameters) if momentum else None

    def loss(parameters: Any, x: Any, targets: Any) -> Any:
        h = x
        for W, b in parameters[:-1]:
            h = nn.sigmoid(h @ W + b)
        W, b = parameters[-1]
        logits = h @ W + b
        picked = jnp.take_along_axis(nn.log_softmax(logits), targets[:, None], axis=1)
        return -picked.mean()

    def epoch(state: Any, data: Any, labels: Any) -> Any:
        def step(carry: Any, rows: Any) -> Any:
            parameters, velocities = carry
            x = jnp.take(data, rows, axis=0, mode="clip")
            gradients = jax.grad(loss)(parameters, x, jnp.take(labels, rows, mode="clip"))
            if velocities is None:
                return (jax.tree.map(lambda p, g: p - rate * g, parameters, gradients), None), None
            velocities = jax.tree.map(lambda v, g: momentum * v - rate * g, velocities, gradients)
            return (jax.tree.map(jnp.add, parameters, velocities), velocities), None

        return lax.scan(step, state, order)[0]

    compiled = jax.jit(epoch, donate_argnums=0)
    state = (parameters, velocities)

    def run(epochs: int) -> None:
        nonlocal state
        for _ in range(epochs):
            state = compiled(state, data, labels)
        jax.block_until_ready(state)

    return Run(run, lambda: [np.asarray(W) for W, _ in state[0]])


def make(case: dict[str, Any]) -> dict[str, Run]:
    """All forms."""
    if case["kind"] == "finetune":
        return {"scan": _finetune(case)}
    return {
        f"{implementation}, {'one' if stacked else 'two'} dW": _pretrain(case, implementation, stacked)
        for implementation, stacked in itertools.product(("threefry2x32", "rbg"), (False, True))
    }
