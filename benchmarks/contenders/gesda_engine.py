"""GeSdA through its public engine protocol: one epoch plan per call, all steps inside the engine."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from typing import Any

from contenders.problem import Float, Run, make_problem
from gesda.engine import select
from gesda.spec import FinetunePlan, HeadSpec, LayerSpec, NetworkSpec, OptimizerSpec, PretrainPlan


def fma_peak(threads: int, seconds: float) -> float:
    """GFLOP/s of register-only fused multiply-adds, as GeSdA's core measures it; NaN without the core."""
    try:
        from gesda._core import fma_peak as measure
    except ImportError:
        return math.nan
    return float(measure(threads, seconds)) / 1e9


def make_spec(case: dict[str, Any]) -> NetworkSpec:
    """The network of a case."""
    widths = case["layers"]
    optimizer = OptimizerSpec(case["optimizer"], momentum=case["momentum"])
    pairs = itertools.pairwise(widths)
    return NetworkSpec(
        layers=tuple(LayerSpec(n, m, noise="masking", noise_level=case["noise"]) for n, m in pairs),
        optimizer=optimizer,
        head=HeadSpec("softmax", case["n_outputs"], optimizer) if case["kind"] == "finetune" else None,
        seed=case["seed"],
    )


def _make(case: dict[str, Any], precision: str) -> dict[str, Run]:
    problem = make_problem(case)
    spec = make_spec(case)
    engine = select(case["engine"], spec, precision=precision, n_jobs=case["threads"])
    state = {}
    for k in range(len(spec.layers)):
        state[f"layers.{k}.W"] = problem.weights[k]
        state[f"layers.{k}.b"] = problem.hidden_biases[k]
        state[f"layers.{k}.c"] = problem.visible_biases[k]
    if spec.head is not None:
        state["head.W"], state["head.b"] = problem.weights[-1], problem.hidden_biases[-1]
    engine.set_state(state)
    order = problem.order.reshape(-1)
    done = 0

    def pretrain(epochs: int, visits: int | None = None) -> None:
        nonlocal done
        layers = len(spec.layers)
        for _ in range(epochs):
            plan = PretrainPlan(
                epoch=done,
                order=order[:visits],
                batch_size=case["batch"],
                training=(True,) * layers,
                learning_rates=(case["rate"],) * layers,
            )
            engine.pretrain_epoch(problem.x, plan)
            done += 1

    def finetune(epochs: int, visits: int | None = None) -> None:
        nonlocal done
        for _ in range(epochs):
            plan = FinetunePlan(done, order[:visits], case["batch"], case["rate"])
            engine.finetune_epoch(problem.x, problem.labels, plan)
            done += 1

    def weights() -> list[Float]:
        parameters = engine.get_parameters()
        return [parameters[name] for name in spec.parameter_shapes() if name.endswith(".W")]

    train = pretrain if case["kind"] == "pretrain" else finetune
    start = engine.get_state()
    details = _details(case, train)
    engine.set_state(start)
    return {precision: Run(train, weights, details)}


def _details(case: dict[str, Any], train: Callable[[int, int], None]) -> dict[str, Any]:
    """The SIMD variant, and the milliseconds of an epoch of one minibatch: what a call costs on top of its steps."""
    spent = []
    for _ in range(5):
        begin = time.perf_counter()
        train(1, case["batch"])
        spent.append(1e3 * (time.perf_counter() - begin))
    details: dict[str, Any] = {"one_minibatch_epoch_ms": sorted(spent)[2]}
    if case["engine"] == "cpu":
        from gesda.engine.cpu import active_variant

        details["simd"] = active_variant()
    return details


def make_fp32(case: dict[str, Any]) -> dict[str, Run]:
    """Operands in float32."""
    return _make(case, "fp32")


def make_bf16(case: dict[str, Any]) -> dict[str, Run]:
    """Operands of matrix products in bfloat16, weights and sums in float32."""
    return _make(case, "bf16")
