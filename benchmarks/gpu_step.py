"""Microseconds of a pretraining step of all layers on a GPU, by GeSdA's kernels alone, in one process.

What a profiler or compute-sanitizer is pointed at; gpu_speed.py sets the same kernels beside their peers. Needs CuPy
and a GPU; with --quick and --emulated it runs anywhere and measures nothing.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import common  # first: frees OpenBLAS before NumPy loads
import gpu_common
import numpy as np

BENCHMARK = "gpu_step"


def measure(
    widths: Sequence[int], batch: int, device: Any, precision: str, variant: str, arguments: Any
) -> list[float]:
    """Microseconds a step, once a round."""
    rng = np.random.default_rng()
    engine = gpu_common.make_engine(gpu_common.make_spec(widths), device, precision, variant)
    gpu_common.set_weights(engine, rng)
    data = engine.place(rng.random((4 * batch, widths[0]), dtype=np.float32))
    seconds = partial(gpu_common.Epochs(engine, batch, rng).run, data, 4 * batch)
    seconds(arguments.steps[0])  # compiles and warms up
    return [gpu_common.microseconds(seconds, arguments.steps) for _ in range(arguments.rounds)]


def main(argv: list[str] | None = None) -> int:
    """Command line; the number of failures is the exit status."""
    parser = common.argument_parser(BENCHMARK, __doc__)
    parser.add_argument("--emulated", action="store_true", help="on the tests' emulator: tries the plumbing")
    parser.add_argument("--no-output", action="store_true", help="write no result file")
    parser.add_argument("--rounds", type=int, help="(default 7; 1 with --quick)")
    parser.add_argument("--steps", type=int, nargs=2, help="lengths of an epoch (default 200 1200; 3 6 with --quick)")
    parser.add_argument("--nets", type=int, nargs="+", help=f"of {gpu_common.NETS}, counted from 0")
    parser.add_argument("--batches", type=int, nargs="+", help=f"(default {gpu_common.BATCHES}; 20 with --quick)")
    parser.add_argument("--precisions", nargs="+", choices=gpu_common.PRECISIONS, default=list(gpu_common.PRECISIONS))
    parser.add_argument("--variants", nargs="+", choices=(*gpu_common.VARIANTS, "tuned"), default=["auto"])
    arguments = parser.parse_args(argv)
    nets = [gpu_common.NETS[i] for i in arguments.nets or range(len(gpu_common.NETS))]
    if arguments.quick:
        nets = [(40, 30, 20)]
    batches = arguments.batches or ((20,) if arguments.quick else gpu_common.BATCHES)
    arguments.steps = arguments.steps or ((3, 6) if arguments.quick else (200, 1200))
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 7)
    document = gpu_common.gpu_document(BENCHMARK, arguments, gpu=not arguments.emulated)
    path, rows, failures = None if arguments.no_output else common.output_path(BENCHMARK, arguments), [], 0
    for precision in arguments.precisions:
        device = gpu_common.make_device(precision, arguments.emulated)
        for widths, batch, variant in itertools.product(nets, batches, arguments.variants):
            entry: dict[str, Any] = {"layers": list(widths), "batch": batch, "precision": precision, "variant": variant}
            document["results"].append(entry)
            try:
                entry["us"] = common.summary(measure(widths, batch, device, precision, variant, arguments))
            except Exception as error:  # a variant that fails takes no other with it
                entry["missing"] = f"{type(error).__name__}: {error}"
                failures += 1
            median = entry.get("us", {}).get("median")
            rows.append(["-".join(map(str, widths)), batch, precision, variant, median])
            common.log(f"{rows[-1]} {entry.get('missing', '')}")
            if path is not None:
                common.write_json(path, document)
    print(common.markdown_table(["net", "batch", "precision", "variant", "us a step"], rows))
    return failures


if __name__ == "__main__":
    sys.exit(main())
