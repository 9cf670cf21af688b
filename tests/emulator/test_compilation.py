"""NVRTC compiles the kernels for every target, with few enough registers and without spills. Needs no GPU."""

from __future__ import annotations

import os
import re

import pytest

from gesda.engine.cuda import compile as ahead
from gesda.engine.cuda import source
from gesda.engine.cuda.compile import CompileError, compile_ahead, compile_source, nvrtc
from gesda.engine.cuda.source import compile_options, compiled_file, kernel_source
from gesda.engine.cuda.variants import SHAPES

#: Module, shape of panels, precision, target: every module in every precision, old and new targets, the largest shapes.
#: GESDA_ALL_KERNELS=1 compiles all.
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
if os.environ.get("GESDA_ALL_KERNELS"):  # half an hour on two cores
    VARIANTS = tuple(
        (module, panel, precision, target)
        for target in ahead.TARGETS
        for precision in ("fp32", "tf32", "fp16")
        if target != "sm_75" or precision != "tf32"
        for module, panels in (
            ("tiles", [(0, 0)]),
            ("dense", [(0, 0)]),
            ("panels", SHAPES),
            ("persistent", [shape for shape in SHAPES if shape[0] * shape[1] <= 64]),
        )
        for panel in panels
    )
#: Of a thread: two blocks of 256 threads on a multiprocessor of 65536 registers, or one.
MOST_REGISTERS = {"advance": 128, "dense": 128, "tiles": 128, "panels": 255, "persistent": 255}


@pytest.fixture(autouse=True)
def compiler():
    try:
        nvrtc()
    except RuntimeError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("module", "panel", "precision", "target"), VARIANTS)
def test_kernels_compile_without_spills(module, panel, precision, target):
    options = (*compile_options(precision, module, panel), f"--gpu-architecture={target}", "--ptxas-options=-v")
    cubin, log = compile_source(kernel_source(), options)
    assert cubin.startswith(b"\x7fELF") and "warning" not in log, log
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


def test_an_error_of_the_compiler_is_told():
    with pytest.raises(CompileError, match=r"kernels.cu\(1\): error"):
        compile_source("nonsense", ("--gpu-architecture=sm_90",))


def test_kernels_compiled_ahead_are_found_by_the_devices_they_run_on(tmp_path, monkeypatch):
    monkeypatch.setattr(ahead, "AHEAD", (("dense", (0, 0)), ("panels", (1, 8))))
    monkeypatch.setattr(source, "kernel_folder", lambda: tmp_path)
    text = kernel_source()  # known before the folder is another
    folder = tmp_path / "compiled"
    folder.mkdir()
    (folder / "0123456789abcdef-dense-fp32-sm_80.cubin").write_bytes(b"of an earlier version")
    files = list(compile_ahead(source, ("sm_75", "sm_80"), ("tf32",), folder))
    assert sorted(folder.iterdir()) == sorted(files) and len(files) == 2 and text
    for capability, found in ((80, True), (87, True), (89, True), (75, False), (90, False)):
        assert (compiled_file("tf32", "panels", (1, 8), capability) is not None) == found
    assert compiled_file("fp16", "panels", (1, 8), 80) is None
    assert compiled_file("tf32", "panels", (2, 8), 80) is None
    with pytest.raises(ValueError, match="targets are named sm_75 to sm_120; got '80'"):
        next(compile_ahead(source, ("80",), ("tf32",), folder))
