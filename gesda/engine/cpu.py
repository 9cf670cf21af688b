"""The cpu engine: the C++ core behind the `Engine` protocol.

Checks what the core takes for granted (dtypes, shapes, sample ids) and translates specs and plans; no arithmetic.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from gesda import _core
from gesda.engine import Array, Data, Poll
from gesda.engine._checks import check_classes, check_data, check_order, check_plan, check_shape, check_state
from gesda.spec import (
    ACTIVATIONS,
    HEADS,
    LOSSES,
    NOISES,
    OPTIMIZERS,
    FinetunePlan,
    FinetuneStats,
    LayerSpec,
    NetworkSpec,
    OptimizerSpec,
    PretrainPlan,
    PretrainStats,
)

_PRECISIONS = ("fp32", "bf16")  # by the core's code

#: Variants that compute the same bits: all that have a fused multiply-add. Losses in the history may differ in the
#: last digits, because their sums are cut by the variant's panel width.
BIT_EQUAL_VARIANTS = frozenset({"avx512", "avx2", "neon"})


def available_variants(precision: str = "fp32") -> list[str]:
    """List the SIMD variants of the core that this machine can run, fastest first.

    Parameters
    ----------
    precision : {"fp32", "bf16"}
        In bf16 every variant computes, but only avx512bf16 (see `has_bf16`) is fast; the others put
        the same sums together from other instructions, for tests.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        For an unknown precision.
    """
    return list(_core.available_variants(_precision_code(precision)))


def has_bf16() -> bool:
    """Tell whether this machine has AVX512-BF16 and this build uses it, so that ``precision="bf16"`` is fast.

    Returns
    -------
    bool

    Examples
    --------
    >>> has_bf16() == ("avx512bf16" in available_variants("bf16"))
    True
    """
    return bool(_core.has_bf16())


def active_variant() -> str:
    """The variant that a new engine uses: the fastest, or the one named by the environment's GESDA_SIMD."""
    return os.environ.get("GESDA_SIMD") or available_variants()[0]


def thread_count(n_jobs: int | None) -> int:
    """Number of threads for an ``n_jobs`` parameter.

    Parameters
    ----------
    n_jobs : int or None
        A positive number of threads; a negative number counts back from all (-1 is all); None means
        the environment's OMP_NUM_THREADS if it is set (worker processes of joblib set it, so that
        nested parallelism does not oversubscribe the machine), else all that this process may use.

    Returns
    -------
    int
        At least 1.
    """
    usable = int(_core.usable_threads())
    if n_jobs is None:
        limit = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
        return min(usable, max(1, int(limit))) if limit.isdigit() else usable
    if n_jobs == 0:
        raise ValueError("n_jobs must not be 0; give a number of threads, or None or -1 for all.")
    return n_jobs if n_jobs > 0 else max(1, usable + 1 + n_jobs)


