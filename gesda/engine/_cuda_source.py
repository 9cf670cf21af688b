"""The kernels' source as one string: CuPy's cache of compiled kernels does not see included files."""

from __future__ import annotations

import importlib.resources
import re

#: Values of GESDA_ARITHMETIC, by precision.
ARITHMETICS = {"fp32": 0, "tf32": 1, "fp16": 2}
_INCLUDE = re.compile(r'^#include "(?:.*/)?([\w.]+)"$', re.MULTILINE)


def kernel_source() -> str:
    """Put kernels.cu and all that it includes together, each file once.

    Returns
    -------
    str
    """
    seen: set[str] = set()
    folder = importlib.resources.files("gesda.kernels")

    def text_of(name: str) -> str:
        if name in seen or name == "emulated_device.hpp":  # of the tests
            return ""
        seen.add(name)
        return _INCLUDE.sub(lambda match: text_of(match[1]), folder.joinpath(name).read_text(encoding="utf-8"))

    return text_of("kernels.cu").replace("#pragma once\n", "")


def macros(precision: str, panel: tuple[int, int]) -> tuple[str, ...]:
    """Definitions for the compiler: a precision and a shape of panels (tiles of 16 rows, columns)."""
    values = {
        "GESDA_ARITHMETIC": ARITHMETICS[precision],
        "GESDA_PANEL_TILES": panel[0],
        "GESDA_PANEL_COLUMNS": panel[1],
    }
    return tuple(f"-D{name}={value}" for name, value in values.items())


def compile_options(precision: str, panel: tuple[int, int]) -> tuple[str, ...]:
    """All options of NVRTC."""
    return ("-std=c++17", "-default-device", *macros(precision, panel))
