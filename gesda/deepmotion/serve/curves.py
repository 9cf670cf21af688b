"""Learning curves: the records of a training, sent while it runs, as few points as a picture needs."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gesda.callbacks import Callback, Record

_MOST_POINTS = 160
_EVERY = 0.15  # seconds between two messages


class Live:
    """Carries records from the training's thread to the event loop, a few times a second.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
    deliver : callable of a list of records
        Called in the loop's thread.
    stopped : callable
        Asked after every epoch; true ends the phase.

    Attributes
    ----------
    callback : gesda.callbacks.Callback
        What the training gets.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        deliver: Callable[[list[Record]], None],
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._loop, self._deliver, self._stopped = loop, deliver, stopped
        self._waiting: list[Record] = []
        self._sent = 0.0
        self.callback: Callback = _Listener(self)

    def hear(self, record: Record) -> bool:
        """Keep a record; send all that wait if it is time. Returns whether to stop."""
        self._waiting.append(dict(record))
        if time.monotonic() - self._sent > _EVERY:
            self.flush()
        return self._stopped()

    def flush(self) -> None:
        """Send all that wait."""
        records, self._waiting, self._sent = self._waiting, [], time.monotonic()
        if records and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver, records)


class _Listener(Callback):
    """The callback's side of `Live`."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def on_epoch_end(self, run: Any, record: Record) -> bool | None:
        return self._live.hear(record)

    def on_train_end(self, run: Any) -> None:
        self._live.flush()


def series(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Group records into curves.

    Parameters
    ----------
    records : iterable of dict
        As `gesda.callbacks` describes them; those without a finite loss are left out.

    Returns
    -------
    list of dict
        ``{"name": str, "phase": str, "points": [[epoch, loss], ...]}``, at most 160 points each.

    Examples
    --------
    >>> series([{"phase": "pretrain", "layer": 0, "epoch": 1, "loss": 0.5}])
    [{'name': 'layer 1', 'phase': 'pretrain', 'points': [[1, 0.5]]}]
    """
    curves: dict[tuple[str, int], list[list[float]]] = {}
    for record in records:
        loss = record.get("loss")
        if isinstance(loss, int | float) and math.isfinite(loss):
            key = (str(record.get("phase", "")), int(record.get("layer") or 0))
            points = curves.setdefault(key, [])
            # An ensemble trains one network after the other: its epochs are counted on.
            points.append([len(points) + 1, float(f"{loss:.5g}")])
    return [
        {"name": f"layer {layer + 1}" if phase == "pretrain" else "classifier", "phase": phase, "points": _few(points)}
        for (phase, layer), points in curves.items()
    ]


def _few(points: list[list[float]]) -> list[list[float]]:
    if len(points) <= _MOST_POINTS:
        return points
    step = (len(points) - 1) / (_MOST_POINTS - 1)
    return [points[round(position * step)] for position in range(_MOST_POINTS)]
