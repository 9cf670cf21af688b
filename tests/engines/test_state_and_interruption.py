"""State goes in and out without loss; an interrupted epoch leaves whole steps; training resumes bit by bit."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from engine_cases import (
    OPTIMIZERS,
    assert_same_bits,
    finetune_plan,
    is_emulated,
    pretrain_plan,
    random_data,
    random_state,
    random_targets,
    stack,
    with_head,
)

from gesda.spec import FinetunePlan

#: A plan this long would take an engine many seconds: it ends by the poll.
ENDLESS = 4_000_000


class Boom(Exception):
    pass


def endless_plan(spec, n_samples, batch_size, rng):
    return replace(
        pretrain_plan(spec, n_samples, batch_size, rate=1e-4),
        order=rng.integers(n_samples, size=ENDLESS).astype(np.uint32),
    )


def full_network(optimizer, n_layers=3):
    spec = stack((21, 17, 12, 9)[: n_layers + 1], optimizer, tied=False)
    return with_head(spec, "softmax", 3, optimizer=OPTIMIZERS[optimizer], dropout=(0.2,) * (n_layers + 1))


# ---- state ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_state_has_the_documented_arrays_and_starts_as_zeros(engine_factory, optimizer):
    spec = full_network(optimizer)
    state = engine_factory(spec).get_state()
    assert {name: array.shape for name, array in state.items()} == spec.state_shapes()
    floats = {array.dtype for name, array in state.items() if not name.endswith(".steps")}
    assert len(floats) == 1 and floats <= {np.dtype(np.float32), np.dtype(np.float64)}
    assert {array.dtype for name, array in state.items() if name.endswith(".steps")} == {np.dtype(np.int64)}
    assert not any(array.any() for array in state.values())


def test_parameters_are_float32_copies_in_order(engine_factory, rng):
    spec = full_network("adam")
    engine, state = engine_factory(spec), random_state(full_network("adam"), rng)
    engine.set_state(state)
    parameters = engine.get_parameters()
    assert list(parameters) == list(spec.parameter_shapes())
    assert_same_bits(parameters, state)
    parameters["layers.0.W"][:] = 0.0
    engine.get_state()["layers.1.W"][:] = 0.0
    assert_same_bits(engine.get_parameters(), state)


def test_parameters_are_copied_into_the_caller_s_arrays(engine_factory, rng):
    spec = full_network("adam")
    engine, state = engine_factory(spec), random_state(full_network("adam"), rng)
    engine.set_state(state)
    names = [str(name) for name in rng.permutation(list(spec.parameter_shapes()))[:3]]
    arrays = {name: np.full(spec.parameter_shapes()[name], np.nan, np.float32) for name in names}
    kept = dict(arrays)
    engine.copy_parameters(arrays)
    assert all(arrays[name] is kept[name] for name in names)
    assert_same_bits(arrays, {name: state[name] for name in names})


def test_a_parameter_that_is_not_finite_is_named(engine_factory, rng):
    spec = full_network("adam")
    engine, state = engine_factory(spec), random_state(spec, rng)
    engine.set_state(state)
    assert engine.nonfinite_parameter() is None
    for name, shape in spec.parameter_shapes().items():
        spoilt = state[name].copy()
        spoilt[tuple(rng.integers(0, size) for size in shape)] = rng.choice([np.nan, np.inf, -np.inf])
        engine.set_state({name: spoilt})
        assert engine.nonfinite_parameter() == name
        engine.set_state({name: state[name]})
    assert engine.nonfinite_parameter() is None


def test_set_state_copies_and_leaves_out_what_is_not_given(engine_factory, rng):
    spec = full_network("momentum")
    engine, state = engine_factory(spec), random_state(spec, rng)
    engine.set_state(state)
    b = np.arange(17, dtype=np.float32)
    engine.set_state({"layers.0.b": b})
    b[:] = -1.0
    np.testing.assert_array_equal(engine.get_parameters()["layers.0.b"], np.arange(17))
    assert engine.get_parameters()["layers.1.W"].tobytes() == state["layers.1.W"].tobytes()


def test_set_state_takes_any_memory_order(engine_factory, rng):
    spec = full_network("sgd")
    engine, state = engine_factory(spec), random_state(spec, rng)
    engine.set_state({name: np.asfortranarray(array) for name, array in state.items()})
    assert_same_bits(engine.get_parameters(), state)


@pytest.mark.parametrize(
    "wrong", [{"layers.7.W": np.zeros((2, 2))}, {"layers.0.W": np.zeros((17, 21))}, {"layers.0.b": np.zeros(18)}]
)
def test_unknown_names_and_wrong_shapes_are_refused(engine_factory, wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        engine_factory(full_network("sgd")).set_state(wrong)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_saved_state_resumes_bit_by_bit(engine_factory, rng, optimizer):
    spec, data = full_network(optimizer), random_data(50, 21, rng)
    targets = random_targets(spec, 50, rng)
    pretraining = [pretrain_plan(spec, 50, 16, epoch=epoch, rng=rng) for epoch in range(4)]
    finetuning = [finetune_plan(50, 16, rng, epoch=epoch) for epoch in range(4)]
    engine = engine_factory(spec)
    engine.set_state(random_state(spec, rng))

    def run(engine, part):
        for plan in pretraining[part]:
            engine.pretrain_epoch(data, plan)
        for plan in finetuning[part]:
            engine.finetune_epoch(data, targets, plan)

    run(engine, slice(0, 2))
    resumed = engine_factory(spec)
    resumed.set_state(engine.get_state())
    for each in (engine, resumed):
        run(each, slice(2, 4))
    assert_same_bits(resumed.get_state(), engine.get_state())


def test_the_same_run_gives_the_same_bits(engine_factory, rng):
    spec, data = full_network("adam"), random_data(50, 21, rng)
    state, plan = random_state(spec, rng), pretrain_plan(spec, 50, 16, rng=rng)
    results = []
    for _ in range(2):
        engine = engine_factory(spec)
        engine.set_state(state)
        stats = engine.pretrain_epoch(data, plan)
        results.append({**engine.get_state(), "loss": np.array(stats.loss)})
    assert_same_bits(*results)


def test_counters_count_each_layers_updates(engine_factory, rng):
    spec, data = full_network("sgd"), random_data(50, 21, rng)
    engine = engine_factory(spec)
    engine.set_state(random_state(spec, rng))
    engine.pretrain_epoch(data, pretrain_plan(spec, 50, 16))
    engine.pretrain_epoch(data, pretrain_plan(spec, 50, 25, training=(True, False, False)))
    engine.finetune_epoch(data, random_targets(spec, 50, rng), finetune_plan(50, 20, rng))
    state = engine.get_state()
    np.testing.assert_array_equal(state["pretrain.steps"], [6, 4, 4])
    np.testing.assert_array_equal(state["finetune.steps"], [3])


# ---- interruption ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("widths", "batch_size"), [((20, 16, 12, 9), 1), ((20, 16, 12, 9), 7), ((300, 300, 300), 100)], ids=str
)
def test_a_poll_stops_after_whole_steps_of_all_layers(engine_factory, rng, widths, batch_size):
    spec, data = stack(widths, "momentum"), random_data(200, widths[0], rng)
    state, plan = random_state(spec, rng), endless_plan(spec, 200, batch_size, rng)
    engine, polled = engine_factory(spec), []
    engine.set_state(state)

    def poll(fraction):
        polled.append((time.perf_counter(), fraction))
        return True

    stats = engine.pretrain_epoch(data, plan, poll)
    answered = time.perf_counter() - polled[0][0]
    assert not stats.completed and len(polled) == 1 and 0.0 <= polled[0][1] < 1.0
    assert answered < 0.5 or is_emulated(engine), (
        "an interruption is answered within 0.2 s (and some patience with a busy machine)"
    )
    steps = engine.get_state()["pretrain.steps"]
    assert 0 < steps[0] < ENDLESS // batch_size
    assert (steps == steps[0]).all(), "an update was applied to some layers only"

    replay = engine_factory(spec)
    replay.set_state(state)
    again = replay.pretrain_epoch(data, replace(plan, order=plan.order[: steps[0] * batch_size]))
    assert_same_bits(engine.get_state(), replay.get_state())
    np.testing.assert_allclose(stats.loss, again.loss, rtol=1e-6)


@pytest.mark.parametrize("exception", [KeyboardInterrupt, Boom])
def test_an_exception_in_the_poll_stops_and_propagates(engine_factory, rng, exception):
    spec, data = stack((20, 16, 12, 9), "adam"), random_data(200, 20, rng)
    engine, plan = engine_factory(spec), endless_plan(spec, 200, 4, rng)
    engine.set_state(random_state(spec, rng))

    def poll(fraction):
        raise exception

    with pytest.raises(exception):
        engine.pretrain_epoch(data, plan, poll)
    steps = engine.get_state()["pretrain.steps"]
    assert steps[0] > 0 and (steps == steps[0]).all()
    completed = engine.pretrain_epoch(data, pretrain_plan(spec, 200, 20))
    assert completed.completed and np.isfinite(completed.loss).all()


def test_finetuning_stops_after_whole_steps(engine_factory, rng):
    spec, data = full_network("momentum"), random_data(200, 21, rng)
    state, targets = random_state(spec, rng), random_targets(spec, 200, rng)
    plan = FinetunePlan(0, rng.integers(200, size=ENDLESS).astype(np.uint32), 5, 1e-4)
    engine = engine_factory(spec)
    engine.set_state(state)
    stats = engine.finetune_epoch(data, targets, plan, None, lambda fraction: True)
    steps = int(engine.get_state()["finetune.steps"][0])
    assert not stats.completed and 0 < steps < ENDLESS // 5
    replay = engine_factory(spec)
    replay.set_state(state)
    replay.finetune_epoch(data, targets, replace(plan, order=plan.order[: steps * 5]))
    assert_same_bits(engine.get_state(), replay.get_state())

    def poll(fraction):
        raise Boom

    with pytest.raises(Boom):
        engine.finetune_epoch(data, targets, plan, None, poll)


def test_polls_report_rising_fractions_and_a_false_answer_goes_on(engine_factory, rng):
    spec, data = stack((20, 16, 12)), random_data(200, 20, rng)
    engine, plan, fractions = engine_factory(spec), endless_plan(spec, 200, 2, rng), []
    engine.set_state(random_state(spec, rng))

    def poll(fraction):
        fractions.append(fraction)
        return len(fractions) == 4

    engine.pretrain_epoch(data, plan, poll)
    assert len(fractions) == 4
    assert fractions == sorted(fractions) and 0.0 <= fractions[0] < fractions[-1] < 1.0


def test_a_finished_epoch_is_completed(engine_factory, rng):
    spec, data = full_network("sgd"), random_data(50, 21, rng)
    engine = engine_factory(spec)
    engine.set_state(random_state(spec, rng))
    assert engine.pretrain_epoch(data, pretrain_plan(spec, 50, 16), lambda fraction: False).completed
    assert engine.finetune_epoch(data, random_targets(spec, 50, rng), finetune_plan(50, 20, rng)).completed
