"""transform, inverse_transform, reconstruct and score_samples."""

from __future__ import annotations

import numpy as np
import pytest

from gesda import ingest
from gesda.estimators import StackedDenoisingAutoencoder


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def test_encodings_and_reconstructions_are_those_of_the_weights(samples, make, cls):
    X, y = samples
    model = make(cls).fit(X, y)
    (first, second), (b, c) = model.coefs_[:2], model.intercepts_[:2]
    codes = sigmoid(sigmoid(X @ first + b) @ second + c)
    np.testing.assert_allclose(model.transform(X), codes, rtol=1e-4)
    np.testing.assert_allclose(model.transform(X, layer=0), sigmoid(X @ first + b), rtol=1e-4)
    np.testing.assert_array_equal(model.transform(X, layer=-1), model.transform(X))
    visible = model._parameters["layers.1.c"], model._parameters["layers.0.c"]
    restored = sigmoid(sigmoid(codes @ second.T + visible[0]) @ first.T + visible[1])
    np.testing.assert_allclose(model.inverse_transform(model.transform(X)), restored, rtol=1e-4)
    np.testing.assert_allclose(model.reconstruct(X), restored, rtol=1e-4)
    np.testing.assert_allclose(model.score_samples(X), -np.square(X - restored).mean(axis=1), rtol=1e-3)
    one = sigmoid(model.transform(X, layer=0) @ first.T + visible[1])
    np.testing.assert_allclose(model.inverse_transform(model.transform(X, layer=0), layer=0), one, rtol=1e-4)


def test_chunks_of_rows_change_nothing(samples, make, monkeypatch):
    X, _ = samples
    model = make(StackedDenoisingAutoencoder).fit(X)
    expected = model.reconstruct(X), model.score_samples(X)
    monkeypatch.setattr(ingest.row_chunks, "__defaults__", (50,))
    np.testing.assert_allclose(model.reconstruct(X), expected[0], rtol=1e-6)
    np.testing.assert_allclose(model.score_samples(X), expected[1], rtol=1e-5)


def test_strange_samples_score_lower(samples, make, rng):
    X, _ = samples
    model = make(StackedDenoisingAutoencoder, pretrain_epochs=60).fit(X)
    strange = rng.permuted(X, axis=1)
    assert (
        model.score_samples(strange).mean() < model.score_samples(X).mean() == pytest.approx(model.score(X), rel=1e-4)
    )


@pytest.mark.parametrize("layer", [2, -3, 0.0, True])
def test_a_layer_that_there_is_not_is_refused(samples, make, layer):
    X, _ = samples
    with pytest.raises(ValueError, match="layer must be an integer in"):
        make(StackedDenoisingAutoencoder).fit(X).transform(X, layer=layer)


def test_encodings_of_a_wrong_width_are_refused(samples, make):
    X, _ = samples
    with pytest.raises(ValueError, match="X has 6 columns; encodings of layer 1 have 5"):
        make(StackedDenoisingAutoencoder).fit(X).inverse_transform(X)
