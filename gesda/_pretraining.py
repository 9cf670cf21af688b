"""What pretraining needs beside the engine: the sequential schedule's cache, the drift of the encodings.

May import `gesda._divergence`, `gesda.engine`, `gesda.schedule` and `gesda.spec`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gesda._divergence import squared_error_scale
from gesda.engine import Data, Engine, GpuMatrix
from gesda.schedule import LayerProgress
from gesda.spec import ACTIVATION_RANGES, LayerSpec, PretrainPlan


class Pretraining:
    """Runs pretraining epochs: feeds the cached encodings of a sequential schedule, measures the drift."""

    def __init__(self, engine: Engine, data: Data, probe_size: int) -> None:
        self.engine = engine
        self.cache: Any
        self.cache, self.cached_layers = engine.place(data), 0
        # A generator of its own: the probe must not shift the shuffles, and be the same for every schedule.
        chosen = np.random.default_rng(0).choice(data.shape[0], min(probe_size, data.shape[0]), replace=False)
        self.probe: Any = data[np.sort(chosen)] if probe_size else None
        self.codes: list[NDArray[np.float32]] = []  # of the probe, by layer
        self.scales = _squared_error_scales(engine.spec.layers, data)

    def checksum(self) -> int:
        """Return a number that tells other data, by the probe rows (0 without a probe)."""
        if self.probe is None:
            return 0
        rows = self.probe
        return zlib.crc32((rows if isinstance(rows, np.ndarray) else rows.toarray()).tobytes())

    def run(self, plan: PretrainPlan, poll: Callable[[float], bool]) -> list[dict[str, Any]] | None:
        """Run one epoch; None when it was cut short."""
        while self.cached_layers < plan.first_layer:
            k = self.cached_layers  # one layer at a time, so that a resumed training has the same bits
            self.cache, self.cached_layers = self.engine.place(self.cache, k + 1, k), k + 1
        trained = [k for k, trains in enumerate(plan.training) if trains]
        while self.probe is not None and len(self.codes) <= trained[-1]:
            self.codes.append(self._encode_probe(len(self.codes)))
        stats = self.engine.pretrain_epoch(self.cache, plan, poll)
        if not stats.completed:
            return None
        drifts = self._renew_codes(trained[0], trained[-1])
        # The trainer, which knows the history, counts the layers' own epochs.
        return [
            {
                "phase": "pretrain",
                "epoch": plan.epoch,
                "layer": k,
                "layer_epoch": 0,
                "loss": float(stats.loss[k]),
                "drift": drifts.get(k, math.nan),
                "seconds": float(stats.seconds[k]),
                "learning_rate": plan.learning_rates[k],
            }
            for k in trained
        ]

    def _encode_probe(self, k: int) -> NDArray[np.float32]:
        """Return the probe's clean encoding by layer `k`, from that of the layer below."""
        below = self.probe if k == 0 else self.codes[k - 1]
        assert below is not None
        return self.engine.encode(below, n_layers=k + 1, first_layer=k)

    def _renew_codes(self, first: int, last: int) -> dict[int, float]:
        """Encode the probe anew by layers `first` to `last`: how far each moved. Those above are out of date."""
        del self.codes[last + 1 :]
        drifts = {}
        for k in range(first, len(self.codes)):
            fresh = self._encode_probe(k)
            drifts[k], self.codes[k] = _relative_change(self.codes[k], fresh), fresh
        return drifts


def _squared_error_scales(layers: tuple[LayerSpec, ...], data: Data) -> dict[int | None, float]:
    """Loss that a layer may healthily start with, where its input's size is known: for `find_divergence`."""
    scales: dict[int | None, float] = {}
    if layers[0].loss == "squared_error":
        if isinstance(data, GpuMatrix):
            scales[0] = 0.5 * (data.mean_square_norm() + data.shape[1])
        else:
            scales[0] = squared_error_scale(data if isinstance(data, np.ndarray) else data.data, data.shape)
    for k in range(1, len(layers)):
        if layers[k].loss == "squared_error" and ACTIVATION_RANGES[layers[k - 1].activation] is not None:
            scales[k] = float(layers[k].n_visible)  # encodings in [-1, 1]
    return scales


def _relative_change(before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    """Frobenius norm of the change over that of what was there before."""
    change, old = (
        math.sqrt(float(np.einsum("rc,rc->", array, array, dtype=np.float64)))
        for array in (np.subtract(after, before, dtype=np.float64), before)
    )
    return change / (old or change or 1.0)


def layer_progress(records: list[dict[str, Any]], n_layers: int) -> LayerProgress | None:
    """Collect an epoch's records for the schedule; None for a fine-tuning epoch."""
    if records[0]["phase"] != "pretrain":
        return None
    loss, drift = [math.nan] * n_layers, [math.nan] * n_layers
    for record in records:
        loss[record["layer"]], drift[record["layer"]] = record["loss"], record["drift"]
    return LayerProgress(tuple(loss), tuple(drift))
