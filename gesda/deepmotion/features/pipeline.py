"""`MotionFeatures`: from sequences to the rows that a network reads.

``sequences -> motions`` (orientation, resampling, normalisation; what augmentation works on) ``-> rows``
(the trajectory at fewer steps, the duration, the spectrum, local patterns; each column by its mean and deviation).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gesda.deepmotion.features.channels import N_BANDS, spectrum, velocity, with_velocity
from gesda.deepmotion.features.local import LocalPatterns
from gesda.deepmotion.features.normalization import (
    LEAST_POINTS,
    NORMALIZATIONS,
    center_and_scale,
    find_body,
    relative_to_body,
    standardize_channels,
)
from gesda.deepmotion.features.orientation import ORIENTATIONS, align_gravity, magnitudes
from gesda.deepmotion.features.resampling import RESAMPLINGS, resample_arc, resample_time

#: Steps of the trajectory within a row: enough to draw the motion, few enough not to outweigh the patterns.
TRAJECTORY_STEPS = 32
#: Columns that hardly vary are divided by at least this, so that they stay small.
_LEAST_DEVIATION = 0.01
#: Normalisations that go by means and deviations in training.
_BY_TRAINING = ("global", "relative")
_ARRAYS = ("body", "offset", "scale", "velocity_scale", "dilations", "mixtures", "thresholds", "mean", "deviation")


class MotionFeatures:
    """Describe motions by their trajectory and their local patterns.

    Parameters
    ----------
    n_steps : int, default=128
        Samples a motion is resampled to.
    resampling : {"time", "arc"}, default="time"
    normalization : {"global", "centered", "sequence", "relative"}, default="global"
    orientation : {"keep", "gravity", "magnitude"}, default="keep"
    use_velocity : bool, default=True
        Look for local patterns in the velocity as well.
    use_spectrum : bool, default=False
        Add the logarithm of each channel's power in eight bands.
    n_dilations, n_thresholds : int, default=5, 1
        Of the local patterns.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> sequences = [rng.normal(size=(length, 3)) for length in (40, 60, 90)]
    >>> features = MotionFeatures()
    >>> motions, durations = features.fit(sequences, rng).motions(sequences)
    >>> motions.shape, features.rows(motions, durations).shape
    ((3, 128, 3), (3, 1777))
    """

    def __init__(
        self,
        n_steps: int = 128,
        resampling: str = "time",
        normalization: str = "global",
        orientation: str = "keep",
        use_velocity: bool = True,
        use_spectrum: bool = False,
        n_dilations: int = 5,
        n_thresholds: int = 1,
    ) -> None:
        for name, value, known in (
            ("resampling", resampling, RESAMPLINGS),
            ("normalization", normalization, NORMALIZATIONS),
            ("orientation", orientation, ORIENTATIONS),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}; got {value!r}.")
        self.n_steps = n_steps
        self.resampling = resampling
        self.normalization = normalization
        self.orientation = orientation
        self.use_velocity = use_velocity
        self.use_spectrum = use_spectrum
        self._patterns = LocalPatterns(n_dilations, n_thresholds)
        self._picked = np.round(np.linspace(0, n_steps - 1, TRAJECTORY_STEPS)).astype(np.intp)

    # ---- learning from motions ---------------------------------------------------------------------
    def fit(self, sequences: Sequence[NDArray[Any]], rng: np.random.Generator) -> MotionFeatures:
        """Learn scales, thresholds, means and deviations.

        Parameters
        ----------
        sequences : sequence of ndarray (length, n_channels)
            Finite, with one number of channels.
        rng : numpy.random.Generator

        Returns
        -------
        MotionFeatures
            Itself.
        """
        raw, durations = self._resampled(sequences)
        n_channels = raw.shape[2]
        self._body = np.zeros(n_channels // 3, dtype=np.bool_)
        if self.normalization == "relative":
            self._body = find_body(list(raw))
            if not self._body.any():
                raise ValueError(
                    f"normalization='relative' needs {LEAST_POINTS} or more points of a body, each as three channels "
                    f"x, y, z; none are found in these {n_channels} channels. Use another normalization."
                )
            raw = relative_to_body(raw, self._body)
        self._offset, self._scale = np.zeros(n_channels), np.ones(n_channels)
        if self.normalization in _BY_TRAINING:
            self._offset = raw.mean(axis=(0, 1))
            deviation = raw.std(axis=(0, 1))
            self._scale = np.where(deviation > 1e-6 * np.abs(raw).max(axis=(0, 1)), deviation, 1.0)
        motions = self._scaled(raw)
        speed = velocity(motions).std(axis=(0, 1))
        self._velocity_scale = np.where(speed > 0.0, speed, 1.0)
        self._patterns.fit(self._with_velocity(motions), rng)
        self._mean = self._deviation = np.zeros(0, dtype=np.float32)
        rows = self.rows(motions, durations)
        self._mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        self._deviation = np.maximum(rows.std(axis=0, dtype=np.float64), _LEAST_DEVIATION).astype(np.float32)
        return self

    # ---- the two steps -----------------------------------------------------------------------------
    def motions(self, sequences: Sequence[NDArray[Any]]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Turn, resample and normalise.

        Parameters
        ----------
        sequences : sequence of ndarray (length, n_channels)

        Returns
        -------
        motions : ndarray of float32, shape (n, n_steps, n_motion_channels)
        durations : ndarray of float64, shape (n,)
            Lengths in samples.
        """
        raw, durations = self._resampled(sequences)
        return self._normalized(raw), durations

    def rows(self, motions: NDArray[np.float32], durations: NDArray[np.float64]) -> NDArray[np.float32]:
        """Describe motions by one row each.

        Parameters
        ----------
        motions : ndarray of float32, shape (n, n_steps, n_motion_channels)
        durations : ndarray of shape (n,)

        Returns
        -------
        rows : ndarray of float32, shape (n, n_features)
            Trajectory (`TRAJECTORY_STEPS` x channels), logarithm of the duration, spectrum, local patterns.
        """
        rows = np.empty((len(motions), self.n_features), dtype=np.float32)
        size = TRAJECTORY_STEPS * motions.shape[2]
        rows[:, :size] = motions[:, self._picked].reshape(len(motions), size)
        rows[:, size] = np.log(durations)
        start = size + 1
        if self.use_spectrum:
            end = start + N_BANDS * motions.shape[2]
            rows[:, start:end] = spectrum(motions).reshape(len(motions), end - start)
            start = end
        self._patterns.transform(self._with_velocity(motions), rows, start)
        if len(self._mean):
            rows -= self._mean
            rows /= self._deviation
        return rows

    def trajectory_of(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Read the trajectory back from rows (or from their reconstructions).

        Parameters
        ----------
        rows : ndarray of shape (n, n_features)

        Returns
        -------
        trajectory : ndarray of float32, shape (n, 32, n_motion_channels)
            In the units of `motions`.
        """
        size = TRAJECTORY_STEPS * len(self._offset)
        values = rows[:, :size] * self._deviation[:size] + self._mean[:size]
        return values.reshape(len(rows), TRAJECTORY_STEPS, -1).astype(np.float32)

    @property
    def n_motion_channels(self) -> int:
        """Channels of a motion: those of the sequences, or a third of them for ``orientation="magnitude"``."""
        return len(self._offset)

    @property
    def n_features(self) -> int:
        """Numbers in a row."""
        n_channels = len(self._offset)
        extra = N_BANDS * n_channels if self.use_spectrum else 0
        return TRAJECTORY_STEPS * n_channels + 1 + extra + self._patterns.n_features

    # ---- to and from a file ------------------------------------------------------------------------
    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that `fit` has learnt, by name."""
        patterns = self._patterns
        values = (
            self._body, self._offset, self._scale, self._velocity_scale, patterns.dilations_, patterns.mixtures_,
            patterns.thresholds_, self._mean, self._deviation,
        )  # fmt: skip
        return dict(zip(_ARRAYS, values, strict=True))

    def restore(self, arrays: dict[str, NDArray[Any]]) -> MotionFeatures:
        """Take over what `arrays` gave; ValueError where shapes contradict each other."""
        body, offset, scale, speed, dilations, mixtures, thresholds, mean, deviation = (
            arrays[name] for name in _ARRAYS
        )
        n_channels = len(offset)
        n_inputs = n_channels * (2 if self.use_velocity else 1)
        patterns = self._patterns
        shapes_fit = (
            offset.shape == scale.shape == speed.shape == (n_channels,)
            and body.shape == (n_channels // 3,)
            and body.dtype == np.bool_
            and not (body.any() and n_channels % 3)
            and dilations.ndim == 1
            and len(dilations) <= patterns.n_dilations
            and mixtures.shape == (len(dilations), 12, n_inputs)
            and thresholds.shape == (len(dilations), 84, patterns.n_thresholds)
        )
        if not shapes_fit or n_channels == 0:
            raise ValueError("the arrays of the features do not fit together")
        if dilations.min(initial=1) < 1 or not all(np.isfinite(array).all() for array in arrays.values()):
            raise ValueError("the arrays of the features hold impossible values")
        if scale.min() <= 0 or speed.min() <= 0 or deviation.min(initial=1.0) <= 0:
            raise ValueError("the scales of the features are not positive")
        self._body, self._offset, self._scale, self._velocity_scale = body, offset, scale, speed
        patterns.dilations_, patterns.mixtures_ = dilations.astype(np.int64), mixtures.astype(np.float32)
        patterns.thresholds_ = thresholds.astype(np.float32)
        self._mean, self._deviation = mean, deviation
        if mean.shape != (self.n_features,) or deviation.shape != (self.n_features,):
            raise ValueError("the arrays of the features do not fit together")
        return self

    # ---- inside ------------------------------------------------------------------------------------
    def _resampled(self, sequences: Sequence[NDArray[Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if self.orientation != "keep":
            turn = align_gravity if self.orientation == "gravity" else magnitudes
            sequences = [turn(sequence) for sequence in sequences]
        resample = resample_time if self.resampling == "time" else resample_arc
        raw = np.stack([resample(sequence, self.n_steps) for sequence in sequences])
        return raw, np.array([len(sequence) for sequence in sequences], dtype=np.float64)

    def _normalized(self, raw: NDArray[np.float64]) -> NDArray[np.float32]:
        return self._scaled(relative_to_body(raw, self._body) if self._body.any() else raw)

    def _scaled(self, raw: NDArray[np.float64]) -> NDArray[np.float32]:
        if self.normalization in _BY_TRAINING:
            # Far beyond anything that training has seen, a value says no more than that.
            return np.clip((raw - self._offset) / self._scale, -1e3, 1e3).astype(np.float32)
        normalize = center_and_scale if self.normalization == "centered" else standardize_channels
        return normalize(raw).astype(np.float32)

    def _with_velocity(self, motions: NDArray[np.float32]) -> NDArray[np.float32]:
        if not self.use_velocity:
            return np.ascontiguousarray(motions)
        return with_velocity(np.ascontiguousarray(motions), self._velocity_scale)
