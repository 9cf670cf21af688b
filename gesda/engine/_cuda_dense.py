"""Fine-tuning and inference on the device: their records, and the launches of a step (kernels/dense.cuh)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gesda.engine import Array, Data
from gesda.engine._cuda_records import (
    DENSE,
    DROPOUT,
    PASS,
    THREADS,
    Buffers,
    Device,
    Phases,
    noise_key,
    round_up,
    step_rates,
    stream_word,
    tiles,
    update_rule,
)
from gesda.spec import ACTIVATIONS, HEADS, FinetunePlan, HeadSpec

GATHER_INPUT, DRAW_MASK, FORWARD, HEAD_OUTPUT, BACKWARD, UPDATE, UPDATE_BIAS = range(7)
_WARPS = THREADS // 32
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

    def __init__(self, device: Device, layers: list[DenseLayer], data: Data, rows: int) -> None:
        self.device, self.layers, self.rows = device, layers, rows
        self._buffers, self._phases = Buffers(device), Phases()
        inputs = layers[0].inputs
        self._pass, self._records = np.zeros((), dtype=PASS), np.zeros(len(layers), dtype=DENSE)
        self._pass["source"], self._pass["tick"] = self._buffers.source(data), self._buffers.zeros(1, dtype=np.int32)
        self._pass["input"] = self._buffers.zeros(rows, round_up(inputs))
        self._pass["n_layers"], self._pass["batch"], self._pass["n_visits"] = len(layers), rows, data.shape[0]
        self._pass["input_stride"], self._pass["scale"] = round_up(inputs), 1.0
        below = self._pass["input"]
        for record, layer in zip(self._records, layers, strict=True):
            self._out = device.zeros((rows, round_up(layer.outputs)), np.float32)  # at the end the top layer's
            self._buffers.keep(self._out)
            record["w"], record["b"], record["in"], record["out"] = layer.w, layer.b, below, device.pointer(self._out)
            record["inputs"], record["in_stride"] = layer.inputs, round_up(layer.inputs)
            record["outputs"], record["out_stride"] = layer.outputs, round_up(layer.outputs)
            record["w_stride"] = round_up(layer.inputs if layer.transposed else layer.outputs)
            record["transposed"], record["activation"] = layer.transposed, ACTIVATIONS[layer.activation]
            record["scale"] = 1.0
            below = record["out"]

    def _forward(self) -> None:
        for k, layer in enumerate(self.layers):
            self._phases.add((FORWARD, k, tiles(self.rows, layer.outputs)))

    def _head(self, kind: str) -> None:
        self._pass["head"] = HEADS[kind]
        self._phases.add((HEAD_OUTPUT, len(self.layers) - 1, -(-self.rows // _WARPS)))

    def _send(self) -> None:
        self._pass["layers"] = self._buffers.put(self._records)
        self._pass["parts"] = self._buffers.put(self._phases.records())
        self._address = self._buffers.put(self._pass)

    def step(self, step: int) -> None:
        """Launch a minibatch."""
        self._phases.launch(self.device, "dense", self._address, step)


def infer(device: Device, layers: list[DenseLayer], data: Data, head: str | None) -> NDArray[np.float32]:
    """Run rows up through layers, and through a head's output if there is one."""
    n_samples = data.shape[0]
    outputs = np.empty((n_samples, layers[-1].outputs), dtype=np.float32)
    if n_samples == 0:
        return outputs
    run = _Run(device, layers, data, min(n_samples, _MOST_ROWS))
    run._phases.add((GATHER_INPUT, 0, run.rows))
    run._forward()
    if head is not None:
        run._head(head)
    run._send()
    for step in range(-(-n_samples // run.rows)):
        run.step(step)
        rows = slice(step * run.rows, min(n_samples, (step + 1) * run.rows))
        outputs[rows] = device.read(run._out)[: rows.stop - rows.start, : layers[-1].outputs]
    return outputs


class FinetuneRun(_Run):
    """One epoch of fine-tuning."""

    def __init__(
        self,
        device: Device,
        layers: list[DenseLayer],
        head: HeadSpec,
        seed: int,
        data: Data,
        targets: Array,
        sample_weight: NDArray[np.float32] | None,
        plan: FinetunePlan,
        steps_done: int,
    ) -> None:
        n_visits = len(plan.order)
        super().__init__(device, layers, data, min(plan.batch_size, n_visits))
        self.n_steps, self.plan = -(-n_visits // plan.batch_size), plan
        put, record = self._buffers.put, self._pass
        record["order"], record["n_visits"] = put(plan.order, np.uint32), n_visits
        if head.kind == "softmax":
            record["classes"] = put(targets, np.int32)
        else:
            record["targets"] = put(targets, np.float32)
        if sample_weight is not None:
            record["weights"] = put(sample_weight, np.float32)
        self._losses = device.zeros((self.rows,), np.float64)
        record["losses"] = device.pointer(self._losses)
        rates, variances = step_rates(head.optimizer, plan.learning_rate, steps_done, self.n_steps)
        record["rates"], record["inverse_variances"] = put(rates), put(variances)
        record["noise"], record["rule"] = noise_key(seed, plan.epoch), update_rule(head.optimizer)
        record["l2"] = head.l2
        self._set_dropout(head.dropout)
        for k, layer in enumerate(layers[:-1]):
            self._records[k]["e"] = self._buffers.zeros(self.rows, round_up(layer.outputs))
        self._deal(head.kind)
        self._send()

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
