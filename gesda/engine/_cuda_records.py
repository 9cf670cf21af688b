"""The records of kernels/records.cuh, and what every run of kernels needs: buffers and parts.

May import `gesda.spec` and its own package.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from gesda.engine import Array, Data
from gesda.spec import OPTIMIZERS, LayerSpec, OptimizerSpec

THREADS, TILE, SHARED_BYTES = 256, 64, 55296  # of kernels/product.cuh
CORRUPTION, PARTNER, DROPOUT = 0, 1, 2  # purposes of the noise's streams (kernels/math.hpp)

_POINTER = np.uint64


def _fields(dtype: Any, names: str) -> list[tuple[str, Any]]:
    return [(name, dtype) for name in names.split()]


_PARAMETER = np.dtype(_fields(_POINTER, "values state0 state1"))
_SOURCE = np.dtype([*_fields(_POINTER, "values row_starts columns"), ("stride", np.int64)])
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
        ("source", _SOURCE),
        *_fields(_POINTER, "order tick"),
        ("noise", _NOISE_KEY),
        *_fields(np.int32, "n_layers batch n_visits n_steps n_inputs padding"),
        ("rule", _RULE),
    ]
)
DENSE = np.dtype(
    [
        *_fields(_PARAMETER, "w b"),
        *_fields(_POINTER, "in out e dropped"),
        *_fields(np.int32, "inputs outputs in_stride out_stride w_stride transposed activation"),
        *_fields(np.uint32, "threshold stream"),
        *_fields(np.float32, "scale"),
    ]
)
PASS = np.dtype(
    [
        *_fields(_POINTER, "layers parts"),
        ("source", _SOURCE),
        *_fields(_POINTER, "order tick input dropped classes targets weights losses rates inverse_variances"),
        ("noise", _NOISE_KEY),
        *_fields(np.int32, "n_layers batch n_visits input_stride head"),
        *_fields(np.uint32, "threshold stream"),
        *_fields(np.float32, "scale l2"),
        ("rule", _RULE),
        *_fields(np.int32, "padding"),
    ]
)


class Device(Protocol):
    """Memory and launches: CuPy on a GPU, an emulator in the tests."""

    ticks_of_a_graph: int
    panel: tuple[int, int]  # of kernels/panel.cuh: tiles of 16 rows of a minibatch, columns

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """An array in device memory, aligned to 16 bytes, filled with zeros."""

    def pointer(self, array: Any) -> int:
        """Its address."""

    def write(self, array: Any, values: Array) -> None:
        """Overwrite an array."""

    def read(self, array: Any) -> Array:
        """Copy an array to the host, when all launches before it are done."""

    def launch(self, kernel: str, blocks: int, *arguments: int) -> None:
        """Start a kernel of `THREADS` threads a block, its first argument a pointer; do not wait for it."""

    def capture(self, launches: Callable[[], None]) -> Any:
        """Make a graph of launches without starting them; of `ticks_of_a_graph` ticks in pretraining."""

    def replay(self, graph: Any) -> None:
        """Start a graph."""

    def synchronize(self) -> None:
        """Wait for all launches."""


class Buffers:
    """Arrays in device memory that live as long as this."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._kept: list[Any] = []

    def keep(self, array: Any) -> int:
        """Keep an array; its address."""
        self._kept.append(array)
        return self.device.pointer(array)

    def zeros(self, *shape: int, dtype: Any = np.float32) -> int:
        """Make an array; its address."""
        return self.keep(self.device.zeros(shape, dtype))

    def put(self, values: Array, dtype: Any = None) -> int:
        """Copy an array to the device; its address there."""
        values = np.ascontiguousarray(values, dtype=dtype)
        array = self.device.zeros(values.shape, values.dtype)
        self.device.write(array, values)
        return self.keep(array)

    def source(self, data: Data) -> tuple[int, int, int, int]:
        """Copy the user's data; a record of `Source`."""
        if scipy.sparse.issparse(data):
            starts, columns = self.put(data.indptr, np.int64), self.put(data.indices, np.int32)
            return (self.put(data.data, np.float32), starts, columns, 0)
        return (self.put(data, np.float32), 0, 0, data.shape[1])


class Phases:
    """Deals the blocks of each launch out among its parts."""

    def __init__(self) -> None:
        self._parts: list[tuple[int, int, int, int]] = []
        self._launches: list[tuple[int, int, int]] = []  # first part, last part, blocks

    def add(self, *parts: tuple[int, int, int]) -> None:
        """Add a launch of (work, layer, blocks); of nothing for no parts."""
        first, blocks = len(self._parts), 0
        for work, layer, count in parts:
            self._parts.append((work, layer, blocks, count))
            blocks += count
        self._launches.append((first, len(self._parts) - 1, blocks))

    def records(self) -> Array:
        """All parts."""
        return np.array(self._parts, dtype=PART)

    def launch(self, device: Device, kernel: str, record: int, step: int, phases: slice = slice(None)) -> None:
        """Launch the phases of a step."""
        for first, last, blocks in self._launches[phases]:
            if blocks:
                device.launch(kernel, blocks, record, first, last, step)


def panel_bytes(row_tiles: int, columns: int) -> int:
    """Shared memory of a block of kernels/panel.cuh."""
    rows, stride = 16 * row_tiles, columns if columns == 8 else columns + 8
    weights = max(128 * stride, columns * 132)
    return 4 * (2 * rows * stride + weights + max(2 * rows * 132, 8 * 2 * rows * columns))


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
