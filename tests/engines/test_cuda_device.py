"""The GPU device where there is no GPU: one clear error. And what it takes of CuPy for granted."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse
from emulated import COMPILER, EmulatedDevice
from emulated_cupy import emulated_cupy
from engine_cases import (
    assert_same_bits,
    finetune_plan,
    pretrain_plan,
    random_state,
    random_targets,
    stack,
    with_head,
)

from gesda.engine.cuda import cupy_device
from gesda.engine.cuda.cupy_device import CupyDevice, _has_compiler
from gesda.engine.cuda.data import HostRows
from gesda.engine.cuda.engine import CudaEngine
from gesda.engine.cuda.source import compile_options, kernel_source


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
    nvrtc = cupy_without_gpu.cuda.nvrtc
    program = nvrtc.createProgram(kernel_source(), "kernels.cu", (), ())
    added = ("-ftz=true", "--device-as-default-execution-space", "-arch=sm_90")  # by CuPy 14
    nvrtc.compileProgram(program, (*compile_options("tf32", "dense", (0, 0)), *added))
    assert nvrtc.getCUBIN(program).startswith(b"\x7fELF")


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


# ---- CuPy's part of a training, on a stand-in for CuPy ----------------------------------------------
WIDTHS = (70, 50, 33)


@pytest.fixture
def gpu(monkeypatch):
    """Makes a `CupyDevice` whose kernels the emulator runs."""
    if COMPILER is None:
        pytest.skip("the emulator needs a C++ compiler")

    def make(precision="fp32", memory_limit=None, ticks=3, memory=1 << 40, index=0, **options):
        runs = EmulatedDevice(precision, memory=memory)
        monkeypatch.setitem(sys.modules, "cupy", emulated_cupy(runs, **options))
        device = CupyDevice(precision, index, memory_limit)
        device.panels, device.ticks_of_a_graph = runs.panels, ticks
        return device

    return make


def trained(device, data, spec, state, plans, tuning, targets, **options):
    engine = CudaEngine(spec, device, **options)
    engine.set_state(state)
    placed = engine.place(data)
    losses = [engine.pretrain_epoch(placed, plan).loss for plan in plans]
    losses += [(engine.finetune_epoch(placed, targets, plan).loss,) for plan in tuning]
    return {**engine.get_state(), "losses": np.concatenate(losses), "codes": engine.encode(data)}


def a_job(rng):
    spec = with_head(stack(WIDTHS, "adam"), "softmax", 5, dropout=(0.2, 0.1, 0.0))
    plans = [pretrain_plan(spec, 90, 20, epoch=epoch, rng=rng) for epoch in (0, 1)]
    tuning = [finetune_plan(90, 20, rng)]
    return spec, random_state(spec, rng), plans, tuning, random_targets(spec, 90, rng)


@pytest.mark.parametrize("variant", ["panels", "persistent", "tiles"])
@pytest.mark.parametrize("kind", ["dense", "sparse", "uint8", "streamed"])
def test_trainings_through_cupy_are_those_of_the_emulator(gpu, rng, variant, kind):
    dense = rng.integers(0, 2, (90, WIDTHS[0])).astype(np.float32)
    data = {"sparse": scipy.sparse.csr_array(dense), "uint8": dense.astype(np.uint8), "streamed": HostRows(dense)}
    job = a_job(rng)
    expected = trained(EmulatedDevice("fp32"), dense, *job, variant=variant)
    assert_same_bits(expected, trained(gpu(), data.get(kind, dense), *job, variant=variant))


class Given(np.ndarray):
    """As an array in GPU memory."""

    __cuda_array_interface__ = {"version": 3}  # noqa: RUF012


def test_an_array_in_gpu_memory_is_not_copied(gpu):
    data = np.ones((20, WIDTHS[0]), np.float32)
    array, pointer = gpu().adopt(data.view(Given))
    assert pointer == data.ctypes.data and array.shape == data.shape


def test_an_array_on_another_gpu_is_an_error(gpu):
    device = gpu(index=1)
    with pytest.raises(ValueError, match="the data lie on GPU 0: use device='cuda:0', or move them to GPU 1"):
        device.adopt(np.ones((20, 3), np.float32).view(Given))


def test_too_many_blocks_for_a_cooperative_launch_are_an_error(gpu, rng):
    data = rng.random((90, WIDTHS[0]), dtype=np.float32)
    with pytest.raises(
        RuntimeError, match=r"variant='persistent' needs \d+ blocks on the device at once, .* room for 0"
    ):
        trained(gpu(occupancy=0), data, *a_job(rng), variant="persistent")


def test_a_memory_limit_holds(gpu, rng):
    data = rng.random((90, WIDTHS[0]), dtype=np.float32)
    device = gpu(memory_limit=400_000)
    assert device.available() <= 400_000
    with pytest.raises(
        MemoryError, match=r"take [\d,]+ bytes of GPU memory \([\d,]+ bytes are needed, [\d,]+ are left\)"
    ):
        CudaEngine(stack((500, 500), "sgd"), device)
    trained(gpu(memory_limit=400_000), data, *a_job(rng))


def test_modules_compiled_ahead_are_loaded(gpu, monkeypatch, rng):
    loaded = []
    device = gpu()
    monkeypatch.setattr(cupy_device, "compiled_file", lambda *key: loaded.append(key) or None)
    trained(device, rng.random((90, WIDTHS[0]), dtype=np.float32), *a_job(rng), variant="tiles")
    assert loaded == [("fp32", "tiles", (0, 0), 90), ("fp32", "dense", (0, 0), 90)]
