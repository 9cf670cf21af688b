"""The cpu engine's bits: the same for any number of threads, run, Python thread and process."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from engine_cases import (
    CPU_MISSING,
    CPU_VARIANTS,
    OPTIMIZERS,
    TOLERANCE,
    assert_same_bits,
    covering_networks,
    finetune_plan,
    pretrain_plan,
    random_data,
    random_state,
    random_targets,
    stack,
    with_head,
)


def train(make, spec, state, data, plans, targets=None, tuning=()):
    engine = make(spec)
    engine.set_state(state)
    losses = [engine.pretrain_epoch(data, plan).loss for plan in plans]
    losses += [(engine.finetune_epoch(data, targets, plan).loss,) for plan in tuning]
    return {
        **engine.get_state(),
        "losses": np.concatenate([np.asarray(loss, dtype=np.float64) for loss in losses]),
        "codes": engine.encode(data),
    }


def a_job(rng, widths=(130, 100, 65, 33), n_samples=150, batch_size=64):
    spec = with_head(stack(widths, "momentum"), "softmax", 10, dropout=(0.2,) * len(widths))
    data = random_data(n_samples, widths[0], rng)
    return (
        spec,
        random_state(spec, rng),
        data,
        [pretrain_plan(spec, n_samples, batch_size, rng=rng)],
        random_targets(spec, n_samples, rng),
        [finetune_plan(n_samples, batch_size, rng)],
    )


@pytest.mark.parametrize("batch_size", [1, 20, 64, 300])
@pytest.mark.parametrize("widths", [(300, 257), (130, 100, 65, 33), (40, 30, 20, 10, 5, 3)], ids=str)
def test_any_number_of_threads_gives_the_same_bits(cpu_factory, rng, batch_size, widths):
    job = a_job(rng, widths, n_samples=9 if batch_size == 1 else 330, batch_size=batch_size)
    results = [train(lambda spec, n=n: cpu_factory(spec, n_jobs=n), *job) for n in (1, 2, 3)]
    assert_same_bits(results[0], results[1])
    assert_same_bits(results[0], results[2])


def test_any_number_of_threads_gives_the_same_bits_whatever_the_options(cpu_factory, rng):
    for spec, handoff in covering_networks(rng):
        data, state = random_data(40, spec.layers[0].n_visible, rng), random_state(spec, rng)
        plans = [pretrain_plan(spec, 40, 17, handoff=handoff, rng=rng)]
        one, three = (train(lambda s, n=n: cpu_factory(s, n_jobs=n), spec, state, data, plans) for n in (1, 3))
        assert_same_bits(one, three)


@pytest.mark.skipif(len(CPU_VARIANTS) < 2, reason=CPU_MISSING or "this machine runs one SIMD variant only")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_variants_agree(rng, optimizer):
    from gesda.engine import cpu

    bit_equal = getattr(cpu, "BIT_EQUAL_VARIANTS", ())
    job = a_job(rng)
    results = {
        variant: train(lambda spec, v=variant: cpu.CpuEngine(spec, precision="fp32", n_jobs=2, variant=v), *job)
        for variant in CPU_VARIANTS
    }
    # The reported losses may differ in the last digits: their sums are cut by the variant's panel width.
    equal = [{n: a for n, a in results[v].items() if n != "losses"} for v in CPU_VARIANTS if v in bit_equal]
    for other in equal[1:]:
        assert_same_bits(equal[0], other)
    first = results[CPU_VARIANTS[0]]
    for other in results.values():
        for name, array in first.items():
            error = np.linalg.norm(array.astype(np.float64) - other[name])
            assert error <= TOLERANCE["fp32"] * np.linalg.norm(array), name


def test_engines_in_several_python_threads_do_not_disturb_each_other(cpu_factory, rng):
    jobs = [a_job(rng) for _ in range(6)]
    alone = [train(cpu_factory, *job) for job in jobs]
    with ThreadPoolExecutor(3) as threads:
        together = list(threads.map(lambda job: train(cpu_factory, *job), jobs))
    for one, other in zip(alone, together, strict=True):
        assert_same_bits(one, other)


def _train_in_child(connection, make, job):
    connection.send(train(make, *job))
    connection.close()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
def test_a_forked_child_trains_like_its_parent(cpu_factory, rng):
    job = a_job(rng)
    expected = train(cpu_factory, *job)  # the parent's threads exist before the fork
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_train_in_child, args=(there, cpu_factory, job))
    child.start()
    try:
        assert here.poll(60), "the child hangs"
        assert_same_bits(here.recv(), expected)
    finally:
        child.join(10)
        if child.is_alive():
            child.kill()
