"""JAX: one jitted call runs a chunk of steps as a lax.scan, parameters donated."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the other contenders need memory too

import jax
import jax.numpy as jnp
import numpy as np
from gpu_problem import Impossible, Layers, Problem, Trial
from jax import lax, nn

PRECISIONS = {"tf32": "tensorfloat32", "fp32": "float32", "fp16": "default"}
#: Captures the loop itself into a CUDA graph, beside what XLA captures anyway.
GRAPH_OF_LOOP = {"xla_gpu_enable_command_buffer": "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,DYNAMIC_SLICE_FUSION,WHILE"}


def _chunk(case: dict[str, Any], unroll: int) -> Callable[..., Any]:
    """Function of parameters, key, data and order (steps, batch) that trains so many steps."""
    batch, rate, threshold = case["batch"], case["rate"] / case["batch"], round(case["noise"] * 65536)
    operand = jnp.float16 if case["precision"] == "fp16" else jnp.float32
    last = len(case["widths"]) - 2

    def product(left: Any, right: Any) -> Any:
        return jnp.matmul(left.astype(operand), right.astype(operand), preferred_element_type=jnp.float32)

    def chunk(layers: Any, key: Any, data: Any, order: Any) -> Any:
        def step(layers: Any, visit: Any) -> Any:
            rows, step_key = visit
            x, updated = jnp.take(data, rows, axis=0, mode="clip"), []
            for k, (W, b, c) in enumerate(layers):
                bits = jax.random.bits(jax.random.fold_in(step_key, k), x.shape, jnp.uint16)
                noisy = jnp.where(bits < threshold, 0.0, x) if threshold else x
                codes = nn.sigmoid(product(jnp.concatenate([noisy, x]) if k < last else noisy, W) + b)
                h = codes[:batch]
                d = nn.sigmoid(product(h, W.T) + c) - x
                e = product(d, W) * h * (1 - h)
                gradient = product(jnp.concatenate([noisy, d]).T, jnp.concatenate([e, h]))
                updated.append((W - rate * gradient, b - rate * e.sum(0), c - rate * d.sum(0)))
                x = codes[batch:]
            return updated, None

        return lax.scan(step, layers, (order, jax.random.split(key, len(order))), unroll=unroll)[0]

    return chunk


def _build(
    case: dict[str, Any], problem: Problem, keys: str, unroll: int, options: dict[str, Any] | None = None
) -> Trial:
    if options and case["where"] != "cuda":
        raise Impossible("CUDA graphs need a GPU")
    device = jax.devices("gpu" if case["where"] == "cuda" else "cpu")[0]
    data = jax.device_put(problem.data, device)
    key = jax.device_put(jax.random.key(case["seed"], impl=keys), device)
    n_steps, layers, number = case["chunk"], None, 0

    def reset() -> None:
        nonlocal layers
        layers = jax.device_put([tuple(parts) for parts in problem.layers], device)

    reset()
    order = jax.ShapeDtypeStruct((n_steps, case["batch"]), jnp.int32)
    with jax.default_matmul_precision(PRECISIONS[case["precision"]]):
        lowered = jax.jit(_chunk(case, unroll), donate_argnums=0).lower(layers, key, data, order)
    compiled = lowered.compile(compiler_options=options)

    def stage(order: Any) -> Any:
        return [
            jax.device_put(order[first : first + n_steps].astype(np.int32), device)
            for first in range(0, len(order), n_steps)
        ]

    def run(chunks: Any) -> None:
        nonlocal layers, number
        for rows in chunks:
            layers = compiled(layers, jax.random.fold_in(key, number), data, rows)
            number += 1
        jax.block_until_ready(layers)

    def arrays() -> Layers:
        return [tuple(np.array(part) for part in parts) for parts in layers]  # type: ignore[misc, union-attr]

    def memory() -> int | None:
        found = compiled.memory_analysis()
        sizes = ("argument_size_in_bytes", "output_size_in_bytes", "temp_size_in_bytes")
        return sum(getattr(found, size) for size in sizes) - found.alias_size_in_bytes if found else None

    return Trial(reset, stage, run, arrays, memory, {"steps_of_a_scan": n_steps})


def forms(kind: str, case: dict[str, Any], problem: Problem) -> dict[str, Callable[[], Trial]]:
    """Ways to run the scan; the worker keeps the fastest."""
    return {
        "rbg": partial(_build, case, problem, "rbg", 1),
        "rbg, unrolled 4 times": partial(_build, case, problem, "rbg", 4),
        "rbg, the loop in a graph": partial(_build, case, problem, "rbg", 1, GRAPH_OF_LOOP),
        "threefry": partial(_build, case, problem, "threefry2x32", 1),
    }
