"""Fine-tuning: every engine makes the reference's updates of the whole network."""

from __future__ import annotations

import numpy as np
import pytest
from engine_cases import (
    OPTIMIZERS,
    assert_losses_agree,
    assert_same_updates,
    finetune_plan,
    random_data,
    random_state,
    random_targets,
    reference_like,
    stack,
    with_head,
)

from gesda.spec import ACTIVATION_RANGES

WIDTHS = (33, 40, 17, 24, 9, 15)


def check(factory, spec, rng, *, n_samples=40, batch_size=15, epochs=2, weighted=False):
    data, targets = random_data(n_samples, spec.layers[0].n_visible, rng), random_targets(spec, n_samples, rng)
    weight = rng.uniform(0.0, 2.0, size=n_samples).astype(np.float32) if weighted else None
    # Slow enough that no combination diverges, which would amplify every rounding.
    rate = {"sgd": 0.05, "momentum": 0.005, "adam": 0.005}[spec.head.optimizer.kind]
    if ACTIVATION_RANGES[spec.layers[-1].activation] is None:
        rate /= 10
    state = random_state(spec, rng)
    engine = factory(spec)
    engine.set_state(state)
    reference = reference_like(engine)
    for epoch in range(epochs):
        plan = finetune_plan(n_samples, batch_size, rng, epoch=epoch, rate=rate)
        ours = engine.finetune_epoch(data, targets, plan, weight)
        theirs = reference.finetune_epoch(data, targets, plan, weight)
        assert ours.completed and ours.seconds >= 0.0
        assert_losses_agree(engine, (ours.loss,), (theirs.loss,))
    assert_same_updates(engine, reference, state)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", ["softmax", "linear"])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "linear"])
def test_optimizers_heads_and_activations(fast_engine_factory, rng, optimizer, kind, activation):
    options = {"optimizer": OPTIMIZERS[optimizer], "l2": 0.01, "dropout": (0.1, 0.3, 0.5)}
    check(fast_engine_factory, with_head(stack(WIDTHS[:3], activation=activation), kind, 5, **options), rng)


@pytest.mark.parametrize("n_layers", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["softmax", "linear"])
def test_depths(fast_engine_factory, rng, n_layers, kind):
    spec = with_head(stack(WIDTHS[: n_layers + 1]), kind, 3, dropout=(0.2,) * (n_layers + 1))
    check(fast_engine_factory, spec, rng)


@pytest.mark.parametrize("n_outputs", [1, 2, 3, 8, 10, 16, 17, 31, 32, 33, 40])
@pytest.mark.parametrize("kind", ["softmax", "linear"])
def test_numbers_of_outputs(fast_engine_factory, rng, n_outputs, kind):
    check(fast_engine_factory, with_head(stack(WIDTHS[:3]), kind, n_outputs), rng)


@pytest.mark.parametrize("batch_size", [1, 2, 31, 64, 131, 200, 1000])
def test_batches_and_their_tails(fast_engine_factory, rng, batch_size):
    spec = with_head(stack(WIDTHS[:3]), "softmax", 4, dropout=(0.0, 0.5, 0.0))
    check(fast_engine_factory, spec, rng, n_samples=7 if batch_size < 3 else 261, batch_size=batch_size, epochs=1)


@pytest.mark.parametrize("kind", ["softmax", "linear"])
def test_sample_weights(fast_engine_factory, rng, kind):
    check(fast_engine_factory, with_head(stack(WIDTHS[:3]), kind, 6, l2=0.1), rng, weighted=True)


@pytest.mark.parametrize("widths", [(1, 1), (2, 1, 3), (784, 100, 65), (3, 2000), (2000, 3), (129, 500, 1)], ids=str)
def test_widths(fast_engine_factory, rng, widths):
    spec = with_head(stack(widths), "softmax", 10, dropout=(0.2,) * len(widths))
    check(fast_engine_factory, spec, rng, n_samples=25, batch_size=10, epochs=1)


def test_decoders_are_left_alone(engine_factory, rng):
    spec = with_head(stack(WIDTHS[:3], tied=False), "softmax", 4)
    engine, state = engine_factory(spec), random_state(spec, rng)
    engine.set_state(state)
    engine.finetune_epoch(random_data(40, 33, rng), random_targets(spec, 40, rng), finetune_plan(40, 15, rng))
    after = engine.get_parameters()
    for name, array in state.items():
        assert (after[name].tobytes() == array.tobytes()) == name.endswith((".c", ".V")), name


def test_unit_weights_are_no_weights(engine_factory, rng):
    spec, data = with_head(stack(WIDTHS[:3]), "softmax", 4), random_data(40, 33, rng)
    state, targets, plan = random_state(spec, rng), random_targets(spec, 40, rng), finetune_plan(40, 15, rng)
    results = []
    for weight in (None, np.ones(40, dtype=np.float32)):
        engine = engine_factory(spec)
        engine.set_state(state)
        engine.finetune_epoch(data, targets, plan, weight)
        results.append(engine.get_parameters())
    for name, array in results[0].items():
        np.testing.assert_allclose(results[1][name], array, rtol=1e-6, atol=1e-7)


def test_rows_of_weight_zero_and_unlisted_rows_do_not_matter(engine_factory, rng):
    spec, data = with_head(stack(WIDTHS[:3]), "linear", 2), random_data(40, 33, rng)
    state, targets, plan = random_state(spec, rng), random_targets(spec, 40, rng), finetune_plan(30, 40, rng)
    weight = np.ones(40, dtype=np.float32)
    weight[:10] = 0.0
    results = []
    for change in (False, True):
        if change:
            targets[:10] += 100.0  # no weight
            targets[30:] += 100.0  # not in the plan
            data[30:] = 1e3
        engine = engine_factory(spec)
        engine.set_state(state)
        stats = engine.finetune_epoch(data, targets, plan, weight)
        results.append({**engine.get_parameters(), "loss": np.array(stats.loss)})
    for name, array in results[0].items():
        np.testing.assert_array_equal(results[1][name], array, err_msg=name)


def test_finetuning_learns(engine_factory, rng):
    spec = with_head(stack((10, 12)), "softmax", 2, optimizer=OPTIMIZERS["adam"])
    data = random_data(300, 10, rng)
    targets = (data[:, 0] > data[:, 1]).astype(np.int32)
    engine = engine_factory(spec)
    engine.set_state(random_state(spec, rng))
    losses = [
        engine.finetune_epoch(data, targets, finetune_plan(300, 20, rng, epoch=epoch, rate=0.05)).loss
        for epoch in range(20)
    ]
    assert losses[-1] < 0.5 * losses[0]
    assert (engine.predict(data).argmax(axis=1) == targets).mean() > 0.9
