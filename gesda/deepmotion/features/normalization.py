"""Offsets and scales: what of a motion's place and size is kept.

=============  ===================================================  ==============================================
normalization  what is done to a motion                             invariant to
=============  ===================================================  ==============================================
``"global"``   each channel by its mean and deviation in training   nothing; comparable units
``"centered"`` its own mean off each channel, then one scale        place (offsets) and size
               (that of all its channels together)
``"sequence"`` each channel by its own mean and deviation           offset and size of each channel; so not to
                                                                    rotation, and a weak channel's noise grows
``"relative"`` of the channels that are points x, y, z of a body,   where the body is and goes
               their mean at each time off each; then all as
               ``"global"``
=============  ===================================================  ==============================================

A channel that does not move within a motion becomes 0 by ``"centered"`` and ``"sequence"``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

NORMALIZATIONS = ("global", "centered", "sequence", "relative")

#: Fewer points than this are no body.
LEAST_POINTS = 4

#: A deviation below this share of a channel's values is rounding, not motion.
_ROUNDING = 1e-6
#: Points of one body are correlated at least so much with its most typical one.
_LEAST_CORRELATION = 0.2
#: Nor does one of them move ten times as far as it.
_MOST_LOG_RATIO = float(np.log(10.0))
#: The body is found from about so many moments.
_MOST_ROWS = 20_000


def center_and_scale(motion: NDArray[Any]) -> NDArray[np.float64]:
    """Take a motion's mean off and divide by the root mean square of what is left, over all channels.

    Invariant to place and to size; keeps the proportions of the channels, and so commutes with rotation.

    Parameters
    ----------
    motion : ndarray of shape (..., n_steps, n_channels)

    Returns
    -------
    normalised : ndarray of float64, shape (..., n_steps, n_channels)
        Mean 0 in each channel, mean square 1 over all; 0 for a motion without movement.

    Examples
    --------
    >>> import numpy as np
    >>> center_and_scale(np.array([[5.0, 0.0], [5.0, 2.0]])).round(3).tolist()
    [[0.0, -1.414], [0.0, 1.414]]
    """
    return _standardized(motion, False)


def standardize_channels(motion: NDArray[Any]) -> NDArray[np.float64]:
    """Bring each channel of a motion to mean 0 and deviation 1.

    Invariant to each channel's offset and (positive) scale.

    Parameters
    ----------
    motion : ndarray of shape (..., n_steps, n_channels)

    Returns
    -------
    normalised : ndarray of float64, shape (..., n_steps, n_channels)
        0 in a channel that does not move.

    Examples
    --------
    >>> import numpy as np
    >>> standardize_channels(np.array([[5.0, 7.0], [5.0, 9.0]])).tolist()
    [[0.0, -1.0], [0.0, 1.0]]
    """
    return _standardized(motion, True)


def find_body(sequences: Sequence[NDArray[Any]]) -> NDArray[np.bool_]:
    """Find the points of a body among triples of channels x, y, z: those that go where the others go.

    Points of one body share its place, so their coordinates are correlated over all sequences and move over distances
    of one order; those of a sensor on its wrist are not. The body is what is so related to the most typical triple.

    Parameters
    ----------
    sequences : sequence of ndarray (length, n_channels)

    Returns
    -------
    body : ndarray of bool, shape (n_channels // 3,)
        No triple is True where fewer than four are points of one body, or the channels are no triples.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> place = np.tile(np.cumsum(rng.normal(size=(200, 3)), axis=0), 4)
    >>> find_body([np.hstack([place, rng.normal(size=(200, 3))])])
    array([ True,  True,  True,  True, False])
    """
    n_channels = sequences[0].shape[1]
    if n_channels % 3 or n_channels < 3 * LEAST_POINTS:
        return np.zeros(n_channels // 3, dtype=np.bool_)
    every = max(1, sum(map(len, sequences)) // _MOST_ROWS)
    rows = np.concatenate([sequence[::every] for sequence in sequences]).astype(np.float64)
    rows -= rows.mean(axis=0)
    rows /= max(np.abs(rows).max(initial=0.0), 1e-300)
    points = rows.reshape(len(rows), -1, 3)
    sizes = np.sqrt(np.square(points).mean(axis=(0, 2)))
    points = points / np.maximum(np.sqrt(np.square(points).mean(axis=0)), 1e-12)
    correlations = np.einsum("tik,tjk->ij", points, points, optimize=True) / (3 * len(rows))
    typical = np.median(correlations, axis=1).argmax()
    alike = np.abs(np.log(np.maximum(sizes, 1e-300) / max(sizes[typical], 1e-300))) <= _MOST_LOG_RATIO
    body: NDArray[np.bool_] = alike & (correlations[typical] >= _LEAST_CORRELATION)
    return body if body.sum() >= LEAST_POINTS else np.zeros_like(body)


def relative_to_body(motions: NDArray[Any], body: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Take the mean of a body's points off each of them, at each time.

    Invariant to where the body is and to its walking about. Channels that are no points of it stay.

    Parameters
    ----------
    motions : ndarray of shape (..., n_channels)
        Triples of channels x, y, z.
    body : ndarray of bool, shape (n_channels // 3,)
        Which of them are points of the body.

    Returns
    -------
    relative : ndarray of float64, shape (..., n_channels)

    Examples
    --------
    >>> import numpy as np
    >>> points, body = np.arange(12.0), np.ones(4, dtype=bool)
    >>> np.allclose(relative_to_body(points, body), relative_to_body(points + np.tile([5.0, 6.0, 7.0], 4), body))
    True
    """
    points = np.array(motions, dtype=np.float64).reshape(*motions.shape[:-1], -1, 3)
    if body.any():
        points[..., body, :] -= points[..., body, :].mean(axis=-2, keepdims=True)
    return points.reshape(motions.shape)


def _standardized(motion: NDArray[Any], each_channel: bool) -> NDArray[np.float64]:
    values = np.array(motion, dtype=np.float64, order="C")
    _standardize(values.reshape(-1, *values.shape[-2:]), each_channel)
    return values


@numba.njit(cache=True, nogil=True)
def _standardize(motions, each_channel):  # type: ignore[no-untyped-def]  # numba infers the types
    """Take the means of channels off and divide by deviations, of each or of all together, in place."""
    n, n_steps, n_channels = motions.shape
    for i in range(n):
        squares, largest = np.zeros(n_channels), np.zeros(n_channels)
        for c in range(n_channels):
            mean = 0.0
            for t in range(n_steps):
                mean += motions[i, t, c]
                largest[c] = max(largest[c], abs(motions[i, t, c]))
            mean /= max(n_steps, 1)
            for t in range(n_steps):
                motions[i, t, c] -= mean
                squares[c] += motions[i, t, c] * motions[i, t, c]
        if not each_channel:
            squares[:] = squares.sum() / max(n_channels, 1)
            largest[:] = largest.max() if n_channels else 0.0
        for c in range(n_channels):
            scale = np.sqrt(squares[c] / max(n_steps, 1))
            factor = 0.0 if scale <= _ROUNDING * largest[c] else 1.0 / scale
            for t in range(n_steps):
                motions[i, t, c] *= factor
