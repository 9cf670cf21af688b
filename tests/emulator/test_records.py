"""The records that Python writes are those that the kernels read."""

from __future__ import annotations

import ctypes

import pytest
from emulated import COMPILER, compiled_kernels

from gesda.engine.cuda import records
from gesda.engine.cuda.variants import panel_bytes


@pytest.mark.skipif(COMPILER is None, reason="the emulator needs a C++ compiler")
def test_sizes_and_constants_agree_with_the_kernels():
    sizes = (ctypes.c_int * 11)()
    compiled_kernels("fp32", (2, 16)).record_sizes(sizes)
    types = (records.LAYER, records.PART, records.EPOCH, records.DENSE, records.PASS, records.SOURCE)
    assert list(sizes) == [
        *(dtype.itemsize for dtype in types),
        records.THREADS,
        records.TILE,
        records.SHARED_BYTES,
        panel_bytes(2, 16),
        records.PANEL_CHUNK,
    ]
