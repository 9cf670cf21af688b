"""Synthetic sets whose structure is known, for examples, tests and measurements."""

from __future__ import annotations

import numpy as np

from gesda.datasets._base import DataError, Dataset


def make_bars(
    n_samples: int = 1000,
    size: int = 8,
    *,
    probability: float | None = None,
    noise: float = 0.0,
    random_state: int | np.random.Generator | None = None,
) -> Dataset:
    """Make images of bars [1]_: each horizontal and vertical bar is there or not, independently.

    A good autoencoder's hidden units each find one bar, so ``2 * size`` units suffice.

    Parameters
    ----------
    n_samples : int, default=1000
    size : int, default=8
        Images have ``size x size`` pixels, 0 or 1.
    probability : float, optional
        Of each bar; ``1 / size`` by default, two bars an image.
    noise : float, default=0.0
        Probability of each pixel to be flipped.
    random_state : int, Generator or None
        Seed.

    Returns
    -------
    Dataset
        ``X`` (n_samples, size * size); no labels.

    References
    ----------
    .. [1] P. Foldiak, "Forming sparse representations by local anti-Hebbian learning",
       Biological Cybernetics 64, 1990.

    Examples
    --------
    >>> make_bars(3, size=4, random_state=0).X.shape
    (3, 16)
    """
    probability = 1.0 / size if probability is None and size > 0 else probability
    if n_samples < 1 or size < 1 or probability is None:
        raise DataError(f"n_samples and size must be at least 1; got {n_samples} and {size}.")
    if not (0.0 <= probability <= 1.0 and 0.0 <= noise <= 1.0):
        raise DataError(f"probability and noise must lie in [0, 1]; got {probability} and {noise}.")
    rng = np.random.default_rng(random_state)
    rows = rng.random((n_samples, size, 1)) < probability
    columns = rng.random((n_samples, 1, size)) < probability
    flipped = rng.random((n_samples, size, size)) < noise
    X = ((rows | columns) ^ flipped).reshape(n_samples, -1).astype(np.float32)
    names = tuple(f"pixel_{i}_{j}" for i in range(size) for j in range(size))
    return Dataset(X, None, names, None, "bars")


def make_anomalies(
    n_samples: int = 1000,
    n_features: int = 20,
    *,
    n_latent: int = 2,
    n_clusters: int = 4,
    anomaly_fraction: float = 0.05,
    noise: float = 0.02,
    random_state: int | np.random.Generator | None = None,
) -> Dataset:
    """Make a Gaussian mixture on a curved surface, with anomalies off that surface.

    Normal points are a mixture of Gaussians in a few latent dimensions, bent into ``[0, 1]^n_features``
    by a random smooth map. An anomaly draws each of its features from another normal point: every single
    feature looks normal, their combination does not.

    Parameters
    ----------
    n_samples, n_features : int, default=1000, 20
    n_latent, n_clusters : int, default=2, 4
        Dimensions of the surface, and components of the mixture on it.
    anomaly_fraction : float, default=0.05
    noise : float, default=0.02
        Standard deviation of the noise added to every feature.
    random_state : int, Generator or None
        Seed.

    Returns
    -------
    Dataset
        ``X`` (n_samples, n_features) in [0, 1]; ``y`` is 1 for an anomaly, 0 else.

    Examples
    --------
    >>> int(make_anomalies(1000, random_state=0).y.sum())
    50
    """
    if min(n_samples, n_features, n_latent, n_clusters) < 1:
        raise DataError("n_samples, n_features, n_latent and n_clusters must be at least 1.")
    if not (0.0 <= anomaly_fraction <= 1.0 and noise >= 0.0):
        raise DataError(f"anomaly_fraction must lie in [0, 1], noise not be negative; got {anomaly_fraction}, {noise}.")
    rng = np.random.default_rng(random_state)
    centres = rng.normal(scale=2.0, size=(n_clusters, n_latent))
    latent = centres[rng.integers(n_clusters, size=n_samples)] + rng.normal(scale=0.4, size=(n_samples, n_latent))
    bend = rng.normal(size=(n_latent, 4 * n_latent))
    spread = rng.normal(scale=1.5, size=(4 * n_latent, n_features))
    normal = 1.0 / (1.0 + np.exp(-np.tanh(latent @ bend) @ spread))
    y = np.zeros(n_samples, dtype=np.int64)
    y[rng.permutation(n_samples)[: round(anomaly_fraction * n_samples)]] = 1
    mixed = np.take_along_axis(normal, rng.integers(n_samples, size=normal.shape), axis=0)
    X = np.where(y[:, None] == 1, mixed, normal) + rng.normal(scale=noise, size=normal.shape)
    names = tuple(f"x{j}" for j in range(n_features))
    return Dataset(np.clip(X, 0.0, 1.0).astype(np.float32), y, names, ("normal", "anomaly"), "anomalies")
