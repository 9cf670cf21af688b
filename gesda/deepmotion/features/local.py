"""Local patterns: how often a motion matches short patterns of several durations, early, in the middle and late.

Each pattern is a convolution kernel of nine taps, two thirds of which are -1 and the rest 2, spread out by a
dilation; what is kept of its response is the share of time in which it exceeds a threshold, over the whole motion and
over each third. Kernels, dilations and the share of positive values are those of MiniRocket [1]_; the thirds, the
signed mixtures of channels and the fixed number of steps are ours.

A motion is thereby described by what happens in it rather than by its exact timing: a share over a third is
invariant to shifts within the third, and changes little under small warps of time.

References
----------
.. [1] A. Dempster, D. F. Schmidt, G. I. Webb, "MiniRocket: a very fast (almost) deterministic transform for time
   series classification", KDD 2021.
"""

from __future__ import annotations

from itertools import combinations

import numba
import numpy as np
from numpy.typing import NDArray

N_TAPS = 9
#: Which three of the nine taps are 2; the others are -1, so that a kernel's sum is 0: (84, 3).
KERNELS = np.array(list(combinations(range(N_TAPS), 3)), dtype=np.int64)
#: The whole motion, then its thirds.
N_SEGMENTS = 4
#: Patterns of one dilation share this many mixtures of channels.
N_MIXTURES = 12
_MAX_MIXED = 9
_GOLDEN = (5**0.5 - 1) / 2


class LocalPatterns:
    """Shares of time in which patterns match, as numbers in [0, 1].

    Parameters
    ----------
    n_dilations : int, default=5
        How many durations of patterns, from nine neighbouring steps to the whole motion, in powers.
    n_thresholds : int, default=1
        Thresholds a pattern.

    Attributes
    ----------
    dilations_ : ndarray of int64, shape (n_dilations,)
        Steps between taps.
    mixtures_ : ndarray of float32, shape (n_dilations, 12, n_channels)
        Each mixture is a sum of one to nine channels with signs.
    thresholds_ : ndarray of float32, shape (n_dilations, 84, n_thresholds)
        Quantiles of each pattern's responses to the motions of `fit`.

    Examples
    --------
    >>> import numpy as np
    >>> motions = np.random.default_rng(0).normal(size=(6, 128, 3)).astype(np.float32)
    >>> patterns = LocalPatterns(n_dilations=2, n_thresholds=1).fit(motions, np.random.default_rng(1))
    >>> patterns.transform(motions).shape
    (6, 672)
    """

    dilations_: NDArray[np.int64]
    mixtures_: NDArray[np.float32]
    thresholds_: NDArray[np.float32]

    def __init__(self, n_dilations: int = 5, n_thresholds: int = 1) -> None:
        self.n_dilations = n_dilations
        self.n_thresholds = n_thresholds

    def fit(self, motions: NDArray[np.float32], rng: np.random.Generator) -> LocalPatterns:
        """Draw mixtures of channels and take thresholds from the responses of some motions.

        Parameters
        ----------
        motions : ndarray of float32, shape (n, n_steps, n_channels)
            Comparable channels: normalised ones.
        rng : numpy.random.Generator

        Returns
        -------
        LocalPatterns
            Itself.
        """
        n, n_steps, n_channels = motions.shape
        widest = max((n_steps - 1) / (N_TAPS - 1), 1.0)
        self.dilations_ = np.unique(np.round(widest ** np.linspace(0.0, 1.0, self.n_dilations)).astype(np.int64))
        self.mixtures_ = _mixtures(len(self.dilations_), n_channels, rng)
        chosen = motions[rng.choice(n, min(n, 32), replace=False)]
        responses = np.empty((len(chosen), len(self.dilations_), len(KERNELS), n_steps), dtype=np.float32)
        for motion, response in zip(chosen, responses, strict=True):
            _responses(motion, self.dilations_, self.mixtures_, response)
        # A low-discrepancy sequence of levels: neighbouring patterns look at different quantiles.
        count = len(self.dilations_) * len(KERNELS) * self.n_thresholds
        levels = ((np.arange(1, count + 1) * _GOLDEN) % 1.0).reshape(len(self.dilations_), len(KERNELS), -1)
        ordered = np.sort(responses.transpose(1, 2, 0, 3).reshape(len(self.dilations_), len(KERNELS), -1), axis=2)
        places = (levels * (ordered.shape[2] - 1)).astype(np.intp)
        self.thresholds_ = np.take_along_axis(ordered, places, axis=2).astype(np.float32)
        return self

    @property
    def n_features(self) -> int:
        """Numbers a motion: dilations x 84 x thresholds x 4."""
        return int(self.thresholds_.size) * N_SEGMENTS

    def transform(
        self, motions: NDArray[np.float32], out: NDArray[np.float32] | None = None, start: int = 0
    ) -> NDArray[np.float32]:
        """Describe motions.

        Parameters
        ----------
        motions : ndarray of float32, shape (n, n_steps, n_channels)
            C-contiguous, with the number of channels of `fit`.
        out : ndarray of float32, shape (n, at least start + n_features), optional
            Where to write the shares.
        start : int, default=0
            The first column to write to.

        Returns
        -------
        shares : ndarray of float32, shape (n, n_features), in [0, 1]
            Or `out`.
        """
        if out is None:
            out = np.empty((len(motions), start + self.n_features), dtype=np.float32)
        _describe(motions, self.dilations_, self.mixtures_, self.thresholds_, out, start)
        return out


