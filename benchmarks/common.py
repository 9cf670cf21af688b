"""What every benchmark shares: the environment, statistics, the machine, JSON files and tables.

Imports NumPy nowhere, so that importing this module first frees OpenBLAS from a pinned kernel
*before* NumPy loads it. Imports nothing of gesda and nothing of the other benchmarks.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

#: Version of the JSON layout; `check_document` describes it.
SCHEMA = 1

#: Variables that pin OpenBLAS to another machine's kernel or cache size and can halve NumPy's speed.
PINS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")

PACKAGES = ("numpy", "scipy", "scikit-learn", "jax", "jaxlib", "torch", "onnxruntime", "gesda")


def unpin_openblas() -> dict[str, str]:
    """Remove the variables that pin OpenBLAS; return what was removed.

    Has an effect in this process only while NumPy is not loaded yet, and in all processes that it
    starts afterwards.
    """
    return {name: os.environ.pop(name) for name in PINS if name in os.environ}


#: What was unset when this module was imported, and whether that came in time for this process.
UNPINNED = unpin_openblas()
UNPINNED_IN_TIME = not UNPINNED or "numpy" not in sys.modules


def use_checkout() -> bool:
    """Make gesda importable from this checkout where it is not installed; whether that was needed."""
    if importlib.util.find_spec("gesda") is not None:
        return str(ROOT) in sys.path
    sys.path.append(str(ROOT))
    return True


FROM_CHECKOUT = use_checkout()


def child_environment(threads: int) -> dict[str, str]:
    """Environment of a subprocess: OpenBLAS unpinned, every thread pool of the asked size, gesda importable."""
    environment = {name: value for name, value in os.environ.items() if name not in PINS}
    environment |= {f"{pool}_NUM_THREADS": str(threads) for pool in ("OMP", "OPENBLAS", "MKL")}
    environment["TF_CPP_MIN_LOG_LEVEL"] = "3"
    if FROM_CHECKOUT:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), environment.get("PYTHONPATH"))))
    return environment


def environment_report() -> list[str]:
    """Lines that tell the reader what the benchmark did to its environment."""
    if not UNPINNED:
        return [f"Environment: {' and '.join(PINS)} were not set, so OpenBLAS chooses its kernels itself."]
    removed = ", ".join(f"{name}={value}" for name, value in UNPINNED.items())
    lines = [f"Environment: unset {removed} before NumPy loads, so that OpenBLAS chooses its kernels itself."]
    if not UNPINNED_IN_TIME:
        lines.append("Warning: NumPy was loaded before; this process keeps the pinned kernels, its workers do not.")
    return lines


# ---- statistics -----------------------------------------------------------------------------------
def quantile(values: Iterable[float], fraction: float) -> float:
    """Quantile with linear interpolation; NaN for no values.

    >>> quantile([1, 2, 3, 4], 0.5)
    2.5
    """
    ordered = sorted(values)
    if not ordered:
        return math.nan
    position = fraction * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (ordered[high] - ordered[low]) * (position - low))


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Median, quartiles and the raw values of repeated measurements."""
    return {
        "median": quantile(values, 0.5),
        "lower_quartile": quantile(values, 0.25),
        "upper_quartile": quantile(values, 0.75),
        "rounds": [float(value) for value in values],
    }


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (NaN where undefined)."""
    if not values:
        return math.nan, math.nan
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def ratio_per_round(numerators: Sequence[float], denominators: Sequence[float]) -> dict[str, Any]:
    """Summary of the ratios within each round: what both share in a round (clock, neighbours) cancels."""
    if len(numerators) != len(denominators):
        raise ValueError(f"the rounds do not match: {len(numerators)} against {len(denominators)}.")
    return summary([top / bottom for top, bottom in zip(numerators, denominators, strict=True)])


# ---- the machine ----------------------------------------------------------------------------------
def _cpu_fields() -> dict[str, str]:
    fields: dict[str, str] = {}
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            fields.setdefault(key.strip().lower(), value.strip())
    return fields


def _first_line(*command: str) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.splitlines()[0].strip() if done.stdout else None


def package_versions() -> dict[str, str | None]:
    """Versions of the packages that matter, as installed for this interpreter (None where absent)."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def machine_info() -> dict[str, Any]:
    """CPU model, cores, SIMD flags, memory, system, compiler and package versions."""
    fields = _cpu_fields()
    known = ("sse4_2", "avx", "fma", "avx2", "avx512f", "avx512bw", "avx512_bf16", "avx512_vnni", "amx_bf16")
    flags = set(fields.get("flags", fields.get("features", "")).split())
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = None
    with contextlib.suppress(ValueError, OSError, AttributeError):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": fields.get("model name") or platform.processor() or platform.machine(),
        "cpu_family": fields.get("cpu family"),
        "cpu_model": fields.get("model"),
        "architecture": platform.machine(),
        "cores": usable,
        "simd": [flag for flag in known if flag in flags] or sorted(flags & {"asimd", "sve", "neon"}),
        "memory_bytes": memory,
        "system": platform.platform(),
        "compiler": _first_line("g++", "--version") or _first_line("c++", "--version"),
        "python": platform.python_version(),
        "packages": package_versions(),
    }


