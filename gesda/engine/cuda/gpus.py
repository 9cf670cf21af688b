"""The machine's GPUs: which one an engine gets. May import its own package."""

from __future__ import annotations

import importlib.util
import logging
from functools import cache

from gesda.engine.cuda.check import is_checked
from gesda.engine.cuda.cupy_device import CupyDevice
from gesda.engine.cuda.device import Device
from gesda.engine.cuda.source import ARITHMETICS


def gpu(precision: str, index: int = 0, memory_limit: int | None = None) -> Device:
    """A GPU as a device.

    Raises
    ------
    ValueError
        For a precision that it does not have.
    RuntimeError
        Without CuPy or a usable GPU.
    """
    return CupyDevice(precision, index, memory_limit)


def checked_gpu(precision: str, memory_limit: int | None = None) -> Device | None:
    """The first GPU, if ``gesda warmup`` has found that it computes what it should; else says why not, once."""
    if importlib.util.find_spec("cupy") is None or precision not in ARITHMETICS:
        return None
    try:
        found = gpu(precision, 0, memory_limit)
    except RuntimeError as error:
        _say_once(f"device='auto' takes the cpu: {error}")
        return None
    if is_checked(found, precision):
        return found
    _say_once(
        f"device='auto' takes the cpu: {found.name} has not been checked yet with precision={precision!r}; run "
        f"'gesda warmup --precision {precision}' once, or ask for device='cuda'."
    )
    return None


@cache
def _say_once(message: str) -> None:
    logging.getLogger("gesda").warning(message)
