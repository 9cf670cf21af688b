"""GeSdA's own kernels as contenders, one for each variant of their launches."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import gpu_common
import numpy as np
from gpu_problem import Impossible, Layers, Problem, Trial


@cache
def _device(precision: str, where: str) -> Any:
    return gpu_common.make_device(precision, emulated=where == "emulated")


def _pool(device: Any) -> Any:
    """Where a GPU's arrays are taken from."""
    import cupy

    return getattr(device, "_pool", None) or cupy.get_default_memory_pool()


def _build(case: dict[str, Any], problem: Problem, variant: str) -> Trial:
    from gesda.spec import PretrainPlan

    spec = gpu_common.make_spec(case["widths"], case["seed"], case["noise"])
    pool, before = None, 0
    if case["where"] == "cpu":
        from gesda.engine.reference import ReferenceEngine

        engine: Any = ReferenceEngine(spec)
    else:
        device = _device(case["precision"], case["where"])
        if case["where"] == "cuda":
            pool = _pool(device)
            pool.free_all_blocks()
            before = pool.total_bytes()
        engine = gpu_common.make_engine(spec, device, case["precision"], variant)
    depth, data, epoch = len(spec.layers), engine.place(problem.data), 0

    def reset() -> None:
        nonlocal epoch
        epoch = 0
        for k, parts in enumerate(problem.layers):
            engine.set_state({f"layers.{k}.{name}": part for name, part in zip("Wbc", parts, strict=True)})

    def stage(order: Any) -> Any:
        nonlocal epoch
        epoch += 1  # other noise
        return PretrainPlan(epoch, order.reshape(-1), case["batch"], (True,) * depth, (case["rate"],) * depth)

    def layers() -> Layers:
        found = engine.get_parameters()
        return [tuple(np.asarray(found[f"layers.{k}.{name}"], np.float32) for name in "Wbc") for k in range(depth)]  # type: ignore[misc]

    def memory() -> int | None:
        return None if pool is None else pool.total_bytes() - before

    reset()
    return Trial(reset, stage, partial(engine.pretrain_epoch, data), layers, memory)


def forms(kind: str, case: dict[str, Any], problem: Problem) -> dict[str, Callable[[], Trial]]:
    """The variant of that name: auto, as the engine chooses; tuned, as it measures; panels, persistent, tiles."""
    if case["where"] == "cpu" and kind != "auto":
        raise Impossible("the reference engine has no variants")
    return {kind: partial(_build, case, problem, kind)}