def git_commit() -> str | None:
    """Commit of the checkout, with ``+changes`` when tracked files differ from it."""
    if not (ROOT / ".git").exists():
        return None
    commit = _first_line("git", "-C", str(ROOT), "rev-parse", "HEAD")
    changed = _first_line("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    return f"{commit}+changes" if commit and changed else commit


def load_average() -> float | None:
    """Load of the last minute: a figure far above zero before a run warns that the machine is shared."""
    with contextlib.suppress(OSError, AttributeError):
        return os.getloadavg()[0]
    return None


# ---- result files ---------------------------------------------------------------------------------
def new_document(benchmark: str, arguments: argparse.Namespace | dict[str, Any]) -> dict[str, Any]:
    """The frame of a result file; the caller appends to ``results``."""
    given = vars(arguments) if isinstance(arguments, argparse.Namespace) else arguments
    return {
        "schema": SCHEMA,
        "benchmark": benchmark,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": git_commit(),
        "quick": bool(given.get("quick", False)),
        "arguments": {key: value for key, value in given.items() if key not in ("output", "peer_python")},
        "machine": machine_info(),
        "environment": {"unset": UNPINNED, "in_time": UNPINNED_IN_TIME, "load_before": load_average()},
        "results": [],
    }


def check_document(document: Any) -> None:
    """Raise ValueError unless the document is a result file of this version."""
    if not isinstance(document, dict):
        raise ValueError(f"a result file holds one JSON object; found {type(document).__name__}.")
    expected = {
        "schema": int,
        "benchmark": str,
        "date": str,
        "commit": (str, type(None)),
        "quick": bool,
        "arguments": dict,
        "machine": dict,
        "environment": dict,
        "results": list,
    }
    for key, kind in expected.items():
        if key not in document:
            raise ValueError(f"the result file lacks {key!r}.")
        if not isinstance(document[key], kind):
            raise ValueError(f"{key!r} of the result file is a {type(document[key]).__name__}.")
    if document["schema"] != SCHEMA:
        raise ValueError(f"the result file has layout {document['schema']}, this script writes {SCHEMA}.")
    datetime.datetime.fromisoformat(document["date"])
    missing = {"cpu", "cores", "simd", "system", "compiler", "packages"} - document["machine"].keys()
    if missing:
        raise ValueError(f"the result file does not describe the machine: {', '.join(sorted(missing))} missing.")


def plain(value: Any) -> Any:
    """The value as strict JSON has it: NaN and infinity become null, paths and NumPy scalars plain."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, str | bool | int | type(None)):
        return value
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    number = float(value)
    return number if math.isfinite(number) else None


def write_json(path: str | Path, document: dict[str, Any]) -> None:
    """Write a result file in one step, so that an interruption leaves the old one whole."""
    check_document(document)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(plain(document), file, indent=1, allow_nan=False)
            file.write("\n")
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def read_json(path: str | Path) -> dict[str, Any]:
    """Read and check a result file."""
    with open(path, encoding="utf-8") as file:
        document = json.load(file)
    check_document(document)
    return document  # type: ignore[no-any-return]


# ---- tables ---------------------------------------------------------------------------------------
def show(value: Any, digits: int = 3) -> str:
    """A figure with so many significant digits, a dash where there is none.

    >>> show(1234.5), show(0.01234), show(None), show(float("nan"))
    ('1234', '0.0123', '-', '-')
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    if isinstance(value, bool | str | int):
        return str(value)
    if value == 0:
        return "0"
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table, padded so that it also reads well in a terminal; text left, figures right."""
    cells = [[cell if isinstance(cell, str) else show(cell) for cell in row] for row in rows]
    for row in cells:
        if len(row) != len(header):
            raise ValueError(f"a row has {len(row)} cells, the header {len(header)}.")
    widths = [max([3, len(title), *(len(row[i]) for row in cells)]) for i, title in enumerate(header)]
    numeric = [any(not isinstance(row[i], str) for row in rows) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        padded = (c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = "|" + "|".join("-" * (w + 1) + ":" if n else "-" * (w + 2) for w, n in zip(widths, numeric, strict=True))
    return "\n".join([line(list(header)), rule + "|", *map(line, cells)])


# ---- command line ---------------------------------------------------------------------------------
def argument_parser(benchmark: str, description: str | None) -> argparse.ArgumentParser:
    """Parser with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute: shows that it runs, measures nothing")
    parser.add_argument(
        "--output", type=Path, help=f"result file (default: benchmarks/results/{benchmark}.json; none with --quick)"
    )
    parser.add_argument("--threads", type=int, default=machine_info()["cores"], help="threads (default: all cores)")
    parser.add_argument(
        "--engine", default="cpu", choices=("cpu", "reference"), help="GeSdA's engine; reference tries the plumbing"
    )
    return parser


def output_path(benchmark: str, arguments: argparse.Namespace) -> Path | None:
    """Where the results go: as asked for; by default nowhere for a quick run, which measures nothing."""
    if arguments.output is not None:
        return Path(arguments.output)
    return None if arguments.quick else RESULTS / f"{benchmark}.json"


def log(message: str) -> None:
    """Progress, apart from the table on standard output."""
    print(message, file=sys.stderr, flush=True)
