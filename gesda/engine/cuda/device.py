"""What the cuda engine asks of a device, and what every run of kernels on one needs.

May import its own package.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from gesda.engine import Array
from gesda.engine.cuda.records import PART, SHARED_BYTES

#: A launch of many ticks should be over after that.
_LAUNCH_SECONDS = 0.02
#: Operations a second of a multiprocessor of a slow device (an embedded board in strict float32).
_SLOW_RATE = 5e10


class Kernel(NamedTuple):
    """A kernel of kernels/kernels.cu."""

    module: str
    entry: str
    shared_bytes: int
    panel: tuple[int, int] = (0, 0)  # tiles of 16 rows of a minibatch, columns; of the modules of panels
    cooperative: bool = False  # all blocks have to be on the device at once


class Device(Protocol):
    """Memory and launches: CuPy on a GPU, an emulator in the tests.

    Launches and graphs run one after another, copies to the device too; the two run side by side but for `join` and
    `fork`.
    """

    name: str
    multiprocessors: int
    most_shared_bytes: int  # that a block may have
    ticks_of_a_graph: int
    panels: tuple[tuple[int, int], ...]  # shapes that may be used, of `gesda.engine.cuda.variants.SHAPES`

    def available(self) -> int:
        """Bytes of memory that may still be taken."""

    def adopt(self, data: Any) -> tuple[Any, int]:
        """Use a matrix in device memory where it lies; the array and its address.

        By ``__cuda_array_interface__`` or DLPack. It is copied only where its rows are not contiguous or its
        values are not float32, float16 or uint8; a launch that follows sees what is written there now.
        """

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """An array in device memory, aligned to 16 bytes, filled with zeros.

        Raises
        ------
        MemoryError
            Where there is no room.
        """

    def pointer(self, array: Any) -> int:
        """Its address."""

    def write(self, array: Any, values: Array) -> None:
        """Overwrite an array, when all launches before are done."""

    def read(self, array: Any) -> Array:
        """Copy an array to the host, when all launches before are done."""

    def launch(self, kernel: Kernel, blocks: int, *arguments: Any) -> None:
        """Start a kernel of `THREADS` threads a block; do not wait for it. Arguments are NumPy scalars."""

    def capture(self, launches: Callable[[], None]) -> Any:
        """Make a graph of launches without starting them."""

    def replay(self, graph: Any) -> None:
        """Start a graph."""

    def pace(self) -> None:
        """Wait until only few of the launches are left that were followed by this.

        An interruption then waits for little, and another program (a desktop's display) gets its turn.
        """

    def synchronize(self) -> None:
        """Wait for all launches."""

    # ---- data that stream ----
    def pinned(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array in host memory that the device can read while the host goes on."""

    def copy(self, array: Any, first_row: int, values: Array) -> Any:
        """Start copying pinned rows to rows of an array; a handle for `wait`."""

    def wait(self, copy: Any) -> None:
        """Let the host wait for a copy."""

    def fork(self) -> None:
        """Let the copies that follow wait for the launches so far."""

    def join(self) -> None:
        """Let the launches that follow wait for the copies so far."""


class Buffers:
    """Arrays in device memory that live as long as this."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._kept: list[Any] = []

    def keep(self, array: Any) -> int:
        """Keep an array; its address."""
        self._kept.append(array)
        return self.device.pointer(array)

    def zeros(self, *shape: int, dtype: Any = np.float32) -> int:
        """Make an array; its address."""
        return self.keep(self.device.zeros(shape, dtype))

    def put(self, values: Array, dtype: Any = None) -> int:
        """Copy an array to the device; its address there."""
        values = np.ascontiguousarray(values, dtype=dtype)
        array = self.device.zeros(values.shape, values.dtype)
        self.device.write(array, values)
        return self.keep(array)


class Phases:
    """Deals the blocks of each launch out among its parts."""

    def __init__(self) -> None:
        self._parts: list[tuple[int, int, int, int]] = []
        self.launches: list[tuple[int, int, int]] = []  # first part, last part, blocks

    def add(self, *parts: tuple[int, int, int]) -> None:
        """Add a launch of (work, layer, blocks); of nothing for no parts."""
        first, blocks = len(self._parts), 0
        for work, layer, count in parts:
            self._parts.append((work, layer, blocks, count))
            blocks += count
        self.launches.append((first, len(self._parts) - 1, blocks))

    def records(self) -> Array:
        """All parts."""
        return np.array(self._parts, dtype=PART)

    def launch(self, device: Device, kernel: Kernel, record: int, tick: int, phases: slice = slice(None)) -> None:
        """Launch the phases of a tick."""
        for first, last, blocks in self.launches[phases]:
            if blocks:
                device.launch(kernel, blocks, np.uint64(record), np.int32(first), np.int32(last), np.int32(tick))


class Ticks:
    """Launches of many ticks at a time, with the number of the first one in device memory.

    Parameters
    ----------
    device : Device
    kernel : Kernel
        Its module's ``advance`` moves the tick on.
    n_ticks : int
    seconds : float
        What a tick takes, roughly and rather too long.
    most : int
        Ticks to launch at a time.
    launch : function
        Launches the work of as many ticks as it is told. A graph of that is made, unless the kernel is cooperative
        and does many ticks in one launch.
    """

    def __init__(
        self,
        device: Device,
        kernel: Kernel,
        n_ticks: int,
        seconds: float,
        most: int,
        launch: Callable[[int], None],
    ) -> None:
        self._device, self._launch, self._is_graph = device, launch, not kernel.cooperative
        self._advance = Kernel(kernel.module, "advance", 0, kernel.panel)
        self._counters = device.zeros((2,), np.int32)  # tick, arrivals of blocks
        self.tick = device.pointer(self._counters)
        self.arrivals = self.tick + 4
        self.stride = max(1, min(device.ticks_of_a_graph, n_ticks, most, int(_LAUNCH_SECONDS / seconds)))
        self._graph: Any = None

    def restart(self) -> None:
        """Begin again at tick 0."""
        self._device.write(self._counters, np.zeros(2, np.int32))
        if self._graph is None and self._is_graph:
            self._graph = self._device.capture(self._some)

    def go_on(self) -> None:
        """Launch the next `stride` ticks."""
        if self._is_graph:
            self._device.replay(self._graph)
        else:
            self._some()
        self._device.pace()

    def _some(self) -> None:
        self._launch(self.stride)
        self._device.launch(self._advance, 1, np.uint64(self.tick), np.int32(self.stride), np.uint64(self.arrivals))


def slow_seconds(device: Device, operations: float) -> float:
    """What floating-point operations take on a slow device of so many multiprocessors."""
    return operations / (_SLOW_RATE * device.multiprocessors) + 1e-6


def tile_kernel(module: str) -> Kernel:
    """A kernel of tiles (kernels/product.cuh)."""
    return Kernel(module, module, SHARED_BYTES)
