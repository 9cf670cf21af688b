"""What DeepMotion is compared with: nearest neighbours, logistic regression, a network without pretraining.

Each takes sequences of unequal length, resamples them to 128 steps and brings every channel of a sequence to mean 0 and
deviation 1, as the archives do. Published figures of ROCKET and InceptionTime are in `PUBLISHED`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import common  # noqa: F401  first: frees OpenBLAS before NumPy loads
import numba
import numpy as np
from numpy.typing import NDArray

N_STEPS = 128
#: Half widths of the warping window that are tried on the training set, as shares of the length.
WINDOWS = (0.0, 0.02, 0.04, 0.07, 0.1)
_MOST_FOR_WINDOW = 300

#: Accuracies on the default splits as their authors published them (uWave UEA: mean of 30 resamples).
#: ROCKET: github.com/angus924/rocket, results/results_ucr.csv; InceptionTime: github.com/hfawaz/InceptionTime,
#: results-InceptionTime-128.csv; the UEA sets: Ruiz et al., Data Mining and Knowledge Discovery 35, 2021;
#: UTD-MHAD: Chen, Jafari and Kehtarnavaz, ICIP 2015 (fused: depth and inertial).
PUBLISHED: dict[str, dict[str, float]] = {
    "uWave": {"ROCKET": 0.9754, "InceptionTime": 0.9520},
    "uWave X": {"ROCKET": 0.8547, "InceptionTime": 0.8250},
    "uWave Y": {"ROCKET": 0.7740, "InceptionTime": 0.7672},
    "uWave Z": {"ROCKET": 0.7919, "InceptionTime": 0.7641},
    "uWave UEA": {"ROCKET": 0.937, "InceptionTime": 0.912},
    "BasicMotions": {"ROCKET": 0.990, "InceptionTime": 1.000},
    "GunPoint": {"ROCKET": 1.000, "InceptionTime": 1.000},
    "UTD-MHAD inertial": {"authors": 0.672},
    "UTD-MHAD both": {"authors": 0.791},
}

Sequences = Sequence[NDArray[Any]]
Labels = NDArray[Any]


def prepared(sequences: Sequences) -> NDArray[np.float32]:
    """Resampled and standardised sequences, (n, n_steps, n_channels)."""
    from gesda.deepmotion.features.normalization import standardize_channels
    from gesda.deepmotion.features.resampling import resample_time

    return np.stack([standardize_channels(resample_time(s, N_STEPS)) for s in sequences]).astype(np.float32)


def euclidean_neighbour(train: Sequences, labels: Labels, test: Sequences, seed: int) -> Labels:
    """1-NN by the Euclidean distance of all channels together."""
    a, b = (prepared(s).reshape(len(s), -1) for s in (train, test))
    squared = np.square(a).sum(1) - 2.0 * b @ a.T
    return labels[squared.argmin(axis=1)]


def warping_neighbour(train: Sequences, labels: Labels, test: Sequences, seed: int) -> Labels:
    """1-NN by dynamic time warping of all channels together, its window chosen on the training set."""
    a, b = prepared(train), prepared(test)
    picked = np.random.default_rng(seed).permutation(len(a))[:_MOST_FOR_WINDOW]
    subset, own = a[picked], labels[picked]
    scores = []
    for share in WINDOWS:
        nearest = _nearest(subset, subset, round(share * N_STEPS), True)
        scores.append((own[nearest] == own).mean())
    return labels[_nearest(a, b, round(WINDOWS[int(np.argmax(scores))] * N_STEPS), False)]


def logistic_regression(train: Sequences, labels: Labels, test: Sequences, seed: int) -> Labels:
    """Multinomial logistic regression on all values."""
    from sklearn.linear_model import LogisticRegression

    a, b = (prepared(s).reshape(len(s), -1) for s in (train, test))
    model = LogisticRegression(C=0.01, max_iter=500, random_state=seed).fit(a, labels)
    result: Labels = model.predict(b)
    return result


def plain_network(train: Sequences, labels: Labels, test: Sequences, seed: int) -> Labels:
    """Two hidden layers of 500 with dropout on all values: neither pretraining, nor patterns, nor copies."""
    from gesda import SdAClassifier

    a, b = (prepared(s).reshape(len(s), -1) for s in (train, test))
    model = SdAClassifier(
        (500, 500), activation="relu", solver="adam", pretrain_epochs=0, max_iter=100, dropout=0.3,
        device="cpu", random_state=seed,
    ).fit(a, labels)  # fmt: skip
    return model.predict(b)


BASELINES: dict[str, Callable[[Sequences, Labels, Sequences, int], Labels]] = {
    "1-NN Euclidean": euclidean_neighbour,
    "1-NN DTW": warping_neighbour,
    "logistic regression": logistic_regression,
    "MLP, no pretraining": plain_network,
}
#: Their answers depend on no seed, or hardly.
DETERMINISTIC = ("1-NN Euclidean", "1-NN DTW", "logistic regression")


@numba.njit(parallel=True, cache=True)
def _nearest(train, test, window, leave_out):  # type: ignore[no-untyped-def]
    """Index of the nearest training motion of each test motion; leave_out: both are the same set."""
    result = np.zeros(len(test), dtype=np.int64)
    for i in numba.prange(len(test)):
        best = np.inf
        for j in range(len(train)):
            if leave_out and i == j:
                continue
            distance = _warped(test[i], train[j], window, best)
            if distance < best:
                best = distance
                result[i] = j
    return result


@numba.njit(cache=True)
def _warped(a, b, window, limit):  # type: ignore[no-untyped-def]
    """Squared distance along the cheapest warping path within the window; infinite beyond the limit."""
    n, n_channels = a.shape
    before = np.full(n + 1, np.inf)
    now = np.full(n + 1, np.inf)
    before[0] = 0.0
    for i in range(1, n + 1):
        now[:] = np.inf
        least = np.inf
        for j in range(max(1, i - window), min(n, i + window) + 1):
            cost = 0.0
            for c in range(n_channels):
                difference = a[i - 1, c] - b[j - 1, c]
                cost += difference * difference
            now[j] = cost + min(before[j - 1], min(before[j], now[j - 1]))
            least = min(least, now[j])
        if least >= limit:
            return np.inf
        before, now = now, before
    return before[n]
