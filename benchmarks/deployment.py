"""The runtime beside ONNX Runtime and PyTorch: answers, latency of one row on one thread, start, memory, sizes.

Two networks: 784-1000-1000-1000-10 trained on MNIST and 945-256-128-64-8 trained on uWave, where the data are; on
random data of the same shapes otherwise, and then without accuracies. All contenders get the same weights and answer
the same rows in turn, in one process, by the leanest call that each has from Python. gesda-infer is built by CMake.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench_data
import common  # first: frees OpenBLAS before NumPy loads
import numpy as np

BENCHMARK = "deployment"
#: Name -> data, hidden layers, epochs of pretraining and fine-tuning.
NETWORKS: dict[str, dict[str, Any]] = {
    "784-1000-1000-1000-10": {"data": "mnist", "hidden": (1000, 1000, 1000), "epochs": (2, 6), "shape": (784, 10)},
    "945-256-128-64-8": {"data": "uwave", "hidden": (256, 128, 64), "epochs": (10, 60), "shape": (945, 8)},
}
WEIGHTS = ("fp32", "fp16", "int8")


# ---- models ---------------------------------------------------------------------------------------
def train(network: dict[str, Any], quick: bool, threads: int) -> tuple[Any, Any, bool]:
    """Train a classifier; give it, the data, and whether these are real."""
    from gesda import SdAClassifier

    n_features, n_classes = network["shape"]
    try:
        split, real = getattr(bench_data, network["data"])(), True
    except bench_data.DataMissing:
        split, real = bench_data.synthetic(n_features, 2000, n_classes), False
    if quick:
        split = bench_data.reduced(split, 300)
    pretrain, finetune = (1, 1) if quick else network["epochs"]
    model = SdAClassifier(
        network["hidden"], pretrain_epochs=pretrain, max_iter=finetune, batch_size=50, learning_rate_init=0.1,
        activation="sigmoid", device="cpu", n_jobs=threads, random_state=0,
    )  # fmt: skip
    return model.fit(split.train, split.train_labels), split, real


def torch_of(model: Any) -> Any:
    """The same network as a torch module."""
    import torch

    layers: list[Any] = []
    parameters = model._parameters
    names = [*(f"layers.{k}" for k in range(len(model._spec.layers))), "head"]
    for name in names:
        weights = parameters[f"{name}.W"]
        linear = torch.nn.Linear(*weights.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(weights.T.copy()))
            linear.bias.copy_(torch.from_numpy(parameters[f"{name}.b"]))
        layers += [linear, torch.nn.Softmax(dim=1) if name == "head" else torch.nn.Sigmoid()]
    return torch.nn.Sequential(*layers).eval()


# ---- contenders: functions that answer one row ----------------------------------------------------
def contenders(model: Any, files: dict[str, Path], row: Any) -> dict[str, Callable[[], Any]]:
    """Whoever is installed, by name."""
    calls: dict[str, Callable[[], Any]] = {}
    for weights, path in files.items():
        calls[f"GeSdA {weights}"] = _gesda_call(path, row)
    try:
        calls["ONNX Runtime"] = _onnx_call(model, row)
    except ImportError:
        common.log("onnx or onnxruntime is missing: left out")
    try:
        calls["PyTorch"] = _torch_call(model, row)
    except ImportError:
        common.log("torch is missing: left out")
    return calls


def _gesda_call(path: Path, row: Any) -> Callable[[], Any]:
    from gesda.runtime import Runtime

    runtime = Runtime(path)
    out = np.zeros((1, runtime.n_outputs), dtype=np.float32)
    ask, handle = runtime._library.gesda_probabilities, runtime._model
    row_address, out_address = ctypes.c_void_p(row.ctypes.data), ctypes.c_void_p(out.ctypes.data)

    def call(runtime: Any = runtime) -> Any:
        ask(handle, row_address, 1, out_address)
        return out

    return call


def _onnx_call(model: Any, row: Any) -> Callable[[], Any]:
    import onnxruntime

    from gesda.export import to_onnx

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    graph = to_onnx(model, ["probabilities"]).SerializeToString()
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    value = onnxruntime.OrtValue.ortvalue_from_numpy(row)
    out = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((1, len(model.classes_)), dtype=np.float32))
    binding.bind_ortvalue_input("X", value)
    binding.bind_ortvalue_output("probabilities", out)

    def call() -> Any:
        session.run_with_iobinding(binding)
        return out.numpy()

    return call


def _torch_call(model: Any, row: Any) -> Callable[[], Any]:
    import torch

    torch.set_num_threads(1)
    module, tensor = torch_of(model), torch.from_numpy(row)

    def call() -> Any:
        with torch.inference_mode():
            return module(tensor).numpy()

    return call


def latencies(calls: dict[str, Callable[[], Any]], rounds: int, per_round: int) -> dict[str, dict[str, Any]]:
    """Microseconds of one answer; contenders take turns, so that a busy machine is busy for all."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    medians: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            for _ in range(per_round // 10):
                call()
            own = []
            for _ in range(per_round):
                begin = time.perf_counter()
                call()
                own.append(1e6 * (time.perf_counter() - begin))
            taken[name] += own
            medians[name].append(common.quantile(own, 0.5))
    return {
        name: {
            "median_us": common.quantile(values, 0.5),
            "p99_us": common.quantile(values, 0.99),
            "round_medians_us": medians[name],
        }
        for name, values in taken.items()
    }


