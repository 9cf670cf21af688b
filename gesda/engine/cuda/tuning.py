"""Which variant pretrains fastest: measured once, kept in a file by device and shapes.

May import `gesda.spec` and its own package.
"""

from __future__ import annotations

import time

import numpy as np

from gesda.engine.cuda.cache import keep, recall
from gesda.engine.cuda.data import place
from gesda.engine.cuda.device import Buffers, Device
from gesda.engine.cuda.pretrain import PretrainRun, layers_of
from gesda.engine.cuda.records import round_up
from gesda.engine.cuda.source import kernel_hash
from gesda.engine.cuda.variants import Variant, candidates, choose
from gesda.spec import NetworkSpec, PretrainPlan

_REPLAYS = 3  # of a graph, timed together


def fastest(spec: NetworkSpec, device: Device, precision: str, plan: PretrainPlan) -> Variant:
    """The variant that runs epochs of this kind in the least time; measured if it is not known yet.

    Where memory has no room for the trials it is what `choose` takes.
    """
    layers, rows = layers_of(plan), min(plan.batch_size, len(plan.order))
    widths = [(spec.layers[k].n_visible, spec.layers[k].n_hidden) for k in layers]
    tied = [spec.layers[k].tied for k in layers]
    work = widths, tied, spec.optimizer.kind, rows, plan.training, plan.handoff
    key = "fastest", device.name, kernel_hash(), precision, *work
    known = recall(*key)
    if known is None:
        try:
            able = candidates(device, widths, rows)
            times = {variant: _seconds(spec, device, plan, rows, variant) for variant in able}
        except MemoryError:  # the trials need a network of their own
            return choose(device, widths, rows)
        best = min(times.items(), key=lambda item: item[1])[0]
        known = [best.kind, *best.panel]
        keep(known, *key)
    kind, tiles, columns = known
    return Variant(kind, (tiles, columns))


def _seconds(spec: NetworkSpec, device: Device, plan: PretrainPlan, rows: int, variant: Variant) -> float:
    """Seconds of some ticks, on parameters and data made for it."""
    buffers, width = Buffers(device), spec.layers[plan.first_layer].n_visible
    shapes = spec.state_shapes()

    rng = np.random.default_rng(0)  # zeros would be multiplied faster

    def parameter(name: str) -> tuple[int, int, int]:
        *height, columns = (1, *shapes[name])[-2:]
        values = np.zeros((height[0], round_up(columns)), np.float32)
        values[:, :columns] = rng.normal(0.0, 0.03, (height[0], columns))
        return buffers.put(values), buffers.zeros(values.size), buffers.zeros(values.size)

    order = np.arange(rows * device.ticks_of_a_graph * (_REPLAYS + 1), dtype=np.uint32) % rows
    trial = PretrainPlan(
        plan.epoch, order, rows, plan.training, plan.learning_rates, plan.first_layer, handoff=plan.handoff
    )
    data = place(device, rng.random((rows, width), dtype=np.float32))
    run = PretrainRun(spec, device, parameter, data, trial, variant)
    run.start(trial, np.zeros(len(spec.layers), np.int64))
    run.go_on()
    device.synchronize()
    started = time.perf_counter()
    for _ in range(_REPLAYS):
        run.go_on()
    device.synchronize()
    return time.perf_counter() - started
