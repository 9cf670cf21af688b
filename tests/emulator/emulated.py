"""The kernels on an emulator (emulator.hpp) as a device of the cuda engine."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from gesda.engine._cuda_source import macros

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which("g++") or shutil.which("clang++")
_FOLDER = tempfile.TemporaryDirectory(prefix="gesda-emulator-")
GUARD = 64  # bytes before and after every array that no kernel may write


@cache
def library(precision: str) -> ctypes.CDLL:
    """Compile the kernels for the emulator, once a process."""
    assert COMPILER is not None
    target, here = Path(_FOLDER.name) / f"emulated-{precision}.so", Path(__file__).parent
    subprocess.run(
        [COMPILER, "-std=c++17", "-O2", "-g", "-shared", "-fPIC", "-ffp-contract=off"]
        + ["-DGESDA_EMULATED", *macros(precision, EmulatedDevice.panel)]
        + [f"-I{path}" for path in (ROOT, ROOT / "kernels", here)]
        + [str(here / "library.cpp"), str(here / "emulator.cpp"), "-o", str(target)],
        check=True,
    )
    return ctypes.CDLL(str(target))


class EmulatedDevice:
    """Memory with guards around each array, and launches in random order."""

    ticks_of_a_graph = 3
    panel = (2, 16)

    def __init__(self, precision: str) -> None:
        self._library, self._rng = library(precision), np.random.default_rng()
        self._memory: list[tuple[Any, Any]] = []
        self._captured: list[tuple[Any, ...]] | None = None

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Any:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        raw = np.full(size + 2 * GUARD + 16, 0xFF, dtype=np.uint8)
        start = GUARD + -(raw.ctypes.data + GUARD) % 16
        raw[start : start + size] = 0
        array = raw[start : start + size].view(dtype).reshape(shape)
        self._memory.append((raw, (start, start + size)))
        return array

    def pointer(self, array: Any) -> int:
        return int(array.ctypes.data)

    def write(self, array: Any, values: Any) -> None:
        array[...] = values

    def read(self, array: Any) -> Any:
        return array.copy()

    def synchronize(self) -> None:
        pass

    def capture(self, launches: Callable[[], None]) -> list[tuple[Any, ...]]:
        self._captured = graph = []
        launches()
        self._captured = None
        return graph

    def replay(self, graph: list[tuple[Any, ...]]) -> None:
        for launch in graph:
            self.launch(*launch)

    def launch(self, kernel: str, blocks: int, *arguments: int) -> None:
        if self._captured is not None:
            self._captured.append((kernel, blocks, *arguments))
            return
        record, *numbers = arguments
        message = ctypes.create_string_buffer(1000)
        seed = ctypes.c_ulonglong(self._rng.integers(2**63))
        run = getattr(self._library, f"launch_{kernel}")
        if run(blocks, ctypes.c_void_p(record), *numbers, seed, message, len(message)):
            raise RuntimeError(f"{kernel}{tuple(numbers)}: {message.value.decode()}")
        for raw, (start, end) in self._memory:
            if (raw[:start] != 0xFF).any() or (raw[end:] != 0xFF).any():
                raise RuntimeError(f"{kernel}{tuple(numbers)} writes outside an array of {end - start} bytes")
