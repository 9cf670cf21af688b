"""What the page shows of a recogniser: an answer with its time, motion over reconstruction, a map, thumbnails.

All functions here compute and are called in a worker thread, with the recogniser to themselves.
"""

from __future__ import annotations

import math
import time
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gesda.deepmotion.serve.motions import Motion

Rows: TypeAlias = list[list[float]]

_MOST_CLASSES = 6
_MOST_STEPS = 160
_THUMBNAIL = 28


class Map:
    """Two principal components of encodings.

    Attributes
    ----------
    explained : float
        Share of the encodings' variance that the plane shows.
    """

    def __init__(self) -> None:
        self._mean: NDArray[np.float64] | None = None
        self._axes: NDArray[np.float64] = np.zeros((0, 2))
        self._scale = 1.0
        self.explained = 0.0

    def place(self, recognizer: Any, sequences: list[NDArray[np.float32]]) -> Rows:
        """Fit the plane to the encodings of sequences, and return their places, within [-1, 1]."""
        if not sequences:
            self._mean = None
            return []
        encodings = np.asarray(recognizer.embed(sequences), dtype=np.float64)
        self._mean = encodings.mean(axis=0)
        centred = encodings - self._mean
        _, singular, directions = np.linalg.svd(centred, full_matrices=False)
        axes = directions[:2].T
        # The sign of a component is arbitrary; fixed, points do not jump as examples come.
        axes *= np.where(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] < 0.0, -1.0, 1.0)
        self._axes = np.zeros((encodings.shape[1], 2))
        self._axes[:, : axes.shape[1]] = axes
        places = centred @ self._axes
        self._scale = float(np.abs(places).max()) or 1.0
        power = float(np.square(singular).sum())
        self.explained = round(float(np.square(singular[:2]).sum()) / power, 3) if power > 0.0 else 1.0
        return _rows(places / self._scale, 4)

    def where(self, encoding: NDArray[Any]) -> list[float] | None:
        """Return the place of one more encoding, which may lie outside; None while there is no plane."""
        if self._mean is None or encoding.shape != self._mean.shape:
            return None
        place = np.clip((np.asarray(encoding, dtype=np.float64) - self._mean) @ self._axes / self._scale, -1.6, 1.6)
        return _rows(place[None], 4)[0]


def recognition(recognizer: Any, sequence: NDArray[np.float32], plane: Map) -> dict[str, Any]:
    """Recognise one sequence; the latency is that of `GestureRecognizer.recognize` alone."""
    started = time.perf_counter()
    answer = recognizer.recognize(sequence)
    latency = time.perf_counter() - started
    ranked = sorted(answer.probabilities.items(), key=lambda item: -float(item[1]))[:_MOST_CLASSES]
    return {
        "type": "recognition",
        "label": None if answer.label is None else str(answer.label),
        "confidence": _finite(answer.confidence, 4),
        "familiarity": _finite(answer.familiarity, 5),
        "threshold": _finite(getattr(recognizer, "threshold_", math.nan), 5),
        "probabilities": [[str(label), _finite(share, 4)] for label, share in ranked],
        "latency_ms": round(1e3 * latency, 3),
        "place": plane.where(np.asarray(recognizer.embed([sequence]))[0]),
        **shape(recognizer, sequence),
    }


def shape(recognizer: Any, sequence: NDArray[np.float32]) -> dict[str, Any]:
    """Return a motion as the recogniser sees it, and what its autoencoder makes of it."""
    seen = np.asarray(recognizer.trajectory([sequence]), dtype=np.float64)[0]
    again = np.asarray(recognizer.reconstruct([sequence]), dtype=np.float64)[0]
    error = float(np.sqrt(np.mean(np.square(seen - again)))) if seen.shape == again.shape else math.nan
    return {"motion": _rows(_few(seen), 3), "reconstruction": _rows(_few(again), 3), "error": _finite(error, 4)}


def thumbnail(motion: Motion) -> list[list[int]]:
    """Return a motion as a few whole numbers in 0..100, for a small picture.

    Examples
    --------
    >>> thumbnail(Motion(np.array([0.0, 1.0]), np.array([[0.0, 0.0], [2.0, 1.0]])))
    [[0, 25], [100, 75]]
    """
    points = motion.points
    if len(points) > _THUMBNAIL:
        points = points[np.linspace(0, len(points) - 1, _THUMBNAIL).round().astype(int)]
    low, high = points.min(axis=0), points.max(axis=0)
    size = float((high - low).max()) or 1.0
    return np.rint((points - (low + high) / 2.0) / size * 100.0 + 50.0).astype(int).tolist()  # type: ignore[no-any-return]


def _few(steps: NDArray[Any]) -> NDArray[Any]:
    if len(steps) <= _MOST_STEPS:
        return steps
    return np.asarray(steps[np.linspace(0, len(steps) - 1, _MOST_STEPS).round().astype(int)])


def _rows(values: NDArray[Any], digits: int) -> Rows:
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0).round(digits).tolist()  # type: ignore[no-any-return]


def _finite(value: Any, digits: int) -> float | None:
    number = float(value)
    return round(number, digits) if math.isfinite(number) else None
