"""``gesda warmup``: compile the GPU's kernels ahead, and check that the GPU computes what it should."""

from __future__ import annotations

import argparse
import time
from typing import Any

from gesda.cli._common import UsageError, emit, note
from gesda.engine import check_gpu, compile_kernels


def run(arguments: argparse.Namespace) -> int:
    """Prepare this machine's GPU; or, with targets, write compiled kernels for other machines."""
    if arguments.targets is None:
        if arguments.output is not None:
            raise UsageError("--output goes with --targets.")
        return _prepare(arguments)
    started, files = time.perf_counter(), []
    for path in compile_kernels(arguments.targets, arguments.precision, arguments.output):
        note(path.name)
        files.append(path)
    seconds = time.perf_counter() - started
    total = sum(path.stat().st_size for path in files)
    folder = str(files[0].parent if files else arguments.output)
    result = {"command": "warmup", "files": len(files), "bytes": total, "folder": folder, "seconds": seconds}
    emit(arguments, result, [f"{len(files)} files, {total:,} bytes in {seconds:.1f} s: {folder}"])
    return 0


def _prepare(arguments: argparse.Namespace) -> int:
    results: list[dict[str, Any]] = []
    for precision in arguments.precision:
        started = time.perf_counter()
        name, differences = check_gpu(precision, arguments.device or "cuda")
        seconds = time.perf_counter() - started
        results.append({"device": name, "precision": precision, "seconds": seconds, "differences": differences})
    lines = [
        f"{row['device']}, {row['precision']}: compiled and checked in {row['seconds']:.1f} s; largest differences "
        f"from the reference: " + ", ".join(f"{phase} {value:.1g}" for phase, value in row["differences"].items())
        for row in results
    ]
    emit(arguments, {"command": "warmup", "results": results}, lines)
    return 0
