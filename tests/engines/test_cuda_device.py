"""The GPU device where there is no GPU: one clear error. And what it takes of CuPy for granted."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from gesda.engine.cuda.cupy_device import CupyDevice, _has_compiler


class CUDARuntimeError(RuntimeError):
    """As CuPy's."""


def fake_cupy(capability):
    def device(index):
        if capability is None:
            raise CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
        return SimpleNamespace(compute_capability=capability)

    return SimpleNamespace(
        cuda=SimpleNamespace(Device=device, runtime=SimpleNamespace(CUDARuntimeError=CUDARuntimeError))
    )


def test_without_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(RuntimeError, match=r"device='cuda' needs CuPy: pip install 'gesda\[cuda\]'"):
        CupyDevice("fp32")


def test_without_a_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(None))
    with pytest.raises(RuntimeError, match=r"finds no usable GPU 0 \(cudaErrorNoDevice.*use device='cpu'"):
        CupyDevice("fp32")


@pytest.mark.parametrize(("precision", "capability"), [("fp32", "70"), ("tf32", "75"), ("fp16", "70")])
def test_with_a_gpu_that_is_too_old(monkeypatch, precision, capability):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(capability))
    with pytest.raises(
        RuntimeError, match=rf"precision='{precision}' needs a GPU of compute capability .* has 7\.[05]"
    ):
        CupyDevice(precision)


def test_an_unknown_precision():
    with pytest.raises(ValueError, match="precision must be one of 'fp32', 'tf32', 'fp16'; got 'fp64'"):
        CupyDevice("fp64")


@pytest.fixture
def cupy_without_gpu():
    cupy = pytest.importorskip("cupy")
    if cupy.is_available():
        pytest.skip("there is a GPU")
    return cupy


def test_cupy_without_a_driver(cupy_without_gpu):
    with pytest.raises(RuntimeError, match=r"device='cuda' finds no usable GPU 0 \(cudaError.*use device='cpu'"):
        CupyDevice("fp32")


def test_cupy_compiles_without_a_driver(cupy_without_gpu):
    assert _has_compiler(cupy_without_gpu)


def test_cupy_has_what_the_device_uses(cupy_without_gpu):
    cuda = cupy_without_gpu.cuda
    for owner, names in (
        (cuda.Stream, "begin_capture end_capture synchronize wait_event"),
        (cuda.Graph, "launch upload"),
        (cuda.Event, "record synchronize"),
        (cuda.MemoryPool, "set_limit get_limit free_bytes used_bytes malloc"),
        (cuda.Device, "compute_capability mem_info synchronize"),
        (cuda.driver, "occupancyMaxActiveBlocksPerMultiprocessor"),
        (cuda, "using_allocator alloc_pinned_memory"),
        (cuda.memory, "OutOfMemoryError"),
        (cupy_without_gpu.RawKernel, "kernel max_dynamic_shared_size_bytes"),
        (cupy_without_gpu.RawModule, "get_function"),
        (cupy_without_gpu, "from_dlpack asarray asnumpy ascontiguousarray"),
    ):
        assert [name for name in names.split() if not hasattr(owner, name)] == []
