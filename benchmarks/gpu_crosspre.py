"""CrossPre against sequential pretraining on a GPU, by the same kernels and for as many epochs.

Sequential trains one layer after another; the encodings by the layers that are done lie on the device. A step of
all layers is then the sum of the layers' steps, and making the encodings, shared out over `EPOCHS` epochs. CrossPre
does all layers in one step. Each is timed at two lengths of an epoch, in interleaved rounds (gpu_common.microseconds).
Above 1 in the ratio, CrossPre is faster. The batch from which on it does not pay is read off the curve.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import common  # first: frees OpenBLAS before NumPy loads
import gpu_common
import numpy as np

BENCHMARK = "gpu_crosspre"
EPOCHS = 15
BATCHES = (10, 20, 30, 50, 100, 200, 300, 500, 1000, 2000)
CURVES = ("batch", "layers")


def points(curve: str, quick: bool) -> list[tuple[tuple[int, ...], int]]:
    """Nets and batches of a curve: by batch for 3 layers of 1000, by the number of layers at batch 20."""
    visible, hidden = (20, 16) if quick else (784, 1000)
    if curve == "batch":
        return [((visible, *(hidden,) * 3), batch) for batch in ((10, 40) if quick else BATCHES)]
    return [((visible, *(hidden,) * depth), 20) for depth in (range(2, 4) if quick else range(2, 7))]


def measure(widths: Sequence[int], batch: int, arguments: Any) -> dict[str, Any]:
    """Microseconds a step of all layers, by both; what making the encodings adds to sequential's."""
    rng = np.random.default_rng()
    device = gpu_common.make_device(arguments.precision, arguments.emulated)
    engine = gpu_common.make_engine(gpu_common.make_spec(widths), device, arguments.precision, arguments.variant)
    gpu_common.set_weights(engine, rng)
    rows = 4 * batch if arguments.quick else max(4096, 4 * batch)
    steps = (3, 6) if arguments.quick else (64, 576 if batch <= 200 else 192)
    epochs, depth = gpu_common.Epochs(engine, batch, rng), len(widths) - 1
    inputs = [engine.place(rng.random((rows, widths[0]), dtype=np.float32))]
    for k in range(depth - 1):
        inputs.append(engine.place(inputs[k], k + 1, k))
    contenders: dict[str, Callable[[int], float]] = {"crosspre": partial(epochs.run, inputs[0], rows)}
    for k in range(depth):
        contenders[f"layer {k}"] = partial(epochs.run, inputs[k], rows, layer=k)

    def encoding() -> float:
        begin = time.perf_counter()
        for k in range(depth - 1):
            engine.place(inputs[k], k + 1, k)
        device.synchronize()
        return 1e6 * (time.perf_counter() - begin) * batch / rows / EPOCHS

    for seconds in contenders.values():
        seconds(steps[0])  # compiles and warms up
    encoding()
    times: dict[str, list[float]] = {name: [] for name in (*contenders, "encoding")}
    names = list(contenders)
    for number in range(arguments.rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            times[name].append(gpu_common.microseconds(contenders[name], steps))
        times["encoding"].append(encoding())
    bare = [sum(times[f"layer {k}"][r] for k in range(depth)) for r in range(arguments.rounds)]
    whole = [step + share for step, share in zip(bare, times["encoding"], strict=True)]
    return {
        "widths": list(widths),
        "batch": batch,
        "us": {name: common.summary(values) for name, values in (*times.items(), ("sequential", whole))},
        "ratio": common.ratio_per_round(whole, times["crosspre"]),
        "ratio_encodings_for_nothing": common.ratio_per_round(bare, times["crosspre"]),
    }


def last_crossing(batches: Sequence[float], ratios: Sequence[float]) -> float | None:
    """Batch from which on the ratio stays below 1, linear in the batch's logarithm; None if it does not.

    >>> last_crossing([10, 100, 1000], [3.0, 1.5, 0.5])
    316.2
    >>> last_crossing([10, 100], [0.9, 0.8]), last_crossing([10, 100], [3.0, 1.5])
    (10, None)
    """
    above = [i for i, ratio in enumerate(ratios) if ratio > 1]
    if not above:
        return batches[0]
    i = above[-1]
    if i == len(batches) - 1:
        return None
    low, high = math.log(batches[i]), math.log(batches[i + 1])
    return round(math.exp(low + (high - low) * (ratios[i] - 1) / (ratios[i] - ratios[i + 1])), 1)


def crossings(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Where CrossPre stops paying, by either reading of sequential's time."""
    curve = sorted((point for point in results if point["curve"] == "batch"), key=lambda point: point["batch"])
    batches = [point["batch"] for point in curve]
    found: dict[str, Any] = {"batches": batches}
    for name in ("ratio", "ratio_encodings_for_nothing"):
        found[name] = last_crossing(batches, [point[name]["median"] for point in curve]) if curve else None
    return found


def table(results: list[dict[str, Any]]) -> str:
    """Both curves."""
    rows = []
    for point in results:
        median = {name: summary["median"] for name, summary in point["us"].items()}
        rows.append(["-".join(map(str, point["widths"])), point["batch"], median["sequential"], median["encoding"],
                     median["crosspre"], point["ratio"]["median"],
                     point["ratio_encodings_for_nothing"]["median"]])  # fmt: skip
    header = ["net", "batch", "sequential us", "of it encoding us", "CrossPre us", "sequential / CrossPre",
              "encodings for nothing"]  # fmt: skip
    return common.markdown_table(header, rows)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = common.argument_parser(BENCHMARK, __doc__)
    parser.add_argument("--emulated", action="store_true", help="on the tests' emulator: tries the plumbing")
    parser.add_argument("--precision", choices=gpu_common.PRECISIONS, default="tf32")
    parser.add_argument("--variant", choices=(*gpu_common.VARIANTS, "tuned"), default="auto")
    parser.add_argument("--rounds", type=int, help="(default 7; 2 with --quick)")
    parser.add_argument("--curves", nargs="+", choices=CURVES, default=list(CURVES))
    parser.add_argument("--minutes", type=float, default=30, help="begin no point after so long (default 30)")
    arguments = parser.parse_args(argv)
    arguments.rounds = arguments.rounds or (2 if arguments.quick else 7)
    document = gpu_common.gpu_document(BENCHMARK, arguments, gpu=not arguments.emulated)
    path, begin = common.output_path(BENCHMARK, arguments), time.monotonic()
    for curve in arguments.curves:
        for widths, batch in points(curve, arguments.quick):
            title = f"{'-'.join(map(str, widths))}, batch {batch}"
            if time.monotonic() - begin > 60 * arguments.minutes:
                common.log(f"{title}: left out, no time left")
                continue
            try:
                point = {"curve": curve} | measure(widths, batch, arguments)
            except Exception as error:  # a point that fails takes no other with it
                document.setdefault("missing", {})[title] = f"{type(error).__name__}: {error}"
                common.log(f"{title}: {error}")
                continue
            document["results"].append(point)
            document["stops_to_pay_at_batch"] = crossings(document["results"])
            common.log(f"{title}: {common.show(point['ratio']['median'])}")
            if path is not None:
                common.write_json(path, document)
    if path is not None:
        common.write_json(path, document)
    print(table(document["results"]))
    for name, batch in document.get("stops_to_pay_at_batch", {}).items():
        if name != "batches":
            print(f"{name}: {f'below 1 from batch {batch:g} on' if batch else 'above 1 at every batch measured'}")


if __name__ == "__main__":
    main()
