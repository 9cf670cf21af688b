"""What can be added to a motion's own channels: its velocity and its spectrum."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

N_BANDS = 8


def velocity(motion: NDArray[Any]) -> NDArray[np.float64]:
    """Difference quotients in units a step: central ones, one-sided at both ends.

    Invariant to offsets.

    Parameters
    ----------
    motion : ndarray of shape (..., n_steps, n_channels)

    Returns
    -------
    velocity : ndarray of float64, shape (..., n_steps, n_channels)
        0 for a single step.

    Examples
    --------
    >>> import numpy as np
    >>> velocity(np.array([[0.0], [1.0], [4.0]])).ravel().tolist()
    [1.0, 2.0, 3.0]
    """
    values = np.array(motion, dtype=np.float64, order="C")
    motions = values.reshape(-1, *values.shape[-2:])
    slopes = np.empty_like(motions)
    _differentiate(motions, np.ones(values.shape[-1]), slopes)
    return slopes.reshape(values.shape)


def with_velocity(motions: NDArray[np.float32], scale: NDArray[np.float64]) -> NDArray[np.float32]:
    """Append each channel's `velocity`, divided by a scale.

    Parameters
    ----------
    motions : ndarray of float32, shape (n, n_steps, n_channels)
        C-contiguous.
    scale : ndarray of float64, shape (n_channels,)

    Returns
    -------
    extended : ndarray of float32, shape (n, n_steps, 2 * n_channels)
    """
    n, n_steps, n_channels = motions.shape
    extended = np.empty((n, n_steps, 2 * n_channels), dtype=np.float32)
    extended[:, :, :n_channels] = motions
    _differentiate(motions, scale, extended[:, :, n_channels:])
    return extended


def spectrum(motion: NDArray[Any]) -> NDArray[np.float64]:
    """Logarithm of the power of each channel in eight bands, each twice as wide as the one below.

    Invariant to offsets, to the sign of a channel, and to cyclic shifts in time: it tells how fast something repeats,
    not when.

    Parameters
    ----------
    motion : ndarray of shape (..., n_steps, n_channels)

    Returns
    -------
    powers : ndarray of float64, shape (..., 8, n_channels)
        ``log(1 + power)``, where the powers of all bands add up to a channel's variance times n_steps; bands
        beyond half the sampling rate are 0.

    Examples
    --------
    >>> import numpy as np
    >>> wave = np.sin(2 * np.pi * 3 * np.arange(64) / 64)[:, None]
    >>> int(spectrum(wave).argmax())  # three periods: the band of 2 to 3
    1
    """
    values = np.asarray(motion, dtype=np.float64)
    n_steps = values.shape[-2]
    amplitudes = np.fft.rfft(values, axis=-2)
    power = np.square(np.abs(amplitudes)) * (2.0 / n_steps)
    if n_steps % 2 == 0:
        power[..., -1, :] /= 2.0  # the highest frequency has no mirror image
    bands = np.zeros((*values.shape[:-2], N_BANDS, values.shape[-1]))
    for band in range(N_BANDS):
        low, high = 2**band, 2 ** (band + 1)
        bands[..., band, :] = power[..., low:high, :].sum(axis=-2)
    return np.log1p(bands)


@numba.njit(cache=True, nogil=True)
def _differentiate(motions, scale, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """Difference quotients, divided by each channel's scale."""
    n, n_steps, n_channels = motions.shape
    for i in range(n):
        for t in range(n_steps):
            before, after = max(t - 1, 0), min(t + 1, n_steps - 1)
            span = max(after - before, 1)
            for c in range(n_channels):
                difference = np.float64(motions[i, after, c]) - np.float64(motions[i, before, c])
                out[i, t, c] = difference / span / scale[c]
