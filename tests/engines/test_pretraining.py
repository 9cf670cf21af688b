"""Pretraining: every engine makes the reference's updates, whatever the options, widths and batches."""

from __future__ import annotations

import numpy as np
import pytest
from engine_cases import (
    OPTIMIZERS,
    assert_pretrains_like_reference,
    covering_networks,
    covering_rows,
    pretrain_plan,
    random_data,
    random_state,
    stack,
)

from gesda.spec import LayerSpec, NetworkSpec


def check(factory, spec, rng, *, n_samples=30, batch_size=12, epochs=2, **plan_options):
    data = random_data(n_samples, spec.layers[plan_options.get("first_layer", 0)].n_visible, rng)
    plans = [
        pretrain_plan(spec, n_samples, batch_size, epoch=epoch, rng=rng, **plan_options) for epoch in range(epochs)
    ]
    assert_pretrains_like_reference(factory(spec), data, plans, random_state(spec, rng))


def test_every_pair_of_options_updates_as_in_the_reference(fast_engine_factory, rng):
    for spec, handoff in covering_networks(rng):
        check(fast_engine_factory, spec, rng, handoff=handoff)


def test_the_random_combinations_cover_every_noise_activation_and_loss(rng):
    rows = covering_rows(rng)
    assert len({(row["noise"], row["activation"]) for row in rows}) == 20
    assert len({(row["activation"], row["output"]) for row in rows}) == 20
    assert len({(row["optimizer"], row["tied"]) for row in rows}) == 8


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    "options",
    [
        {},  # the defaults: sigmoid, tied, cross-entropy, masking
        {"noise": "gaussian", "activation": "relu", "output_activation": "linear", "loss": "squared_error"},
        {"noise": "salt_and_pepper", "emphasis": (1.5, 0.3), "tied": False, "sparsity": 0.1, "contractive": 0.1},
    ],
    ids=["defaults", "relu-gaussian", "untied-penalties"],
)
def test_three_layers(fast_engine_factory, rng, optimizer, options):
    check(fast_engine_factory, stack((40, 33, 24, 17), optimizer, **options), rng)


@pytest.mark.parametrize("n_layers", [1, 2, 3, 4, 5])
def test_depths(fast_engine_factory, rng, n_layers):
    check(fast_engine_factory, stack((37, 31, 40, 16, 9, 3)[: n_layers + 1], "momentum"), rng)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16, 33, 64, 131, 200, 1000])
@pytest.mark.parametrize("tied", [True, False])
def test_batches_and_their_tails(fast_engine_factory, rng, batch_size, tied):
    n_samples = 7 if batch_size < 4 else 261
    spec = stack((20, 18, 5), "momentum", noise="swap", tied=tied, sparsity=0.1)
    check(fast_engine_factory, spec, rng, n_samples=n_samples, batch_size=batch_size, epochs=1)


@pytest.mark.parametrize(
    ("n_visible", "n_hidden"),
    [(1, 1), (1, 2), (2, 1), (3, 1), (15, 17), (16, 16), (17, 15), (31, 33), (33, 31), (63, 64), (65, 100), (127, 130),
     (129, 500), (500, 129), (1, 1000), (1000, 1), (2000, 3), (3, 2000), (784, 257), (2000, 1999)],
)  # fmt: skip
@pytest.mark.parametrize("tied", [True, False])
def test_widths(fast_engine_factory, rng, n_visible, n_hidden, tied):
    wide = n_visible * n_hidden > 10_000
    spec = stack((n_visible, n_hidden), "sgd", tied=tied, noise="masking", l2=0.01)
    check(fast_engine_factory, spec, rng, n_samples=7 if wide else 25, batch_size=4 if wide else 10, epochs=1)


@pytest.mark.parametrize("batch_size", [31, 32, 100, 131, 300])
def test_wide_layers_with_realistic_batches(fast_engine_factory, rng, batch_size):
    spec = stack((300, 257, 100))
    check(fast_engine_factory, spec, rng, n_samples=batch_size + batch_size // 3, batch_size=batch_size, epochs=1)


@pytest.mark.parametrize(
    "training", [(True, False, False), (False, True, False), (False, False, True), (True, False, True)], ids=str
)
@pytest.mark.parametrize("handoff", ["clean", "noisy"])
def test_layers_that_only_encode(fast_engine_factory, rng, training, handoff):
    check(fast_engine_factory, stack((30, 24, 18, 12)), rng, training=training, handoff=handoff)


@pytest.mark.parametrize("first_layer", [1, 2])
def test_upper_layers_on_cached_encodings(fast_engine_factory, rng, first_layer):
    check(fast_engine_factory, stack((30, 24, 18, 12), "adam"), rng, first_layer=first_layer)


def test_samples_may_be_visited_more_than_once_and_not_at_all(fast_engine_factory, rng):
    spec = stack((20, 10, 8))
    data = random_data(30, 20, rng)
    plan = pretrain_plan(spec, 30, 8)
    order = rng.integers(30, size=45).astype(np.uint32)
    plan = type(plan)(3, order, 8, plan.training, plan.learning_rates)
    assert_pretrains_like_reference(fast_engine_factory(spec), data, [plan], random_state(spec, rng))


@pytest.mark.parametrize("noise", ["masking", "salt_and_pepper", "swap", "gaussian"])
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_noise_at_its_limits(fast_engine_factory, rng, noise, level):
    spec = NetworkSpec((LayerSpec(33, 20, noise=noise, noise_level=level),), seed=2**64 - 1)
    check(fast_engine_factory, spec, rng)


def test_the_sparsity_penalty_of_dead_units_is_clipped(fast_engine_factory, rng):
    # Mean activations from 1e-9 to 1e-3, on both sides of the clip at 1e-6.
    spec = stack((20, 33), sparsity=0.5, noise="none")
    state = random_state(spec, rng)
    state["layers.0.W"] *= 0.1
    state["layers.0.b"] = np.linspace(-20.0, -7.0, 33, dtype=np.float32)
    plans = [pretrain_plan(spec, 12, 12, rate=1.0)]
    assert_pretrains_like_reference(fast_engine_factory(spec), random_data(12, 20, rng), plans, state)


def test_saturated_units_stay_finite(engine_factory, rng):
    spec = stack((12, 9, 6), sparsity=0.1, contractive=0.1)
    engine = engine_factory(spec)
    state = {name: np.sign(array) * 1e4 for name, array in random_state(spec, rng).items()}
    engine.set_state({name: array.astype(np.float32) for name, array in state.items()})
    stats = engine.pretrain_epoch(random_data(20, 12, rng), pretrain_plan(spec, 20, 7))
    assert np.isfinite(stats.loss).all()
    assert all(np.isfinite(array).all() for array in engine.get_parameters().values())


def test_untrained_layers_report_no_loss(engine_factory, rng):
    spec = stack((12, 9, 6, 4))
    engine = engine_factory(spec)
    engine.set_state(random_state(spec, rng))
    plan = pretrain_plan(spec, 20, 7, training=(False, True, False))
    stats = engine.pretrain_epoch(random_data(20, 12, rng), plan)
    assert np.isnan([stats.loss[0], stats.loss[2]]).all() and np.isfinite(stats.loss[1])
    assert len(stats.seconds) == 3 and min(stats.seconds) >= 0.0
