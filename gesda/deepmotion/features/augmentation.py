"""New motions from old ones: what a repetition of the same gesture may look like.

Every function takes motions (n, n_steps, n_channels) and a random generator, draws anew for each motion, and
returns new motions of that shape. What each teaches a network to be invariant to is said there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

#: Inner points of the piecewise linear curves that speed and size follow.
_KNOTS = 4


def time_warp(motions: NDArray[np.float32], rng: np.random.Generator, strength: float = 0.3) -> NDArray[np.float32]:
    """Let the speed vary along the motion, start and end kept.

    For invariance to rhythm.

    Parameters
    ----------
    motions : ndarray of float32, shape (n, n_steps, n_channels)
    rng : numpy.random.Generator
    strength : float, default=0.3
        Standard deviation of the logarithm of the speed at six points in time; between them it is interpolated.

    Returns
    -------
    warped : ndarray of float32, shape (n, n_steps, n_channels)

    Examples
    --------
    >>> import numpy as np
    >>> line = np.linspace(0, 1, 16, dtype=np.float32).reshape(1, 16, 1)
    >>> warped = time_warp(line, np.random.default_rng(0))
    >>> float(warped[0, 0, 0]), float(warped[0, -1, 0]), bool(np.all(np.diff(warped[0, :, 0]) > 0))
    (0.0, 1.0, True)
    """
    n, n_steps, _ = motions.shape
    if n_steps < 2:
        return motions.copy()
    speed = np.exp(_curves(rng, n, n_steps - 1, strength))
    travelled = np.concatenate([np.zeros((n, 1)), np.cumsum(speed, axis=1)], axis=1)
    return _sample(motions, travelled * ((n_steps - 1) / travelled[:, -1:]))


def shift(motions: NDArray[np.float32], rng: np.random.Generator, most: float = 0.05) -> NDArray[np.float32]:
    """Move the motion's start and end in time, each by up to a share of its length; ends are held.

    For invariance to where a segmentation cuts.

    Parameters
    ----------
    motions : ndarray of float32, shape (n, n_steps, n_channels)
    rng : numpy.random.Generator
    most : float, default=0.05
        Share of the motion's length.

    Returns
    -------
    shifted : ndarray of float32, shape (n, n_steps, n_channels)
    """
    n, n_steps, _ = motions.shape
    ends = np.array([0.0, 1.0]) + rng.uniform(-most, most, (n, 2))
    places = ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * np.linspace(0.0, 1.0, n_steps)
    return _sample(motions, np.clip(places, 0.0, 1.0) * (n_steps - 1))


def window_slice(motions: NDArray[np.float32], rng: np.random.Generator, least: float = 0.9) -> NDArray[np.float32]:
    """Cut a window out at random and stretch it over all steps.

    For invariance to a missing beginning or end.

    Parameters
    ----------
    motions : ndarray of float32, shape (n, n_steps, n_channels)
    rng : numpy.random.Generator
    least : float, default=0.9
        Shortest window, as a share of the motion's length.

    Returns
    -------
    slices : ndarray of float32, shape (n, n_steps, n_channels)
    """
    n, n_steps, _ = motions.shape
    length = rng.uniform(least, 1.0, (n, 1))
    start = rng.uniform(0.0, 1.0, (n, 1)) * (1.0 - length)
    return _sample(motions, (start + length * np.linspace(0.0, 1.0, n_steps)) * (n_steps - 1))


def scale(motions: NDArray[np.float32], rng: np.random.Generator, strength: float = 0.1) -> NDArray[np.float32]:
    """Multiply all channels by a factor that varies slowly along the motion.

    For invariance to force and size.

    Parameters
    ----------
    motions : ndarray of float32, shape (n, n_steps, n_channels)
        Centred: what is scaled is the distance from 0.
    rng : numpy.random.Generator
    strength : float, default=0.1
        Standard deviation of the factor's logarithm at six points in time.

    Returns
    -------
    scaled : ndarray of float32, shape (n, n_steps, n_channels)
    """
    n, n_steps, _ = motions.shape
    return (motions * np.exp(_curves(rng, n, n_steps, strength))[:, :, None]).astype(np.float32)


def jitter(motions: NDArray[np.float32], rng: np.random.Generator, strength: float = 0.02) -> NDArray[np.float32]:
    """Add normal noise to every value.

    For invariance to sensor noise.

    Parameters
    ----------
    motions : ndarray of float32, shape (n, n_steps, n_channels)
    rng : numpy.random.Generator
    strength : float, default=0.02
        Standard deviation, in units of the normalised motion.

    Returns
    -------
    noisy : ndarray of float32, shape (n, n_steps, n_channels)
    """
    return motions + np.float32(strength) * rng.standard_normal(motions.shape, dtype=np.float32)


def rotate(motions: NDArray[np.float32], rng: np.random.Generator, strength: float = 10.0) -> NDArray[np.float32]:
    """Turn the axes: all triples of channels alike about a random axis, or pairs in their plane.

    For invariance to how a device is held. Channels that are neither triples nor pairs stay as they are.

    Parameters
    ----------
    motions : ndarray of float32, shape (n, n_steps, n_channels)
        Channels x, y, z, x, y, z, ... or x, y, ... in like units.
    rng : numpy.random.Generator
    strength : float, default=10.0
        Standard deviation of the angle about each axis, in degrees.

    Returns
    -------
    turned : ndarray of float32, shape (n, n_steps, n_channels)
    """
    n, n_steps, n_channels = motions.shape
    size = 3 if n_channels % 3 == 0 else 2
    if n_channels % size:
        return motions.copy()
    turns = rng.normal(0.0, np.deg2rad(strength), (n, 3))
    if size == 3:
        matrices = _rotations(turns)
    else:
        cosine, sine = np.cos(turns[:, 0]), np.sin(turns[:, 0])
        matrices = np.stack([cosine, -sine, sine, cosine], axis=1).reshape(n, 2, 2)
    groups = motions.reshape(n, -1, size)
    turned: NDArray[np.float32] = np.matmul(groups, matrices.transpose(0, 2, 1).astype(np.float32))
    return turned.reshape(n, n_steps, n_channels)


@dataclass(frozen=True)
class Augmentation:
    """All of the above, one after another; a strength of 0 leaves a step out.

    Parameters
    ----------
    time_warp, shift, scale, jitter, rotation : float
        Strengths, in the units of `time_warp`, `shift`, `scale`, `jitter` and `rotate`.
    window : float, default=0.0
        How much `window_slice` may cut off, as a share of the length.

    Examples
    --------
    >>> import numpy as np
    >>> motions = np.zeros((4, 32, 2), dtype=np.float32)
    >>> Augmentation(jitter=0.0)(motions, np.random.default_rng(0)).max()
    np.float32(0.0)
    """

    time_warp: float = 0.3
    shift: float = 0.05
    window: float = 0.0
    scale: float = 0.1
    jitter: float = 0.02
    rotation: float = 0.0

    def __call__(self, motions: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Make one new motion of each.

        Parameters
        ----------
        motions : ndarray of float32, shape (n, n_steps, n_channels)
        rng : numpy.random.Generator

        Returns
        -------
        augmented : ndarray of float32, shape (n, n_steps, n_channels)
        """
        if self.time_warp:
            motions = time_warp(motions, rng, self.time_warp)
        if self.shift:
            motions = shift(motions, rng, self.shift)
        if self.window:
            motions = window_slice(motions, rng, 1.0 - self.window)
        if self.rotation:
            motions = rotate(motions, rng, self.rotation)
        if self.scale:
            motions = scale(motions, rng, self.scale)
        return jitter(motions, rng, self.jitter) if self.jitter else motions


