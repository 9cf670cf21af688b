"""The contract suite: every engine is held to the same definitions; fixtures that make the engines.

A fresh seed is drawn for every test and printed on failure; ``GESDA_TEST_SEED`` repeats it.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gesda.engine.reference import ReferenceEngine
from gesda.spec import NetworkSpec

sys.path.insert(0, str(Path(__file__).parent))  # for engine_cases, under every import mode of pytest
from engine_cases import CPU_BF16_VARIANTS, CPU_MISSING, CPU_VARIANTS

MakeEngine = Callable[..., Any]

CPU = [f"cpu-{variant}" for variant in CPU_VARIANTS] or ["cpu"]


def _factory(engine: str) -> MakeEngine:
    if engine == "reference":

        def make(spec: NetworkSpec) -> Any:
            return ReferenceEngine(spec)

    else:
        if CPU_MISSING:
            pytest.skip(CPU_MISSING)
        from gesda.engine.cpu import CpuEngine

        variant = engine.removeprefix("cpu-")

        def make(spec: NetworkSpec, precision: str = "fp32", n_jobs: int = 2) -> Any:
            return CpuEngine(spec, precision=precision, n_jobs=n_jobs, variant=variant)

    return make


@pytest.fixture(params=["reference", *CPU])
def engine_factory(request: pytest.FixtureRequest) -> MakeEngine:
    """Makes an engine from a NetworkSpec; once for every engine and variant of this machine."""
    return _factory(request.param)


@pytest.fixture(params=CPU)
def fast_engine_factory(request: pytest.FixtureRequest) -> MakeEngine:
    """As `engine_factory`, for the engines that are compared with the reference."""
    return _factory(request.param)


@pytest.fixture(params=CPU)
def cpu_factory(request: pytest.FixtureRequest) -> MakeEngine:
    """Makes a cpu engine; takes ``n_jobs`` and ``precision``."""
    return _factory(request.param)


@pytest.fixture(params=[f"cpu-{variant}" for variant in CPU_BF16_VARIANTS] or ["cpu"])
def bf16_factory(request: pytest.FixtureRequest) -> MakeEngine:
    """Makes a cpu engine in bf16, with AVX512-BF16's own variant where it runs; takes ``n_jobs``."""
    return partial(_factory(request.param), precision="bf16")


@pytest.fixture
def rng() -> np.random.Generator:
    seed = int(os.environ.get("GESDA_TEST_SEED") or secrets.randbits(32))
    print(f"GESDA_TEST_SEED={seed}")
    return np.random.default_rng(seed)
