"""Fresh random inputs for every run; a failing test prints the seed that it was given."""

from __future__ import annotations

import os
import secrets

import numpy as np
import pytest

pytest.importorskip("numba", reason="gesda.deepmotion needs numba: pip install 'gesda[deepmotion]'")


@pytest.fixture
def seed() -> int:
    value = int(os.environ.get("GESDA_TEST_SEED", secrets.randbelow(2**31)))
    print(f"GESDA_TEST_SEED={value}")
    return value


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)
