"""``gesda bench``: the speed of one training step on this machine."""

from __future__ import annotations

import argparse
import math
import statistics
import time
from typing import Any

import numpy as np

from gesda.cli._common import UsageError, emit
from gesda.diagnostics import usable_cores, version_info
from gesda.engine import select
from gesda.spec import LayerSpec, NetworkSpec, PretrainPlan

# Long enough that entering the engine does not count, short enough for a median over many.
_EPOCH_SECONDS = 0.05


def run(arguments: argparse.Namespace) -> int:
    """Measure every combination of the shapes and the batch sizes."""
    if not 0.0 < arguments.seconds <= 600.0:
        raise UsageError(f"--seconds must lie in (0, 600]; got {arguments.seconds:g}.")
    system = version_info()
    rows = []
    for n_visible, n_hidden in arguments.shapes:
        for batch in arguments.batch:
            rows.append(_measure(arguments, n_visible, n_hidden, batch))
    lines = [
        f"{system['system']['cpu']}, {usable_cores()} usable cores, {rows[0]['device']} engine, {arguments.precision}",
        f"{'visible':>8} {'hidden':>7} {'batch':>6} {'steps/s':>10} {'ms/step':>9} {'GFLOP/s':>8}",
    ]
    for row in rows:
        lines.append(
            f"{row['n_visible']:>8} {row['n_hidden']:>7} {row['batch']:>6} {row['steps_per_second']:>10.1f} "
            f"{row['milliseconds_per_step']:>9.3f} {row['gflops']:>8.1f}"
        )
    emit(arguments, {"command": "bench", "results": rows, **system}, lines)
    return 0


def _measure(arguments: argparse.Namespace, n_visible: int, n_hidden: int, batch: int) -> dict[str, Any]:
    spec = NetworkSpec((LayerSpec(n_visible, n_hidden),))
    engine = select(arguments.device or "auto", spec, precision=arguments.precision, n_jobs=arguments.jobs)
    rng = np.random.default_rng(0)
    limit = 4.0 * math.sqrt(6.0 / (n_visible + n_hidden))
    weights = rng.uniform(-limit, limit, size=(n_visible, n_hidden)).astype(np.float32)
    engine.set_state({"layers.0.W": weights})
    data = engine.place(rng.random((16 * batch, n_visible), dtype=np.float32))
    epoch = 0

    def run_steps(n_steps: int) -> float:
        nonlocal epoch
        order = (np.arange(n_steps * batch) % data.shape[0]).astype(np.uint32)
        plan = PretrainPlan(epoch, order, batch, (True,), (0.01,))
        epoch += 1
        started = time.perf_counter()
        engine.pretrain_epoch(data, plan)
        return time.perf_counter() - started

    run_steps(2)  # warm-up: threads, caches, pages
    n_steps = 1
    while (seconds := run_steps(n_steps)) < _EPOCH_SECONDS / 2 and n_steps < 2**16:
        n_steps *= 2
    n_steps = max(1, round(n_steps * _EPOCH_SECONDS / max(seconds, 1e-9))) if seconds < _EPOCH_SECONDS else n_steps
    times: list[float] = []
    finish = time.perf_counter() + arguments.seconds
    while not times or time.perf_counter() < finish:
        times.append(run_steps(n_steps) / n_steps)
    step = statistics.median(times)
    return {
        "n_visible": n_visible,
        "n_hidden": n_hidden,
        "batch": batch,
        "device": engine.name,
        "precision": engine.precision,
        "steps_per_second": 1.0 / step,
        "milliseconds_per_step": 1e3 * step,
        "gflops": 10.0 * batch * n_visible * n_hidden / step / 1e9,
        "measurements": len(times),
    }
