"""Models for programs without GeSdA: `to_onnx` and `save_onnx`.

May import all of gesda below plotting and the command line, and onnx.
"""

from __future__ import annotations

from gesda.export.onnx_graph import OUTPUTS, save_onnx, to_onnx

__all__ = ["OUTPUTS", "save_onnx", "to_onnx"]