class CpuEngine:
    """Train and run a network with the C++ core.

    Parameters
    ----------
    spec : NetworkSpec
    precision : {"fp32", "bf16"}
        ``"bf16"`` rounds the operands of matrix products to bfloat16 (8 significant bits, to nearest,
        ties to even); sums, weights, optimiser state and everything elementwise stay float32. It
        needs a machine with AVX512-BF16 (see `has_bf16`), unless a ``variant`` is named.
    n_jobs : int or None
        See `thread_count`. The number of threads changes no bit of any result.
    variant : str or None
        SIMD variant, one of ``available_variants(precision)``; None takes the environment's GESDA_SIMD
        if it is set, else the fastest.

    Raises
    ------
    ValueError
        For an unknown precision or variant.
    RuntimeError
        For ``precision="bf16"`` without a ``variant`` on a machine that has no AVX512-BF16.
    """

    name = "cpu"

    def __init__(
        self, spec: NetworkSpec, *, precision: str = "fp32", n_jobs: int | None = None, variant: str | None = None
    ) -> None:
        code = _precision_code(precision)
        if precision == "bf16" and variant is None and not has_bf16():
            raise RuntimeError(
                "precision='bf16' needs a processor with AVX512-BF16, which this machine or this build lacks; "
                "use precision='fp32'."
            )
        self.spec = spec
        self.precision = precision
        self._shapes = spec.state_shapes()
        self._core = _core.Network(
            [_layer_record(layer) for layer in spec.layers],
            _optimizer_record(spec.optimizer),
            _head_record(spec),
            spec.seed,
            variant or os.environ.get("GESDA_SIMD", ""),
            thread_count(n_jobs),
            code,
        )

    @property
    def variant(self) -> str:
        """The SIMD variant in use."""
        return self._core.variant

    def get_state(self) -> dict[str, Array]:
        """Copies of all arrays of `NetworkSpec.state_shapes`."""
        return self._read(self._shapes)

    def get_parameters(self) -> dict[str, NDArray[np.float32]]:
        """Copies of all arrays of `NetworkSpec.parameter_shapes`."""
        return self._read(self.spec.parameter_shapes())

    def copy_parameters(self, into: Mapping[str, NDArray[np.float32]]) -> None:
        """Overwrite these arrays with the parameters of their names."""
        shapes = self.spec.parameter_shapes()
        for name, array in into.items():
            check_shape(name, array, shapes[name])
            self._core.get_array(name, array)

    def nonfinite_parameter(self) -> str | None:
        """Name of a parameter array that holds NaN or infinity; None where all are finite."""
        return next((name for name in self.spec.parameter_shapes() if not self._core.all_finite(name)), None)

    def _read(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        arrays: dict[str, Any] = {}
        for name, shape in shapes.items():
            if name == "pretrain.steps":
                arrays[name] = np.array(self._core.pretrain_steps, dtype=np.int64)
            elif name == "finetune.steps":
                arrays[name] = np.array([self._core.finetune_steps], dtype=np.int64)
            else:
                arrays[name] = np.empty(shape, dtype=np.float32)
                self._core.get_array(name, arrays[name])
        return arrays

    def set_state(self, state: Mapping[str, Array]) -> None:
        """Take over arrays by name; those not given stay as they are."""
        check_state(state, self._shapes)
        for name, values in state.items():
            if name == "pretrain.steps":
                self._core.pretrain_steps = [int(n) for n in values]
            elif name == "finetune.steps":
                self._core.finetune_steps = int(values[0])
            else:
                self._core.set_array(name, np.ascontiguousarray(values, dtype=np.float32))

    def pretrain_epoch(self, data: Data, plan: PretrainPlan, poll: Poll | None = None) -> PretrainStats:
        """Run one epoch of pretraining."""
        check_plan(plan, self.spec)
        width = self.spec.layers[plan.first_layer].n_visible
        loss, seconds, completed = self._core.pretrain_epoch(
            _samples(data, width),
            plan.epoch,
            _order(plan.order, data.shape[0]),
            plan.batch_size,
            [bool(trains) for trains in plan.training],
            [float(rate) for rate in plan.learning_rates],
            plan.first_layer,
            plan.handoff == "noisy",
            poll,
        )
        return PretrainStats(tuple(loss), tuple(seconds), completed)

    def finetune_epoch(
        self,
        data: Data,
        targets: Array,
        plan: FinetunePlan,
        sample_weight: NDArray[np.float32] | None = None,
        poll: Poll | None = None,
    ) -> FinetuneStats:
        """Run one epoch of fine-tuning."""
        n_samples, n_outputs = data.shape[0], self._head_outputs()
        order = _order(plan.order, n_samples)
        classes = values = weights = None
        if self.spec.head is not None and self.spec.head.kind == "softmax":
            classes = np.ascontiguousarray(targets, dtype=np.int32)
            check_classes(classes, order, n_samples, n_outputs)
        else:
            values = np.ascontiguousarray(targets, dtype=np.float32)
            check_shape("targets", values, (n_samples, n_outputs))
        if sample_weight is not None:
            weights = np.ascontiguousarray(sample_weight, dtype=np.float32)
            check_shape("sample_weight", weights, (n_samples,))
        loss, seconds, completed = self._core.finetune_epoch(
            _samples(data, self.spec.layers[0].n_visible),
            classes,
            values,
            weights,
            plan.epoch,
            order,
            plan.batch_size,
            plan.learning_rate,
            poll,
        )
        return FinetuneStats(loss[0], seconds[0], completed)

    def place(self, data: Data, n_layers: int = 0, first_layer: int = 0) -> Data:
        """Keep rows, or their clean encodings, where epochs read them: in host memory."""
        return data if n_layers <= first_layer else self.encode(data, n_layers, first_layer)

    def encode(self, data: Data, n_layers: int | None = None, first_layer: int = 0) -> NDArray[np.float32]:
        """Clean encoding by layers ``first_layer .. n_layers - 1``."""
        n_layers = len(self.spec.layers) if n_layers is None else n_layers
        if not 0 <= first_layer < n_layers <= len(self.spec.layers):
            raise ValueError(f"no layers {first_layer} to {n_layers - 1} in a stack of {len(self.spec.layers)}.")
        codes = np.empty((data.shape[0], self.spec.layers[n_layers - 1].n_hidden), dtype=np.float32)
        self._core.encode(_samples(data, self.spec.layers[first_layer].n_visible), first_layer, n_layers, codes)
        return codes

    def decode(self, codes: NDArray[np.float32], n_layers: int | None = None) -> NDArray[np.float32]:
        """Decode encodings of layer ``n_layers - 1`` down to the input."""
        n_layers = len(self.spec.layers) if n_layers is None else n_layers
        if not 1 <= n_layers <= len(self.spec.layers):
            raise ValueError(f"n_layers must be from 1 to {len(self.spec.layers)}; got {n_layers}.")
        values = np.empty((codes.shape[0], self.spec.layers[0].n_visible), dtype=np.float32)
        self._core.decode(_samples(codes, self.spec.layers[n_layers - 1].n_hidden), n_layers, values)
        return values

    def predict(self, data: Data) -> NDArray[np.float32]:
        """The head's output, (n_samples, n_outputs)."""
        outputs = np.empty((data.shape[0], self._head_outputs()), dtype=np.float32)
        self._core.predict(_samples(data, self.spec.layers[0].n_visible), outputs)
        return outputs

    def _head_outputs(self) -> int:
        if self.spec.head is None:
            raise ValueError("the network has no head: it can encode and decode, not predict.")
        return self.spec.head.n_outputs


def _samples(data: Data, width: int) -> Any:
    """The arrays that the core reads, without a copy where the dtypes fit."""
    check_data(data, width)
    if scipy.sparse.issparse(data):
        return (
            np.ascontiguousarray(data.data, dtype=np.float32),
            np.ascontiguousarray(data.indptr, dtype=np.int64),
            np.ascontiguousarray(data.indices, dtype=np.int32),
        )
    return (np.ascontiguousarray(data, dtype=np.float32),)


def _precision_code(precision: str) -> int:
    if precision not in _PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(map(repr, _PRECISIONS))}; got {precision!r}.")
    return _PRECISIONS.index(precision)


def _order(order: NDArray[np.uint32], n_samples: int) -> NDArray[np.uint32]:
    order = np.ascontiguousarray(order, dtype=np.uint32)
    check_order(order, n_samples)
    return order


def _layer_record(layer: LayerSpec) -> dict[str, Any]:
    record = asdict(layer)
    record.update(
        activation=ACTIVATIONS[layer.activation],
        output_activation=ACTIVATIONS[layer.output_activation],
        loss=LOSSES[layer.loss],
        noise=NOISES[layer.noise],
        noise_low=layer.noise_range[0],
        noise_high=layer.noise_range[1],
        emphasis_corrupted=layer.emphasis[0],
        emphasis_clean=layer.emphasis[1],
    )
    return record


def _optimizer_record(optimizer: OptimizerSpec) -> dict[str, Any]:
    return {**asdict(optimizer), "kind": OPTIMIZERS[optimizer.kind]}


def _head_record(spec: NetworkSpec) -> dict[str, Any] | None:
    head = spec.head
    if head is None:
        return None
    return {
        "kind": HEADS[head.kind],
        "n_outputs": head.n_outputs,
        "optimizer": _optimizer_record(head.optimizer),
        "l2": head.l2,
        "dropout": list(head.dropout),
    }
