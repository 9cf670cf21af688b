"""The kernels' source as one string: CuPy's cache of compiled kernels does not see included files.

Standard library only, and nothing of gesda: setup.py runs this before anything is installed.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

#: Values of GESDA_ARITHMETIC, by precision.
ARITHMETICS = {"fp32": 0, "tf32": 1, "fp16": 2}
#: Values of GESDA_MODULE: what is compiled together.
MODULES = {"tiles": 0, "panels": 1, "persistent": 2, "dense": 3}
_INCLUDE = re.compile(r'^#include "(?:.*/)?([\w.]+)"$', re.MULTILINE)


def kernel_folder() -> Traversable:
    """Where the kernels lie: the package `gesda.kernels`, or a checkout's folder before anything is installed."""
    try:
        return importlib.resources.files("gesda.kernels")
    except ModuleNotFoundError:
        return Path(__file__).parents[3] / "kernels"


@cache
def kernel_source() -> str:
    """Put kernels.cu and all that it includes together, each file once.

    Returns
    -------
    str
    """
    seen: set[str] = set()
    folder = kernel_folder()

    def text_of(name: str) -> str:
        if name in seen or name == "emulated_device.hpp":  # of the tests
            return ""
        seen.add(name)
        return _INCLUDE.sub(lambda match: text_of(match[1]), folder.joinpath(name).read_text(encoding="utf-8"))

    return text_of("kernels.cu").replace("#pragma once\n", "")


@cache
def kernel_hash() -> str:
    """A short name of this version of the kernels."""
    return hashlib.sha256(kernel_source().encode()).hexdigest()[:16]


def macros(precision: str, panel: tuple[int, int]) -> tuple[str, ...]:
    """Definitions for the compiler: a precision and a shape of panels (tiles of 16 rows, columns)."""
    values = {
        "GESDA_ARITHMETIC": ARITHMETICS[precision],
        "GESDA_PANEL_TILES": panel[0],
        "GESDA_PANEL_COLUMNS": panel[1],
    }
    return tuple(f"-D{name}={value}" for name, value in values.items())


def compile_options(precision: str, module: str, panel: tuple[int, int]) -> tuple[str, ...]:
    """Options of NVRTC; CuPy adds the target's, ours are for every one."""
    return ("-std=c++17", f"-DGESDA_MODULE={MODULES[module]}", *macros(precision, panel))


def cubin_name(precision: str, module: str, panel: tuple[int, int], capability: int) -> str:
    """File name of a module that was compiled ahead for a compute capability (tenfold)."""
    shape = f"-{panel[0]}x{panel[1]}" if panel != (0, 0) else ""
    return f"{kernel_hash()}-{module}{shape}-{precision}-sm_{capability}.cubin"


def compiled_file(precision: str, module: str, panel: tuple[int, int], capability: int) -> str | None:
    """A module compiled ahead that runs on a compute capability: for it, or an older one with the same major number."""
    folder = kernel_folder().joinpath("compiled")
    for older in range(capability, capability // 10 * 10 - 1, -1):
        file = folder.joinpath(cubin_name(precision, module, panel, older))
        if file.is_file():
            return str(file)
    return None
