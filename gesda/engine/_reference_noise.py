"""The noise of the reference engine: Philox4x32-10 in NumPy, corruption and dropout masks.

Written from ARCHITECTURE.md ("Noise"), independently of kernels/math.hpp. May import `gesda.spec` only.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gesda.spec import STREAMS, LayerSpec

Float: TypeAlias = NDArray[np.float64]
Bool: TypeAlias = NDArray[np.bool_]
Words: TypeAlias = NDArray[np.uint64]

# Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 4.
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


def philox4x32(counter: tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike], key: tuple[int, int]) -> Words:
    """Philox4x32-10: four random words for each counter.

    Parameters
    ----------
    counter : tuple of four integer array_like
        The counter's words, each below 2**32, broadcast against each other.
    key : tuple of two int
        The key's words, each below 2**32.

    Returns
    -------
    words : ndarray of uint64, shape (..., 4)
        Random words below 2**32.

    Examples
    --------
    >>> [f"{word:08x}" for word in philox4x32((0, 0, 0, 0), (0, 0))]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    c0, c1, c2, c3 = np.broadcast_arrays(*(np.asarray(word, dtype=np.uint64) for word in counter))
    k0, k1 = key
    for _ in range(_ROUNDS):
        product0, product1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (product1 >> _32) ^ c1 ^ np.uint64(k0),
            product1 & _LOW,
            (product0 >> _32) ^ c3 ^ np.uint64(k1),
            product0 & _LOW,
        )
        k0, k1 = (k0 + _KEY_STEPS[0]) & 0xFFFFFFFF, (k1 + _KEY_STEPS[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1)


def _row_words(
    seed: int, purpose: str, layer: int, epoch: int, ids: NDArray[np.uint32], block: NDArray[np.int64]
) -> Words:
    """Words of counters (id, block, epoch, purpose and layer), shape (n_rows, n_blocks, 4)."""
    stream = STREAMS[purpose] << 16 | layer
    return philox4x32((ids[:, None], block[None, :], epoch, stream), (seed & 0xFFFFFFFF, seed >> 32))


def uniform16(
    seed: int, purpose: str, layer: int, epoch: int, ids: NDArray[np.uint32], n_columns: int
) -> NDArray[np.int64]:
    """16 random bits for every row and column.

    Parameters
    ----------
    seed : int
        The network's 64-bit seed.
    purpose : {"corruption", "partner", "dropout"}
    layer, epoch : int
    ids : ndarray of uint32, shape (n_rows,)
        Sample ids.
    n_columns : int

    Returns
    -------
    u : ndarray of int64, shape (n_rows, n_columns), in [0, 65536)
    """
    j = np.arange(n_columns)
    words = _row_words(seed, purpose, layer, epoch, ids, np.arange((n_columns + 63) // 64 * 8))
    q = j % 64 // 8
    drawn = words[:, j // 64 * 8 + j % 8, q // 2].astype(np.int64)
    return drawn >> (16 * (q % 2)) & 0xFFFF


def normal(seed: int, purpose: str, layer: int, epoch: int, ids: NDArray[np.uint32], n_columns: int) -> Float:
    """One standard normal number for every row and column, by Box and Muller; parameters as `uniform16`."""
    j = np.arange(n_columns)
    words = _row_words(seed, purpose, layer, epoch, ids, np.arange((n_columns + 31) // 32 * 8))
    block, word = j // 32 * 8 + j % 8, j % 32 // 8
    first, second = words[:, block, word & ~1], words[:, block, word | 1]
    u1 = ((first >> np.uint64(8)).astype(np.float64) + 1.0) * 2.0**-24  # in (0, 1]: the logarithm is finite
    u2 = (second >> np.uint64(8)).astype(np.float64) * 2.0**-24
    radius, angle = np.sqrt(-2.0 * np.log(u1)), 2.0 * np.pi * u2
    return np.asarray(radius * np.where(word % 2 == 0, np.cos(angle), np.sin(angle)))


def swap_partners(seed: int, layer: int, epoch: int, ids: NDArray[np.uint32], n_columns: int) -> NDArray[np.int64]:
    """Row of the minibatch that each component of a corrupted row would be taken from.

    Returns
    -------
    partner : ndarray of int64, shape (n_rows, n_columns)
        Never the row itself, unless it is the only one.
    """
    n_rows = len(ids)
    u = uniform16(seed, "partner", layer, epoch, ids, n_columns)
    return (np.arange(n_rows)[:, None] + 1 + (u * (n_rows - 1) >> 16)) % n_rows


def corrupt(
    layer_spec: LayerSpec, seed: int, layer: int, epoch: int, ids: NDArray[np.uint32], x: Float
) -> tuple[Float, Bool]:
    """Corrupt a minibatch.

    Parameters
    ----------
    layer_spec : LayerSpec
        Kind, level and range of the noise.
    seed : int
        The network's 64-bit seed.
    layer, epoch : int
        Position of the layer in the stack; the plan's epoch.
    ids : ndarray of uint32, shape (n_rows,)
        Sample ids of the rows.
    x : ndarray of float64, shape (n_rows, n_visible)
        The clean minibatch.

    Returns
    -------
    x_corrupted : ndarray of float64, shape (n_rows, n_visible)
    corrupted : ndarray of bool, shape (n_rows, n_visible)
        Which components count as corrupted, changed or not; all False for gaussian noise and none.
    """
    kind, level, n_columns = layer_spec.noise, layer_spec.noise_level, x.shape[1]
    if kind == "none":
        return x.copy(), np.zeros(x.shape, dtype=np.bool_)
    if kind == "gaussian":
        draws = normal(seed, "corruption", layer, epoch, ids, n_columns)
        return x + level * draws, np.zeros(x.shape, dtype=np.bool_)
    u = uniform16(seed, "corruption", layer, epoch, ids, n_columns)
    if kind == "salt_and_pepper":
        # An even threshold leaves the lowest bit of a corrupted component's u a fair coin.
        corrupted = u < 2 * int(np.floor(level * 32768.0 + 0.5))
        replacement = np.where(u & 1 == 1, layer_spec.noise_range[1], layer_spec.noise_range[0])
    else:
        corrupted = u < int(np.floor(level * 65536.0 + 0.5))
        replacement = np.zeros_like(x)
        if kind == "swap":
            replacement = np.take_along_axis(x, swap_partners(seed, layer, epoch, ids, n_columns), axis=0)
    return np.where(corrupted, replacement, x), corrupted


def dropout_scale(rate: float, seed: int, position: int, epoch: int, ids: NDArray[np.uint32], n_columns: int) -> Float:
    """Factor of each component under dropout: 0 where dropped, ``1 / (1 - rate)`` where kept.

    Parameters
    ----------
    rate : float
        Probability of dropping.
    seed : int
        The network's 64-bit seed.
    position : int
        0 for the input, k + 1 for the encoding of layer k.
    epoch : int
        The fine-tuning epoch.
    ids : ndarray of uint32, shape (n_rows,)
    n_columns : int

    Returns
    -------
    scale : ndarray of float64, shape (n_rows, n_columns)
    """
    if rate == 0.0:
        return np.ones((len(ids), n_columns))
    u = uniform16(seed, "dropout", position, epoch, ids, n_columns)
    return np.where(u < int(np.floor(rate * 65536.0 + 0.5)), 0.0, 1.0 / (1.0 - rate))
