"""What is spared from pretraining, and that the stack's optimism and saturation are dealt with."""

from __future__ import annotations

import numpy as np
import pytest

from gesda.deepmotion import GestureRecognizer, make_gestures
from gesda.deepmotion.recognition.calibration import optimism, spare
from gesda.deepmotion.recognition.committee import _product, _with_unit_activations

SMALL = {"n_members": 2, "hidden_layer_sizes": (24, 12), "max_iter": 2, "n_jobs": 1, "normalization": "global"}


@pytest.fixture(scope="module")
def fitted() -> tuple[GestureRecognizer, np.ndarray]:
    data = make_gestures(30, gestures=4, n_users=4, random_state=int(np.random.default_rng().integers(2**31)))
    model = GestureRecognizer(pretrain_epochs=20, **SMALL).fit(data)
    return model, model._rows(data)


def test_a_tenth_is_spared_and_of_very_few_none(rng):
    n = int(rng.integers(10, 200))
    assert spare(n, None, rng).sum() == round(0.1 * n)
    assert spare(5, None, rng).sum() == 1
    assert not spare(4, None, rng).any()


def test_a_person_is_spared_as_a_whole_unless_that_is_too_much(rng):
    people = rng.permutation(np.repeat(["ann", "bob", "cem", "dot"], 10))
    spared = spare(len(people), people, rng)
    assert spared.sum() == 10 and len(set(people[spared])) == 1
    two = np.repeat([0, 1], 20)
    assert spare(len(two), two, rng).sum() == 4  # of two people neither can be missed: a tenth of both
    crowd = np.repeat([0, 1, 2], [36, 2, 2])
    assert set(crowd[spare(len(crowd), crowd, rng)]) in ({1}, {2})


def test_optimism_is_how_much_worse_what_was_spared_is_restored(fitted, rng):
    model, rows = fitted
    spared = rng.random(len(rows)) < 0.3
    noisy = rows + spared[:, None] * rng.normal(0, 1, rows.shape).astype(np.float32)
    errors = np.log(model._committee.errors(noisy))
    expected = errors[spared].mean() - errors[~spared].mean()
    assert optimism(model._committee, noisy, spared) == pytest.approx(expected, rel=1e-4)
    assert optimism(model._committee, rows, np.zeros(len(rows), dtype=bool)) == 0.0
    assert optimism(model._committee, noisy, ~spared) == 0.0  # what is restored better is no reason for leniency


def test_fine_tuning_starts_from_layers_that_are_not_saturated(fitted):
    model, rows = fitted
    stack = model._committee.stack
    before = [weights.copy() for weights in stack.coefs_]
    values = rows
    for layer, (weights, bias) in enumerate(zip(*_of_hidden(_with_unit_activations(stack, rows)), strict=True)):
        values = values @ weights + bias
        assert values.std() == pytest.approx(1.0, rel=1e-3)
        values = np.tanh(values)
        ratio = weights / before[layer]
        np.testing.assert_allclose(ratio, ratio.flat[0], rtol=1e-3)  # scaled, and nothing else
    for weights, kept in zip(stack.coefs_, before, strict=True):
        np.testing.assert_array_equal(weights, kept)


def _of_hidden(network):
    return network.coefs_[:-1], network.intercepts_[:-1]


@pytest.mark.parametrize("shape", [(1, 7, 5), (16, 33, 12), (17, 8, 3), (3, 1, 1)])
def test_the_product_of_few_rows_is_that_of_many(rng, shape):
    n, n_inputs, n_outputs = shape
    rows = rng.normal(size=(n, n_inputs)).astype(np.float32)
    weights = rng.normal(size=(n_inputs, n_outputs)).astype(np.float32)
    np.testing.assert_allclose(_product(rows, weights), rows.astype(np.float64) @ weights, atol=1e-4)
