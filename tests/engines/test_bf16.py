"""The cpu engine with ``precision="bf16"``: the same bits for any number of threads, or refused.

How near it comes to the reference is in test_rounded_products.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from engine_cases import (
    CPU_MISSING,
    assert_same_bits,
    covering_networks,
    pretrain_plan,
    random_data,
    random_state,
    stack,
)

pytestmark = pytest.mark.skipif(bool(CPU_MISSING), reason=CPU_MISSING)


def test_any_number_of_threads_gives_the_same_bits_whatever_the_options(bf16_factory, rng):
    for spec, handoff in covering_networks(rng):
        data, state = random_data(40, spec.layers[0].n_visible, rng), random_state(spec, rng)
        plan = pretrain_plan(spec, 40, 17, handoff=handoff, rng=rng)
        results = []
        for n_jobs in (1, 3):
            engine = bf16_factory(spec, n_jobs=n_jobs)
            engine.set_state(state)
            engine.pretrain_epoch(data, plan)
            results.append(engine.get_state())
            assert all(np.isfinite(array).all() for array in results[-1].values())
        assert_same_bits(*results)


def test_bf16_without_the_instructions_is_refused_unless_a_variant_is_named(monkeypatch):
    from gesda.engine import cpu, select

    spec = stack((4, 3))
    monkeypatch.setattr(cpu, "has_bf16", lambda: False)
    with pytest.raises(RuntimeError, match=r"AVX512-BF16.*use precision='fp32'"):
        select("cpu", spec, precision="bf16")
    assert cpu.CpuEngine(spec, precision="bf16", variant="baseline").precision == "bf16"


def test_bf16_takes_its_own_variant_where_it_runs():
    from gesda.engine import cpu

    if not cpu.has_bf16():
        pytest.skip("this machine or build has no AVX512-BF16")
    assert cpu.CpuEngine(stack((4, 3)), precision="bf16").variant == "avx512bf16"
    assert cpu.available_variants("bf16")[0] == "avx512bf16"


def test_an_unknown_precision_is_refused():
    from gesda.engine import cpu

    with pytest.raises(ValueError, match="precision must be one of 'fp32', 'bf16'; got 'fp16'"):
        cpu.available_variants("fp16")
    with pytest.raises(ValueError, match="got 'fp16'"):
        cpu.CpuEngine(stack((4, 3)), precision="fp16")
