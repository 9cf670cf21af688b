"""Models for other programs: compact files for libgesda, ONNX, C source.

May import all of gesda below plotting and the command line, and onnx.
"""

from __future__ import annotations

from gesda.export.c_source import save_c, to_c
from gesda.export.compact import WEIGHTS, save_model, without_dead_units
from gesda.export.onnx_graph import OUTPUTS, save_onnx, to_onnx

__all__ = ["OUTPUTS", "WEIGHTS", "save_c", "save_model", "save_onnx", "to_c", "to_onnx", "without_dead_units"]
