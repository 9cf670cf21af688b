"""DeepMotion: gesture recognition from motion (accelerometer, gyroscope, skeleton, pointer), taught in a minute.

Data flows one way: files or generators -> `sequences` -> `features` -> `GestureRecognizer` -> `GestureStream` ->
events, and `serve` puts that on a web page. May import all of gesda below the command line, NumPy, SciPy,
scikit-learn and numba; pooch, Starlette and uvicorn only where they are used.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Augmentation": "gesda.deepmotion.features",
    "GestureEvent": "gesda.deepmotion.streaming.stream",
    "GestureRecognizer": "gesda.deepmotion.recognition.recognizer",
    "GestureStream": "gesda.deepmotion.streaming.stream",
    "MotionDataset": "gesda.deepmotion.data.sequences",
    "Recognition": "gesda.deepmotion.recognition.recognizer",
    "StreamReport": "gesda.deepmotion.streaming.stream",
    "fetch_motion": "gesda.deepmotion.data.download",
    "load_motion": "gesda.deepmotion.data.readers",
    "make_gesture_stream": "gesda.deepmotion.data.synthetic",
    "make_gestures": "gesda.deepmotion.data.synthetic",
    "make_scribbles": "gesda.deepmotion.data.synthetic",
    "read_utd_mhad": "gesda.deepmotion.data.readers",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gesda.deepmotion' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("numba", "llvmlite"):
            raise
        raise ImportError("gesda.deepmotion needs numba; install it with: pip install 'gesda[deepmotion]'.") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
