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
sys.path.insert(0, str(Path(__file__).parents[1] / "emulator"))
from emulated import COMPILER, EmulatedDevice
from engine_cases import CPU_BF16_VARIANTS, CPU_MISSING, CPU_VARIANTS

MakeEngine = Callable[..., Any]

CPU = [f"cpu-{variant}" for variant in CPU_VARIANTS] or ["cpu"]
CPU_BF16 = [f"cpu-{variant}" for variant in CPU_BF16_VARIANTS] or ["cpu"]


def cuda(precision: str) -> list[Any]:
    """The kernels in kernels/, run on a CPU; and, with ``-m gpu``, on the GPU."""
    return [f"emulated-{precision}", pytest.param(f"cuda-{precision}", marks=pytest.mark.gpu)]


def _cpu(variant: str) -> MakeEngine:
    if CPU_MISSING:
        pytest.skip(CPU_MISSING)
    from gesda.engine.cpu import CpuEngine

    def make(spec: NetworkSpec, precision: str = "fp32", n_jobs: int = 2) -> Any:
        return CpuEngine(spec, precision=precision, n_jobs=n_jobs, variant=variant)

    return make


def _emulated(precision: str) -> MakeEngine:
    if COMPILER is None:
        pytest.skip("the emulator needs a C++ compiler")
    from gesda.engine.cuda.engine import CudaEngine

    return lambda spec, **options: CudaEngine(spec, EmulatedDevice(precision), precision=precision, **options)


def _cuda(precision: str) -> MakeEngine:
    from gesda.engine.cuda.cupy_device import CupyDevice
    from gesda.engine.cuda.engine import CudaEngine

    return lambda spec, **options: CudaEngine(spec, CupyDevice(precision), precision=precision, **options)


def _factory(engine: str) -> MakeEngine:
    kind, _, detail = engine.partition("-")
    if kind == "reference":
        return ReferenceEngine
    return {"cpu": _cpu, "emulated": _emulated, "cuda": _cuda}[kind](detail)


@pytest.fixture(params=["reference", *CPU, *cuda("fp32")])
def engine_factory(request: pytest.FixtureRequest) -> MakeEngine:
    """Makes an engine from a NetworkSpec; once for every engine and variant of this machine."""
    return _factory(request.param)


@pytest.fixture(params=[*CPU, *cuda("fp32")])
def fast_engine_factory(request: pytest.FixtureRequest) -> MakeEngine:
    """As `engine_factory`, for the engines that are compared with the reference."""
    return _factory(request.param)


@pytest.fixture(params=CPU)
def cpu_factory(request: pytest.FixtureRequest) -> MakeEngine:
    """Makes a cpu engine; takes ``n_jobs`` and ``precision``."""
    return _factory(request.param)


@pytest.fixture(params=CPU_BF16)
def bf16_factory(request: pytest.FixtureRequest) -> MakeEngine:
    """Makes a cpu engine in bf16, with AVX512-BF16's own variant where it runs; takes ``n_jobs``."""
    return partial(_factory(request.param), precision="bf16")


@pytest.fixture(params=[*CPU_BF16, *cuda("tf32"), *cuda("fp16")])
def rounded_factory(request: pytest.FixtureRequest) -> MakeEngine:
    """Makes an engine that rounds the operands of products: bf16 on the cpu, TF32 and half precision by the kernels."""
    return partial(_factory(request.param), **({"precision": "bf16"} if request.param.startswith("cpu") else {}))


@pytest.fixture
def rng() -> np.random.Generator:
    seed = int(os.environ.get("GESDA_TEST_SEED") or secrets.randbits(32))
    print(f"GESDA_TEST_SEED={seed}")
    return np.random.default_rng(seed)
