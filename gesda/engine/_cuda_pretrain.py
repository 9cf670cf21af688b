"""An epoch of pretraining on the device: its records, and the launches of a tick (kernels/pretrain.cuh)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gesda.engine import Data
from gesda.engine._cuda_records import (
    CORRUPTION,
    EPOCH,
    LAYER,
    PARTNER,
    THREADS,
    Buffers,
    Device,
    Phases,
    noise_key,
    noise_threshold,
    round_up,
    step_rates,
    stream_word,
    tiles,
    update_rule,
)
from gesda.spec import ACTIVATIONS, LOSSES, NOISES, NetworkSpec, PretrainPlan

ENCODE_NOISY, ENCODE_CLEAN, GATHER, DECODE, STATISTICS, CORRUPT, BACKPROP = range(7)
UPDATE_W, UPDATE_V, UPDATE_B, UPDATE_C, COLUMN_PANEL, ROW_PANEL, GATHER_AHEAD = range(7, 14)


class PretrainRun:
    """One epoch.

    Parameters
    ----------
    spec : NetworkSpec
    device : Device
    parameter : function
        Address of a parameter and of its optimiser's state, by name.
    data : array or CSR array of float32
    plan : PretrainPlan
    steps_done : updates of each layer before this epoch
    """

    def __init__(
        self,
        spec: NetworkSpec,
        device: Device,
        parameter: Callable[[str], tuple[int, int, int]],
        data: Data,
        plan: PretrainPlan,
        steps_done: NDArray[np.int64],
    ) -> None:
        self.spec, self.device, self.plan, self._parameter = spec, device, plan, parameter
        self.layers = range(plan.first_layer, max(k for k, trains in enumerate(plan.training) if trains) + 1)
        n_visits = len(plan.order)
        self.n_steps, self._rows = -(-n_visits // plan.batch_size), min(plan.batch_size, n_visits)
        # Small minibatches go by panels, in two launches a tick; others by tiles, in four.
        self._panel = device.panel[1] if self._rows <= 16 * device.panel[0] else 0
        self._kernel = "panels" if self._panel else "pretrain"
        self._buffers = Buffers(device)
        self._losses: dict[int, Any] = {}
        records = np.zeros(len(self.layers), dtype=LAYER)
        for k in self.layers:
            self._describe(records[k - plan.first_layer], k, int(steps_done[k]))
        self._phases = self._deal_panels() if self._panel else self._deal_tiles()
        epoch = np.zeros((), dtype=EPOCH)
        epoch["layers"], epoch["parts"] = self._buffers.put(records), self._buffers.put(self._phases.records())
        epoch["source"], epoch["order"] = self._buffers.source(data), self._buffers.put(plan.order, np.uint32)
        self._tick = self._buffers.zeros(1, dtype=np.int32)
        epoch["tick"], epoch["noise"] = self._tick, noise_key(spec.seed, plan.epoch)
        epoch["n_layers"], epoch["batch"], epoch["n_inputs"] = len(self.layers), plan.batch_size, self._n_inputs
        epoch["n_visits"], epoch["n_steps"], epoch["rule"] = n_visits, self.n_steps, update_rule(spec.optimizer)
        self._epoch, self._epoch_array = epoch, device.zeros((), EPOCH)
        device.write(self._epoch_array, epoch)

    @property
    def n_ticks(self) -> int:
        """Number of ticks from the first layer's first step to the last one's last."""
        return self.n_steps + len(self.layers) - 1 if self.n_steps else 0

    def start(self) -> None:
        """Make the first minibatch, and a graph of some ticks."""
        if self._panel:
            self._launch(-2, slice(1, 2))  # gather
            self._launch(-1)  # corrupt, encode
        else:
            self._launch(-1, slice(0, 2))  # gather, corrupt
        self.stride = min(self.device.ticks_of_a_graph, self.n_ticks)
        self._graph = self.device.capture(self._launch_some)

    def go_on(self) -> None:
        """Launch the next `stride` ticks; those after the last do nothing."""
        self.device.replay(self._graph)

    def _launch_some(self) -> None:
        for tick in range(self.stride):
            self._launch(tick)
        self.device.launch("advance", 1, self._tick, self.stride)

    def _launch(self, tick: int, phases: slice = slice(None)) -> None:
        self._phases.launch(self.device, self._kernel, self.device.pointer(self._epoch_array), tick, phases)

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
        operations: NDArray[np.float64] = np.zeros(len(self.plan.training))
        for k in self.layers:
            layer = self.spec.layers[k]
            operations[k] = layer.n_visible * layer.n_hidden * (10 * self.plan.training[k] + 2 * self._hands_clean(k))
        operations /= operations.sum()
        return operations

    # ---- records ----------------------------------------------------------------------------------
    def _hands_clean(self, k: int) -> bool:
        return k != self.layers[-1] and not self._hands_noisy(k)

    def _hands_noisy(self, k: int) -> bool:
        return k != self.layers[-1] and self.plan.training[k] and self.plan.handoff == "noisy"

    def _describe(self, record: Any, k: int, steps_done: int) -> None:
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
        record["h"], record["e"] = zeros(rows, m_stride), zeros(rows, m_stride)
        if layer.sparsity or layer.contractive:
            record["slope"], record["contraction"], record["decay"] = (zeros(m_stride) for _ in range(3))
        self._losses[k] = self.device.zeros((-(-n // self._panel) if self._panel else tiles(rows, n),), np.float64)
        record["losses"] = self.device.pointer(self._losses[k])
        rates, variances = step_rates(self.spec.optimizer, self.plan.learning_rates[k], steps_done, self.n_steps)
        record["rates"], record["inverse_variances"] = self._buffers.put(rates), self._buffers.put(variances)
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
        down: list[tuple[int, int, int]] = [(GATHER_AHEAD, 0, self._rows)]
        for offset, k in enumerate(self.layers):
            layer = self.spec.layers[k]
            if self.plan.training[k]:
                across += [(ROW_PANEL, offset, -(-layer.n_visible // self._panel)), (CORRUPT, offset, self._rows)]
            down.append((COLUMN_PANEL, offset, -(-layer.n_hidden // self._panel)))
        phases = Phases()
        phases.add(*across)
        phases.add(*down)
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
