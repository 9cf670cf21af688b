"""Motion as the page sends it, and the uniform sequences that a recogniser takes. Imports nothing of gesda."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_REST = 0.12  # of the fastest change: less is rest
_MARGIN = 0.06  # seconds of rest that are left
_SMOOTH = 0.08  # seconds


@dataclass(frozen=True, eq=False)
class Motion:
    """Samples with their times, as they came.

    Parameters
    ----------
    times : ndarray, shape (n,)
        Seconds, not decreasing.
    points : ndarray, shape (n, n_channels)
    """

    times: NDArray[np.float64]
    points: NDArray[np.float64]

    def uniform(self, rate: float) -> NDArray[np.float32]:
        """Return the motion sampled `rate` times a second, by linear interpolation.

        Returns
        -------
        ndarray of float32, shape (length, n_channels)
            At least two rows.

        Examples
        --------
        >>> motion = Motion(np.array([0.0, 1.0]), np.array([[0.0, 0.0], [1.0, 2.0]]))
        >>> motion.uniform(2.0)
        array([[0. , 0. ],
               [0.5, 1. ],
               [1. , 2. ]], dtype=float32)
        """
        # Of samples with one time the last counts, as the pen is there afterwards.
        last = np.append(np.diff(self.times) > 0.0, True)
        times, points = self.times[last], self.points[last]
        duration = float(times[-1] - times[0])
        grid = times[0] + np.linspace(0.0, duration, max(2, round(duration * rate) + 1))
        return np.stack([np.interp(grid, times, channel) for channel in points.T], axis=1).astype(np.float32)


def placed(sequence: NDArray[np.float32]) -> NDArray[np.float32]:
    """Move a drawing to the origin and make its longer side 1: where and how large it was drawn does not count.

    Parameters
    ----------
    sequence : ndarray, shape (length, 2)

    Returns
    -------
    ndarray of float32, shape (length, 2)

    Examples
    --------
    >>> placed(np.array([[3.0, 1.0], [5.0, 2.0]]))
    array([[-0.5 , -0.25],
           [ 0.5 ,  0.25]], dtype=float32)
    """
    low, high = sequence.min(axis=0), sequence.max(axis=0)
    size = float((high - low).max()) or 1.0
    return np.asarray((sequence - (low + high) / 2.0) / size, dtype=np.float32)


def without_rest(sequence: NDArray[np.float32], rate: float) -> NDArray[np.float32]:
    """Cut the rest at both ends off: who presses a button to record is still before and after the gesture.

    Parameters
    ----------
    sequence : ndarray, shape (length, n_channels)
    rate : float
        Hz.

    Returns
    -------
    ndarray, shape (shorter, n_channels)
        A view, of two rows at least.

    Examples
    --------
    >>> still, moving = np.zeros((50, 1)), np.sin(np.arange(100) / 5)[:, None]
    >>> 100 <= len(without_rest(np.concatenate([still, moving, still]), 50.0)) < 120
    True
    """
    change = np.linalg.norm(np.diff(sequence.astype(np.float64), axis=0), axis=1)
    width = max(1, round(_SMOOTH * rate))
    change = np.convolve(change, np.ones(width) / width, mode="same")
    if len(change) <= width or not change.max() > 0.0:
        return sequence
    # The fastest moments are a tenth: one jerk of the sensor does not make the gesture a rest.
    moving = np.flatnonzero(change > _REST * np.quantile(change, 0.9))
    margin = round(_MARGIN * rate)
    begin, end = max(0, int(moving[0]) - margin), min(len(sequence), int(moving[-1]) + 2 + margin)
    return sequence[begin : max(end, begin + 2)]
