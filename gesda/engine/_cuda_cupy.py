"""A GPU through CuPy, as a device of the cuda engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gesda.engine import Array
from gesda.engine._cuda_records import SHARED_BYTES, THREADS, panel_bytes
from gesda.engine._cuda_source import ARITHMETICS, compile_options, kernel_source

_OLDEST = {"fp32": 75, "tf32": 80, "fp16": 75}  # compute capability, tenfold


class CupyDevice:
    """The current GPU.

    Parameters
    ----------
    precision : {"fp32", "tf32", "fp16"}

    Raises
    ------
    ValueError
        For an unknown precision.
    RuntimeError
        Without CuPy, without a usable GPU, or with one that is too old for the precision.
    """

    ticks_of_a_graph = 64
    panel = (2, 16)

    def __init__(self, precision: str) -> None:
        if precision not in ARITHMETICS:
            raise ValueError(f"precision must be one of {', '.join(map(repr, ARITHMETICS))}; got {precision!r}.")
        try:
            import cupy
        except ImportError as error:
            raise RuntimeError(
                "device='cuda' needs CuPy: pip install 'gesda[cuda]', or the cupy package for your CUDA version."
            ) from error
        try:
            capability = int(cupy.cuda.Device().compute_capability)
        except cupy.cuda.runtime.CUDARuntimeError as error:
            raise RuntimeError(f"device='cuda' finds no usable GPU ({error}); use device='cpu'.") from error
        if capability < _OLDEST[precision]:
            raise RuntimeError(
                f"precision={precision!r} needs a GPU of compute capability {_OLDEST[precision] / 10}; this one has "
                f"{capability / 10}."
            )
        self._cupy, self._stream = cupy, cupy.cuda.Stream(non_blocking=True)
        module = cupy.RawModule(code=kernel_source(), options=compile_options(precision, self.panel))
        self._shared = dict.fromkeys(("pretrain", "advance", "dense"), SHARED_BYTES) | {
            "panels": panel_bytes(*self.panel)
        }
        self._kernels = {name: module.get_function(name) for name in self._shared}
        for name, kernel in self._kernels.items():
            kernel.max_dynamic_shared_size_bytes = self._shared[name]

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """An array in device memory; of bytes for records, which CuPy does not know."""
        dtype = np.dtype(dtype)
        with self._stream:
            if dtype.fields is None:
                return self._cupy.zeros(shape, dtype)
            return self._cupy.zeros(int(np.prod(shape)) * dtype.itemsize, np.uint8)

    def pointer(self, array: Any) -> int:
        """Its address."""
        return int(array.data.ptr)

    def write(self, array: Any, values: Array) -> None:
        """Overwrite an array."""
        values = np.ascontiguousarray(values)
        array.set(values.view(np.uint8).reshape(-1) if values.dtype.fields else values, stream=self._stream)
        self._stream.synchronize()  # the caller may change `values`

    def read(self, array: Any) -> Array:
        """Copy an array to the host, when all launches before it are done."""
        values: Array = array.get(stream=self._stream)
        self._stream.synchronize()
        return values

    def launch(self, kernel: str, blocks: int, *arguments: int) -> None:
        """Start a kernel."""
        record, *numbers = arguments
        words = (np.uint64(record), *(np.int32(number) for number in numbers))
        self._kernels[kernel]((blocks,), (THREADS,), words, shared_mem=self._shared[kernel], stream=self._stream)

    def capture(self, launches: Callable[[], None]) -> Any:
        """Make a CUDA graph of launches without starting them."""
        with self._stream:
            self._stream.begin_capture()
            try:
                launches()
            finally:
                graph = self._stream.end_capture()
        graph.upload(stream=self._stream)
        return graph

    def replay(self, graph: Any) -> None:
        """Start a graph."""
        graph.launch(stream=self._stream)

    def synchronize(self) -> None:
        """Wait for all launches."""
        self._stream.synchronize()
