"""Fine-tuning and inference on the device: their records, and the launches of a step (kernels/dense.cuh).

May import `gesda.spec` and its own package.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gesda.engine import Array
from gesda.engine.cuda.data import DeviceRows, Rows, feed, ring_ticks, slabs
from gesda.engine.cuda.device import Buffers, Device, Phases, Ticks, slow_seconds, tile_kernel
from gesda.engine.cuda.records import (
    DENSE,
    DROPOUT,
    PASS,
    THREADS,
    WARPS,
    noise_key,
    round_up,
    step_rates,
    stream_word,
    tiles,
    update_rule,
)
from gesda.spec import ACTIVATIONS, HEADS, FinetunePlan, HeadSpec

GATHER_INPUT, DRAW_MASK, FORWARD, HEAD_OUTPUT, BACKWARD, UPDATE, UPDATE_BIAS = range(7)
_KERNEL = tile_kernel("dense")
_MOST_ROWS = 1024  # of inference at a time


class DenseLayer(NamedTuple):
    """A layer as these kernels see it: out = s(in W + b)."""

    w: tuple[int, int, int]
    b: tuple[int, int, int]
    inputs: int
    outputs: int
    activation: str
    transposed: bool = False  # the stored matrix is (outputs, inputs)


class _Run:
    """Records of a minibatch that goes up through layers."""

    def __init__(self, device: Device, layers: list[DenseLayer], rows: int) -> None:
        self.device, self.layers, self.rows = device, layers, rows
        self._buffers, self._phases = Buffers(device), Phases()
        inputs = layers[0].inputs
        self._pass, self._records = np.zeros((), dtype=PASS), np.zeros(len(layers), dtype=DENSE)
        self._pass["input"] = self._buffers.zeros(rows, round_up(inputs))
        self._pass["n_layers"], self._pass["batch"] = len(layers), rows
        self._pass["input_stride"], self._pass["scale"] = round_up(inputs), 1.0
        below: Any = self._pass["input"]
        for record, layer in zip(self._records, layers, strict=True):
            record["w"], record["b"], record["in"] = layer.w, layer.b, below
            record["inputs"], record["in_stride"] = layer.inputs, round_up(layer.inputs)
            record["outputs"], record["out_stride"] = layer.outputs, round_up(layer.outputs)
            record["w_stride"] = round_up(layer.inputs if layer.transposed else layer.outputs)
            record["transposed"], record["activation"] = layer.transposed, ACTIVATIONS[layer.activation]
            record["scale"] = 1.0
            below = record["out"] = self._output_of(layer)
        self._arrays = device.zeros(self._records.shape, DENSE), device.zeros((), PASS)
        self._pass["layers"] = device.pointer(self._arrays[0])

    def _output_of(self, layer: DenseLayer) -> int:
        return self._buffers.zeros(self.rows, round_up(layer.outputs))

    def _forward(self) -> None:
        for k, layer in enumerate(self.layers):
            self._phases.add((FORWARD, k, tiles(self.rows, layer.outputs)))

    def _head(self, kind: str) -> None:
        self._pass["head"] = HEADS[kind]
        self._phases.add((HEAD_OUTPUT, len(self.layers) - 1, -(-self.rows // WARPS)))

    def _send(self) -> None:
        for array, values in zip(self._arrays, (self._records, self._pass), strict=True):
            self.device.write(array, values)

    def _launch(self, step: int) -> None:
        self._phases.launch(self.device, _KERNEL, self.device.pointer(self._arrays[1]), step)


class _Inference(_Run):
    """Rows of the data, in their order, up through layers."""

    def __init__(self, device: Device, layers: list[DenseLayer], rows: int, head: str | None) -> None:
        super().__init__(device, layers, rows)
        self._phases.add((GATHER_INPUT, 0, rows))
        self._forward()
        if head is not None:
            self._head(head)
        self._pass["parts"] = self._buffers.put(self._phases.records())
        self._pass["tick"] = self._buffers.zeros(1, dtype=np.int32)

    def _output_of(self, layer: DenseLayer) -> int:
        return 0 if layer is self.layers[-1] else super()._output_of(layer)

    def run(self, source: tuple[int, ...], n_rows: int, out: int) -> None:
        """Compute so many rows of the top layer's output to an address."""
        self._pass["source"], self._pass["n_visits"] = source, n_rows
        self._records[-1]["out"] = out
        self._records[-1]["out_step"] = self.rows * int(self._records[-1]["out_stride"])
        self._send()
        for step in range(-(-n_rows // self.rows)):
            self._launch(step)


def _inference(device: Device, layers: list[DenseLayer], rows: Rows, head: str | None) -> tuple[_Inference, int]:
    """What infers, and the width of the widest matrix."""
    run = _Inference(device, layers, min(rows.shape[0], _MOST_ROWS), head)
    return run, max(layers[0].inputs, *(layer.outputs for layer in layers))


def infer(device: Device, layers: list[DenseLayer], rows: Rows, head: str | None) -> NDArray[np.float32]:
    """Run rows up through layers, and through a head's output if there is one; the result on the host."""
    outputs = np.empty((rows.shape[0], layers[-1].outputs), dtype=np.float32)
    if len(outputs) == 0:
        return outputs
    run, widest = _inference(device, layers, rows, head)
    array: Any = None
    for first, last, source in slabs(device, rows, run.rows, widest):
        if array is None:  # the first slab is the largest
            array = device.zeros((last - first, round_up(outputs.shape[1])), np.float32)
        run.run(source, last - first, device.pointer(array))
        outputs[first:last] = device.read(array)[: last - first, : outputs.shape[1]]
    return outputs


def encode_on_device(device: Device, layers: list[DenseLayer], rows: Rows) -> DeviceRows:
    """As `infer`, but the result stays in device memory."""
    columns = round_up(layers[-1].outputs)
    array = device.zeros((rows.shape[0], columns), np.float32)
    run, widest = _inference(device, layers, rows, None)
    for first, last, source in slabs(device, rows, run.rows, widest):
        run.run(source, last - first, device.pointer(array) + 4 * first * columns)
        device.synchronize()  # the slab's rows are given back
    source = (device.pointer(array), 0, 0, columns, 0, 0, 0)
    return DeviceRows((rows.shape[0], layers[-1].outputs), source, array)


class FinetuneRun(_Run):
    """The records, buffers and graph of an epoch of fine-tuning, which later ones of the same kind use again."""

    def __init__(
        self,
        device: Device,
        layers: list[DenseLayer],
        head: HeadSpec,
        rows: Rows,
        targets: Array,
        sample_weight: NDArray[np.float32] | None,
        plan: FinetunePlan,
    ) -> None:
        n_visits = len(plan.order)
        super().__init__(device, layers, min(plan.batch_size, n_visits))
        self.n_steps, self.plan, self.head, self.rows_given = -(-n_visits // plan.batch_size), plan, head, rows
        record = self._pass
        self._targets = device.zeros(targets.shape, np.int32 if head.kind == "softmax" else np.float32)
        record["classes" if head.kind == "softmax" else "targets"] = device.pointer(self._targets)
        self._weights = None if sample_weight is None else device.zeros(sample_weight.shape, np.float32)
        record["weights"] = 0 if self._weights is None else device.pointer(self._weights)
        self._order = device.zeros((n_visits,), np.uint32)
        self._losses = device.zeros((self.rows,), np.float64)
        self._rates = tuple(device.zeros((self.n_steps,), np.float32) for _ in range(2))
        record["order"], record["n_visits"] = device.pointer(self._order), n_visits
        record["losses"] = device.pointer(self._losses)
        record["rates"], record["inverse_variances"] = (device.pointer(array) for array in self._rates)
        record["rule"], record["l2"] = update_rule(head.optimizer), head.l2
        self._set_dropout(head.dropout)
        for k, layer in enumerate(layers[:-1]):
            self._records[k]["e"] = self._buffers.zeros(self.rows, round_up(layer.outputs))
        self._deal(head.kind)
        record["parts"] = self._buffers.put(self._phases.records())
        operations = 6.0 * self.rows * sum(layer.inputs * layer.outputs for layer in layers)
        seconds, most = slow_seconds(device, operations), ring_ticks(device, rows, self.rows)
        self._ticks = Ticks(device, _KERNEL, self.n_steps, seconds, most, self._launch_some)
        record["tick"], self.stride = self._ticks.tick, self._ticks.stride
        self._feed = feed(device, rows, plan.order, plan.batch_size, self.stride, 0)
        record["source"] = self._feed.source()

    def serves(self, rows: Rows, sample_weight: NDArray[np.float32] | None, plan: FinetunePlan) -> bool:
        """Whether this can run another epoch."""
        kind = plan.batch_size, len(plan.order), sample_weight is None
        return rows is self.rows_given and kind == (
            self.plan.batch_size, len(self.plan.order), self._weights is None,
        )  # fmt: skip

    def start(
        self,
        plan: FinetunePlan,
        targets: Array,
        sample_weight: NDArray[np.float32] | None,
        seed: int,
        steps_done: int,
    ) -> None:
        """Begin an epoch: its targets, order, rates and noise. `steps_done` counts the updates before it."""
        self.plan = plan
        write = self.device.write
        rates = step_rates(self.head.optimizer, plan.learning_rate, steps_done, self.n_steps)
        for array, values in zip(self._rates, rates, strict=True):
            write(array, values)
        write(self._losses, np.zeros(self._losses.shape))
        write(self._order, plan.order.astype(np.uint32, copy=False))
        write(self._targets, np.asarray(targets, dtype=self._targets.dtype))
        if self._weights is not None:
            write(self._weights, np.asarray(sample_weight, dtype=np.float32))
        self._pass["noise"] = noise_key(seed, plan.epoch)
        self._send()
        self._ticks.restart()
        self._feed.start(plan.order)

    def go_on(self) -> None:
        """Launch the next `stride` minibatches; those after the last do nothing."""
        self._feed.launch(self._ticks.go_on)

    def _launch_some(self, steps: int) -> None:
        for step in range(steps):
            self._launch(step)

    def _set_dropout(self, rates: tuple[float, ...]) -> None:
        for position, rate in enumerate(rates):
            if rate == 0.0:
                continue
            record: Any = self._pass if position == 0 else self._records[position - 1]
            width = self.layers[0].inputs if position == 0 else self.layers[position - 1].outputs
            record["dropped"] = self._buffers.zeros(self.rows, round_up(width), dtype=np.uint8)
            record["threshold"], record["stream"] = int(rate * 65536.0 + 0.5), stream_word(DROPOUT, position)
            record["scale"] = 1.0 / (1.0 - rate)

    def _deal(self, head: str) -> None:
        layers, top = self.layers, len(self.layers) - 1
        masks = [(DRAW_MASK, k, self.rows) for k in range(top) if self._records[k]["dropped"]]
        self._phases.add((GATHER_INPUT, 0, self.rows), *masks)
        self._forward()
        self._head(head)
        for k in reversed(range(top)):
            self._phases.add((BACKWARD, k, tiles(self.rows, layers[k].outputs)))
        updates = [(UPDATE, k, tiles(layer.inputs, layer.outputs)) for k, layer in enumerate(layers)]
        self._phases.add(*updates, *((UPDATE_BIAS, k, -(-layer.outputs // THREADS)) for k, layer in enumerate(layers)))

    def loss(self, n_steps: int) -> float:
        """Mean loss of the rows of the first steps."""
        visited = min(n_steps * self.plan.batch_size, len(self.plan.order))
        return float(self.device.read(self._losses).sum()) / visited if visited else 0.0