# ---- answers --------------------------------------------------------------------------------------
def agreement(model: Any, files: dict[str, Path], split: Any, real: bool) -> dict[str, Any]:
    """Largest difference of probabilities to Python's, classes that differ, accuracies."""
    from gesda.runtime import Runtime

    X = np.ascontiguousarray(split.test, dtype=np.float32)
    expected, labels = model.predict_proba(X), model.predict(X)
    facts: dict[str, Any] = {"rows": len(X)}
    for weights, path in files.items():
        runtime = Runtime(path)
        given = model.classes_[runtime.classify(X)]
        facts[weights] = {
            "largest_difference": float(np.abs(runtime.probabilities(X) - expected).max()),
            "classes_that_differ": int((given != labels).sum()),
            "accuracy": float((given == split.test_labels).mean()) if real else None,
            "bytes": path.stat().st_size,
            "weight_bytes": runtime.weight_bytes,
        }
    return facts


# ---- the program ----------------------------------------------------------------------------------
def build_infer(folder: Path) -> Path:
    """Build gesda-infer as it is shipped, and strip a copy."""
    root = Path(__file__).resolve().parents[1]
    build = folder / "build"
    subprocess.run(["cmake", "-S", root, "-B", build, "--log-level=ERROR"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["cmake", "--build", build, "--target", "gesda-infer"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["strip", "-o", folder / "gesda-infer", build / "gesda-infer"], check=True)
    return folder / "gesda-infer"


def program(infer: Path, path: Path, n_features: int, folder: Path, count: int) -> dict[str, Any]:
    """Start to the first answer of whole processes; latency and peak resident memory inside of one."""
    row = folder / "row.csv"
    row.write_text(",".join(["0.5"] * n_features) + "\n")
    starts = []
    for _ in range(count):
        begin = time.perf_counter()
        with subprocess.Popen([infer, path, row], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            starts.append(1e3 * (time.perf_counter() - begin))
            process.stdout.read()
    bench = subprocess.run([infer, path, "--bench", "3000"], check=True, capture_output=True, text=True)
    return {
        "start_to_answer_median_ms": common.quantile(starts, 0.5),
        "start_to_answer_p99_ms": common.quantile(starts, 0.99),
        "answer_in_c": json.loads(bench.stdout),
    }


# ---- the table ------------------------------------------------------------------------------------
def table(results: list[dict[str, Any]]) -> str:
    """Latencies of one row, and what the program takes."""
    rows = []
    for result in results:
        peer = result["latency"].get("ONNX Runtime")
        for name, facts in result["latency"].items():
            weights = name.removeprefix("GeSdA ")
            answers, started = result["answers"].get(weights), result["program"].get(weights)
            ratio = "-"
            if peer is not None and name != "ONNX Runtime":
                pairs = zip(facts["round_medians_us"], peer["round_medians_us"], strict=True)
                ratio = f"{common.quantile([own / other for own, other in pairs], 0.5):.2f}"
            rows.append(
                [
                    result["network"],
                    name,
                    f"{facts['median_us']:.1f}",
                    f"{facts['p99_us']:.1f}",
                    ratio,
                    "-" if started is None else f"{started['answer_in_c']['median_us']:.1f}",
                    "-" if answers is None or answers["accuracy"] is None else f"{100 * answers['accuracy']:.2f}",
                    "-" if answers is None else f"{answers['bytes'] / 1e6:.2f}",
                    "-" if started is None else f"{started['start_to_answer_median_ms']:.1f}",
                    "-"
                    if started is None
                    else f"{(started['answer_in_c']['peak_resident_bytes'] - answers['weight_bytes']) / 1e6:.1f}",
                ]
            )
    header = [
        "network", "by", "median µs", "99th percentile µs", "of ONNX Runtime's", "from C, µs", "accuracy, %",
        "file, MB", "start to answer, ms", "memory beyond weights, MB",
    ]  # fmt: skip
    return common.markdown_table(header, rows)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = common.argument_parser(BENCHMARK, __doc__)
    arguments = parser.parse_args(argv)
    from gesda.export import save_model

    rounds, per_round = (2, 50) if arguments.quick else (15, 400)
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        infer = build_infer(folder)
        for network, settings in NETWORKS.items():
            model, split, real = train(settings, arguments.quick, arguments.threads)
            files = {weights: folder / f"{network}-{weights}.gesda" for weights in WEIGHTS}
            for weights, path in files.items():
                save_model(model, path, weights=weights, calibration=split.train)
            row = np.ascontiguousarray(split.test[:1], dtype=np.float32)
            results.append(
                {
                    "network": network,
                    "data": settings["data"] if real else "random",
                    "infer_bytes": infer.stat().st_size,
                    "answers": agreement(model, files, split, real),
                    "program": {
                        weights: program(infer, path, row.shape[1], folder, 3 if arguments.quick else 40)
                        for weights, path in files.items()
                    },
                    "latency": latencies(contenders(model, files, row), rounds, per_round),
                }
            )
    document = common.new_document(BENCHMARK, arguments)
    document["results"] = results
    output = common.output_path(BENCHMARK, arguments)
    if output is not None:
        common.write_json(output, document)
    print("\n".join(common.environment_report()))
    print(table(results))


if __name__ == "__main__":
    sys.exit(main())
