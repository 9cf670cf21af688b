"""How a device is held: turning its axes by gravity, or keeping what no turn changes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

ORIENTATIONS = ("keep", "gravity", "magnitude")


def align_gravity(sequence: NDArray[Any]) -> NDArray[np.float64]:
    """Turn a device's axes so that its mean acceleration points along the third one.

    Invariant to the tilt of a device at rest on average, and to its heading but for a half turn where the horizontal
    motion is symmetric: the first axis is the direction of most horizontal acceleration, pointing where the largest
    one points. Gravity itself stays, as the third axis's mean.

    Parameters
    ----------
    sequence : ndarray of shape (length, n_channels)
        Triples of channels x, y, z of one device; the first triple is its acceleration, gravity included. The other
        triples (angular rates, magnetic field) are turned along with it.

    Returns
    -------
    turned : ndarray of float64, shape (length, n_channels)
        As it came where the mean acceleration is 0, since there is no direction to go by.

    Raises
    ------
    ValueError
        If the channels are not triples.

    Examples
    --------
    >>> import numpy as np
    >>> lying = np.array([[0.0, 0.0, 1.0], [0.5, 0.0, 1.0], [0.0, 0.0, 1.0]])
    >>> np.allclose(align_gravity(lying[:, [1, 2, 0]]), align_gravity(lying))
    True
    """
    values = _triples(sequence)
    acceleration = values[:, :3]
    down = acceleration.mean(axis=0)
    strength = np.linalg.norm(down)
    if strength <= 1e-9 * np.abs(acceleration).max(initial=0.0) or strength == 0.0:
        return values
    down = down / strength
    horizontal = acceleration - np.outer(acceleration @ down, down)
    _, _, directions = np.linalg.svd(horizontal, full_matrices=False)
    heading = directions[0] - (directions[0] @ down) * down
    if np.linalg.norm(heading) < 0.5:  # no horizontal motion: any direction at right angles will do
        heading = np.eye(3)[np.argmin(np.abs(down))]
        heading = heading - (heading @ down) * down
    heading = heading / np.linalg.norm(heading)
    along = horizontal @ heading
    if along.size and along[np.argmax(np.abs(along))] < 0.0:
        heading = -heading
    axes = np.stack([heading, np.cross(down, heading), down])  # rows: the new axes, right-handed
    turned: NDArray[np.float64] = (values.reshape(len(values), -1, 3) @ axes.T).reshape(values.shape)
    return turned


def magnitudes(sequence: NDArray[Any]) -> NDArray[np.float64]:
    """Keep the length of each triple's vector only.

    Invariant to every turn of the device, even one that goes on during the motion; directions are lost.

    Parameters
    ----------
    sequence : ndarray of shape (length, n_channels)
        Triples of channels x, y, z.

    Returns
    -------
    lengths : ndarray of float64, shape (length, n_channels / 3)

    Raises
    ------
    ValueError
        If the channels are not triples.

    Examples
    --------
    >>> import numpy as np
    >>> magnitudes(np.array([[3.0, 4.0, 0.0]])).tolist()
    [[5.0]]
    """
    values = _triples(sequence)
    lengths: NDArray[np.float64] = np.sqrt(np.square(values.reshape(len(values), -1, 3)).sum(axis=2))
    return lengths


def _triples(sequence: NDArray[Any]) -> NDArray[np.float64]:
    values = np.array(sequence, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] == 0 or values.shape[1] % 3:
        raise ValueError(
            f"orientation handling needs channels in triples x, y, z; got shape {values.shape}. Use orientation='keep'."
        )
    return values
