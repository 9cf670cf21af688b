"""What pretraining needs beside the engine: the sequential schedule's cache, the drift of the encodings.

May import `gesda._divergence`, `gesda.engine`, `gesda.schedule` and `gesda.spec`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from gesda._divergence import squared_error_scale
from gesda.engine import Data, Engine
from gesda.schedule import LayerProgress
from gesda.spec import ACTIVATION_RANGES, LayerSpec, PretrainPlan


class Pretraining:
    """Runs pretraining epochs: feeds the cached encodings of a sequential schedule, measures the drift."""

    def __init__(self, engine: Engine, data: Data, probe_size: int) -> None:
        self.engine = engine
        self.cache, self.cached_layers = data, 0
        # A generator of its own: the probe must not shift the shuffles, and be the same for every schedule.
        chosen = np.random.default_rng(0).choice(data.shape[0], min(probe_size, data.shape[0]), replace=False)
        self.codes: list[Data] = [data[np.sort(chosen)]] if probe_size else []  # the probe, its encodings by 1, 2, ...
        self.scales = _squared_error_scales(engine.spec.layers, data)

    def checksum(self) -> int:
        """Return a number that tells other data, by the probe rows (0 without a probe)."""
        if not self.codes:
            return 0
        rows = self.codes[0]
        return zlib.crc32((rows if isinstance(rows, np.ndarray) else rows.toarray()).tobytes())

    def run(self, plan: PretrainPlan, poll: Callable[[float], bool]) -> list[dict[str, Any]] | None:
        """Run one epoch; None when it was cut short."""
        while self.cached_layers < plan.first_layer:
            k = self.cached_layers  # one layer at a time, so that a resumed training has the same bits
            self.cache, self.cached_layers = self.engine.encode(self.cache, n_layers=k + 1, first_layer=k), k + 1
        trained = [k for k, trains in enumerate(plan.training) if trains]
        before = self._encodings(trained[-1] + 1)
        stats = self.engine.pretrain_epoch(self.cache, plan, poll)
        if not stats.completed:
            return None
        # What the training layers and those above them encoded before is out of date now.
        del self.codes[trained[0] + 1 :]
        after = self._encodings(trained[-1] + 1)
        # The trainer, which knows the history, counts the layers' own epochs.
        return [
            {
                "phase": "pretrain",
                "epoch": plan.epoch,
                "layer": k,
                "layer_epoch": 0,
                "loss": float(stats.loss[k]),
                "drift": _relative_change(before[k + 1], after[k + 1]) if after else math.nan,
                "seconds": float(stats.seconds[k]),
                "learning_rate": plan.learning_rates[k],
            }
            for k in trained
        ]

    def _encodings(self, n_layers: int) -> list[Data]:
        """Return the probe rows and their clean encodings by one to `n_layers` layers."""
        while self.codes and len(self.codes) <= n_layers:
            k = len(self.codes) - 1
            self.codes.append(self.engine.encode(self.codes[-1], n_layers=k + 1, first_layer=k))
        return list(self.codes)


def _squared_error_scales(layers: tuple[LayerSpec, ...], data: Data) -> dict[int | None, float]:
    """Loss that a layer may healthily start with, where its input's size is known: for `find_divergence`."""
    scales: dict[int | None, float] = {}
    if layers[0].loss == "squared_error":
        scales[0] = squared_error_scale(data if isinstance(data, np.ndarray) else data.data, data.shape)
    for k in range(1, len(layers)):
        if layers[k].loss == "squared_error" and ACTIVATION_RANGES[layers[k - 1].activation] is not None:
            scales[k] = float(layers[k].n_visible)  # encodings in [-1, 1]
    return scales


def _relative_change(before: Data, after: Data) -> float:
    """Frobenius norm of the change over that of what was there before."""
    old = np.asarray(before, dtype=np.float64)
    change = float(np.linalg.norm(np.asarray(after, dtype=np.float64) - old))
    return change / (float(np.linalg.norm(old)) or change or 1.0)


def layer_progress(records: list[dict[str, Any]], n_layers: int) -> LayerProgress | None:
    """Collect an epoch's records for the schedule; None for a fine-tuning epoch."""
    if records[0]["phase"] != "pretrain":
        return None
    loss, drift = [math.nan] * n_layers, [math.nan] * n_layers
    for record in records:
        loss[record["layer"]], drift[record["layer"]] = record["loss"], record["drift"]
    return LayerProgress(tuple(loss), tuple(drift))
