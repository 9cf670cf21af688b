"""A linear classifier of rows: what a network of few examples has to be better than.

Ridge regression on the classes' indicators, whose penalty and temperature are those that predict examples best that
were left out, one at a time. Leaving one out needs no training anew: with the eigenvalues of the rows' Gram matrix,
all of those errors come from one division (R. M. Rifkin and R. A. Lippert, "Notes on regularized least squares",
MIT-CSAIL-TR-2007-025, section 3.2).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve

#: Penalties tried, as shares of the mean squared length of a row.
_PENALTIES = 10.0 ** np.arange(-4.0, 1.1, 0.5)
#: Factors from regression to logits that are tried.
_TEMPERATURES = 2.0 ** np.arange(0.0, 5.1, 0.5)
#: Penalty and temperature are chosen on so many examples at most; eigenvalues of more take minutes.
_MOST_TO_CHOOSE = 800


class LinearReader(NamedTuple):
    """Logits of rows are ``rows @ weights + bias``.

    Attributes
    ----------
    weights : ndarray of float32, shape (n_features, n_classes)
    bias : ndarray of float32, shape (n_classes,)
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]


def fit_linear(
    rows: NDArray[np.float32], labels: NDArray[np.int64], n_classes: int, rng: np.random.Generator
) -> LinearReader:
    """Fit by least squares.

    Parameters
    ----------
    rows : ndarray of float32, shape (n, n_features)
    labels : ndarray of int64, shape (n,)
        Class numbers below `n_classes`; of classes without an example the logits are low.
    n_classes : int
    rng : numpy.random.Generator
        Chooses the examples to choose by, where there are many.

    Returns
    -------
    LinearReader
    """
    targets = np.where(labels[:, None] == np.arange(n_classes), 1.0, -1.0)
    chosen = rng.permutation(len(rows))[:_MOST_TO_CHOOSE]
    share, temperature = _choose(rows[chosen], labels[chosen], targets[chosen])
    mean, level = rows.mean(axis=0, dtype=np.float64), targets.mean(axis=0)
    centered = rows - mean.astype(np.float32)
    penalty = share * max(float(np.square(centered).sum(axis=1, dtype=np.float64).mean()), 1e-12)
    wide = centered.shape[1] > len(centered)
    gram = (centered @ centered.T if wide else centered.T @ centered).astype(np.float64)
    gram[np.diag_indices_from(gram)] += penalty
    if wide:
        weights = centered.T @ solve(gram, targets - level, assume_a="pos").astype(np.float32)
    else:
        weights = solve(gram, centered.T @ (targets - level), assume_a="pos")
    weights = temperature * weights
    bias = temperature * level - mean @ weights
    return LinearReader(weights.astype(np.float32), bias.astype(np.float32))


def _choose(rows: NDArray[np.float32], labels: NDArray[np.int64], targets: NDArray[np.float64]) -> tuple[float, float]:
    """Penalty and temperature by the likelihood of the examples left out, one at a time."""
    n = len(rows)
    centered = rows - rows.mean(axis=0)
    gram = (centered @ centered.T).astype(np.float64)
    unit = float(np.trace(gram)) / n
    if n < 2 or unit <= 0.0:
        return 1.0, 1.0
    values, vectors = np.linalg.eigh(gram)
    values = np.maximum(values, 0.0)
    wanted = vectors.T @ (targets - targets.mean(axis=0))
    best = (np.inf, 1.0, 1.0)
    for share in _PENALTIES:
        shrunk = 1.0 / (values + share * unit)
        # The constant, which no penalty is on, is the direction of eigenvalue 0: it is no part of the inverse.
        diagonal = np.square(vectors) @ shrunk - 1.0 / (n * share * unit)
        predicted = targets - (vectors * shrunk) @ wanted / np.maximum(diagonal, 1e-12)[:, None]
        for temperature in _TEMPERATURES:
            logits = temperature * predicted
            logits -= logits.max(axis=1, keepdims=True)
            surprise = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(n), labels]
            best = min(best, (float(surprise.mean()), float(share), float(temperature)))
    return best[1], best[2]
