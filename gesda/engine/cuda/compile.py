"""The kernels compiled ahead, with NVRTC and without a GPU: files that a device without a compiler loads.

Standard library only, and nothing of gesda but `source.py`: setup.py runs this before anything is installed.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

#: What is compiled ahead, module and shape of panels: one shape for each size of minibatch.
AHEAD = (
    ("tiles", (0, 0)),
    ("dense", (0, 0)),
    ("panels", (1, 16)),
    ("panels", (2, 16)),
    ("panels", (2, 24)),
    ("panels", (4, 16)),
    ("panels", (7, 8)),
)
TARGETS = ("sm_75", "sm_80", "sm_86", "sm_87", "sm_89", "sm_90", "sm_120")


class CompileError(RuntimeError):
    """The compiler's own words."""


@cache
def nvrtc() -> ctypes.CDLL:
    """NVIDIA's run-time compiler: the wheel ``nvidia-cuda-nvrtc``, or that of a CUDA toolkit.

    Raises
    ------
    RuntimeError
        Without one.
    """
    for candidate in _libraries():
        try:
            return ctypes.CDLL(candidate)
        except OSError:
            continue
    raise RuntimeError("compiling kernels ahead needs NVRTC: pip install nvidia-cuda-nvrtc, or a CUDA toolkit.")


def _libraries() -> Iterator[str]:
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations if spec else None) or ():
        for path in sorted(Path(folder).rglob("libnvrtc.so.*"), reverse=True):
            if "builtins" not in path.name:
                yield str(path)
    found = ctypes.util.find_library("nvrtc")
    if found is not None:
        yield found


def compile_source(source: str, options: Sequence[str]) -> tuple[bytes, str]:
    """Compile CUDA C++ for a real architecture (``--gpu-architecture=sm_90`` among the options).

    Returns
    -------
    cubin : bytes
    log : str

    Raises
    ------
    CompileError
        With the compiler's log.
    RuntimeError
        Without NVRTC.
    """
    library, program = nvrtc(), ctypes.c_void_p()
    library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None)
    try:
        words = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        status = library.nvrtcCompileProgram(program, len(options), words)
        log = _answer(library.nvrtcGetProgramLogSize, library.nvrtcGetProgramLog, program).rstrip(b"\0").decode()
        if status:
            raise CompileError(log)
        return _answer(library.nvrtcGetCUBINSize, library.nvrtcGetCUBIN, program), log
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _answer(get_size: ctypes._NamedFuncPointer, get: ctypes._NamedFuncPointer, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    get_size(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    get(program, text)
    return text.raw


def compile_ahead(
    source: ModuleType, targets: Sequence[str], precisions: Sequence[str], folder: Path
) -> Iterator[Path]:
    """Write a file for each module, precision and target; yield each when it is there.

    Parameters
    ----------
    source : module
        `gesda.engine.cuda.source`.
    targets : sequence of str
        Such as "sm_87"; "all" means `TARGETS`.
    precisions : sequence of str
        TF32 is left out for targets before sm_80, which do not have it.
    folder : Path
        It is made, and files of other versions of the kernels are removed from it.
    """
    targets = TARGETS if list(targets) == ["all"] else targets
    unknown = [target for target in targets if not (target.startswith("sm_") and target[3:].isdecimal())]
    if unknown:
        raise ValueError(f"targets are named sm_75 to sm_120; got {unknown[0]!r}.")
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.cubin"):
        if not path.name.startswith(source.kernel_hash()):
            path.unlink()
    for target in targets:
        for precision in precisions:
            if precision == "tf32" and int(target[3:]) < 80:
                continue
            for module, panel in AHEAD:
                options = (*source.compile_options(precision, module, panel), "-ftz=true")
                cubin, _ = compile_source(source.kernel_source(), (*options, f"--gpu-architecture={target}"))
                path = folder / source.cubin_name(precision, module, panel, int(target[3:]))
                unfinished = path.with_suffix(".part")
                unfinished.write_bytes(cubin)
                os.replace(unfinished, path)
                yield path
