"""What the GPU benchmarks share: the device or its emulator, GeSdA's engine on it, times by difference."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import common  # first: frees OpenBLAS before NumPy loads
import numpy as np

NETS = ((784, 1000, 1000, 1000), (784, 500, 500, 2000), (945, 256, 128, 64))
BATCHES = (20, 100, 256, 1024)
PRECISIONS = ("tf32", "fp16", "fp32")
VARIANTS = ("auto", "panels", "persistent", "tiles")


def make_device(precision: str, emulated: bool = False) -> Any:
    """The GPU, or the tests' emulator."""
    if emulated:
        folder = str(common.ROOT / "tests" / "emulator")
        if folder not in sys.path:
            sys.path.insert(0, folder)
        from emulated import EmulatedDevice

        return EmulatedDevice(precision)
    from gesda.engine.cuda.cupy_device import CupyDevice

    return CupyDevice(precision)


def make_spec(widths: Sequence[int], seed: int = 3, noise: float = 0.25) -> Any:
    """Sigmoid layers with tied weights and cross-entropy; masking noise, or none."""
    from gesda.spec import LayerSpec, NetworkSpec

    how: dict[str, Any] = {"noise": "masking", "noise_level": noise} if noise else {"noise": "none"}
    return NetworkSpec(tuple(LayerSpec(n, m, **how) for n, m in itertools.pairwise(widths)), seed=seed)


def make_engine(spec: Any, device: Any, precision: str, variant: str = "auto") -> Any:
    """GeSdA's engine on a device; "tuned" measures which variant is the fastest."""
    from gesda.engine.cuda.engine import CudaEngine

    chosen: dict[str, Any] = {"tune": True} if variant == "tuned" else {"variant": variant}
    return CudaEngine(spec, device, precision=precision, **({} if variant == "auto" else chosen))


def set_weights(engine: Any, rng: np.random.Generator) -> None:
    """Small random matrices, biases of zero."""
    for name, shape in engine.spec.parameter_shapes().items():
        values = rng.normal(0.0, 0.05, shape) if len(shape) == 2 else np.zeros(shape)
        engine.set_state({name: values.astype(np.float32)})


class Epochs:
    """Epochs of an engine over random visits to its data, the noise of each its own."""

    def __init__(self, engine: Any, batch: int, rng: np.random.Generator, rate: float = 0.05) -> None:
        self.engine, self._batch, self._rng, self._rate, self._number = engine, batch, rng, rate, 0

    def run(self, data: Any, n_rows: int, n_steps: int, layer: int | None = None, handoff: str = "clean") -> float:
        """Train all layers, or one whose input the data are; seconds."""
        from gesda.spec import PretrainPlan

        layers = len(self.engine.spec.layers)
        order = self._rng.integers(0, n_rows, n_steps * self._batch).astype(np.uint32)
        training = tuple(layer is None or k == layer for k in range(layers))
        plan = PretrainPlan(self._number, order, self._batch, training, (self._rate,) * layers, layer or 0, handoff)
        self._number += 1
        begin = time.perf_counter()
        stats = self.engine.pretrain_epoch(data, plan)
        seconds = time.perf_counter() - begin
        if not np.isfinite(np.array(stats.loss)[list(training)]).all():
            raise RuntimeError(f"the losses are {stats.loss}")
        return seconds


def microseconds(seconds: Callable[[int], float], steps: Sequence[int]) -> float:
    """Microseconds a step: two lengths' difference in time, in which what an epoch costs once cancels.

    >>> microseconds(lambda n: 0.5 + 2e-6 * n, (100, 300))
    2.0
    """
    short, long = steps
    return round(1e6 * (seconds(long) - seconds(short)) / (long - short), 6)


def gpu_info() -> dict[str, Any]:
    """Name, memory and versions of the device, by CuPy and nvidia-smi."""
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    return {
        "name": properties["name"].decode(),
        "memory_bytes": properties["totalGlobalMem"],
        "multiprocessors": properties["multiProcessorCount"],
        "compute_capability": cupy.cuda.Device().compute_capability,
        "driver": driver_version(),
        "cuda_driver": cupy.cuda.runtime.driverGetVersion(),
        "cuda_runtime": cupy.cuda.runtime.runtimeGetVersion(),
        "cupy": cupy.__version__,
    }


def driver_version() -> str | None:
    """Version of the kernel's driver."""
    return common._first_line("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")


def gpu_document(benchmark: str, arguments: Any, *, gpu: bool) -> dict[str, Any]:
    """The frame of a result file, with the device's description."""
    document = common.new_document(benchmark, arguments)
    document["gpu"] = gpu_info() if gpu else None
    return document
