"""The cuda engine: parameters in device memory, epochs as launches of the kernels in kernels/.

What runs on a device goes through a `Device` (`gesda.engine.cuda.device`). May import `gesda.spec` and `gesda.engine`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gesda.engine import Array, Data, Poll
from gesda.engine._checks import check_classes, check_data, check_order, check_plan, check_shape, check_state
from gesda.engine.cuda.data import HostRows, Rows, has_room, place, rows_for_once
from gesda.engine.cuda.dense import DenseLayer, FinetuneRun, encode_on_device, infer
from gesda.engine.cuda.device import Device
from gesda.engine.cuda.pretrain import PretrainRun
from gesda.engine.cuda.records import round_up
from gesda.engine.cuda.tuning import fastest
from gesda.engine.cuda.variants import KINDS, Variant
from gesda.spec import FinetunePlan, FinetuneStats, NetworkSpec, PretrainPlan, PretrainStats

_POLL_SECONDS = 0.05


@dataclass
class _Matrix:
    """An array in device memory, (rows, columns), each row padded with zeros to a multiple of four."""

    array: Any
    rows: int
    columns: int


class CudaEngine:
    """Train and run a network with the kernels in kernels/.

    Parameters
    ----------
    spec : NetworkSpec
    device : Device
        Its kernels decide the precision of products.
    precision : {"fp32", "tf32", "fp16"}
        What the device computes in: float32; operands rounded to TF32 (10 bits after the point) or to
        half precision. Sums, weights, optimiser state and everything elementwise are float32.
    variant : {"auto", "tiles", "panels", "persistent"}
        Which kernels pretrain (`gesda.engine.cuda.variants`).
    tune : bool
        Whether to measure, once for each kind of epoch, which variant is the fastest; instead of `variant`.

    Raises
    ------
    ValueError
        For an unknown variant.
    MemoryError
        When the parameters do not fit on the device.
    """

    name = "cuda"

    def __init__(
        self, spec: NetworkSpec, device: Device, *, precision: str = "fp32", variant: str = "auto", tune: bool = False
    ) -> None:
        if variant not in ("auto", *KINDS):
            raise ValueError(f"variant must be 'auto' or one of {', '.join(map(repr, KINDS))}; got {variant!r}.")
        self.spec, self.precision, self._variant, self._tunes = spec, precision, variant, tune
        self._device, self._shapes = device, spec.state_shapes()
        self._run: PretrainRun | FinetuneRun | None = None  # of the last epoch, for the next one
        self._seen: dict[str, NDArray[np.float32]] = {}
        parameters = sum(int(np.prod(shape)) for name, shape in self._shapes.items() if not _is_counter(name))
        self._steps = {name: np.zeros(shape, np.int64) for name, shape in self._shapes.items() if _is_counter(name)}
        try:
            self._arrays = {name: self._matrix(shape) for name, shape in self._shapes.items() if not _is_counter(name)}
        except MemoryError as error:
            raise MemoryError(
                f"the network's parameters and the state of their optimisers take {4 * parameters:,} bytes of GPU "
                f"memory ({error}); use narrower layers, 'sgd' without momentum, or device='cpu'."
            ) from error

    # ---- arrays -----------------------------------------------------------------------------------
    def _matrix(self, shape: tuple[int, ...]) -> _Matrix:
        rows, columns = (1, *shape)[-2:]
        return _Matrix(self._device.zeros((rows, round_up(columns)), np.float32), rows, columns)

    def _parameter(self, phase: str, name: str) -> tuple[int, int, int]:
        """A record of `Parameter`: addresses of an array and of its optimiser's state."""
        kind = self.spec.optimizer if phase == "pretrain" or self.spec.head is None else self.spec.head.optimizer
        names = [name, *(f"{phase}.{name}.{slot}" for slot in kind.slots)]
        values, state0, state1 = (
            *(self._device.pointer(self._arrays[key].array) if key in self._arrays else 0 for key in names), 0, 0,
        )[:3]  # fmt: skip
        return values, state0, state1

    def get_state(self) -> dict[str, Array]:
        """Copies of all arrays of `NetworkSpec.state_shapes`."""
        return {name: self._steps[name].copy() if _is_counter(name) else self._read(name) for name in self._shapes}

    def get_parameters(self) -> dict[str, NDArray[np.float32]]:
        """Copies of all arrays of `NetworkSpec.parameter_shapes`."""
        return {name: self._read(name) for name in self.spec.parameter_shapes()}

    def copy_parameters(self, into: Mapping[str, NDArray[np.float32]]) -> None:
        """Overwrite these arrays with the parameters of their names."""
        for name, array in into.items():
            array[...] = self._peek(name)

    def nonfinite_parameter(self) -> str | None:
        """Name of a parameter array that holds NaN or infinity; None where all are finite."""
        names = self.spec.parameter_shapes()
        return next((name for name in names if not np.isfinite(self._peek(name)).all()), None)

    def _peek(self, name: str) -> NDArray[np.float32]:
        """An array as it is since the last change; after an epoch the trainer looks at all of them twice."""
        if name not in self._seen:
            matrix = self._arrays[name]
            self._seen[name] = self._device.read(matrix.array)[:, : matrix.columns].reshape(self._shapes[name])
        return self._seen[name]

    def _read(self, name: str) -> NDArray[np.float32]:
        return np.array(self._peek(name))

    def set_state(self, state: Mapping[str, Array]) -> None:
        """Take over arrays by name; those not given stay as they are."""
        check_state(state, self._shapes)
        self._seen.clear()
        for name, values in state.items():
            if _is_counter(name):
                self._steps[name][:] = values
                continue
            matrix = self._arrays[name]
            padded = np.zeros((matrix.rows, round_up(matrix.columns)), dtype=np.float32)
            padded[:, : matrix.columns] = np.reshape(values, (matrix.rows, matrix.columns))
            self._device.write(matrix.array, padded)

    # ---- training ---------------------------------------------------------------------------------
    def pretrain_epoch(self, data: Data, plan: PretrainPlan, poll: Poll | None = None) -> PretrainStats:
        """Run one epoch of pretraining."""
        check_plan(plan, self.spec)
        check_data(data, self.spec.layers[plan.first_layer].n_visible)
        check_order(plan.order, data.shape[0])
        started, completed = time.perf_counter(), True
        if len(plan.order) == 0:
            return PretrainStats((float("nan"),) * len(plan.training), (0.0,) * len(plan.training), True)
        steps, run = self._steps["pretrain.steps"], self._pretrain_run(self.place(data), plan)
        self._seen.clear()
        run.start(plan, steps)
        stop, tick = _Stop(self._device, poll), 0
        while tick < run.n_ticks:
            if completed and tick < run.n_steps and stop.asked(tick / run.n_ticks):
                completed = False
                run.stop_before(tick)
                continue
            run.go_on()
            tick += run.stride
        losses = run.losses()
        steps[np.array(plan.training)] += run.n_steps
        stop.raise_error()
        seconds = run.work() * (time.perf_counter() - started)
        return PretrainStats(tuple(losses.tolist()), tuple(seconds.tolist()), completed)

    def _pretrain_run(self, rows: Rows, plan: PretrainPlan) -> PretrainRun:
        if isinstance(self._run, PretrainRun) and self._run.serves(rows, plan):
            return self._run
        self._run = None  # its memory first
        variant: Variant | str = self._variant
        if self._tunes:
            variant = fastest(self.spec, self._device, self.precision, plan)
        # Three clean and two noisy inputs and masks, h and e; the ring of rows that stream.
        columns = sum(6 * layer.n_visible + 2 * layer.n_hidden for layer in self.spec.layers) + 3 * rows.shape[1]
        with self._minibatch(plan.batch_size, columns):
            run = self._run = PretrainRun(
                self.spec, self._device, lambda name: self._parameter("pretrain", name), rows, plan, variant
            )
        return run

    @contextmanager
    def _minibatch(self, batch_size: int, columns: int) -> Iterator[None]:
        """Say what would fit where a minibatch of matrices with so many columns together does not."""
        room = self._device.available()
        try:
            yield
        except MemoryError as error:
            fits = int(0.9 * room) // (4 * columns)
            advice = f"use batch_size={fits} or less" if 0 < fits < batch_size else "use narrower layers"
            raise MemoryError(
                f"a minibatch of {batch_size} rows takes about {4 * columns * batch_size:,} bytes of GPU memory "
                f"({error}); {advice}, raise memory_limit if there is one, or use device='cpu'."
            ) from error

    def finetune_epoch(
        self,
        data: Data,
        targets: Array,
        plan: FinetunePlan,
        sample_weight: NDArray[np.float32] | None = None,
        poll: Poll | None = None,
    ) -> FinetuneStats:
        """Run one epoch of fine-tuning."""
        n_outputs = self._head_outputs()
        assert self.spec.head is not None
        check_data(data, self.spec.layers[0].n_visible)
        check_order(plan.order, data.shape[0])
        if self.spec.head.kind == "softmax":
            check_classes(targets, plan.order, data.shape[0], n_outputs)
        else:
            check_shape("targets", targets, (data.shape[0], n_outputs))
        if sample_weight is not None:
            check_shape("sample_weight", sample_weight, (data.shape[0],))
        started, step = time.perf_counter(), 0
        if len(plan.order) == 0:
            return FinetuneStats(0.0, 0.0, True)
        rows = self.place(data)
        if not (isinstance(self._run, FinetuneRun) and self._run.serves(rows, sample_weight, plan)):
            self._run = None
            layers = self._dense("finetune", head=True)
            columns = sum(layer.inputs + 2 * layer.outputs for layer in layers) + 2 * rows.shape[1]
            with self._minibatch(plan.batch_size, columns):
                self._run = FinetuneRun(self._device, layers, self.spec.head, rows, targets, sample_weight, plan)
        run, steps = self._run, self._steps["finetune.steps"]
        self._seen.clear()
        run.start(plan, targets, sample_weight, self.spec.seed, int(steps[0]))
        stop = _Stop(self._device, poll)
        while step < run.n_steps and not stop.asked(step / run.n_steps):
            run.go_on()
            step += run.stride
        step = min(step, run.n_steps)
        loss = run.loss(step)
        steps += step
        stop.raise_error()
        return FinetuneStats(loss, time.perf_counter() - started, step == run.n_steps)

    # ---- data -------------------------------------------------------------------------------------
    def place(self, data: Any, n_layers: int = 0, first_layer: int = 0) -> Rows:
        """Keep rows, or their clean encodings by layers ``first_layer .. n_layers - 1``, where epochs read them.

        In device memory where they fit, else on the host, from where they stream.
        """
        if n_layers <= first_layer:
            return place(self._device, data)
        rows = self._checked_rows(data, n_layers, first_layer)
        layers = self._dense("pretrain", n_layers, first_layer)
        if has_room(self._device, 4 * rows.shape[0] * round_up(layers[-1].outputs)):
            return encode_on_device(self._device, layers, rows)
        return HostRows(infer(self._device, layers, rows, None))

    def _checked_rows(self, data: Any, n_layers: int, first_layer: int) -> Rows:
        if not 0 <= first_layer < n_layers <= len(self.spec.layers):
            raise ValueError(f"no layers {first_layer} to {n_layers - 1} in a stack of {len(self.spec.layers)}.")
        check_data(data, self.spec.layers[first_layer].n_visible)
        return rows_for_once(self._device, data)

    # ---- inference --------------------------------------------------------------------------------
    def _dense(
        self, phase: str, n_layers: int | None = None, first: int = 0, *, head: bool = False
    ) -> list[DenseLayer]:
        """Layers `first` to `n_layers` - 1, with the optimiser's state of a phase, and the head."""
        layers = [
            DenseLayer(
                self._parameter(phase, f"layers.{k}.W"), self._parameter(phase, f"layers.{k}.b"),
                layer.n_visible, layer.n_hidden, layer.activation,
            )
            for k, layer in enumerate(self.spec.layers[:n_layers])
        ]  # fmt: skip
        if head and self.spec.head is not None:
            top = self.spec.layers[-1].n_hidden
            parameters = self._parameter(phase, "head.W"), self._parameter(phase, "head.b")
            layers.append(DenseLayer(*parameters, top, self.spec.head.n_outputs, "linear"))
        return layers[first:]

    def encode(self, data: Data, n_layers: int | None = None, first_layer: int = 0) -> NDArray[np.float32]:
        """Clean encoding by layers ``first_layer .. n_layers - 1``."""
        n_layers = len(self.spec.layers) if n_layers is None else n_layers
        rows = self._checked_rows(data, n_layers, first_layer)
        return infer(self._device, self._dense("pretrain", n_layers, first_layer), rows, None)

    def decode(self, codes: NDArray[np.float32], n_layers: int | None = None) -> NDArray[np.float32]:
        """Decode encodings of layer ``n_layers - 1`` down to the input."""
        n_layers = len(self.spec.layers) if n_layers is None else n_layers
        if not 1 <= n_layers <= len(self.spec.layers):
            raise ValueError(f"n_layers must be from 1 to {len(self.spec.layers)}; got {n_layers}.")
        check_data(codes, self.spec.layers[n_layers - 1].n_hidden)
        layers = [
            DenseLayer(
                self._parameter("pretrain", f"layers.{k}.{'W' if layer.tied else 'V'}"),
                self._parameter("pretrain", f"layers.{k}.c"),
                layer.n_hidden, layer.n_visible, layer.output_activation, layer.tied,
            )
            for k, layer in reversed(list(enumerate(self.spec.layers[:n_layers])))
        ]  # fmt: skip
        return infer(self._device, layers, rows_for_once(self._device, codes), None)

    def predict(self, data: Data) -> NDArray[np.float32]:
        """The head's output, (n_samples, n_outputs)."""
        self._head_outputs()
        assert self.spec.head is not None
        check_data(data, self.spec.layers[0].n_visible)
        rows = rows_for_once(self._device, data)
        return infer(self._device, self._dense("finetune", head=True), rows, self.spec.head.kind)

    def _head_outputs(self) -> int:
        if self.spec.head is None:
            raise ValueError("the network has no head: it can encode and decode, not predict.")
        return self.spec.head.n_outputs


class _Stop:
    """Asks a poll now and then whether to stop, when the device has done what it was given.

    An exception of the poll's stops too; the epoch raises it when what was on its way is done and counted.
    """

    def __init__(self, device: Device, poll: Callable[[float], bool] | None) -> None:
        self._device, self._poll, self._asked = device, poll, time.perf_counter()
        self._error: BaseException | None = None

    def asked(self, fraction: float) -> bool:
        if self._poll is None or time.perf_counter() - self._asked < _POLL_SECONDS:
            return False
        self._device.synchronize()
        try:
            answer = bool(self._poll(fraction))
        except BaseException as error:
            self._error, answer = error, True
        self._asked = time.perf_counter()
        return answer

    def raise_error(self) -> None:
        """Raise what the poll has raised."""
        if self._error is not None:
            raise self._error


def _is_counter(name: str) -> bool:
    return name in ("pretrain.steps", "finetune.steps")
