"""A stand-in for CuPy whose GPU is the emulator: what `gesda.engine.cuda.cupy_device` uses of it, and no more.

It refuses what CuPy refuses: arrays of other types or shapes to copy, launches of other argument types, kernels that
are loaded while a stream is captured, more shared memory than a kernel may have.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
from emulated import EmulatedDevice

from gesda.engine.cuda.device import Kernel
from gesda.engine.cuda.records import THREADS
from gesda.engine.cuda.source import ARITHMETICS, MODULES


class OutOfMemoryError(MemoryError):
    """As CuPy's."""


class CUDARuntimeError(RuntimeError):
    """As CuPy's."""


class Array(np.ndarray):
    """As cupy.ndarray."""

    runs: EmulatedDevice | None = None
    device = SimpleNamespace(id=0)

    def __array_finalize__(self, other: Any) -> None:
        self.runs = getattr(other, "runs", None)

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.ctypes.data)

    def set(self, values: np.ndarray, stream: Any = None) -> None:
        if values.dtype != self.dtype:
            raise TypeError(f"{values.dtype} array cannot be set to {self.dtype} array")
        if values.shape != self.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {values.shape}")
        assert self.flags.c_contiguous and values.flags.c_contiguous
        if stream.queue == "copies":
            self.runs.copy(np.asarray(self), 0, values)
        else:
            self.runs.write(np.asarray(self), values)

    def get(self, stream: Any = None) -> np.ndarray:
        assert stream.queue == "launches"
        return np.asarray(self.runs.read(np.asarray(self)))


def emulated_cupy(runs: EmulatedDevice, *, capability: str = "90", occupancy: int = 1) -> Any:
    """A module like cupy; its GPU has the multiprocessors, the memory and the panels of an emulated device."""
    queues = iter(("launches", "copies"))
    capturing = []

    class Stream:
        def __init__(self, non_blocking: bool = False) -> None:
            assert non_blocking
            self.queue = next(queues)

        def __enter__(self) -> Stream:
            return self

        def __exit__(self, *_: Any) -> None:
            pass

        def begin_capture(self) -> None:
            assert not capturing
            capturing.append(self)
            runs._captured = []

        def end_capture(self) -> Any:
            capturing.pop()
            launches, runs._captured = runs._captured, None
            return SimpleNamespace(launch=lambda stream: runs.replay(launches), upload=lambda stream: None)

        def synchronize(self) -> None:
            assert not capturing
            runs._run_until(runs._record(self.queue))

        def wait_event(self, event: Event) -> None:
            runs._follow(self.queue, event.happens)

    class Event:
        def __init__(self, block: bool = False, disable_timing: bool = False) -> None:
            self.happens: Any = None

        def record(self, stream: Stream) -> None:
            self.happens = runs._record(stream.queue)

        def synchronize(self) -> None:
            runs._run_until(self.happens)

    class Device:
        compute_capability = capability
        attributes = {  # noqa: RUF012
            "MultiProcessorCount": runs.multiprocessors,
            "MaxSharedMemoryPerBlockOptin": runs.most_shared_bytes,
        }

        def __init__(self, index: int) -> None:
            self.id = index

        def __enter__(self) -> Device:
            return self

        def __exit__(self, *_: Any) -> None:
            pass

        @property
        def mem_info(self) -> tuple[int, int]:
            return runs.available(), runs.memory

        def synchronize(self) -> None:
            runs.synchronize()

    class MemoryPool:
        limit = 0

        def set_limit(self, size: int) -> None:
            self.limit = size

        def get_limit(self) -> int:
            return self.limit

        def free_bytes(self) -> int:
            return 0

        def used_bytes(self) -> int:
            return runs.memory - runs.available()

        def malloc(self, size: int) -> None:
            if self.limit and self.used_bytes() + size > self.limit:
                raise OutOfMemoryError(f"Out of memory allocating {size:,} bytes")

    class RawModule:
        def __init__(self, code: str, options: tuple[str, ...]) -> None:
            assert "#include" not in code and not capturing
            found = dict(re.findall(r"-DGESDA_(\w+)=(\d+)", " ".join(options)))
            self.module = list(MODULES)[int(found["MODULE"])]
            self.panel = int(found["PANEL_TILES"]), int(found["PANEL_COLUMNS"])
            self.precision = list(ARITHMETICS)[int(found["ARITHMETIC"])]
            assert self.panel in ((0, 0), *runs.panels)

        def get_function(self, name: str) -> Any:
            assert not capturing
            return RawKernel(self, name)

    class RawKernel:
        max_dynamic_shared_size_bytes = 48 * 1024

        def __init__(self, module: RawModule, name: str) -> None:
            self.module, self.name = module, name

        @property
        def kernel(self) -> Any:
            def launch(
                grid: Any, block: Any, arguments: Any, shared_mem: int, stream: Stream, enable_cooperative_groups: bool
            ) -> None:
                assert stream.queue == "launches" and block == (THREADS,)
                assert shared_mem <= self.max_dynamic_shared_size_bytes <= runs.most_shared_bytes
                assert all(type(argument) in (np.uint64, np.int32) for argument in arguments)
                kernel = Kernel(self.module.module, self.name, shared_mem, self.module.panel, enable_cooperative_groups)
                runs.launch(kernel, grid[0], *arguments)

            launch.ptr = 1  # type: ignore[attr-defined]
            return launch

    pools = []

    @contextmanager
    def using_allocator(malloc: Any) -> Any:
        pools.append(malloc)
        yield
        pools.pop()

    def zeros(shape: tuple[int, ...], dtype: Any) -> Array:
        pools[-1](int(np.prod(shape)) * np.dtype(dtype).itemsize)
        try:
            array = runs.zeros(shape, dtype).view(Array)
        except MemoryError as error:
            raise OutOfMemoryError(str(error)) from error
        array.runs = runs
        return array

    return SimpleNamespace(
        zeros=zeros,
        RawModule=RawModule,
        asarray=lambda data: np.asarray(data).view(Array),
        ascontiguousarray=lambda array, dtype: np.ascontiguousarray(array, dtype).view(Array),
        cuda=SimpleNamespace(
            Device=Device,
            Stream=Stream,
            Event=Event,
            MemoryPool=MemoryPool,
            using_allocator=using_allocator,
            alloc_pinned_memory=bytearray,
            runtime=SimpleNamespace(
                CUDARuntimeError=CUDARuntimeError, getDeviceProperties=lambda index: {"name": b"an emulated GPU"}
            ),
            driver=SimpleNamespace(occupancyMaxActiveBlocksPerMultiprocessor=lambda *_: occupancy),
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            nvrtc=SimpleNamespace(getVersion=lambda: (13, 0)),
        ),
    )
