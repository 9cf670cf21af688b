"""Nsight Compute's figures of the pretraining kernels: duration, DRAM bytes, tensor pipes, by kernel and grid.

Runs `ncu` over gpu_step.py, one run for each batch. The two phases of a tick are one kernel launched over different
grids, so launches are put together by kernel and grid. Clocks and caches are left as they are: between launches the
weights may stay in the L2 cache, as they do in training. What ncu printed is kept beside the result, as CSV.
"""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import common  # first: frees OpenBLAS before NumPy loads
import gpu_common

BENCHMARK = "gpu_ncu"
SECTIONS = ("SpeedOfLight", "ComputeWorkloadAnalysis", "MemoryWorkloadAnalysis", "LaunchStats")
METRICS = ("gpu__time_duration.sum", "dram__bytes_read.sum", "dram__bytes_write.sum")
#: Columns kept besides: whole names, and parts of names (how a pipe is called differs between GPUs).
KEPT = ("launch__registers_per_thread", "sm__throughput.avg.pct_of_peak_sustained_elapsed",
        "dram__throughput.avg.pct_of_peak_sustained_elapsed", "lts__t_sector_hit_rate.pct")  # fmt: skip
KEPT_PARTS = ("pipe_tensor", "sm__warps_active")


def command(batch: int, arguments: Any) -> list[str]:
    """Ncu over a short training."""
    program = [sys.executable, str(Path(__file__).with_name("gpu_step.py")), "--nets", str(arguments.net), "--batches",
               str(batch), "--precisions", arguments.precision, "--variants", arguments.variant, "--rounds", "1",
               "--steps", "64", "128", "--no-output"]  # fmt: skip
    options = ["--clock-control", "none", "--cache-control", "none", "--print-units", "base", "--page", "raw", "--csv",
               "--kernel-name", "regex:panels|persistent|pretrain|tiles", "--launch-skip", "20",
               "--launch-count", str(arguments.launches), "--metrics", ",".join(METRICS)]  # fmt: skip
    for section in SECTIONS:
        options += ["--section", section]
    return ["ncu", *options, *program]


def number(text: str) -> float | None:
    """A figure of ncu's, None where it is none.

    >>> number("1,234.5"), number("n/a")
    (1234.5, None)
    """
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def parse(text: str) -> list[dict[str, Any]]:
    """Launches in ncu's raw CSV page; lines that are not CSV are ncu's or the program's own talk."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    if not lines:
        return []
    header, _, *rows = csv.reader(io.StringIO("\n".join(lines)))  # the second line has the units
    return [dict(zip(header, row, strict=False)) for row in rows]


def summarised(launches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians over the launches of each kernel and grid."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for launch in launches:
        groups.setdefault((launch.get("Kernel Name", "?"), launch.get("Grid Size", "?")), []).append(launch)
    found = []
    for (kernel, grid), members in groups.items():
        names = [
            name for name in members[0]
            if name in (*METRICS, *KEPT) or any(part in name for part in KEPT_PARTS)
        ]  # fmt: skip
        medians = {}
        for name in names:
            values = [value for member in members if (value := number(member.get(name, ""))) is not None]
            medians[name] = common.quantile(values, 0.5) if values else None
        found.append({"kernel": kernel, "grid": grid, "launches": len(members), "median": medians})
    return found


def table(results: list[dict[str, Any]]) -> str:
    """A line for each kernel and grid."""
    rows = []
    for entry in results:
        for group in entry["groups"]:
            median = group["median"]
            read, written = median.get("dram__bytes_read.sum"), median.get("dram__bytes_write.sum")
            microseconds = (median.get("gpu__time_duration.sum") or 0) / 1e3
            tensor = [value for name, value in median.items() if "pipe_tensor" in name and "pct" in name and value]
            rows.append([entry["batch"], group["kernel"][:24], group["grid"], group["launches"], microseconds,
                         (read or 0) / 1e6, (written or 0) / 1e6, max(tensor, default=None)])  # fmt: skip
    return common.markdown_table(["batch", "kernel", "grid", "launches", "us", "DRAM read MB", "written MB",
                                  "tensor pipe %"], rows)  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = common.argument_parser(BENCHMARK, __doc__)
    parser.add_argument("--net", type=int, default=0, help=f"of {gpu_common.NETS}, counted from 0")
    parser.add_argument("--batches", type=int, nargs="+", default=[20, 100])
    parser.add_argument("--precision", choices=gpu_common.PRECISIONS, default="tf32")
    parser.add_argument("--variant", choices=gpu_common.VARIANTS, default="auto")
    parser.add_argument("--launches", type=int, default=12, help="launches that are profiled (default 12)")
    parser.add_argument("--limit", type=float, default=90, help="seconds that a run may take (default 90)")
    arguments = parser.parse_args(argv)
    if shutil.which("ncu") is None:
        print("Skipped: no ncu on the PATH.")
        return
    document = gpu_common.gpu_document(BENCHMARK, arguments, gpu=True)
    path, printed = common.output_path(BENCHMARK, arguments), ""
    for batch in arguments.batches:
        entry: dict[str, Any] = {"batch": batch, "precision": arguments.precision, "variant": arguments.variant}
        document["results"].append(entry)
        try:
            done = subprocess.run(
                command(batch, arguments), capture_output=True, text=True, timeout=arguments.limit, check=False
            )
            output, error = done.stdout, done.stderr
        except subprocess.TimeoutExpired:
            output, error = "", f"no answer in {arguments.limit:.0f} s"
        entry["groups"] = summarised(parse(output))
        if not entry["groups"]:
            entry["missing"] = (output + error)[-1000:]
            common.log(f"batch {batch}: {entry['missing']}")
        printed += output
        if path is not None:
            common.write_json(path, document)
            path.with_suffix(".csv").write_text(printed, encoding="utf-8")
    print(table(document["results"]))


if __name__ == "__main__":
    main()
