"""GeSdA: stacked denoising autoencoders, pretrained layer by layer or all layers at once (CrossPre).

The public names load on first use, so that ``import gesda`` costs little more than NumPy.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "StackedDenoisingAutoencoder": "gesda.estimators",
    "SdAClassifier": "gesda.estimators",
    "SdARegressor": "gesda.estimators",
    "load": "gesda.estimators",
    "show_versions": "gesda.diagnostics",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gesda' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
