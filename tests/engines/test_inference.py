"""encode, decode and predict against their formulas in plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
from engine_cases import random_data, random_state, stack, with_head

WIDTHS = (37, 30, 17, 5)
PLAIN = {
    "sigmoid": scipy.special.expit,
    "tanh": np.tanh,
    "relu": lambda a: np.maximum(a, 0.0),
    "linear": lambda a: a,
}


def plain_encode(spec, state, x, first=0, last=None):
    h = x.astype(np.float64)
    for k in range(first, len(spec.layers) if last is None else last):
        h = PLAIN[spec.layers[k].activation](h @ state[f"layers.{k}.W"].astype(np.float64) + state[f"layers.{k}.b"])
    return h


def plain_decode(spec, state, h, last):
    for k in reversed(range(last)):
        layer = spec.layers[k]
        decoder = state[f"layers.{k}.W"].T if layer.tied else state[f"layers.{k}.V"]
        h = PLAIN[layer.output_activation](h @ decoder.astype(np.float64) + state[f"layers.{k}.c"])
    return h


def make(factory, rng, spec):
    engine, state = factory(spec), random_state(spec, rng)
    engine.set_state(state)
    return engine, state


def assert_close(ours, expected):
    assert ours.dtype == np.float32 and ours.flags.c_contiguous
    np.testing.assert_allclose(ours, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("activation", PLAIN)
@pytest.mark.parametrize("n_rows", [0, 1, 3, 65, 1000])
def test_encode(engine_factory, rng, activation, n_rows):
    spec = stack(WIDTHS, activation=activation)
    engine, state = make(engine_factory, rng, spec)
    x = random_data(n_rows, WIDTHS[0], rng)
    assert_close(engine.encode(x), plain_encode(spec, state, x))


@pytest.mark.parametrize(("first", "last"), [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (2, None)])
def test_encode_by_some_of_the_layers(engine_factory, rng, first, last):
    spec = stack(WIDTHS)
    engine, state = make(engine_factory, rng, spec)
    x = random_data(40, WIDTHS[first], rng)
    assert_close(engine.encode(x, last, first), plain_encode(spec, state, x, first, last))


@pytest.mark.parametrize("output", PLAIN)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("n_layers", [None, 1, 2])
def test_decode(engine_factory, rng, output, tied, n_layers):
    spec = stack(WIDTHS, output_activation=output, loss="squared_error", tied=tied)
    engine, state = make(engine_factory, rng, spec)
    codes = random_data(41, WIDTHS[n_layers or 3], rng)
    assert_close(engine.decode(codes, n_layers), plain_decode(spec, state, codes.astype(np.float64), n_layers or 3))


@pytest.mark.parametrize("kind", ["softmax", "linear"])
@pytest.mark.parametrize("n_outputs", [1, 2, 10, 17, 40])
def test_predict(engine_factory, rng, kind, n_outputs):
    spec = with_head(stack(WIDTHS), kind, n_outputs, dropout=(0.5,) * 4)
    engine, state = make(engine_factory, rng, spec)
    x = random_data(77, WIDTHS[0], rng)
    output = plain_encode(spec, state, x) @ state["head.W"].astype(np.float64) + state["head.b"]
    if kind == "softmax":
        output = scipy.special.softmax(output, axis=1)
    assert_close(engine.predict(x), output)


def test_probabilities_of_extreme_outputs_stay_probabilities(engine_factory, rng):
    spec = with_head(stack(WIDTHS), "softmax", 4)
    engine, state = make(engine_factory, rng, spec)
    engine.set_state({"head.W": state["head.W"] * 1e6})
    probabilities = engine.predict(random_data(20, WIDTHS[0], rng))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-6)
    assert (probabilities >= 0.0).all()


def test_a_row_is_encoded_alike_whatever_rows_surround_it(engine_factory, rng):
    engine, _ = make(engine_factory, rng, stack(WIDTHS))
    x = random_data(150, WIDTHS[0], rng)
    rows = rng.permutation(150)[:7]
    np.testing.assert_allclose(engine.encode(x[rows]), engine.encode(x)[rows], rtol=1e-6, atol=1e-7)
