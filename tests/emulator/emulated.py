"""The kernels on an emulator (emulator.hpp) as a device of the cuda engine."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
import weakref
from collections import deque
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from gesda.engine.cuda.source import macros

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which("g++") or shutil.which("clang++")
_FOLDER = tempfile.TemporaryDirectory(prefix="gesda-emulator-")
GUARD = 64  # bytes before and after every array that no kernel may write
MESSAGE = 1000


class Launch(ctypes.Structure):
    """As in library.cpp."""

    _fields_ = [(name, ctypes.c_int) for name in ("blocks", "shared_bytes", "cooperative", "message_size")] + [
        ("seed", ctypes.c_ulonglong),
        ("message", ctypes.c_char_p),
    ]


def compile_kernels(kernels: Path, precision: str, panel: tuple[int, int], *options: str) -> ctypes.CDLL:
    """Compile the kernels in a folder for the emulator."""
    assert COMPILER is not None
    here = Path(__file__).parent
    with tempfile.NamedTemporaryFile(dir=_FOLDER.name, suffix=".so", delete=False) as target:
        subprocess.run(
            [COMPILER, "-std=c++17", "-O2", "-march=native", "-shared", "-fPIC", "-ffp-contract=off", *options]
            + ["-DGESDA_EMULATED", *macros(precision, panel)]
            + [f"-I{path}" for path in (kernels.parent, kernels, ROOT, here)]
            + [str(here / "library.cpp"), str(here / "emulator.cpp"), "-o", target.name],
            check=True,
        )
    return ctypes.CDLL(target.name)


@cache
def compiled_kernels(precision: str, panel: tuple[int, int]) -> ctypes.CDLL:
    """Compile the product's kernels, once a process."""
    return compile_kernels(ROOT / "kernels", precision, panel)


class Event:
    """Something that a queue has reached."""

    happened = False


class EmulatedDevice:
    """Memory with guards around each array; launches and copies in two queues that run in random turns.

    Nothing runs before somebody waits for it. Panels have one shape, so that few libraries are compiled.
    """

    name = "emulator"
    multiprocessors = 16
    most_shared_bytes = 1 << 20
    ticks_of_a_graph = 3

    def __init__(
        self,
        precision: str,
        panel: tuple[int, int] = (2, 16),
        memory: int = 1 << 40,
        library: ctypes.CDLL | None = None,
    ) -> None:
        self.panels, self.memory = (panel,), memory
        self.library = compiled_kernels(precision, panel) if library is None else library
        self._rng = np.random.default_rng()
        self._arrays: list[tuple[Any, tuple[int, int], Any]] = []
        self._captured: list[Callable[[], None]] | None = None
        self._queues: dict[str, deque[Callable[[], bool]]] = {"launches": deque(), "copies": deque()}
        self._running: deque[Event] = deque()
        self.launched: set[str] = set()  # names of kernels

    # ---- memory -----------------------------------------------------------------------------------
    def available(self) -> int:
        self.synchronize()  # launches on their way may use arrays that nobody holds any more
        self._arrays = [entry for entry in self._arrays if entry[2]() is not None]
        return self.memory - sum(end - start for _, (start, end), _ in self._arrays)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Any:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if self._captured is None and size > self.available():
            raise MemoryError(f"{size:,} bytes are needed, {self.available():,} are left")
        raw = np.full(size + 2 * GUARD + 16, 0xFF, dtype=np.uint8)
        start = GUARD + -(raw.ctypes.data + GUARD) % 16
        raw[start : start + size] = 0
        array = raw[start : start + size].view(dtype).reshape(shape)
        self._arrays.append((raw, (start, start + size), weakref.ref(array)))
        return array

    def adopt(self, data: Any) -> tuple[Any, int]:
        array = np.asarray(data.array)  # of the tests' stand-in for an array on the device
        return array, int(array.ctypes.data)

    def pointer(self, array: Any) -> int:
        return int(array.ctypes.data)

    def write(self, array: Any, values: Any) -> None:
        self.synchronize()
        array[...] = values

    def read(self, array: Any) -> Any:
        self.synchronize()
        return array.copy()

    # ---- launches ---------------------------------------------------------------------------------
    def launch(self, kernel: Any, blocks: int, *arguments: Any) -> None:
        if self._captured is not None:
            self._captured.append(lambda: self.launch(kernel, blocks, *arguments))
            return

        def run() -> bool:
            self._run(kernel, blocks, arguments)
            return True

        self._queues["launches"].append(run)

    def _run(self, kernel: Any, blocks: int, arguments: tuple[Any, ...]) -> None:
        self.launched.add(kernel.entry)
        words = [ctypes.c_void_p(int(a)) if isinstance(a, np.uint64) else ctypes.c_int(int(a)) for a in arguments]
        message = ctypes.create_string_buffer(MESSAGE)
        launch = Launch(
            blocks, kernel.shared_bytes, kernel.cooperative, MESSAGE, int(self._rng.integers(2**63)),
            ctypes.cast(message, ctypes.c_char_p),
        )  # fmt: skip
        if getattr(self.library, f"launch_{kernel.entry}")(ctypes.byref(launch), *words):
            self._clear()
            raise RuntimeError(f"{kernel.entry}{arguments}: {message.value.decode()}")
        for raw, (start, end), _ in self._arrays:
            if (raw[:start] != 0xFF).any() or (raw[end:] != 0xFF).any():
                self._clear()
                raise RuntimeError(f"{kernel.entry}{arguments} writes outside an array of {end - start} bytes")

    def capture(self, launches: Callable[[], None]) -> list[Callable[[], None]]:
        self._captured = graph = []
        launches()
        self._captured = None
        return graph

    def replay(self, graph: list[Callable[[], None]]) -> None:
        for launch in graph:
            launch()

    def pace(self) -> None:
        self._running.append(self._record("launches"))
        while len(self._running) > 2:
            self._run_until(self._running.popleft())

    def synchronize(self) -> None:
        done = self._record("launches")
        self._run_until(done)

    # ---- copies that run beside launches ----------------------------------------------------------
    def pinned(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return np.full(shape, 255, dtype=dtype) if np.dtype(dtype) == np.uint8 else np.full(shape, np.nan, dtype=dtype)

    def copy(self, array: Any, first_row: int, values: Any) -> Event:
        def run() -> bool:
            array[first_row : first_row + len(values)] = values
            return True

        self._queues["copies"].append(run)
        return self._record("copies")

    def wait(self, copy: Event) -> None:
        self._run_until(copy)

    def fork(self) -> None:
        self._follow("copies", self._record("launches"))

    def join(self) -> None:
        self._follow("launches", self._record("copies"))

    def _record(self, queue: str) -> Event:
        event = Event()

        def run() -> bool:
            event.happened = True
            return True

        self._queues[queue].append(run)
        return event

    def _follow(self, queue: str, event: Event) -> None:
        self._queues[queue].append(lambda: event.happened)

    def _run_until(self, event: Event) -> None:
        while not event.happened:
            queue = self._queues[self._rng.choice([name for name, work in self._queues.items() if work])]
            if queue[0]():
                queue.popleft()

    def _clear(self) -> None:
        for queue in self._queues.values():
            queue.clear()
