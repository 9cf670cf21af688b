"""Every engine draws the very corruption and dropout masks of the reference, bit for bit.

The corrupted input is read out through the protocol: an identity layer with rate 0 hands the encoding
of its corrupted input, which is that input, to a layer above whose zero weights make its visible bias
move by exactly the minibatch's mean.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from engine_cases import draw_seed

from gesda.engine._reference_noise import corrupt, dropout_scale, uniform16
from gesda.spec import FinetunePlan, HeadSpec, LayerSpec, NetworkSpec, OptimizerSpec, PretrainPlan

LINEAR = {"activation": "linear", "output_activation": "linear", "loss": "squared_error"}


def corrupted_mean(factory, data, ids, epoch, noisy_layer, position, seed):
    """Mean over the minibatch ``ids`` of what layer ``position`` makes of the data."""
    n = data.shape[1]
    identity = LayerSpec(n, n, noise="none", **LINEAR)
    reader = LayerSpec(n, 1, noise="none", **LINEAR)
    engine = factory(NetworkSpec((*[identity] * position, noisy_layer, reader), OptimizerSpec("sgd"), seed=seed))
    engine.set_state({f"layers.{k}.W": np.eye(n, dtype=np.float32) for k in range(position + 1)})
    training = (False,) * position + (True, True)
    rates = (0.0,) * (position + 1) + (1.0,)
    engine.pretrain_epoch(data, PretrainPlan(epoch, ids, len(ids), training, rates, handoff="noisy"))
    return engine.get_state()[f"layers.{position + 1}.c"]


def noise(kind, level, n):
    return LayerSpec(n, n, noise=kind, noise_level=level, noise_range=(0.25, 4.0), **LINEAR)


@pytest.mark.parametrize("kind", ["masking", "salt_and_pepper"])
@pytest.mark.parametrize("n_columns", [1, 8, 63, 130])
@pytest.mark.parametrize("position", [0, 2])
def test_corruption_masks(engine_factory, rng, kind, n_columns, position):
    layer, seed = noise(kind, float(rng.uniform(0.2, 0.8)), n_columns), draw_seed(rng)
    data = rng.integers(1, 9, size=(5000, n_columns)).astype(np.float32)
    for row in (0, 1, 4999):
        ids, epoch = np.array([row], dtype=np.uint32), int(rng.integers(2**31))
        expected, _ = corrupt(layer, seed, position, epoch, ids, data[ids].astype(np.float64))
        read = corrupted_mean(engine_factory, data, ids, epoch, layer, position, seed)
        np.testing.assert_array_equal(read, expected[0])


@pytest.mark.parametrize("n_rows", [2, 3, 4, 6])
def test_swaps(engine_factory, rng, n_rows):
    # Powers of 8 stay apart in the sum, so it tells how often each row's value was taken.
    layer, seed = noise("swap", 0.6, 70), draw_seed(rng)
    data = np.zeros((50, 70), dtype=np.float32)
    ids = rng.permutation(50)[:n_rows].astype(np.uint32)
    data[ids] = 8.0 ** np.arange(n_rows)[:, None]
    expected, _ = corrupt(layer, seed, 1, 3, ids, data[ids].astype(np.float64))
    read = corrupted_mean(engine_factory, data, ids, 3, layer, 1, seed)
    np.testing.assert_array_equal(np.rint(read * n_rows), expected.sum(axis=0))


def test_gaussian_draws(engine_factory, rng):
    layer, seed = noise("gaussian", 1.0, 130), draw_seed(rng)
    data, ids = np.zeros((9, 130), dtype=np.float32), np.array([6], dtype=np.uint32)
    expected, _ = corrupt(layer, seed, 1, 3, ids, data[ids].astype(np.float64))
    read = corrupted_mean(engine_factory, data, ids, 3, layer, 1, seed)
    np.testing.assert_allclose(read, expected[0], rtol=1e-5, atol=3e-6)


def test_a_threshold_is_rounded_as_in_the_reference(engine_factory, rng):
    # A level just under the point where the threshold passes a component's draw: float32 would round it up.
    seed, ids = draw_seed(rng), np.array([0], dtype=np.uint32)
    u = uniform16(seed, "corruption", 0, 0, ids, 64)[0]
    column = int(np.argmax(u))
    layer = noise("masking", (int(u[column]) + 0.5) / 65536 - 1e-9, 64)
    data = np.ones((1, 64), dtype=np.float32)
    expected, _ = corrupt(layer, seed, 0, 0, ids, data.astype(np.float64))
    assert expected[0, column] == 1.0
    np.testing.assert_array_equal(corrupted_mean(engine_factory, data, ids, 0, layer, 0, seed), expected[0])


@pytest.mark.parametrize("position", [0, 1, 2])
def test_dropout_masks(engine_factory, rng, position):
    # Through identity layers and a head of zeros, the head moves by the dropped-out input itself.
    n, seed = 70, draw_seed(rng)
    rates = [0.0, 0.0, 0.0]
    rates[position] = 0.5
    head = HeadSpec("linear", 1, OptimizerSpec("sgd"), dropout=tuple(rates))
    layers = (LayerSpec(n, n, noise="none", **LINEAR),) * 2
    engine = engine_factory(NetworkSpec(layers, head=head, seed=seed))
    engine.set_state({f"layers.{k}.W": np.eye(n, dtype=np.float32) for k in range(2)})
    data = rng.integers(1, 9, size=(40, n)).astype(np.float32)
    ids = np.array([int(rng.integers(40))], dtype=np.uint32)
    engine.finetune_epoch(data, np.ones((40, 1), np.float32), FinetunePlan(11, ids, 1, 1.0))
    expected = data[ids] * dropout_scale(0.5, seed, position, 11, ids, n)
    np.testing.assert_array_equal(engine.get_state()["head.W"][:, 0], expected[0])


def test_a_corrupted_component_counts_though_its_value_did_not_change(engine_factory, rng):
    # All zeros: masking changes nothing, but the emphasis weighs the masked components' loss all the same.
    n, seed, ids = 64, draw_seed(rng), np.array([2], dtype=np.uint32)
    layer = replace(noise("masking", 0.5, n), emphasis=(3.0, 0.5))
    engine = engine_factory(NetworkSpec((layer,), OptimizerSpec("sgd"), seed=seed))
    engine.set_state({"layers.0.c": np.full(n, -1.0, dtype=np.float32)})
    engine.pretrain_epoch(np.zeros((5, n), np.float32), PretrainPlan(1, ids, 1, (True,), (0.25,)))
    _, corrupted = corrupt(layer, seed, 0, 1, ids, np.zeros((1, n)))
    np.testing.assert_array_equal(engine.get_state()["layers.0.c"], np.where(corrupted[0], -0.25, -0.875))
