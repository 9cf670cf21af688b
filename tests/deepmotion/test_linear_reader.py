"""The linear classifier beside the networks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.linear_model import Ridge

from gesda.deepmotion.recognition import linear_reader
from gesda.deepmotion.recognition.linear_reader import fit_linear


def classes_of_rows(rng, n, n_features, n_classes):
    labels = np.concatenate([np.arange(n_classes), rng.integers(n_classes, size=n - n_classes)])
    centres = rng.normal(size=(n_classes, n_features))
    return (centres[labels] + rng.normal(0, 2, (n, n_features))).astype(np.float32), labels


@pytest.mark.parametrize("shape", [(40, 90), (90, 7)])
def test_penalty_and_temperature_are_those_that_predict_left_out_examples_best(rng, shape):
    rows, labels = classes_of_rows(rng, *shape, 3)
    reader = fit_linear(rows, labels, 3, rng)
    targets = np.where(labels[:, None] == np.arange(3), 1.0, -1.0)
    centered = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    unit = np.square(centered).sum(axis=1).mean()
    everyone = np.arange(len(rows))
    surprises = {}
    for share in linear_reader._PENALTIES:
        # Left out with the mean of all, as the formula has it: the kernel's constant is that of all examples.
        kernel = centered @ centered.T + 1e5 * unit + share * unit * np.eye(len(rows))
        left_out = np.empty_like(targets)
        for i in everyone:
            others = everyone != i
            weights = np.linalg.solve(kernel[np.ix_(others, others)], targets[others])
            left_out[i] = kernel[i, others] @ weights
        for temperature in linear_reader._TEMPERATURES:
            surprises[share, temperature] = -log_softmax(temperature * left_out, axis=1)[everyone, labels].mean()
    share, temperature = linear_reader._choose(rows, labels, targets)
    assert surprises[share, temperature] <= min(surprises.values()) + 1e-3
    expected = temperature * Ridge(share * unit).fit(rows.astype(np.float64), targets).predict(rows)
    np.testing.assert_allclose(rows @ reader.weights + reader.bias, expected, rtol=0.02, atol=0.02 * temperature)


def test_wide_and_tall_rows_take_different_ways_to_one_answer(rng, monkeypatch):
    rows, labels = classes_of_rows(rng, 50, 40, 4)
    more = np.hstack([rows, np.zeros((50, 20), np.float32)])  # columns that say nothing make the rows wide
    tall, wide = (fit_linear(some, labels, 4, np.random.default_rng(0)) for some in (rows, more))
    np.testing.assert_allclose(wide.weights[:40], tall.weights, atol=1e-3 * np.abs(tall.weights).max())


@pytest.mark.parametrize("n", [1, 2])
def test_examples_of_one_class_or_rows_that_are_alike_give_finite_logits(rng, n):
    rows = np.tile(rng.normal(size=6).astype(np.float32), (n, 1))
    reader = fit_linear(rows, np.zeros(n, dtype=np.int64), 3, rng)
    logits = rows @ reader.weights + reader.bias
    assert np.isfinite(logits).all() and (logits.argmax(axis=1) == 0).all()
