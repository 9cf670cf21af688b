"""Epochs of pretraining on the device: their records, and the launches of a tick.

Kernels: kernels/panel.cuh, kernels/persistent.cuh, kernels/pretrain.cuh. May import `gesda.spec` and its own package.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gesda.engine.cuda.data import Rows, feed, ring_ticks
from gesda.engine.cuda.device import Buffers, Device, Phases, Ticks, slow_seconds
from gesda.engine.cuda.records import (
    CORRUPTION,
    EPOCH,
    LAYER,
    PARTNER,
    THREADS,
    noise_key,
    noise_threshold,
    round_up,
    step_rates,
    stream_word,
    tiles,
    update_rule,
)
from gesda.engine.cuda.variants import Variant, choose
from gesda.spec import ACTIVATIONS, LOSSES, NOISES, NetworkSpec, PretrainPlan

ENCODE_NOISY, ENCODE_CLEAN, GATHER, DECODE, STATISTICS, CORRUPT, BACKPROP = range(7)
UPDATE_W, UPDATE_V, UPDATE_B, UPDATE_C, COLUMN_PANEL, ROW_PANEL, GATHER_AHEAD = range(7, 14)


class PretrainRun:
    """The records, buffers and graph of an epoch, which later ones of the same kind use again.

    Parameters
    ----------
    spec : NetworkSpec
    device : Device
    parameter : function
        Address of a parameter and of its optimiser's state, by name.
    rows : DeviceRows or HostRows
    plan : PretrainPlan
    variant : Variant or str
        Which kernels; the name of a kind lets `choose` find the shape.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        device: Device,
        parameter: Callable[[str], tuple[int, int, int]],
        rows: Rows,
        plan: PretrainPlan,
        variant: Variant | str = "auto",
    ) -> None:
        self.spec, self.device, self.plan, self.rows, self._parameter = spec, device, plan, rows, parameter
        self.layers = layers_of(plan)
        n_visits = len(plan.order)
        self.n_steps, self._rows = -(-n_visits // plan.batch_size), min(plan.batch_size, n_visits)
        widths = [(spec.layers[k].n_visible, spec.layers[k].n_hidden) for k in self.layers]
        self.variant = choose(device, widths, self._rows, variant) if isinstance(variant, str) else variant
        self._panel = self.variant.panel[1]
        self._kernel = self.variant.kernel(device, widths)
        self._ahead = 2 if self._panel else 1  # ticks from the gathering of a minibatch to its first use
        self._buffers = Buffers(device)
        self._losses: dict[int, Any] = {}
        self._rates: dict[int, tuple[Any, Any]] = {}
        self._layers = np.zeros(len(self.layers), dtype=LAYER)
        for k in self.layers:
            self._describe(self._layers[k - plan.first_layer], k)
        self._layer_array = device.zeros(self._layers.shape, LAYER)
        self._phases = self._deal_panels() if self._panel else self._deal_tiles()
        seconds = slow_seconds(device, self._rows * self._operations().sum())
        most = ring_ticks(device, rows, self._rows)
        self._ticks = Ticks(device, self._kernel, self.n_ticks, seconds, most, self._launch_some)
        self._feed = feed(device, rows, plan.order, plan.batch_size, self._ticks.stride, self._ahead)
        epoch = self._epoch = np.zeros((), dtype=EPOCH)
        epoch["layers"], epoch["parts"] = device.pointer(self._layer_array), self._buffers.put(self._phases.records())
        epoch["source"] = self._feed.source()
        self._order = device.zeros((n_visits,), np.uint32)
        epoch["order"], epoch["tick"] = device.pointer(self._order), self._ticks.tick
        epoch["n_layers"], epoch["batch"], epoch["n_inputs"] = len(self.layers), plan.batch_size, self._n_inputs
        epoch["n_visits"], epoch["rule"] = n_visits, update_rule(spec.optimizer)
        epoch["has_resident"] = self.variant.has_resident(self._kernel)
        self._epoch_array = device.zeros((), EPOCH)

    def serves(self, rows: Rows, plan: PretrainPlan) -> bool:
        """Whether this can run another epoch."""
        return rows is self.rows and _kind(plan) == _kind(self.plan)

    def start(self, plan: PretrainPlan, steps_done: NDArray[np.int64]) -> None:
        """Begin an epoch: its order, rates and noise, and the first minibatch.

        `steps_done` counts the updates of each layer before it.
        """
        self.plan, self.n_steps = plan, -(-len(plan.order) // plan.batch_size)
        for k, losses in self._losses.items():
            rates = step_rates(self.spec.optimizer, plan.learning_rates[k], int(steps_done[k]), self.n_steps)
            for array, values in zip(self._rates[k], rates, strict=True):
                self.device.write(array, values)
            self.device.write(losses, np.zeros(losses.shape))
        self.device.write(self._order, plan.order.astype(np.uint32, copy=False))
        self.device.write(self._layer_array, self._layers)
        self._epoch["n_steps"], self._epoch["noise"] = self.n_steps, noise_key(self.spec.seed, plan.epoch)
        self.device.write(self._epoch_array, self._epoch)
        self._ticks.restart()
        self.stride = self._ticks.stride
        self._feed.start(plan.order)
        if self._panel:
            self._launch(-2, slice(1, 2))  # gather
            self._launch(-1)  # corrupt, encode
        else:
            self._launch(-1, slice(0, 2))  # gather, corrupt

    @property
    def n_ticks(self) -> int:
        """Number of ticks from the first layer's first step to the last one's last."""
        return self.n_steps + len(self.layers) - 1 if self.n_steps else 0

    def go_on(self) -> None:
        """Launch the next `stride` ticks; those after the last do nothing."""
        self._feed.launch(self._ticks.go_on)

    def _launch_some(self, ticks: int) -> None:
        if self.variant.kind == "persistent":
            self._launch_persistent(ticks)
            return
        for tick in range(ticks):
            self._launch(tick)

    def _launch_persistent(self, ticks: int) -> None:
        (_, last_row_part, rows), (_, last, columns) = self._phases.launches
        blocks = min(self.device.multiprocessors, max(rows, columns))
        self.device.launch(
            self._kernel, blocks, np.uint64(self.device.pointer(self._epoch_array)),
            np.int32(last_row_part + 1), np.int32(last), np.int32(ticks), np.uint64(self._ticks.arrivals),
        )  # fmt: skip

    def _launch(self, tick: int, phases: slice = slice(None)) -> None:
        kernel = self._kernel
        if self.variant.kind == "persistent":  # outside of its launches it is panels
            kernel = kernel._replace(module="panels", entry="panels", cooperative=False)
        self._phases.launch(self.device, kernel, self.device.pointer(self._epoch_array), tick, phases)

    def stop_before(self, tick: int) -> None:
        """Take no minibatch from this tick on; those on their way finish."""
        self.n_steps = tick
        self._epoch["n_steps"] = tick
        self.device.write(self._epoch_array, self._epoch)

    def losses(self) -> NDArray[np.float64]:
        """Mean loss of each layer of the network; NaN where none was trained."""
        visited = min(self.n_steps * self.plan.batch_size, len(self.plan.order))
        means = np.full(len(self.plan.training), np.nan)
        for k, losses in self._losses.items():
            means[k] = self.device.read(losses).sum() / visited if visited else np.nan
        return means

    def work(self) -> NDArray[np.float64]:
        """Each layer's part of the work, by its floating-point operations."""
        operations = self._operations()
        operations /= operations.sum()
        return operations

    def _operations(self) -> NDArray[np.float64]:
        """Floating-point operations of each layer, for a row of a minibatch."""
        operations: NDArray[np.float64] = np.zeros(len(self.plan.training))
        for k in self.layers:
            layer = self.spec.layers[k]
            operations[k] = layer.n_visible * layer.n_hidden * (10 * self.plan.training[k] + 2 * self._hands_clean(k))
        return operations

    # ---- records ----------------------------------------------------------------------------------
    def _hands_clean(self, k: int) -> bool:
        return k != self.layers[-1] and not self._hands_noisy(k)

    def _hands_noisy(self, k: int) -> bool:
        return k != self.layers[-1] and self.plan.training[k] and self.plan.handoff == "noisy"

    def _describe(self, record: Any, k: int) -> None:
        layer, zeros, rows = self.spec.layers[k], self._buffers.zeros, self._rows
        n, m = layer.n_visible, layer.n_hidden
        n_stride, m_stride = round_up(n), round_up(m)
        record["w"], record["b"] = self._parameter(f"layers.{k}.W"), self._parameter(f"layers.{k}.b")
        record["x"][: self._n_inputs] = [zeros(rows, n_stride) for _ in range(self._n_inputs)]
        record["n"], record["m"], record["n_stride"], record["m_stride"] = n, m, n_stride, m_stride
        record["activation"] = ACTIVATIONS[layer.activation]
        record["handoff"] = 2 if self._hands_noisy(k) else 1 if self._hands_clean(k) else 0
        if not self.plan.training[k]:
            return
        record["c"] = self._parameter(f"layers.{k}.c")
        if not layer.tied:
            record["v"] = self._parameter(f"layers.{k}.V")
        record["noisy"] = [zeros(rows, n_stride) for _ in range(2)]
        if layer.emphasis != (1.0, 1.0):
            record["corrupted"] = [zeros(rows, n_stride, dtype=np.uint8) for _ in range(2)]
        record["h"], record["e"] = zeros(rows, m_stride), 0 if self._panel else zeros(rows, m_stride)
        if layer.sparsity or layer.contractive:
            record["slope"], record["contraction"], record["decay"] = (zeros(m_stride) for _ in range(3))
        self._losses[k] = self.device.zeros((-(-n // self._panel) if self._panel else tiles(rows, n),), np.float64)
        record["losses"] = self.device.pointer(self._losses[k])
        self._rates[k] = tuple(self.device.zeros((self.n_steps,), np.float32) for _ in range(2))
        record["rates"], record["inverse_variances"] = (self.device.pointer(array) for array in self._rates[k])
        record["output"], record["loss"] = ACTIVATIONS[layer.output_activation], LOSSES[layer.loss]
        record["noise"], record["threshold"] = NOISES[layer.noise], noise_threshold(layer)
        record["stream"], record["partner_stream"] = stream_word(CORRUPTION, k), stream_word(PARTNER, k)
        record["level"], (record["low"], record["high"]) = layer.noise_level, layer.noise_range
        record["emphasis_corrupted"], record["emphasis_clean"] = layer.emphasis
        for name in ("sparsity", "sparsity_target", "contractive", "l2"):
            record[name] = getattr(layer, name)

    @property
    def _n_inputs(self) -> int:
        return 3 if self._panel else 2

    def _deal_panels(self) -> Phases:
        across: list[tuple[int, int, int]] = []
        down: list[tuple[int, int, int]] = []
        for offset, k in enumerate(self.layers):
            layer = self.spec.layers[k]
            if self.plan.training[k]:
                across += [(ROW_PANEL, offset, -(-layer.n_visible // self._panel)), (CORRUPT, offset, self._rows)]
            down.append((COLUMN_PANEL, offset, -(-layer.n_hidden // self._panel)))
        phases = Phases()
        phases.add(*across)
        phases.add(*down, (GATHER_AHEAD, 0, self._rows))
        return phases

    def _deal_tiles(self) -> Phases:
        rows = self._rows
        encode, decode, backprop, update = [(GATHER, 0, rows)], [], [], []
        for offset, k in enumerate(self.layers):
            layer = self.spec.layers[k]
            n, m = layer.n_visible, layer.n_hidden
            if self._hands_clean(k):
                encode.append((ENCODE_CLEAN, offset, tiles(rows, m)))
            if not self.plan.training[k]:
                continue
            encode.append((ENCODE_NOISY, offset, tiles(rows, m)))
            decode += [(DECODE, offset, tiles(rows, n)), (CORRUPT, offset, rows)]
            if layer.sparsity or layer.contractive:
                decode.append((STATISTICS, offset, -(-m // THREADS)))
            backprop.append((BACKPROP, offset, tiles(rows, m)))
            update.append((UPDATE_W, offset, tiles(n, m)))
            if not layer.tied:
                update.append((UPDATE_V, offset, tiles(m, n)))
            update += [(UPDATE_B, offset, -(-m // THREADS)), (UPDATE_C, offset, -(-n // THREADS))]
        phases = Phases()
        for parts in (encode, decode, backprop, update):
            phases.add(*parts)
        return phases


def layers_of(plan: PretrainPlan) -> range:
    """The layers that an epoch works on."""
    return range(plan.first_layer, max(k for k, trains in enumerate(plan.training) if trains) + 1)


def _kind(plan: PretrainPlan) -> tuple[Any, ...]:
    return plan.training, plan.first_layer, plan.handoff, plan.batch_size, len(plan.order)
