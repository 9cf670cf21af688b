"""NVRTC compiles the kernels for every target, with few enough registers and without spills. Needs no GPU."""

from __future__ import annotations

import ctypes
import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest

from gesda.engine._cuda_source import compile_options, kernel_source

#: Module, shape of panels, precision, target: every module in every precision, old and new targets, the largest shapes.
VARIANTS = (
    *(("tiles", (0, 0), precision, "sm_75") for precision in ("fp32", "fp16")),
    *(("tiles", (0, 0), precision, "sm_90") for precision in ("tf32", "fp16")),
    ("dense", (0, 0), "fp32", "sm_75"),
    ("dense", (0, 0), "fp16", "sm_87"),
    ("dense", (0, 0), "tf32", "sm_120"),
    ("panels", (2, 16), "fp32", "sm_75"),
    ("panels", (2, 24), "tf32", "sm_90"),
    ("panels", (2, 32), "fp16", "sm_87"),
    ("panels", (7, 16), "tf32", "sm_90"),
    ("panels", (7, 16), "fp32", "sm_80"),
    ("panels", (1, 8), "fp16", "sm_75"),
    ("persistent", (2, 24), "tf32", "sm_90"),
    ("persistent", (2, 24), "fp32", "sm_90"),
    ("persistent", (1, 32), "fp16", "sm_120"),
)
#: Of a thread: two blocks of 256 threads on a multiprocessor of 65536 registers, or one.
MOST_REGISTERS = {"advance": 128, "dense": 128, "tiles": 128, "panels": 255, "persistent": 255}


@cache
def nvrtc() -> ctypes.CDLL:
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(folder) for folder in (spec.submodule_search_locations if spec else None) or []]
    found = sorted(path for folder in folders for path in folder.rglob("libnvrtc.so.*") if "builtins" not in path.name)
    if not found:
        pytest.skip("needs NVRTC: pip install nvidia-cuda-nvrtc")
    return ctypes.CDLL(str(found[-1]))


def compiled(source: str, options: tuple[str, ...]) -> tuple[int, str]:
    """NVRTC's verdict and log."""
    library, program = nvrtc(), ctypes.c_void_p()
    library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None)
    words = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    status = library.nvrtcCompileProgram(program, len(options), words)
    size = ctypes.c_size_t()
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return status, log.value.decode()


@pytest.mark.parametrize(("module", "panel", "precision", "target"), VARIANTS)
def test_kernels_compile_without_spills(module, panel, precision, target):
    options = (*compile_options(precision, module, panel), f"--gpu-architecture={target}", "--ptxas-options=-v")
    status, log = compiled(kernel_source(), options)
    assert status == 0, log
    parts = re.split(r"Compiling entry function '(\w+)'", log)[1:]
    logs = dict(zip(parts[::2], parts[1::2], strict=True))
    assert sorted(logs) == sorted(("advance", module)), log
    for kernel, words in logs.items():
        assert re.findall(r"(\d+) bytes (?:stack frame|spill)", words) == ["0", "0", "0"], words
        assert int(re.search(r"Used (\d+) registers", words)[1]) <= MOST_REGISTERS[kernel], words


def test_the_source_is_one_string_without_includes():
    source = kernel_source()
    assert "#include" not in source.replace('#include "emulated_device.hpp"', "")
    assert source.count("GESDA_FN void philox(") == 1
    assert "GESDA_KERNEL(256, 2) tiles(" in source
