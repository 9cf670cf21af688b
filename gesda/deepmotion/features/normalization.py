"""Offsets and scales: what of a motion's place and size is kept.

=============  ===================================================  ==============================================
normalization  what is done to a motion                             invariant to
=============  ===================================================  ==============================================
``"global"``   each channel by its mean and deviation in training   nothing; comparable units
``"centered"`` its own mean off each channel, then one scale        place (offsets) and size
               (that of all its channels together)
``"sequence"`` each channel by its own mean and deviation           offset and size of each channel; so not to
                                                                    rotation, and a weak channel's noise grows
``"relative"`` channels are points x, y, z of a body: their median  where the body is and goes
               at each time off each, then as ``"global"``
=============  ===================================================  ==============================================

A channel that does not move within a motion becomes 0 by ``"centered"`` and ``"sequence"``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

NORMALIZATIONS = ("global", "centered", "sequence", "relative")

#: Fewer points than this are no body.
LEAST_POINTS = 4

#: A deviation below this share of a channel's values is rounding, not motion.
_ROUNDING = 1e-6


def center_and_scale(motion: NDArray[Any]) -> NDArray[np.float64]:
    """Take a motion's mean off and divide by the root mean square of what is left, over all channels.

    Invariant to place and to size; keeps the proportions of the channels, and so commutes with rotation.

    Parameters
    ----------
    motion : ndarray of shape (n_steps, n_channels)

    Returns
    -------
    normalised : ndarray of float64, shape (n_steps, n_channels)
        Mean 0 in each channel, mean square 1 over all; 0 for a motion without movement.

    Examples
    --------
    >>> import numpy as np
    >>> center_and_scale(np.array([[5.0, 0.0], [5.0, 2.0]])).round(3).tolist()
    [[0.0, -1.414], [0.0, 1.414]]
    """
    centered, size = _centered(motion)
    scale = np.sqrt(np.square(centered).mean())
    if scale <= _ROUNDING * size.max(initial=0.0):
        return np.zeros_like(centered)
    result: NDArray[np.float64] = centered / scale
    return result


def standardize_channels(motion: NDArray[Any]) -> NDArray[np.float64]:
    """Bring each channel of a motion to mean 0 and deviation 1.

    Invariant to each channel's offset and (positive) scale.

    Parameters
    ----------
    motion : ndarray of shape (n_steps, n_channels)

    Returns
    -------
    normalised : ndarray of float64, shape (n_steps, n_channels)
        0 in a channel that does not move.

    Examples
    --------
    >>> import numpy as np
    >>> standardize_channels(np.array([[5.0, 7.0], [5.0, 9.0]])).tolist()
    [[0.0, -1.0], [0.0, 1.0]]
    """
    centered, size = _centered(motion)
    scale = np.sqrt(np.square(centered).mean(axis=0))
    still = scale <= _ROUNDING * size
    result: NDArray[np.float64] = np.where(still, 0.0, centered / np.where(still, 1.0, scale))
    return result


def relative_to_body(sequence: NDArray[Any]) -> NDArray[np.float64]:
    """Take the median of all points off each point, at each time.

    Invariant to where the body is and to its walking about; the median, so that a point far off (or a triple that is no
    point at all, such as a sensor on the wrist) does not move the others.

    Parameters
    ----------
    sequence : ndarray of shape (length, n_channels)
        Triples of channels x, y, z, one for each point; at least four.

    Returns
    -------
    relative : ndarray of float64, shape (length, n_channels)

    Raises
    ------
    ValueError
        If the channels are not triples, or too few.

    Examples
    --------
    >>> import numpy as np
    >>> points = np.arange(12.0).reshape(1, 12)
    >>> np.allclose(relative_to_body(points), relative_to_body(points + np.tile([5.0, 6.0, 7.0], 4)))
    True
    """
    values = np.asarray(sequence, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] % 3 or values.shape[1] < 3 * LEAST_POINTS:
        raise ValueError(
            f"normalization='relative' needs {LEAST_POINTS} or more points of channels x, y, z; got shape "
            f"{values.shape}. Use another normalization."
        )
    points = values.reshape(len(values), -1, 3)
    result: NDArray[np.float64] = (points - np.median(points, axis=1, keepdims=True)).reshape(values.shape)
    return result


def _centered(motion: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The motion without its mean, and the largest value of each channel."""
    values = np.asarray(motion, dtype=np.float64)
    return values - values.mean(axis=0), np.abs(values).max(axis=0, initial=0.0)
