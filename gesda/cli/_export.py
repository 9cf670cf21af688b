"""``gesda export``: a model for programs without GeSdA."""

from __future__ import annotations

import argparse
import os

from gesda.cli._common import emit
from gesda.estimators import load
from gesda.export import save_onnx


def run(arguments: argparse.Namespace) -> int:
    """Write an ONNX file, and tell what it takes and gives."""
    model = load(arguments.model)
    written = save_onnx(model, arguments.onnx, arguments.outputs)
    outputs = [output.name for output in written.graph.output]
    size = os.path.getsize(arguments.onnx)
    result = {"command": "export", "model": arguments.model, "onnx": arguments.onnx, "bytes": size, "outputs": outputs}
    emit(arguments, result, [f"{arguments.onnx}: {size:,} bytes, input X, outputs {', '.join(outputs)}"])
    return 0
