"""Microseconds of a pretraining step of all layers on a GPU, by GeSdA's kernels.

An epoch is timed at two lengths; their difference, by the difference in steps, is a step: what an epoch
costs once (uploads, the capture of the graph) cancels. Needs CuPy and a GPU; with --quick and
--emulated it runs anywhere and measures nothing.
"""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path
from typing import Any

import common  # first: frees OpenBLAS before NumPy loads
import numpy as np

BENCHMARK = "gpu_step"
NETS = ((784, 1000, 1000, 1000), (784, 500, 500, 2000), (945, 256, 128, 64))
BATCHES = (20, 100, 256, 1024)
PRECISIONS = ("tf32", "fp16", "fp32")


def make_device(precision: str, emulated: bool) -> Any:
    """The GPU, or the tests' emulator."""
    if emulated:
        sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "emulator"))
        from emulated import EmulatedDevice

        return EmulatedDevice(precision)
    from gesda.engine._cuda_cupy import CupyDevice

    return CupyDevice(precision)


def microseconds(device: Any, widths: tuple[int, ...], batch: int, steps: tuple[int, int], rounds: int) -> list[float]:
    """Microseconds a step, once a round."""
    from gesda.engine.cuda import CudaEngine
    from gesda.spec import LayerSpec, NetworkSpec, PretrainPlan

    rng = np.random.default_rng(1)
    spec = NetworkSpec(tuple(LayerSpec(n, m) for n, m in itertools.pairwise(widths)), seed=3)
    engine = CudaEngine(spec, device)
    for name, shape in spec.parameter_shapes().items():
        if len(shape) == 2:
            engine.set_state({name: rng.normal(0.0, 0.05, shape).astype(np.float32)})
    data = rng.random((4 * batch, widths[0]), dtype=np.float32)
    layers = len(spec.layers)

    def seconds(n_steps: int) -> float:
        order = rng.integers(0, len(data), n_steps * batch).astype(np.uint32)
        plan = PretrainPlan(0, order, batch, (True,) * layers, (0.05,) * layers)
        begin = time.perf_counter()
        stats = engine.pretrain_epoch(data, plan)
        if not np.isfinite(stats.loss).all():
            raise RuntimeError(f"the losses are {stats.loss}")
        return time.perf_counter() - begin

    seconds(steps[0])  # compiles and warms up
    return [1e6 * (seconds(steps[1]) - seconds(steps[0])) / (steps[1] - steps[0]) for _ in range(rounds)]


def gpu_info() -> dict[str, Any]:
    """Name, memory and versions of the device."""
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    return {
        "name": properties["name"].decode(),
        "memory_bytes": properties["totalGlobalMem"],
        "multiprocessors": properties["multiProcessorCount"],
        "compute_capability": cupy.cuda.Device().compute_capability,
        "driver": cupy.cuda.runtime.driverGetVersion(),
        "runtime": cupy.cuda.runtime.runtimeGetVersion(),
        "cupy": cupy.__version__,
    }


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = common.argument_parser(BENCHMARK, __doc__)
    parser.add_argument("--emulated", action="store_true", help="on the tests' emulator: tries the plumbing")
    parser.add_argument("--rounds", type=int, help="(default 7; 1 with --quick)")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    arguments = parser.parse_args(argv)
    nets, batches = (((40, 30, 20),), (20,)) if arguments.quick else (NETS, BATCHES)
    steps = (3, 6) if arguments.quick else (200, 1200)
    document = common.new_document(BENCHMARK, arguments)
    document["gpu"] = None if arguments.emulated else gpu_info()
    path = common.output_path(BENCHMARK, arguments)
    rows = []
    for precision in arguments.precisions:
        device = make_device(precision, arguments.emulated)
        for widths, batch in itertools.product(nets, batches):
            values = microseconds(device, widths, batch, steps, arguments.rounds or (1 if arguments.quick else 7))
            entry = {"layers": list(widths), "batch": batch, "precision": precision, "us": common.summary(values)}
            document["results"].append(entry)
            rows.append(["-".join(map(str, widths)), batch, precision, entry["us"]["median"]])
            common.log(f"{rows[-1]}")
            if path is not None:
                common.write_json(path, document)
    print(common.markdown_table(["net", "batch", "precision", "us a step"], rows))


if __name__ == "__main__":
    main()
