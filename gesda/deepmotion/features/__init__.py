"""From sequences to rows of numbers: resampling, normalisation, orientation, added channels, local patterns.

Each module says what its results are invariant to. `pipeline` puts them in order; `augmentation` makes new
motions of old ones for training. May import NumPy and numba, and nothing of gesda.
"""

from __future__ import annotations

from gesda.deepmotion.features.augmentation import Augmentation
from gesda.deepmotion.features.pipeline import TRAJECTORY_STEPS, MotionFeatures

__all__ = ["TRAJECTORY_STEPS", "Augmentation", "MotionFeatures"]
