"""The GPU device where there is no GPU: one clear error."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from gesda.engine._cuda_cupy import CupyDevice


class CUDARuntimeError(RuntimeError):
    """As CuPy's."""


def fake_cupy(capability):
    def device():
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
    with pytest.raises(RuntimeError, match=r"finds no usable GPU \(cudaErrorNoDevice.*use device='cpu'"):
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
