"""``gesda export``: a model for other programs and small machines."""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gesda.cli._apply import check_features
from gesda.cli._common import UsageError, check_output, emit, labels_like, read_data, warnings_as_notes
from gesda.datasets import Dataset
from gesda.model_io import read_header

#: Answers to one row that a latency is the median of.
_ANSWERS = 500
#: Samples of a motion whose recognition is measured: a second, if the rate is unknown.
_LENGTH = 100


def run(arguments: argparse.Namespace) -> int:
    """Write the files asked for, and tell what they are."""
    forms = [name for name in ("output", "c", "onnx") if getattr(arguments, name) is not None]
    _check(arguments, forms)
    is_recognizer = read_header(arguments.model)[1].get("estimator") == "GestureRecognizer"
    model = _read(arguments.model, is_recognizer)
    if is_recognizer and (arguments.data is not None or arguments.c is not None):
        raise UsageError(f"{arguments.model!r} holds a gesture recogniser, which takes neither --data nor --c.")
    data = None if arguments.data is None else read_data(arguments)
    if data is not None:
        check_features(model, data)
    result: dict[str, Any] = {"command": "export", "model": arguments.model, "weights": arguments.weights}
    lines: list[str] = []
    with warnings_as_notes():
        if arguments.prune:
            model = _pruned(model, data, result, lines)
        for form in forms:
            path = getattr(arguments, form)
            result[form] = {"file": path, **_write(form, model, path, arguments, data)}
            result[form]["bytes"] = os.path.getsize(path)
            outputs = result[form].get("outputs")
            lines.append(f"{path}: {result[form]['bytes']:,} bytes" + (f", {', '.join(outputs)}" if outputs else ""))
        if arguments.report:
            result["report"] = report = [_measured(arguments.model, data), _measured(arguments.output, data)]
            lines += _table(report)
    emit(arguments, result, lines)
    return 0


def _check(arguments: argparse.Namespace, forms: list[str]) -> None:
    if not forms:
        raise UsageError("name what to write: --output, --c or --onnx FILE.")
    for form in forms:
        check_output(getattr(arguments, form))
        if os.path.exists(getattr(arguments, form)) and os.path.samefile(getattr(arguments, form), arguments.model):
            raise UsageError(f"--{form} names the model itself, which would lose what training needs.")
    if arguments.outputs is not None and forms == ["output"]:
        raise UsageError("--outputs goes with --onnx and --c; a model file gives everything.")
    if arguments.weights != "fp32" and forms == ["onnx"]:
        raise UsageError("--weights goes with --output and --c; ONNX files have weights of 32 bits.")
    if arguments.weights == "fp16" and arguments.c is not None:
        raise UsageError("C has no numbers of 16 bits; use --weights fp32 or int8 with --c.")
    if arguments.report and arguments.output is None:
        raise UsageError("--report measures a model file; name it with --output.")
    if arguments.data is None and (arguments.prune or arguments.target or arguments.labels):
        raise UsageError("--prune, --target and --labels go with --data.")


def _read(path: str, is_recognizer: bool) -> Any:
    if is_recognizer:
        from gesda.deepmotion import GestureRecognizer

        return GestureRecognizer.load(path)
    from gesda.estimators import load

    return load(path)


def _pruned(model: Any, data: Dataset | None, result: dict[str, Any], lines: list[str]) -> Any:
    from gesda.export import without_dead_units

    assert data is not None
    smaller = without_dead_units(model, data.X)
    result["hidden_units"] = [layer.n_hidden for layer in smaller._spec.layers]
    before = sum(layer.n_hidden for layer in model._spec.layers)
    lines.append(f"{before - sum(result['hidden_units'])} of {before} hidden units were dead")
    return smaller


def _write(form: str, model: Any, path: str, arguments: argparse.Namespace, data: Dataset | None) -> dict[str, Any]:
    """Write one file; tell what it gives."""
    from gesda.export import save_c, save_model, save_onnx

    X = None if data is None else data.X
    if form == "onnx":
        return {"outputs": [output.name for output in save_onnx(model, path, arguments.outputs).graph.output]}
    if form == "c":
        chosen_by = X if arguments.weights == "int8" else None
        save_c(model, path, arguments.outputs, weights=arguments.weights, calibration=chosen_by)
        return {}
    save_model(model, path, weights=arguments.weights, calibration=X)
    return {}


# ---- the report -----------------------------------------------------------------------------------
def _measured(path: str, data: Dataset | None) -> dict[str, Any]:
    """Size, latency and accuracy of a model file, as libgesda runs it."""
    from gesda.runtime import Runtime

    runtime = Runtime(path)
    facts: dict[str, Any] = {"file": path, "weights": runtime.weights, "bytes": os.path.getsize(path)}
    facts["weight_bytes"] = runtime.weight_bytes
    facts["median_us"] = _latency(runtime)
    if data is not None:
        facts |= _scores(runtime, np.ascontiguousarray(_dense(data.X), dtype=np.float32), data.y)
    return facts


def _latency(runtime: Any) -> float:
    rng = np.random.default_rng(0)
    if runtime.kind == "recognizer":
        motion = rng.random((round(runtime.rate) or _LENGTH, runtime.n_features), dtype=np.float32)
        ask, given = runtime.recognize, motion
    else:
        asks = {"classifier": runtime.probabilities, "regressor": runtime.predict}
        ask, given = asks.get(runtime.kind, runtime.encode), rng.random((1, runtime.n_features), dtype=np.float32)
    taken = []
    for _ in range(_ANSWERS):
        start = time.perf_counter()
        ask(given)
        taken.append(1e6 * (time.perf_counter() - start))
    return float(np.median(taken))


def _scores(runtime: Any, X: NDArray[np.float32], y: NDArray[Any] | None) -> dict[str, float]:
    scores = {"reconstruction_error": -float(runtime.score(X).mean(dtype=np.float64))}
    if y is not None and runtime.kind == "classifier":
        names = np.array(runtime.class_names)
        known = labels_like(y, names) if y.dtype.kind in "US" else y.astype(str)
        scores["accuracy"] = float(np.mean(names[runtime.classify(X)] == known))
    elif y is not None and runtime.kind == "regressor":
        residual = runtime.predict(X)[:, 0].astype(np.float64) - y
        scores["r2"] = 1.0 - float(np.square(residual).sum() / np.square(y - y.mean()).sum())
    return scores


def _dense(X: Any) -> Any:
    return X.toarray() if hasattr(X, "toarray") else X


def _table(report: list[dict[str, Any]]) -> list[str]:
    """Lines of before and after."""
    rows = [("", "before", "after")]
    for name in report[1]:
        if name != "file":
            before, after = (
                f"{facts[name]:,.6g}" if isinstance(facts[name], float) else str(facts[name]) for facts in report
            )
            rows.append((name.replace("_", " ").replace(" us", " µs"), before, after))
    return [f"{name:22s} {before:>14s} {after:>14s}" for name, before, after in rows]
