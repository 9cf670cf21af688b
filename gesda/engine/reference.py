"""The reference engine: the definitions of ARCHITECTURE.md in NumPy, float64, plain loops.

The oracle that every other engine is held to; made to be read, not to be fast. Its noise is in
`_reference_noise`, its formulas in `_reference_math`. May import `gesda.spec` only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gesda.engine._reference_math import (
    decode_layer,
    encode_layer,
    finetune_objective,
    finetune_step,
    layer_step,
    objective,
    softmax,
    update,
)
from gesda.engine._reference_noise import corrupt, dropout_scale
from gesda.spec import FinetunePlan, FinetuneStats, NetworkSpec, OptimizerSpec, PretrainPlan, PretrainStats

if TYPE_CHECKING:
    from gesda.engine import Data

__all__ = ["ReferenceEngine", "finetune_objective", "finetune_step", "layer_step", "objective"]

Float: TypeAlias = NDArray[np.float64]


def _rows(data: Data, rows: NDArray[np.uint32]) -> Float:
    """Take rows as a dense float64 array."""
    taken: Any = data[rows]  # scipy.sparse ships no types
    return np.asarray(taken if isinstance(data, np.ndarray) else taken.toarray(), dtype=np.float64)


def _dense(data: Data) -> Float:
    given: Any = data
    return np.asarray(data if isinstance(data, np.ndarray) else given.toarray(), dtype=np.float64)


def _minibatches(order: NDArray[np.uint32], batch_size: int) -> Iterator[NDArray[np.uint32]]:
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


class ReferenceEngine:
    """Executes epoch plans in float64, exactly as they are defined.

    Parameters
    ----------
    spec : NetworkSpec
        The network. All parameters start as zeros; `set_state` gives them values.

    Attributes
    ----------
    name, precision : str
        ``"reference"``, ``"fp64"``.
    spec : NetworkSpec
    poll_seconds : float
        Time between two calls of ``poll``; 0 calls it before every step.

    Examples
    --------
    >>> from gesda.spec import LayerSpec
    >>> engine = ReferenceEngine(NetworkSpec(layers=(LayerSpec(3, 2),)))
    >>> plan = PretrainPlan(0, np.arange(4, dtype=np.uint32), 2, training=(True,), learning_rates=(0.1,))
    >>> stats = engine.pretrain_epoch(np.ones((4, 3), dtype=np.float32), plan)
    >>> stats.completed, int(engine.get_state()["pretrain.steps"][0])
    (True, 2)
    """

    name = "reference"
    precision = "fp64"

    def __init__(self, spec: NetworkSpec) -> None:
        self.spec = spec
        self.poll_seconds = 0.1
        self._state: dict[str, NDArray[Any]] = {
            name: np.zeros(shape, dtype=np.int64 if name.endswith(".steps") else np.float64)
            for name, shape in spec.state_shapes().items()
        }

    # ---- state ------------------------------------------------------------------------------------
    def get_state(self) -> dict[str, NDArray[Any]]:
        """Copy all state arrays.

        Returns
        -------
        state : dict of str to ndarray
            The arrays of `NetworkSpec.state_shapes`: float64, step counters int64.
        """
        return {name: array.copy() for name, array in self._state.items()}

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over arrays by name; those not given stay as they are.

        Parameters
        ----------
        state : mapping of str to array_like

        Raises
        ------
        ValueError
            For an unknown name or a wrong shape; nothing is taken over then.
        """
        for name, array in state.items():
            if name not in self._state:
                raise ValueError(f"this network has no state array {name!r}; it has {', '.join(self._state)}.")
            if np.shape(array) != self._state[name].shape:
                raise ValueError(f"{name} must have shape {self._state[name].shape}; got {np.shape(array)}.")
        for name, array in state.items():
            self._state[name] = np.array(array, dtype=self._state[name].dtype)

    def get_parameters(self) -> dict[str, NDArray[np.float32]]:
        """Copy all parameter arrays, rounded to float32.

        Returns
        -------
        parameters : dict of str to ndarray of float32
            By the names of `NetworkSpec.parameter_shapes`.
        """
        return {name: self._state[name].astype(np.float32) for name in self.spec.parameter_shapes()}

    def copy_parameters(self, into: Mapping[str, NDArray[np.float32]]) -> None:
        """Overwrite arrays with the parameters of these names, rounded to float32.

        Parameters
        ----------
        into : mapping of str to ndarray of float32
            Shaped as in `NetworkSpec.parameter_shapes`.
        """
        for name, array in into.items():
            array[...] = self._state[name]

    def nonfinite_parameter(self) -> str | None:
        """Name a parameter array that holds NaN or infinity.

        Returns
        -------
        name : str or None
            None where all are finite.
        """
        names = self.spec.parameter_shapes()
        return next((name for name in names if not np.isfinite(self._state[name]).all()), None)

    # ---- pretraining ------------------------------------------------------------------------------
    def pretrain_epoch(
        self, data: Data, plan: PretrainPlan, poll: Callable[[float], bool] | None = None
    ) -> PretrainStats:
        """Run one epoch of pretraining.

        Parameters
        ----------
        data : ndarray of float32 or csr_array, shape (n_samples, n_visible of ``plan.first_layer``)
        plan : PretrainPlan
        poll : callable, optional
            Called about every 0.1 s with the fraction done; a true result stops the epoch between
            two steps, an exception propagates.

        Returns
        -------
        stats : PretrainStats

        Raises
        ------
        ValueError
            When the data or the plan do not fit the network.
        """
        n_layers = len(self.spec.layers)
        if len(plan.training) != n_layers:
            raise ValueError(f"the plan is for {len(plan.training)} layers, the network has {n_layers}.")
        self._check_data(data, plan.first_layer, plan.order)
        top = max(k for k in range(n_layers) if plan.training[k])
        loss_sums, seconds, n_done = [0.0] * n_layers, [0.0] * n_layers, 0
        stop = self._stopper(poll, len(plan.order))
        completed = True
        for ids in _minibatches(plan.order, plan.batch_size):
            if stop(n_done):
                completed = False
                break
            steps = {}
            x = _rows(data, ids)
            for k in range(plan.first_layer, top + 1):
                started = time.perf_counter()
                below = x
                if plan.training[k]:
                    x_corrupted, corrupted = corrupt(self.spec.layers[k], self.spec.seed, k, plan.epoch, ids, below)
                    steps[k] = layer_step(self.spec, k, self._state, below, x_corrupted, corrupted)
                if k < top:
                    noisy = plan.training[k] and plan.handoff == "noisy"
                    x = steps[k].hidden if noisy else encode_layer(self.spec, k, self._state, below)
                seconds[k] += time.perf_counter() - started
            for k, step in steps.items():  # only now, when every layer has seen the weights of the step's start
                started = time.perf_counter()
                self._state["pretrain.steps"][k] += 1
                t = int(self._state["pretrain.steps"][k])
                self._update("pretrain", self.spec.optimizer, plan.learning_rates[k], t, step.gradients)
                loss_sums[k] += float(step.losses.sum())
                seconds[k] += time.perf_counter() - started
            n_done += len(ids)
        loss = [loss_sums[k] / n_done if plan.training[k] and n_done else np.nan for k in range(n_layers)]
        return PretrainStats(tuple(loss), tuple(seconds), completed)

    # ---- fine-tuning ------------------------------------------------------------------------------
    def finetune_epoch(
        self,
        data: Data,
        targets: NDArray[Any],
        plan: FinetunePlan,
        sample_weight: NDArray[np.float32] | None = None,
        poll: Callable[[float], bool] | None = None,
    ) -> FinetuneStats:
        """Run one epoch of fine-tuning.

        Parameters
        ----------
        data : ndarray of float32 or csr_array, shape (n_samples, n_visible)
        targets : ndarray
            Class indices (n_samples,) for a softmax head, values (n_samples, n_outputs) for a linear one.
        plan : FinetunePlan
        sample_weight : ndarray of float32, shape (n_samples,), optional
            Weights of the samples' losses; 1 by default.
        poll : callable, optional
            As in `pretrain_epoch`.

        Returns
        -------
        stats : FinetuneStats

        Raises
        ------
        ValueError
            When there is no head, or the data do not fit the network.
        """
        if self.spec.head is None:
            raise ValueError("the network has no head: give its NetworkSpec a HeadSpec to fine-tune it.")
        self._check_data(data, 0, plan.order)
        started = time.perf_counter()
        rates = self.spec.head.dropout or (0.0,) * (len(self.spec.layers) + 1)
        widths = (self.spec.layers[0].n_visible, *(layer.n_hidden for layer in self.spec.layers))
        stop = self._stopper(poll, len(plan.order))
        loss_sum, n_done, completed = 0.0, 0, True
        for ids in _minibatches(plan.order, plan.batch_size):
            if stop(n_done):
                completed = False
                break
            weight = np.ones(len(ids)) if sample_weight is None else sample_weight[ids].astype(np.float64)
            scales = [
                dropout_scale(rate, self.spec.seed, position, plan.epoch, ids, width)
                for position, (rate, width) in enumerate(zip(rates, widths, strict=True))
            ]
            gradients, losses = finetune_step(self.spec, self._state, _rows(data, ids), targets[ids], weight, scales)
            self._state["finetune.steps"][0] += 1
            t = int(self._state["finetune.steps"][0])
            self._update("finetune", self.spec.head.optimizer, plan.learning_rate, t, gradients)
            loss_sum += float(losses.sum())
            n_done += len(ids)
        loss = loss_sum / n_done if n_done else np.nan
        return FinetuneStats(loss, time.perf_counter() - started, completed)

    def place(self, data: Data, n_layers: int = 0, first_layer: int = 0) -> Data:
        """Keep rows, or their clean encodings, where epochs read them: in host memory."""
        return data if n_layers <= first_layer else self.encode(data, n_layers, first_layer)

    # ---- inference --------------------------------------------------------------------------------
    def encode(self, data: Data, n_layers: int | None = None, first_layer: int = 0) -> NDArray[np.float32]:
        """Encode without noise by layers ``first_layer .. n_layers - 1``.

        Parameters
        ----------
        data : ndarray of float32 or csr_array, shape (n_samples, n_visible of ``first_layer``)
        n_layers : int, optional
            All layers by default.
        first_layer : int, default 0

        Returns
        -------
        codes : ndarray of float32, shape (n_samples, n_hidden of layer ``n_layers - 1``)
        """
        self._check_data(data, first_layer)
        return self._encode(data, first_layer, len(self.spec.layers) if n_layers is None else n_layers).astype(
            np.float32
        )

    def decode(self, codes: NDArray[np.float32], n_layers: int | None = None) -> NDArray[np.float32]:
        """Decode encodings of layer ``n_layers - 1`` down to the input.

        Parameters
        ----------
        codes : ndarray of float32, shape (n_samples, n_hidden of layer ``n_layers - 1``)
        n_layers : int, optional
            All layers by default.

        Returns
        -------
        reconstruction : ndarray of float32, shape (n_samples, n_visible of layer 0)
        """
        h = np.asarray(codes, dtype=np.float64)
        for k in reversed(range(len(self.spec.layers) if n_layers is None else n_layers)):
            h = decode_layer(self.spec, k, self._state, h)
        return h.astype(np.float32)

    def predict(self, data: Data) -> NDArray[np.float32]:
        """Compute the head's output.

        Parameters
        ----------
        data : ndarray of float32 or csr_array, shape (n_samples, n_visible)

        Returns
        -------
        output : ndarray of float32, shape (n_samples, n_outputs)
            Class probabilities (softmax) or values (linear).

        Raises
        ------
        ValueError
            When the network has no head, or the data do not fit it.
        """
        if self.spec.head is None:
            raise ValueError("the network has no head: give its NetworkSpec a HeadSpec to predict.")
        self._check_data(data, 0)
        a = self._encode(data, 0, len(self.spec.layers)) @ self._state["head.W"] + self._state["head.b"]
        return (softmax(a) if self.spec.head.kind == "softmax" else a).astype(np.float32)

    # ---- parts ------------------------------------------------------------------------------------
    def _encode(self, data: Data, first_layer: int, n_layers: int) -> Float:
        h = _dense(data)
        for k in range(first_layer, n_layers):
            h = encode_layer(self.spec, k, self._state, h)
        return h

    def _update(
        self, phase: str, optimizer: OptimizerSpec, rate: float, t: int, gradients: Mapping[str, Float]
    ) -> None:
        for name, gradient in gradients.items():
            slots = {slot: self._state[f"{phase}.{name}.{slot}"] for slot in optimizer.slots}
            update(optimizer, rate, t, self._state[name], gradient, slots)

    def _check_data(self, data: Data, first_layer: int, order: NDArray[np.uint32] | None = None) -> None:
        n_visible = self.spec.layers[first_layer].n_visible
        if data.ndim != 2 or data.shape[1] != n_visible:
            raise ValueError(f"layer {first_layer} reads {n_visible} columns; the data have shape {data.shape}.")
        if order is not None and len(order) and int(order.max()) >= data.shape[0]:
            raise ValueError(f"the plan visits row {int(order.max())}; the data have {data.shape[0]} rows.")

    def _stopper(self, poll: Callable[[float], bool] | None, n_visits: int) -> Callable[[int], bool]:
        """Make a function that polls when it is time to, and tells whether to stop."""
        last = time.perf_counter()

        def stop(n_done: int) -> bool:
            nonlocal last
            if poll is None or time.perf_counter() - last < self.poll_seconds:
                return False
            last = time.perf_counter()
            return bool(poll(n_done / n_visits))

        return stop
