"""A GPU through CuPy, as a device of the cuda engine.

May import its own package.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from gesda.engine import Array
from gesda.engine.cuda.device import Kernel
from gesda.engine.cuda.records import STORAGES, THREADS
from gesda.engine.cuda.source import ARITHMETICS, compile_options, compiled_file, kernel_source
from gesda.engine.cuda.variants import SHAPES

_OLDEST = {"fp32": 75, "tf32": 80, "fp16": 75}  # compute capability, tenfold
_AHEAD = 2  # launches of many ticks that wait while one runs; more would keep an interruption waiting


class CupyDevice:
    """A GPU.

    Parameters
    ----------
    precision : {"fp32", "tf32", "fp16"}
    index : int
        Which GPU.
    memory_limit : int or None
        Bytes of its memory that may be used; None means all that is free.

    Raises
    ------
    ValueError
        For an unknown precision.
    RuntimeError
        Without CuPy, without a usable GPU, or with one that is too old for the precision.
    """

    ticks_of_a_graph = 64

    def __init__(self, precision: str, index: int = 0, memory_limit: int | None = None) -> None:
        if precision not in ARITHMETICS:
            raise ValueError(f"precision must be one of {', '.join(map(repr, ARITHMETICS))}; got {precision!r}.")
        try:
            import cupy
        except ImportError as error:
            raise RuntimeError(
                "device='cuda' needs CuPy: pip install 'gesda[cuda]', or the cupy package for your CUDA version."
            ) from error
        try:
            self._device = cupy.cuda.Device(index)
            capability = int(self._device.compute_capability)
        except cupy.cuda.runtime.CUDARuntimeError as error:
            raise RuntimeError(f"device='cuda' finds no usable GPU {index} ({error}); use device='cpu'.") from error
        if capability < _OLDEST[precision]:
            raise RuntimeError(
                f"precision={precision!r} needs a GPU of compute capability {_OLDEST[precision] / 10}; this one has "
                f"{capability / 10}."
            )
        self._cupy, self._precision, self._capability = cupy, precision, capability
        self._kernels: dict[Kernel, Any] = {}
        self._modules: dict[tuple[str, tuple[int, int]], Any] = {}
        self._resolving = False
        self._running: deque[Any] = deque()
        with self._device:
            self._stream, self._copies = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
            self._pool = cupy.cuda.MemoryPool()
            self._pool.set_limit(size=memory_limit or 0)
        # Without a compiler there is what came compiled.
        self.panels = tuple(
            shape
            for shape in SHAPES
            if _has_compiler(cupy) or compiled_file(precision, "panels", shape, capability) is not None
        )
        self.name = cupy.cuda.runtime.getDeviceProperties(index)["name"].decode()
        self.multiprocessors = int(self._device.attributes["MultiProcessorCount"])
        self.most_shared_bytes = int(self._device.attributes["MaxSharedMemoryPerBlockOptin"])

    # ---- memory -----------------------------------------------------------------------------------
    def available(self) -> int:
        """Bytes of memory that may still be taken."""
        with self._device:
            free = int(self._device.mem_info[0] + self._pool.free_bytes())
            limit = int(self._pool.get_limit())
        return max(0, min(free, limit - int(self._pool.used_bytes()))) if limit else free

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """An array in device memory; of bytes for records, which CuPy does not know."""
        dtype = np.dtype(dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        if dtype.fields is not None:
            shape, dtype = (size,), np.dtype(np.uint8)
        try:
            with self._device, self._stream, self._cupy.cuda.using_allocator(self._pool.malloc):
                return self._cupy.zeros(shape, dtype)
        except self._cupy.cuda.memory.OutOfMemoryError as error:
            raise MemoryError(f"{size:,} bytes are needed, {self.available():,} are left") from error

    def adopt(self, data: Any) -> tuple[Any, int]:
        """Use a matrix in device memory where it lies; the array and its address."""
        cupy = self._cupy
        with self._device, cupy.cuda.using_allocator(self._pool.malloc):
            given = hasattr(data, "__cuda_array_interface__")
            array = cupy.asarray(data) if given else cupy.from_dlpack(data)
            if array.device.id != self._device.id:
                raise ValueError(
                    f"the data lie on GPU {array.device.id}: use device='cuda:{array.device.id}', or move them to GPU "
                    f"{self._device.id}."
                )
            array = cupy.ascontiguousarray(array, dtype=array.dtype if array.dtype in STORAGES else np.float32)
            self._device.synchronize()  # whatever stream wrote it, or converts it now
        return array, int(array.data.ptr)

    def pointer(self, array: Any) -> int:
        """Its address."""
        return int(array.data.ptr)

    def write(self, array: Any, values: Array) -> None:
        """Overwrite an array."""
        values = np.ascontiguousarray(values)
        with self._device:
            array.set(values.reshape(-1).view(np.uint8) if values.dtype.fields else values, stream=self._stream)
            self._stream.synchronize()  # the caller may change `values`

    def read(self, array: Any) -> Array:
        """Copy an array to the host, when all launches before it are done."""
        with self._device:
            values: Array = array.get(stream=self._stream)
            self._stream.synchronize()
        return values

    # ---- launches ---------------------------------------------------------------------------------
    def launch(self, kernel: Kernel, blocks: int, *arguments: Any) -> None:
        """Start a kernel."""
        with self._device:
            function = self._function(kernel)
            if self._resolving:
                return
            if kernel.cooperative:
                self._check_room(kernel, function, blocks)
            function(
                (blocks,), (THREADS,), arguments, shared_mem=kernel.shared_bytes, stream=self._stream,
                enable_cooperative_groups=kernel.cooperative,
            )  # fmt: skip

    def _function(self, kernel: Kernel) -> Any:
        """A compiled kernel; from a file that came with GeSdA, CuPy's cache, or the compiler."""
        if kernel in self._kernels:
            return self._kernels[kernel]
        key = kernel.module, kernel.panel
        if key not in self._modules:
            file = compiled_file(self._precision, *key, self._capability)
            if file is not None:
                self._modules[key] = self._cupy.RawModule(path=file)
            else:
                options = compile_options(self._precision, *key)
                self._modules[key] = self._cupy.RawModule(code=kernel_source(), options=options)
        raw = self._modules[key].get_function(kernel.entry)
        if kernel.shared_bytes:
            # The limit is the function's, which others may have with more; how much it gets is said at the launch.
            raw.max_dynamic_shared_size_bytes = self.most_shared_bytes
        # Not through `raw`: it takes cooperative launches only from modules linked with the device runtime.
        self._kernels[kernel] = raw.kernel
        return raw.kernel

    def _check_room(self, kernel: Kernel, function: Any, blocks: int) -> None:
        """CuPy would launch fewer blocks, of which the rest would wait for ever."""
        fits = self._cupy.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(
            function.ptr, THREADS, kernel.shared_bytes
        )
        if blocks > fits * self.multiprocessors:
            raise RuntimeError(
                f"variant='persistent' needs {blocks} blocks on the device at once, {self.name} has room for "
                f"{fits * self.multiprocessors}; use variant='auto'."
            )

    def capture(self, launches: Callable[[], None]) -> Any:
        """Make a CUDA graph of launches without starting them."""
        self._resolving = True  # nothing may be compiled or loaded while a stream is captured
        try:
            launches()
        finally:
            self._resolving = False
        with self._device, self._stream:
            self._stream.begin_capture()
            try:
                launches()
            finally:
                graph = self._stream.end_capture()
            graph.upload(stream=self._stream)
        return graph

    def replay(self, graph: Any) -> None:
        """Start a graph."""
        with self._device:
            graph.launch(stream=self._stream)

    def pace(self) -> None:
        """Wait until only few of the launches are left that were followed by this."""
        with self._device:
            event = self._cupy.cuda.Event(block=True, disable_timing=True)
            event.record(self._stream)
            self._running.append(event)
            while len(self._running) > _AHEAD:
                self._running.popleft().synchronize()

    def synchronize(self) -> None:
        """Wait for all launches."""
        self._stream.synchronize()
        self._running.clear()

    # ---- data that stream ----
    def pinned(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array in host memory that the device reads while the host goes on."""
        count = int(np.prod(shape))
        with self._device:
            memory = self._cupy.cuda.alloc_pinned_memory(max(1, count * np.dtype(dtype).itemsize))
        return np.frombuffer(memory, dtype, count).reshape(shape)

    def copy(self, array: Any, first_row: int, values: Array) -> Any:
        """Start copying pinned rows to rows of an array."""
        with self._device:
            array[first_row : first_row + len(values)].set(values, stream=self._copies)
            event = self._cupy.cuda.Event(block=True, disable_timing=True)
            event.record(self._copies)
        return event

    def wait(self, copy: Any) -> None:
        """Let the host wait for a copy."""
        copy.synchronize()

    def fork(self) -> None:
        """Let the copies that follow wait for the launches so far."""
        self._follow(self._copies, self._stream)

    def join(self) -> None:
        """Let the launches that follow wait for the copies so far."""
        self._follow(self._stream, self._copies)

    def _follow(self, later: Any, earlier: Any) -> None:
        with self._device:
            event = self._cupy.cuda.Event(disable_timing=True)
            event.record(earlier)
            later.wait_event(event)


def _has_compiler(cupy: Any) -> bool:
    try:
        cupy.cuda.nvrtc.getVersion()
    except Exception:  # of the loader: whatever it is, nothing can be compiled
        return False
    return True