def _mixtures(n_dilations: int, n_channels: int, rng: np.random.Generator) -> NDArray[np.float32]:
    mixtures = np.zeros((n_dilations, N_MIXTURES, n_channels), dtype=np.float32)
    most = min(n_channels, _MAX_MIXED)
    for row in mixtures.reshape(-1, n_channels):
        size = int(2.0 ** rng.uniform(0.0, np.log2(most + 1)))
        row[rng.choice(n_channels, size, replace=False)] = rng.choice([-1.0, 1.0], size) / np.sqrt(size)
    return mixtures


# ---- one motion, compiled --------------------------------------------------------------------------
# Without fastmath: thresholds are responses to motions of the training, so the last bit of a sum decides what exceeds
# them, and libgesda and ONNX graphs have to decide alike.
@numba.njit(cache=True, nogil=True)
def _mix(  # type: ignore[no-untyped-def]  # numba infers the types
    motion, mixture, dilation, padded, total
):
    """Mix channels to one signal, zeros outside, so that tap j is the slice from j * dilation; sum minus the taps."""
    n_steps, n_channels = motion.shape
    padded[:] = 0.0
    middle = (N_TAPS - 1) // 2 * dilation
    signal = padded[middle : middle + n_steps]
    for c in range(n_channels):
        weight = mixture[c]
        if weight != 0.0:
            for t in range(n_steps):
                signal[t] += weight * motion[t, c]
    total[:] = 0.0
    for j in range(N_TAPS):
        tap = padded[j * dilation : j * dilation + n_steps]
        for t in range(n_steps):
            total[t] -= tap[t]


@numba.njit(cache=True, nogil=True)
def _three_taps(padded, dilation, kernel):  # type: ignore[no-untyped-def]
    """The signal at those taps that are 2: each begins where its slice does."""
    a, b, c = KERNELS[kernel]
    return padded[a * dilation :], padded[b * dilation :], padded[c * dilation :]


@numba.njit(cache=True, nogil=True)
def _responses(motion, dilations, mixtures, out):  # type: ignore[no-untyped-def]
    """Responses of all patterns to one motion, (n_dilations, 84, n_steps)."""
    n_steps = motion.shape[0]
    total = np.empty(n_steps, dtype=np.float32)
    three = np.float32(3.0)
    for d in range(len(dilations)):
        padded = np.empty(n_steps + (N_TAPS - 1) * dilations[d], dtype=np.float32)
        for m in range(N_MIXTURES):
            _mix(motion, mixtures[d, m], dilations[d], padded, total)
            for k in range(m, len(KERNELS), N_MIXTURES):
                a, b, c = _three_taps(padded, dilations[d], k)
                for t in range(n_steps):
                    out[d, k, t] = total[t] + three * (a[t] + b[t] + c[t])


@numba.njit(cache=True, nogil=True)
def _describe(motions, dilations, mixtures, thresholds, out, start):  # type: ignore[no-untyped-def]
    """Shares over the whole and the thirds, ordered (dilation, kernel, threshold, segment), from column `start` on."""
    n_steps = motions.shape[1]
    n_thresholds = thresholds.shape[2]
    edges = np.array([0, (n_steps + 2) // 3, (2 * n_steps + 2) // 3, n_steps])
    total = np.empty(n_steps, dtype=np.float32)
    third = np.float32(1.0 / 3.0)
    for i in range(len(motions)):
        for d in range(len(dilations)):
            padded = np.empty(n_steps + (N_TAPS - 1) * dilations[d], dtype=np.float32)
            for m in range(N_MIXTURES):
                _mix(motions[i], mixtures[d, m], dilations[d], padded, total)
                for t in range(n_steps):
                    total[t] *= third
                for k in range(m, len(KERNELS), N_MIXTURES):
                    a, b, c = _three_taps(padded, dilations[d], k)
                    for q in range(n_thresholds):
                        threshold = thresholds[d, k, q] * third
                        place = start + ((d * len(KERNELS) + k) * n_thresholds + q) * N_SEGMENTS
                        count = np.int32(0)
                        for s in range(3):
                            inside = np.int32(0)
                            for t in range(edges[s], edges[s + 1]):
                                inside += np.int32(total[t] + a[t] + b[t] + c[t] > threshold)
                            out[i, place + 1 + s] = inside / max(edges[s + 1] - edges[s], 1)
                            count += inside
                        out[i, place] = count / n_steps
