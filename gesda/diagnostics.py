"""What this installation consists of and what this machine offers, for bug reports and for `gesda info`.

Nothing here starts a thread pool or touches a GPU: packages are asked for their version through their
metadata, graphics cards through the driver's files. May import `gesda.engine`.
"""

from __future__ import annotations

import importlib
import os
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import TextIO

_CORE = ("numpy", "scipy", "scikit-learn", "safetensors", "tqdm")
_OPTIONAL = ("matplotlib", "pandas", "polars", "numba", "cupy")


def version_info() -> dict[str, dict[str, str]]:
    """Collect what a bug report needs.

    Returns
    -------
    dict of dict of str
        Sections ``"GeSdA"`` (version, variants of the compiled core), ``"system"`` (Python, platform, CPU,
        usable cores, GPU) and ``"packages"`` (versions, or "not installed").

    Examples
    --------
    >>> sorted(version_info())
    ['GeSdA', 'packages', 'system']
    """
    return {
        "GeSdA": {"version": _own_version(), **_core_variants()},
        "system": {
            "python": sys.version.split()[0] + f" ({platform.python_implementation()})",
            "executable": sys.executable,
            "platform": platform.platform(),
            "cpu": _cpu_name(),
            "usable cores": str(usable_cores()),
            "gpu": _gpu_names(),
        },
        "packages": {name: _package_version(name) for name in (*_CORE, *_OPTIONAL)},
    }


def show_versions(file: TextIO | None = None) -> None:
    """Print what a bug report needs.

    Parameters
    ----------
    file : text file, optional
        Where to; standard output by default.

    Examples
    --------
    >>> show_versions()  # doctest: +ELLIPSIS
    GeSdA
        version: ...
    """
    for section, entries in version_info().items():
        print(section, file=file)
        width = max(map(len, entries))
        for name, value in entries.items():
            print(f"    {name + ':':{width + 1}} {value}", file=file)


def usable_cores() -> int:
    """Cores that this process may use, which can be fewer than the machine has.

    Returns
    -------
    int
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _own_version() -> str:
    from gesda import __version__

    return __version__


def _core_variants() -> dict[str, str]:
    """Tell the instruction sets that the compiled core can use here, and the one in use."""
    try:
        cpu = importlib.import_module("gesda.engine.cpu")
        return {
            "core": str(cpu.active_variant()),
            "core variants": ", ".join(map(str, cpu.available_variants())),
            "core bf16": "AVX512-BF16" if cpu.has_bf16() else "no",
        }
    except (ImportError, AttributeError) as error:
        return {"core": f"not available ({error})", "core variants": "none"}


def _package_version(name: str) -> str:
    # CuPy's distributions are named after the CUDA release that they are built for.
    names = (name, "cupy-cuda13x", "cupy-cuda12x", "cupy-cuda11x") if name == "cupy" else (name,)
    for candidate in names:
        try:
            return metadata.version(candidate)
        except metadata.PackageNotFoundError:
            continue
    return "not installed"


def _cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    try:
        found = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine() or "unknown"


def _gpu_names(driver: Path = Path("/proc/driver/nvidia")) -> str:
    """NVIDIA's cards by the driver's own files, since asking CUDA would create a context."""
    try:
        version = re.search(r"\b\d+\.\d+(\.\d+)?\b", (driver / "version").read_text())
        names = [
            match.group(1).strip()
            for card in sorted((driver / "gpus").glob("*/information"))
            if (match := re.search(r"^Model:\s*(.+)$", card.read_text(), re.MULTILINE))
        ]
    except OSError:
        return "none found"
    if not names:
        return "none found"
    return f"{', '.join(names)} (driver {version.group(0) if version else 'unknown'})"
