"""Fresh random inputs for every run; a failing test prints the seed that it was given."""

from __future__ import annotations

import os
import secrets

import numpy as np
import pytest

from gesda.estimators import SdAClassifier, SdARegressor, StackedDenoisingAutoencoder

# A network that trains in milliseconds.
SMALL = {"hidden_layer_sizes": (9, 5), "pretrain_epochs": 2, "batch_size": 8, "random_state": 0}


@pytest.fixture
def seed() -> int:
    value = int(os.environ.get("GESDA_TEST_SEED", secrets.randbelow(2**31)))
    print(f"GESDA_TEST_SEED={value}")
    return value


@pytest.fixture
def rng(seed):
    return np.random.default_rng(seed)


@pytest.fixture
def samples(rng):
    """Samples in [0, 1], float32, in three groups, and the groups' numbers."""
    groups = np.arange(60) % 3
    centres = np.array([[0.1] * 6, [0.5, 0.9] * 3, [0.9] * 6])
    X = centres[groups] + 0.05 * rng.uniform(-1, 1, size=(60, 6))
    return X.astype(np.float32), groups


@pytest.fixture
def make():
    """Make a small estimator of a class."""

    def make_estimator(cls, **params):
        settings = {**SMALL, **params}
        if cls is not StackedDenoisingAutoencoder:
            settings.setdefault("max_iter", 5)
        return cls(**settings)

    return make_estimator


@pytest.fixture(params=[StackedDenoisingAutoencoder, SdAClassifier, SdARegressor], ids=lambda cls: cls.__name__)
def cls(request):
    return request.param


@pytest.fixture
def output():
    """Compute what an estimator is used for: predictions, or encodings where it has none."""

    def output_of(estimator, X):
        for method in ("predict_proba", "predict", "transform"):
            if hasattr(estimator, method):
                return getattr(estimator, method)(X)
        raise TypeError(estimator)

    return output_of
