"""Plans: what a layer learns does not depend on which other layers run, nor on how the data are stored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
from engine_cases import (
    assert_same_bits,
    finetune_plan,
    pretrain_plan,
    random_data,
    random_state,
    random_targets,
    stack,
    with_head,
)

from gesda.spec import NetworkSpec

WIDTHS = (26, 19, 33, 8)


def run(factory, spec, state, data, *plans):
    engine = factory(spec)
    engine.set_state(state)
    for plan in plans:
        engine.pretrain_epoch(data, plan)
    return engine.get_state()


def test_a_layer_learns_the_same_with_and_without_layers_above_it(engine_factory, rng):
    spec, data = stack(WIDTHS, "momentum"), random_data(50, WIDTHS[0], rng)
    state = random_state(spec, rng)
    whole = run(engine_factory, spec, state, data, pretrain_plan(spec, 50, 12))
    below = NetworkSpec(spec.layers[:2], spec.optimizer, seed=spec.seed)
    part = run(
        engine_factory, below, {n: state[n] for n in below.parameter_shapes()}, data, pretrain_plan(below, 50, 12)
    )
    for name in part:
        if name != "pretrain.steps":
            assert whole[name].tobytes() == part[name].tobytes(), name


@pytest.mark.parametrize("training", [(True, False, False), (False, True, False), (True, False, True)], ids=str)
def test_layers_that_do_not_train_keep_every_bit(engine_factory, rng, training):
    spec, data = stack(WIDTHS, "adam", tied=False), random_data(50, WIDTHS[0], rng)
    state = random_state(spec, rng)
    after = run(engine_factory, spec, state, data, pretrain_plan(spec, 50, 12, training=training))
    for name, array in state.items():
        changed = not np.array_equal(array, after[name])
        assert changed == training[int(name.split(".")[1])], name
    np.testing.assert_array_equal(after["pretrain.steps"], 5 * np.array(training))


def test_all_layers_see_the_weights_of_the_start_of_the_step(engine_factory, rng):
    # One minibatch: training together then equals training each layer alone from the same state.
    spec, data = stack(WIDTHS), random_data(20, WIDTHS[0], rng)
    state = random_state(spec, rng)
    together = run(engine_factory, spec, state, data, pretrain_plan(spec, 20, 20))
    for k in range(3):
        training = tuple(i == k for i in range(3))
        alone = run(engine_factory, spec, state, data, pretrain_plan(spec, 20, 20, training=training))
        for name in ("W", "b", "c"):
            assert together[f"layers.{k}.{name}"].tobytes() == alone[f"layers.{k}.{name}"].tobytes()


def test_cached_encodings_replace_the_layers_under_the_first(engine_factory, rng):
    spec, data = stack(WIDTHS), random_data(50, WIDTHS[0], rng)
    state = random_state(spec, rng)
    training = (False, True, True)
    uncached = run(engine_factory, spec, state, data, pretrain_plan(spec, 50, 12, training=training))
    engine = engine_factory(spec)
    engine.set_state(state)
    codes = engine.encode(data, n_layers=1)
    cached = run(engine_factory, spec, state, codes, pretrain_plan(spec, 50, 12, training=training, first_layer=1))
    for name, array in uncached.items():
        np.testing.assert_allclose(cached[name], array, rtol=1e-5, atol=1e-6, err_msg=name)


def test_noisy_handoff_equals_the_clean_one_without_noise(engine_factory, rng):
    spec, data = stack(WIDTHS, noise="none"), random_data(50, WIDTHS[0], rng)
    state = random_state(spec, rng)
    clean, noisy = (
        run(engine_factory, spec, state, data, pretrain_plan(spec, 50, 12, handoff=handoff))
        for handoff in ("clean", "noisy")
    )
    for name, array in clean.items():
        np.testing.assert_allclose(noisy[name], array, rtol=1e-6, atol=1e-7, err_msg=name)


def test_noisy_handoff_changes_the_upper_layers_only(engine_factory, rng):
    spec, data = stack(WIDTHS), random_data(50, WIDTHS[0], rng)
    state = random_state(spec, rng)
    clean, noisy = (
        run(engine_factory, spec, state, data, pretrain_plan(spec, 50, 12, handoff=handoff))
        for handoff in ("clean", "noisy")
    )
    assert clean["layers.0.W"].tobytes() == noisy["layers.0.W"].tobytes()
    assert not np.allclose(clean["layers.1.W"], noisy["layers.1.W"], rtol=0, atol=1e-5)


def test_epoch_and_seed_change_the_noise(engine_factory, rng):
    spec, data = stack(WIDTHS[:2]), random_data(50, WIDTHS[0], rng)
    state = random_state(spec, rng)
    results = [
        run(engine_factory, replace(spec, seed=seed), state, data, pretrain_plan(spec, 50, 12, epoch=epoch))
        for seed, epoch in [(1, 0), (1 + 2**32, 0), (1, 1)]
    ]
    for one, other in [(0, 1), (0, 2), (1, 2)]:
        assert not np.array_equal(results[one]["layers.0.W"], results[other]["layers.0.W"])


def test_a_step_with_rate_zero_changes_no_parameter(engine_factory, rng):
    spec, data = stack(WIDTHS), random_data(50, WIDTHS[0], rng)
    state = random_state(spec, rng)
    plan = replace(pretrain_plan(spec, 50, 12), learning_rates=(0.0, 0.0, 0.0))
    after = run(engine_factory, spec, state, data, plan)
    for name, array in state.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)


@pytest.mark.parametrize("noise", ["masking", "gaussian", "swap"])
def test_sparse_data_give_the_bits_of_dense_data(engine_factory, rng, noise):
    spec = with_head(stack(WIDTHS, noise=noise), "softmax", 3, dropout=(0.2, 0.0, 0.0, 0.1))
    data = random_data(50, WIDTHS[0], rng)
    data[3] = 0.0  # an empty row
    data[:, 5] = 0.0
    results = []
    state, targets = random_state(spec, rng), random_targets(spec, 50, rng)
    pretraining, finetuning = pretrain_plan(spec, 50, 12, rng=rng), finetune_plan(50, 12, rng)
    for stored in (data, scipy.sparse.csr_array(data)):
        engine = engine_factory(spec)
        engine.set_state(state)
        stats = engine.pretrain_epoch(stored, pretraining)
        tuned = engine.finetune_epoch(stored, targets, finetuning)
        arrays = {"codes": engine.encode(stored), "proba": engine.predict(stored)}
        arrays["losses"] = np.array([*stats.loss, tuned.loss])
        results.append({**engine.get_state(), **arrays})
    assert_same_bits(*results)


def test_data_and_plans_that_do_not_fit_are_refused(engine_factory, rng):
    spec = stack(WIDTHS)
    engine = engine_factory(spec)
    with pytest.raises(ValueError):
        engine.pretrain_epoch(random_data(10, WIDTHS[0] + 1, rng), pretrain_plan(spec, 10, 5))
    with pytest.raises(ValueError):
        engine.pretrain_epoch(random_data(10, WIDTHS[0], rng), pretrain_plan(spec, 11, 5))
    with pytest.raises(ValueError):
        engine.pretrain_epoch(random_data(10, WIDTHS[0], rng), pretrain_plan(stack(WIDTHS[:3]), 10, 5))
    with pytest.raises(ValueError):
        engine.encode(random_data(10, WIDTHS[0] + 1, rng))
    with pytest.raises(ValueError, match="head"):
        engine.predict(random_data(10, WIDTHS[0], rng))
    with pytest.raises(ValueError, match="head"):
        engine.finetune_epoch(random_data(10, WIDTHS[0], rng), np.zeros(10, np.int32), finetune_plan(10, 5, rng))