def _curves(rng: np.random.Generator, n: int, n_steps: int, strength: float) -> NDArray[np.float64]:
    """Piecewise linear curves through normal values at evenly spaced knots, (n, n_steps)."""
    knots = rng.normal(0.0, strength, (n, _KNOTS + 2, 1)).astype(np.float32)
    places = np.broadcast_to(np.linspace(0.0, _KNOTS + 1.0, n_steps), (n, n_steps))
    return _sample(knots, places)[:, :, 0].astype(np.float64)


def _sample(motions: NDArray[np.float32], places: NDArray[np.float64]) -> NDArray[np.float32]:
    out = np.empty((len(motions), places.shape[1], motions.shape[2]), dtype=np.float32)
    _interpolate(np.ascontiguousarray(motions), np.ascontiguousarray(places), out)
    return out


@numba.njit(cache=True, nogil=True)
def _interpolate(motions, places, out):  # type: ignore[no-untyped-def]
    """Read each motion at fractional steps within [0, n_steps - 1]."""
    n, n_steps, n_channels = motions.shape
    for i in range(n):
        for t in range(places.shape[1]):
            place = min(max(places[i, t], 0.0), n_steps - 1.0)
            before = min(int(place), max(n_steps - 2, 0))
            after = min(before + 1, n_steps - 1)
            fraction = np.float32(place - before)
            for c in range(n_channels):
                out[i, t, c] = motions[i, before, c] + fraction * (motions[i, after, c] - motions[i, before, c])


def _rotations(turns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rodrigues' formula: rotation vectors (n, 3) in radians to matrices (n, 3, 3)."""
    angle = np.linalg.norm(turns, axis=1)
    x, y, z = (turns / np.maximum(angle, 1e-12)[:, None]).T
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)
    sine, versine = np.sin(angle)[:, None, None], (1.0 - np.cos(angle))[:, None, None]
    matrices: NDArray[np.float64] = np.eye(3) + sine * cross + versine * (cross @ cross)
    return matrices
