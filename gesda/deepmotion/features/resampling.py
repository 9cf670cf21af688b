"""Sequences of any length to a fixed number of steps: evenly in time, or evenly along the path.

Linear interpolation throughout: it adds no overshoot, and an interpolated sample depends on two neighbours only.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

RESAMPLINGS = ("time", "arc")


def resample_time(sequence: NDArray[Any], n_steps: int) -> NDArray[np.float64]:
    """Resample evenly in time, first and last sample included.

    Invariant to the sampling rate and to the overall speed of the motion: a gesture made twice as fast gives the
    same steps. A straight line stays what it is; resampling to the same number of steps changes nothing.

    Parameters
    ----------
    sequence : ndarray of shape (length, n_channels)
        At least one sample; a single one is held for all steps.
    n_steps : int
        At least 1.

    Returns
    -------
    resampled : ndarray of float64, shape (n_steps, n_channels)

    Examples
    --------
    >>> import numpy as np
    >>> resample_time(np.array([[0.0], [1.0], [4.0]]), 5).ravel().tolist()
    [0.0, 0.5, 1.0, 2.5, 4.0]
    """
    values = np.array(sequence, dtype=np.float64)
    if len(values) == n_steps:
        return values
    resampled = np.empty((n_steps, values.shape[1]))
    _read_evenly(values, resampled)
    return resampled


def resample_arc(sequence: NDArray[Any], n_steps: int) -> NDArray[np.float64]:
    """Resample evenly along the length of the path, so that equal steps cover equal distances.

    Invariant to how the speed varies along the path, pauses included, besides what `resample_time` is invariant to.
    It throws the rhythm away: right for drawn shapes, wrong for accelerations.

    Parameters
    ----------
    sequence : ndarray of shape (length, n_channels)
        At least one sample. A path without length (one sample, or a constant) is held for all steps.
    n_steps : int
        At least 1.

    Returns
    -------
    resampled : ndarray of float64, shape (n_steps, n_channels)

    Examples
    --------
    >>> import numpy as np
    >>> hurried = np.array([[0.0], [1.0], [1.0], [4.0]])  # stands still, then runs
    >>> resample_arc(hurried, 5).ravel().tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0]
    """
    values = np.asarray(sequence, dtype=np.float64)
    size = np.abs(values).max(initial=0.0)
    scaled = values / size if size > 0 else values  # squares of very large or small values stay finite
    travelled = np.concatenate([[0.0], np.cumsum(np.sqrt(np.square(np.diff(scaled, axis=0)).sum(axis=1)))])
    if travelled[-1] <= 0.0:
        return resample_time(values, n_steps)
    # Where the path stands still, several samples share a place: the first of them is enough.
    moving = np.concatenate([[True], np.diff(travelled) > 0.0])
    wanted = np.linspace(0.0, travelled[-1], n_steps)
    resampled = np.empty((n_steps, values.shape[1]))
    for channel, column in enumerate(values[moving].T):
        resampled[:, channel] = np.interp(wanted, travelled[moving], column)
    return resampled


@numba.njit(cache=True, nogil=True)
def _read_evenly(values, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """Read at evenly spaced fractional sample numbers, from the first to the last."""
    last = len(values) - 1
    step = last / max(len(out) - 1, 1)
    for t in range(len(out)):
        place = min(t * step, float(last))
        before = min(int(place), max(last - 1, 0))
        after = min(before + 1, last)
        fraction = place - before
        for c in range(values.shape[1]):
            out[t, c] = values[before, c] * (1.0 - fraction) + values[after, c] * fraction
