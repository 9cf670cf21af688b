"""The records of kernels/records.cuh, and the words in them.

May import `gesda.spec`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gesda.spec import OPTIMIZERS, LayerSpec, OptimizerSpec

THREADS, TILE, SHARED_BYTES = 256, 64, 55296  # of kernels/product.cuh
WARPS = THREADS // 32
PANEL_CHUNK = 128  # of kernels/panel.cuh
CORRUPTION, PARTNER, DROPOUT = 0, 1, 2  # purposes of the noise's streams (kernels/math.hpp)

_POINTER = np.uint64


def _fields(dtype: Any, names: str) -> list[tuple[str, Any]]:
    return [(name, dtype) for name in names.split()]


_PARAMETER = np.dtype(_fields(_POINTER, "values state0 state1"))
SOURCE = np.dtype(
    [
        *_fields(_POINTER, "values row_starts columns"),
        *_fields(np.int64, "stride ring"),
        *_fields(np.int32, "storage padding"),
    ]
)
#: How rows of data may be stored on the device.
STORAGES: dict[np.dtype[Any], int] = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, np.dtype(np.uint8): 2}
_NOISE_KEY = np.dtype(_fields(np.uint32, "key0 key1 epoch padding"))
_RULE = np.dtype(
    [("kind", np.int32), *_fields(np.float32, "rate momentum nesterov beta1 beta2 epsilon inverse_variance")]
)
PART = np.dtype(_fields(np.int32, "work layer first_block blocks"))
LAYER = np.dtype(
    [
        *_fields(_PARAMETER, "w v b c"),
        ("x", _POINTER, 3),
        *((name, _POINTER, 2) for name in ("noisy", "corrupted")),
        *_fields(_POINTER, "h e slope contraction decay losses rates inverse_variances"),
        *_fields(np.int32, "n m n_stride m_stride activation output loss noise handoff"),
        *_fields(np.uint32, "threshold stream partner_stream"),
        *_fields(np.float32, "level low high emphasis_corrupted emphasis_clean"),
        *_fields(np.float32, "sparsity sparsity_target contractive l2"),
        *_fields(np.int32, "padding"),
    ]
)
EPOCH = np.dtype(
    [
        *_fields(_POINTER, "layers parts"),
        ("source", SOURCE),
        *_fields(_POINTER, "order tick"),
        ("noise", _NOISE_KEY),
        *_fields(np.int32, "n_layers batch n_visits n_steps n_inputs has_resident"),
        ("rule", _RULE),
    ]
)
DENSE = np.dtype(
    [
        *_fields(_PARAMETER, "w b"),
        *_fields(_POINTER, "in out e dropped"),
        ("out_step", np.int64),
        *_fields(np.int32, "inputs outputs in_stride out_stride w_stride transposed activation"),
        *_fields(np.uint32, "threshold stream"),
        *_fields(np.float32, "scale"),
    ]
)
PASS = np.dtype(
    [
        *_fields(_POINTER, "layers parts"),
        ("source", SOURCE),
        *_fields(_POINTER, "order tick input dropped classes targets weights losses rates inverse_variances"),
        ("noise", _NOISE_KEY),
        *_fields(np.int32, "n_layers batch n_visits input_stride head"),
        *_fields(np.uint32, "threshold stream"),
        *_fields(np.float32, "scale l2"),
        ("rule", _RULE),
        *_fields(np.int32, "padding"),
    ]
)


def round_up(n: int, to: int = 4) -> int:
    """Round up to a multiple."""
    return -(-n // to) * to


def tiles(rows: int, columns: int) -> int:
    """Number of tiles that cover a matrix."""
    return -(-rows // TILE) * -(-columns // TILE)


def stream_word(purpose: int, layer: int) -> int:
    """As `stream_word` of kernels/math.hpp."""
    return purpose << 16 | layer


def noise_threshold(layer: LayerSpec) -> int:
    """As `noise_threshold` of kernels/math.hpp."""
    if layer.noise == "salt_and_pepper":
        return 2 * int(layer.noise_level * 32768.0 + 0.5)
    return 0 if layer.noise in ("gaussian", "none") else int(layer.noise_level * 65536.0 + 0.5)


def noise_key(seed: int, epoch: int) -> tuple[int, int, int, int]:
    """A record of `NoiseKey`."""
    return (seed & 0xFFFFFFFF, seed >> 32, epoch, 0)


def update_rule(optimizer: OptimizerSpec) -> tuple[float, ...]:
    """A record of `UpdateRule`, but for what changes with the step."""
    return (
        OPTIMIZERS[optimizer.kind], 0.0, optimizer.momentum, float(optimizer.nesterov),
        optimizer.beta_1, optimizer.beta_2, optimizer.epsilon, 1.0,
    )  # fmt: skip


def step_rates(
    optimizer: OptimizerSpec, rate: float, done: int, n_steps: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Learning rate of each of the next steps, and adam's other correction (Kingma and Ba 2015, algorithm 1)."""
    rates, variances = np.full(n_steps, np.float32(rate), dtype=np.float64), np.ones(n_steps)
    if optimizer.kind == "adam":
        t = done + np.arange(1, n_steps + 1)
        rates /= 1.0 - np.float64(np.float32(optimizer.beta_1)) ** t
        variances /= 1.0 - np.float64(np.float32(optimizer.beta_2)) ** t
    return rates.astype(np.float32), variances.astype(np.float32)
