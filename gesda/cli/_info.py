"""``gesda info``: what a model file says of itself, read from its header alone; or what this installation is."""

from __future__ import annotations

import argparse
import math
import os
from typing import Any

from gesda.cli._common import emit
from gesda.diagnostics import version_info
from gesda.model_io import ModelFileError, read_header


def run(arguments: argparse.Namespace) -> int:
    """Describe a model file; without one, the installation."""
    if arguments.model is None:
        info = version_info()
        lines = []
        for section, entries in info.items():
            lines.append(section)
            lines += [f"    {name + ':':15} {value}" for name, value in entries.items()]
        emit(arguments, {"command": "info", **info}, lines)
        return 0
    tensors, metadata = read_header(arguments.model)
    try:
        if metadata.get("estimator") == "GestureRecognizer":
            result = _describe_recognizer(metadata)
            lines = _recognizer_lines(result)
        else:
            result = _describe(metadata)
            lines = _lines(result)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ModelFileError(
            f"{arguments.model!r}: a GeSdA file, but not one of a model; a checkpoint is continued with "
            f"'gesda train --checkpoint {arguments.model} --resume'."
        ) from error
    size = os.path.getsize(arguments.model)
    result = {
        "command": "info",
        "model": arguments.model,
        "bytes": size,
        **result,
        "arrays": {name: {"dtype": entry.dtype, "shape": list(entry.shape)} for name, entry in tensors.items()},
    }
    emit(arguments, result, [f"{arguments.model}: {size:,} bytes", *lines])
    return 0


def _describe(metadata: dict[str, Any]) -> dict[str, Any]:
    network, fitted = metadata["network"], metadata["fitted"]
    layers = network["layers"]
    history = fitted["history"]
    n_parameters = sum(
        layer["n_visible"] * layer["n_hidden"] * (1 if layer["tied"] else 2) + layer["n_visible"] + layer["n_hidden"]
        for layer in layers
    )
    if network["head"] is not None:
        n_parameters += (layers[-1]["n_hidden"] + 1) * network["head"]["n_outputs"]
    return {
        "estimator": metadata["estimator"],
        "gesda_version": metadata["gesda_version"],
        "n_features": layers[0]["n_visible"],
        "layers": layers,
        "head": network["head"],
        "n_parameters": n_parameters,
        "classes": fitted.get("classes"),
        "feature_names": fitted["feature_names_in"],
        "device": fitted["device"],
        "params": metadata["params"],
        "history": _history_summary(history, len(layers)),
    }


def _describe_recognizer(metadata: dict[str, Any]) -> dict[str, Any]:
    state = metadata["state"]
    return {
        "estimator": metadata["estimator"],
        "gesda_version": metadata["gesda_version"],
        "gestures": state["names"],
        "n_channels": state["n_channels"],
        "rate": state["rate"],
        "normalization": state["normalization"],
        "n_members": len(metadata["networks"]) - 1,
        "lessons": state["taught"],
        "params": metadata["params"],
    }


def _recognizer_lines(result: dict[str, Any]) -> list[str]:
    rate = "at no known rate" if result["rate"] is None else f"at {result['rate']:g} Hz"
    lessons = result["lessons"]
    return [
        f"{result['estimator']}, saved by GeSdA {result['gesda_version']}",
        f"gestures: {', '.join(map(str, result['gestures'])) or 'none yet'}",
        f"motion: {result['n_channels']} channels {rate}, normalization {result['normalization']}",
        f"{result['n_members']} networks; taught or forgotten after training: {lessons} gesture{'s' * (lessons != 1)}",
        _parameters_line(result),
    ]


def _parameters_line(result: dict[str, Any]) -> str:
    params = result["params"].items()
    return "parameters: " + ", ".join(f"{name}={value!r}" for name, value in params if value is not None)


def _history_summary(history: list[dict[str, Any]], n_layers: int) -> dict[str, Any]:
    """First and last loss of each layer and of fine-tuning, epochs, seconds."""
    summary: dict[str, Any] = {"seconds": sum(record["seconds"] for record in history), "pretrain": []}
    for layer in range(n_layers):
        records = [record for record in history if record["phase"] == "pretrain" and record["layer"] == layer]
        if records:
            losses = {"first_loss": records[0]["loss"], "last_loss": records[-1]["loss"]}
            summary["pretrain"].append({"layer": layer, "epochs": len(records), **losses})
    records = [record for record in history if record["phase"] == "finetune"]
    if records:
        scores = [record["validation_score"] for record in records if record["validation_score"] is not None]
        summary["finetune"] = {
            "epochs": len(records),
            "first_loss": records[0]["loss"],
            "last_loss": records[-1]["loss"],
            "best_validation_score": max(scores, default=None),
        }
    return summary


def _lines(result: dict[str, Any]) -> list[str]:
    lines = [
        f"{result['estimator']}, saved by GeSdA {result['gesda_version']}, trained on the {result['device']} engine",
        f"{result['n_parameters']:,} parameters, {result['n_features']} features",
        "layers:",
    ]
    for k, layer in enumerate(result["layers"]):
        noise = "no noise" if layer["noise"] == "none" else f"{layer['noise']} noise {layer['noise_level']:g}"
        tied = "tied" if layer["tied"] else "untied"
        shape = f"{layer['n_visible']} -> {layer['n_hidden']}"
        lines.append(f"    {k}: {shape} {layer['activation']}, {tied}, {layer['loss']}, {noise}")
    head = result["head"]
    if head is not None:
        lines.append(f"    output: {result['layers'][-1]['n_hidden']} -> {head['n_outputs']} {head['kind']}")
    if result["classes"]:
        shown = ", ".join(map(str, result["classes"][:10]))
        lines.append(f"classes: {shown}{', ...' if len(result['classes']) > 10 else ''}")
    history = result["history"]
    lines.append(f"training: {history['seconds']:.1f} s")
    for entry in history["pretrain"]:
        change = _change(entry["first_loss"], entry["last_loss"])
        lines.append(f"    layer {entry['layer']}: {_epochs(entry['epochs'])}, loss {change}")
    if "finetune" in history:
        entry = history["finetune"]
        text = f"    fine-tuning: {_epochs(entry['epochs'])}, loss {_change(entry['first_loss'], entry['last_loss'])}"
        if entry["best_validation_score"] is not None:
            text += f", best validation score {entry['best_validation_score']:.4g}"
        lines.append(text)
    return [*lines, _parameters_line(result)]


def _epochs(count: int) -> str:
    return f"{count} epoch{'' if count == 1 else 's'}"


def _change(first: float, last: float) -> str:
    if not (math.isfinite(first) and math.isfinite(last)):
        return "not finite"
    return f"{first:.4g} -> {last:.4g}"
