"""Engines that round the operands of products (bf16, TF32, half precision): as near the reference as that allows.

Rounding an operand moves a smooth network's update by about as much, relatively. Not so where a unit sits at a kink
(relu), where adam magnifies a gradient near zero, or in one array in which terms cancel: so networks without the first
two are compared, all their parameters together.
"""

from __future__ import annotations

import numpy as np
import pytest
from engine_cases import (
    TOLERANCE,
    assert_losses_agree,
    covering_networks,
    finetune_plan,
    pretrain_plan,
    random_data,
    random_state,
    random_targets,
    reference_like,
    stack,
    with_head,
)


def is_smooth(spec):
    kinks = any("relu" in (layer.activation, layer.output_activation) for layer in spec.layers)
    return spec.optimizer.kind != "adam" and not kinks


def update_error(engine, reference, before):
    """Error of the update of all parameters together, relative to the update."""
    ours, theirs = engine.get_parameters(), reference.get_state()
    error = np.sqrt(sum(np.sum((ours[name] - theirs[name]) ** 2) for name in ours))
    moved = np.sqrt(sum(np.sum((theirs[name] - before[name]) ** 2) for name in ours))
    return error / moved


def test_pretraining_is_within_its_roundings_of_the_reference(rounded_factory, rng):
    n_compared = 0
    for spec, handoff in covering_networks(rng):
        if not is_smooth(spec):
            continue
        data, state = random_data(40, spec.layers[0].n_visible, rng), random_state(spec, rng)
        engine = rounded_factory(spec)
        engine.set_state(state)
        reference = reference_like(engine)
        plan = pretrain_plan(spec, 40, 17, handoff=handoff, rng=rng)
        ours, theirs = engine.pretrain_epoch(data, plan), reference.pretrain_epoch(data, plan)
        assert_losses_agree(engine, ours.loss, theirs.loss)
        assert update_error(engine, reference, state) <= TOLERANCE[engine.precision], spec
        n_compared += 1
    if n_compared == 0:
        pytest.skip("every network drawn had a relu or adam")


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("widths", [(1, 1), (301, 258), (100, 65, 33), (40, 31, 20, 9)], ids=str)
def test_wide_and_deep_networks_are_too(rounded_factory, rng, widths, tied):
    spec = stack(widths, "momentum", tied=tied)
    data, state = random_data(150, widths[0], rng), random_state(spec, rng)
    engine = rounded_factory(spec)
    engine.set_state(state)
    reference = reference_like(engine)
    plan = pretrain_plan(spec, 150, 61, rng=rng)
    assert_losses_agree(engine, engine.pretrain_epoch(data, plan).loss, reference.pretrain_epoch(data, plan).loss)
    assert update_error(engine, reference, state) <= TOLERANCE[engine.precision]


@pytest.mark.parametrize("kind", ["softmax", "linear"])
def test_finetuning_is_within_its_roundings_of_the_reference(rounded_factory, rng, kind):
    spec = with_head(stack((65, 40, 33), "momentum"), kind, 7, dropout=(0.1, 0.2, 0.3))
    data, state, targets = random_data(90, 65, rng), random_state(spec, rng), random_targets(spec, 90, rng)
    engine = rounded_factory(spec)
    engine.set_state(state)
    reference = reference_like(engine)
    before = {name: np.copy(array) for name, array in reference.get_state().items()}
    plan = finetune_plan(90, 31, rng)
    ours, theirs = engine.finetune_epoch(data, targets, plan), reference.finetune_epoch(data, targets, plan)
    np.testing.assert_allclose(ours.loss, theirs.loss, rtol=TOLERANCE[engine.precision])
    assert update_error(engine, reference, before) <= TOLERANCE[engine.precision]


def test_encoding_decoding_and_prediction_are_near_the_references(rounded_factory, rng):
    spec = with_head(stack((65, 40, 33)), "softmax", 7)
    data = random_data(300, 65, rng)
    engine = rounded_factory(spec)
    engine.set_state(random_state(spec, rng))
    reference = reference_like(engine)
    codes = np.ascontiguousarray(reference.encode(data), dtype=np.float32)
    for ours, theirs in (
        (engine.encode(data), reference.encode(data)),
        (engine.decode(codes), reference.decode(codes)),
        (engine.predict(data), reference.predict(data)),
    ):
        assert 0 < np.linalg.norm(ours - theirs) <= TOLERANCE[engine.precision] * np.linalg.norm(theirs)
