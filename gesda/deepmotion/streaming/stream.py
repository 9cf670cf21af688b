"""Gestures in a stream: push samples as they come, get events.

Three stages, and data flows one way: samples become uniform rows (`clock`), rows become motions with a beginning and
an end (`spotting`), and the recogniser names the motions (`judging`). A motion between two pauses is asked about as a
whole, and in parts only if the whole is no gesture. One that lasts longer than any gesture is scanned while it goes on:
stretches of a gesture's length are scored, and the best is an event once the score has fallen again.

Nothing grows: buffers have the length of the longest gesture, the work for a sample is bounded, and the recogniser is
called once for a gesture between rests, a few times for a motion that is none, and about ``candidates`` times every
quarter of the shortest gesture while a longer motion goes on.

Imports NumPy, and numba through its stages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gesda.deepmotion.streaming.clock import Clock
from gesda.deepmotion.streaming.judging import GestureEvent, Judge, Recognizer

__all__ = ["GestureEvent", "GestureStream", "StreamReport"]

_NO_TIMES = np.zeros(0)
_FLOAT64 = np.dtype(np.float64)


@dataclass(frozen=True)
class StreamReport:
    """What a stream has taken, and what was wrong with it, since the start or the last `GestureStream.reset`.

    Attributes
    ----------
    received : int
        Samples pushed.
    used : int
        Samples with at least one value that counts.
    missing : int
        Samples that did not come or had no value that counts, in holes that were interpolated.
    late : int
        Samples dropped because their time stamp went back, or jumped to where no other followed.
    duplicated : int
        Samples dropped because their time stamp was that of the sample before.
    not_finite : int
        Values that were NaN or infinite, and samples dropped because their time stamp was, or was no time in seconds.
    out_of_range : int
        Values taken as missing because they were outside of ``limits`` or spikes.
    gaps : int
        Holes too long to interpolate, and clocks set to another time: the gesture ended there.
    rate : float
        Rate of the samples in Hz, over about the last 64.
    lost_channels : tuple of int
        Channels that give nothing now: no value for longer than ``max_gap``, or always the same for two seconds while
        others moved.
    events : int
        Gestures recognised.
    rejected : int
        Motions that were no known gesture.
    """

    received: int
    used: int
    missing: int
    late: int
    duplicated: int
    not_finite: int
    out_of_range: int
    gaps: int
    rate: float
    lost_channels: tuple[int, ...]
    events: int
    rejected: int


class GestureStream:
    """Recognises gestures in samples as they come.

    A gesture's event comes ``pause`` seconds after its end, because until then it may go on; `flush` asks for it at
    once. Events depend on the samples and their times only: not on how they were split into pushes. Whatever is wrong
    with samples is repaired or dropped and counted in `report`; only a wrong shape or type is an error. Gestures that
    the recogniser learns or forgets are followed, also while the stream runs.

    One stream belongs to one thread at a time; several streams may share a recogniser.

    Parameters
    ----------
    recognizer : GestureRecognizer
        A fitted recogniser; of another object its ``recognize``, ``n_channels_``, ``rate_``, ``duration_range_``,
        ``classes_`` and, if there is one, ``threshold_`` are used.
    rate : float, default=None
        Rate in Hz of samples without time stamps; None: that of the recogniser's examples. Samples at another rate than
        theirs are interpolated to it on straight lines, without a filter.
    pause : float, default=0.25
        Seconds of rest that end a gesture. Shorter: events come sooner, and gestures with a rest inside are cut.
    max_gap : float, default=None
        Seconds; holes up to this length are interpolated, longer ones end the gesture. At least three samples; None:
        0.25 s, or five samples if that is more.
    limits : (low, high), default=None
        Values outside are taken as missing; numbers, or arrays (n_channels,). None: only spikes are, that is one or two
        values in a row 20 times as far from the channel's mean of the last second as it came in the last minute.
    unknown : bool, default=False
        Whether a motion that is no known gesture is an event too, with the label None.
    continuous : bool, default=True
        Whether gestures are also looked for inside of motions that are none as a whole, or longer than any. False: a
        motion between two pauses is one gesture or none, which takes fewer motions for gestures, and less time.
    candidates : int, default=4
        How many lengths of gestures are tried at each place of such a motion.

    Raises
    ------
    ValueError
        When a parameter is out of its range, the recogniser is not fitted, or neither it nor ``rate`` tells the rate.

    Examples
    --------
    >>> import numpy as np
    >>> from types import SimpleNamespace
    >>> class Waves:
    ...     n_channels_, rate_, duration_range_, classes_ = 1, 100.0, (0.5, 2.0), ["wave"]
    ...     def recognize(self, sequence):
    ...         return SimpleNamespace(label="wave", confidence=0.9, familiarity=1.0)
    >>> stream = GestureStream(Waves())
    >>> rest, wave = np.zeros(100), np.sin(np.arange(100) / 5)
    >>> for event in stream.push(np.concatenate([rest, wave, rest])):
    ...     print(f"{event.label} from {event.start:.1f} to {event.end:.1f} s")
    wave from 0.9 to 2.0 s
    >>> stream.report.received
    300
    """

    def __init__(
        self,
        recognizer: Recognizer,
        *,
        rate: float | None = None,
        pause: float = 0.25,
        max_gap: float | None = None,
        limits: tuple[ArrayLike, ArrayLike] | None = None,
        unknown: bool = False,
        continuous: bool = True,
        candidates: int = 4,
    ) -> None:
        n_channels = getattr(recognizer, "n_channels_", None)
        if n_channels is None:
            raise ValueError("the recogniser has no n_channels_: fit it before it gets a stream")
        known_rate = recognizer.rate_
        if rate is None and known_rate is None:
            raise ValueError("neither the recogniser nor the stream knows a rate: give rate=, samples per second")
        rate = float(known_rate if rate is None else rate)  # type: ignore[arg-type]
        _check_range("rate", rate, 1e-3, 1e6, "Hz")
        _check_range("pause", pause, 0.01, 60, "seconds")
        max_gap = max(0.25, 5 / rate) if max_gap is None else float(max_gap)
        _check_range("max_gap", max_gap, 3 / rate, 1000 / rate + 60, "seconds")
        _check_range("candidates", candidates, 1, 64, "lengths")
        low, high = _check_limits(limits, int(n_channels))
        self._n_channels = int(n_channels)
        grid_rate = rate if known_rate is None else float(known_rate)
        self._clock = Clock(self._n_channels, rate, grid_rate, max_gap, low, high)
        self._judge = Judge(recognizer, grid_rate, rate, float(pause), bool(unknown), bool(continuous), int(candidates))
        # The kernels are compiled, or read from numba's cache, now and not when a person waits.
        self.push(np.zeros((1, self._n_channels)))
        self.flush()
        if hasattr(recognizer, "recognize_all"):
            recognizer.recognize_all([np.zeros((2, self._n_channels), dtype=np.float32)])
        self.reset()

    # ---- samples in, events out -------------------------------------------------------------------
    def push(self, samples: ArrayLike, times: ArrayLike | None = None) -> list[GestureEvent]:
        """Take samples; return the gestures that have ended.

        Parameters
        ----------
        samples : array-like (n, n_channels), or (n_channels,) for one sample, or (n,) of a single channel
            Real numbers; NaN, infinity and None stand for values that are missing.
        times : array-like (n,), default=None
            When the samples were taken, in seconds on any clock that goes forward; None: they follow the sample before
            at the stream's rate.

        Returns
        -------
        list of GestureEvent
            In the order of their ends.

        Raises
        ------
        TypeError
            When samples or times are not real numbers.
        ValueError
            When their shapes do not fit. In both cases nothing was taken.
        """
        block = self._check_samples(samples)
        stamps = _NO_TIMES if times is None else self._check_times(times, len(block))
        self._judge.follow_recognizer()
        events: list[GestureEvent] = []
        begin = 0
        while True:
            begin, n_rows = self._clock.take(block, stamps, times is not None, begin)
            events += self._judge.take(self._clock.rows, self._clock.begins, n_rows)
            if begin >= len(block):
                return events

    def flush(self) -> list[GestureEvent]:
        """End the gesture that is going on, if there is one, and return its event without waiting for a pause.

        The stream goes on; a run of samples too short to tell motion from rest is taken as one gesture.

        Returns
        -------
        list of GestureEvent
        """
        n_rows = self._clock.finish()
        return self._judge.take(self._clock.rows, self._clock.begins, n_rows) + self._judge.finish()

    def reset(self) -> None:
        """Forget all samples and counts: the stream is as new."""
        self._clock.reset()
        self._judge.reset()

    @property
    def report(self) -> StreamReport:
        """What came so far and what was wrong with it."""
        return StreamReport(
            **self._clock.counts,
            rate=self._clock.rate,
            lost_channels=self._clock.lost_channels,
            events=self._judge.events,
            rejected=self._judge.rejected,
        )

    @property
    def in_motion(self) -> bool:
        """Whether a motion is going on that may become a gesture."""
        return self._judge.spotter.in_motion

    # ---- checks -----------------------------------------------------------------------------------
    def _check_samples(self, samples: ArrayLike) -> NDArray[np.float64]:
        block = _real_numbers(samples, "samples")
        if block.ndim == 1:
            if self._n_channels == 1:
                return block.reshape(-1, 1)
            if len(block) in (0, self._n_channels):
                return block.reshape(-1, self._n_channels)
        if block.ndim == 2 and block.shape[1] == self._n_channels:
            return block
        raise ValueError(
            f"samples have the shape {block.shape}; this stream takes (n, {self._n_channels}), one column a channel"
        )

    def _check_times(self, times: ArrayLike, n: int) -> NDArray[np.float64]:
        stamps = _real_numbers(times, "times")
        if stamps.ndim == 0:
            stamps = stamps.reshape(1)
        if stamps.shape != (n,):
            raise ValueError(f"times have the shape {stamps.shape}; give one for each of the {n} samples")
        return stamps


def _real_numbers(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Copy numbers into a new float64 array: aligned, writable and in C order, so that the kernels compile once."""
    if type(values) is np.ndarray and values.dtype is _FLOAT64:
        return values.copy()  # what a live program pushes, sample by sample
    if isinstance(values, np.ma.MaskedArray):
        values = np.ma.filled(values.astype(np.float64), np.nan)
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} are no array of numbers ({error}); give rows of equal length") from None
    if array.dtype.kind not in "fiuO":
        if array.size == 0:
            return np.zeros(array.shape)
        raise TypeError(f"{name} are of the type {array.dtype}; give real numbers")
    try:
        with np.errstate(all="ignore"):  # a long double may not fit; then it is infinite, and counted as such
            return np.array(array, dtype=np.float64, order="C")
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{name} are no real numbers ({error}); give numbers, NaN where one is missing") from None


def _check_range(name: str, value: float, low: float, high: float, unit: str) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; give a number from {low:g} to {high:g} {unit}")


def _check_limits(
    limits: tuple[ArrayLike, ArrayLike] | None, n_channels: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = (-math.inf, math.inf) if limits is None else limits
    try:
        lows = np.array(np.broadcast_to(np.asarray(low, np.float64), (n_channels,)))
        highs = np.array(np.broadcast_to(np.asarray(high, np.float64), (n_channels,)))
    except ValueError as error:
        raise ValueError(f"limits do not fit {n_channels} channels ({error}); give two numbers or two arrays") from None
    if not (lows < highs).all():
        raise ValueError(f"limits are {low} and {high}; give the lower one first")
    return lows, highs
