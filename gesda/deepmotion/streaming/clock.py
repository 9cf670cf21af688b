"""Sample hygiene: samples as they arrive become uniform, finite rows at the recogniser's rate.

What is wrong with a sample is counted, never raised. Two rules decide what to believe:

- A jump is believed when it lasts. A clock that jumps by more than ``max_gap`` is followed when the next sample
  continues from there; a value 20 times as far out as its channel has lately been is a spike unless two more follow.
- Channels are filled each for itself, by linear interpolation between the values it has. A row is complete when all
  channels are; one without a value for longer than ``max_gap`` is lost and keeps its last value, so others go on.

A pause of more than ``max_gap`` without any value ends a run of rows and begins another. The kernels keep their state
in two structured arrays, take one sample after the other and know nothing of how the samples were split into pushes.

Imports NumPy and numba only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Function = TypeVar("Function", bound=Callable[..., Any])

#: Beyond these a number is no measurement (float32 still squares it) and no time in seconds (it has no fractions).
MAX_MAGNITUDE = 1e12
MAX_TIME = 1e11

SPIKE_FACTOR = 20.0
#: In grid intervals: stamps are rounded, and a row that is due a thousandth later is due now.
_TOLERANCE = 1e-3
_BLOCK = 1024
_CENTRE_SECONDS = 1.0
_SCALE_SECONDS = 60.0
#: Before a channel's scale is known, nothing is a spike.
_WARM_SECONDS = 0.5

_COUNTS = ("received", "used", "missing", "late", "duplicated", "not_finite", "out_of_range", "gaps")
_CLOCK = np.dtype(
    [(name, np.int64) for name in _COUNTS]
    + [(name, np.int64) for name in ("started", "running", "row_out", "since_anchor", "waiting", "warm_rows")]
    + [(name, np.int64) for name in ("lost_rows",)]
    + [
        (name, np.float64)
        for name in ("grid_rate", "rate", "max_gap", "interval", "tick", "centre_gain", "scale_decay")
    ]
    + [(name, np.float64) for name in ("t_row", "t_value", "t_run", "t_anchor", "t_waiting")],
    align=True,
)
_CHANNEL = np.dtype(
    # t, value: the last one believed, t counted from the start of the run and NaN before the run's first value.
    [(name, np.float64) for name in ("t", "value", "low", "high", "centre", "scale")]
    + [(name, np.float64) for name in ("t_wild_0", "t_wild_1", "wild_0", "wild_1")]
    + [(name, np.int64) for name in ("row", "seen", "wild", "believed", "valid", "lost", "unchanged")],
    align=True,
)


def compiled(function: Function) -> Function:
    """Compile by numba, and keep the machine code in a cache beside the source."""
    return cast(Function, numba.njit(cache=True)(function))


@compiled
def _judge(c: int, t: float, value: float, clock: Any, channels: Any) -> None:
    """Decide whether a channel's value counts; a far one is put aside until it is known whether it lasts."""
    s = clock[0]
    channel = channels[c]
    channel.valid = 0
    channel.believed = 0
    if not math.isfinite(value):
        s.not_finite += 1
        return
    if abs(value) > MAX_MAGNITUDE or value < channel.low or value > channel.high:
        s.out_of_range += 1
        return
    if channel.seen == 0:
        channel.centre = value
    distance = abs(value - channel.centre)
    if channel.seen >= s.warm_rows and channel.scale > 0 and distance > SPIKE_FACTOR * channel.scale:
        if channel.wild == 0:
            channel.t_wild_0, channel.wild_0, channel.wild = t, value, 1
            return
        if channel.wild == 1:
            channel.t_wild_1, channel.wild_1, channel.wild = t, value, 2
            return
        channel.believed = 1
    else:
        s.out_of_range += channel.wild
    channel.wild = 0
    channel.valid = 1
    channel.seen += 1
    channel.scale = max(distance, channel.scale * s.scale_decay)
    channel.centre += (value - channel.centre) * s.centre_gain


@compiled
def _fill(c: int, t: float, value: float, clock: Any, channels: Any, work: Any) -> None:
    """Bring one channel up to a time (from the start of the run), on a line from its last value to this one."""
    rate = clock[0].grid_rate
    channel = channels[c]
    last = math.floor(t * rate + _TOLERANCE)
    row = channel.row
    while row <= last:
        at = row / rate
        filled = value
        if not math.isnan(channel.t) and (t - at) * rate > _TOLERANCE:
            filled = channel.value + (at - channel.t) / (t - channel.t) * (value - channel.value)
        work[row % len(work), c] = filled
        row += 1
    channel.row = row
    channel.t = t
    channel.value = value


@compiled
def _emit(clock: Any, channels: Any, work: Any, rows: Any, begins: Any, n_rows: int) -> int:
    """Hand on the rows that all channels have reached; ``begins`` is the run's time at its first row, else NaN."""
    s = clock[0]
    complete = channels[0].row
    for c in range(len(channels)):
        complete = min(complete, channels[c].row)
    while s.row_out < complete:
        for c in range(len(channels)):
            rows[n_rows, c] = work[s.row_out % len(work), c]
        begins[n_rows] = s.t_run if s.row_out == 0 else np.nan
        s.row_out += 1
        n_rows += 1
    return n_rows


@compiled
def _take(t: float, sample: Any, clock: Any, channels: Any, work: Any, rows: Any, begins: Any, n_rows: int) -> int:
    """Take a sample whose time is settled."""
    s = clock[0]
    if s.started:
        step = t - s.t_row
        if 0 < step <= s.max_gap:
            s.interval += (min(step, 4 * s.interval) - s.interval) / 64
            # A quartile of the steps: what they would be if none were missing.
            s.tick *= 1.0125 if step > s.tick else 0.9625
    s.started = 1
    s.t_row = t
    any_valid = False
    any_believed = False
    any_changed = False
    for c in range(len(channels)):
        _judge(c, t, sample[c], clock, channels)
        if channels[c].valid:
            any_valid = True
            any_believed = any_believed or channels[c].believed == 1
            any_changed = any_changed or sample[c] != channels[c].value
    if not any_valid:
        return n_rows
    s.used += 1
    hole = t - s.t_value
    s.t_value = t
    if not s.running or not 0 < hole <= s.max_gap:
        if s.running:
            s.gaps += 1
            # What still waits for a channel that did not come belongs to the run that ends.
            n_rows = _complete(clock, channels, work, rows, begins, n_rows)
        s.running = 1
        s.t_run = t
        s.row_out = 0
        for c in range(len(channels)):
            channels[c].t = np.nan
            channels[c].row = 0
            channels[c].believed = 0
    elif hole > 1.5 * s.tick and not any_believed:
        s.missing += round(hole / s.tick) - 1
    since = t - s.t_run
    for c in range(len(channels)):
        channel = channels[c]
        if channel.valid:
            if channel.believed:
                # Not what was put aside under a clock that has been put back since: its time is still to come.
                if channel.t_wild_0 <= t:
                    _fill(c, channel.t_wild_0 - s.t_run, channel.wild_0, clock, channels, work)
                if channel.t_wild_1 <= t:
                    _fill(c, channel.t_wild_1 - s.t_run, channel.wild_1, clock, channels, work)
            if sample[c] != channel.value:
                channel.unchanged = 0
            elif any_changed:
                channel.unchanged += 1
            channel.lost = 0
            _fill(c, since, sample[c], clock, channels, work)
        elif channel.lost or since - (0.0 if math.isnan(channel.t) else channel.t) > s.max_gap:
            channel.lost = 1
            _fill(c, since, channel.value, clock, channels, work)
    return _emit(clock, channels, work, rows, begins, n_rows)


@compiled
def _complete(clock: Any, channels: Any, work: Any, rows: Any, begins: Any, n_rows: int) -> int:
    """Bring all channels to where the furthest is; those behind keep their last value."""
    s = clock[0]
    furthest = 0
    for c in range(len(channels)):
        s.out_of_range += channels[c].wild
        channels[c].wild = 0
        furthest = max(furthest, channels[c].row)
    for c in range(len(channels)):
        if channels[c].row < furthest:
            _fill(c, (furthest - 1) / s.grid_rate, channels[c].value, clock, channels, work)
    return _emit(clock, channels, work, rows, begins, n_rows)


@compiled
def _advance(
    samples: Any,
    times: Any,
    timed: bool,
    begin: int,
    clock: Any,
    channels: Any,
    waiting: Any,
    work: Any,
    rows: Any,
    begins: Any,
) -> tuple[int, int]:
    """Take samples (n, n_channels) from ``begin`` on until ``rows`` might overflow; how far it came, rows made."""
    s = clock[0]
    n_rows = 0
    room = len(rows) - 2 * len(work)
    i = begin
    while i < len(samples) and n_rows < room:
        sample = samples[i]
        s.received += 1
        if not timed:
            t = s.t_anchor + s.since_anchor / s.rate  # not a sum: ten million steps would add up their errors
            s.since_anchor += 1
            n_rows = _take(t, sample, clock, channels, work, rows, begins, n_rows)
            i += 1
            continue
        t = times[i]
        i += 1
        if not abs(t) <= MAX_TIME:
            s.not_finite += 1
            continue
        step = t - s.t_row
        accept = not s.started or 0 < step <= s.max_gap
        if not accept:
            if step == 0:
                s.duplicated += 1
                continue
            if s.waiting and 0 < t - s.t_waiting <= s.max_gap:
                s.waiting = 0
                s.since_anchor = 1
                n_rows = _take(s.t_waiting, waiting, clock, channels, work, rows, begins, n_rows)
                accept = True
            elif s.waiting and t == s.t_waiting:
                s.duplicated += 1
            elif -s.max_gap <= step < 0:
                s.late += 1
            else:
                s.late += s.waiting
                s.waiting = 1
                s.t_waiting = t
                waiting[:] = sample
        if accept:
            s.late += s.waiting
            s.waiting = 0
            s.t_anchor = t
            s.since_anchor = 1
            n_rows = _take(t, sample, clock, channels, work, rows, begins, n_rows)
    return i, n_rows


@compiled
def _finish(clock: Any, channels: Any, work: Any, rows: Any, begins: Any) -> int:
    """Hand on what waits for a channel's next value; return the number of rows."""
    if not clock[0].running:
        return 0
    return _complete(clock, channels, work, rows, begins, 0)


class Clock:
    """Samples in, uniform rows out.

    Parameters
    ----------
    n_channels : int
    rate : float
        Rate in Hz of samples that come without time stamps.
    grid_rate : float
        Rate in Hz of the rows.
    max_gap : float
        Seconds; holes up to this length are interpolated.
    low, high : (n_channels,) arrays
        What lies outside is no measurement.

    Attributes
    ----------
    rows : (capacity, n_channels) float64 array
        What the last call of `take` or `finish` made.
    begins : (capacity,) float64 array
        Time in seconds of a row that begins a run, NaN at all others.
    """

    def __init__(
        self,
        n_channels: int,
        rate: float,
        grid_rate: float,
        max_gap: float,
        low: NDArray[np.float64],
        high: NDArray[np.float64],
    ) -> None:
        self._n_channels = n_channels
        self._rate = rate
        self._grid_rate = grid_rate
        self._max_gap = max_gap
        self._limits = low, high
        # A channel lags by no more than max_gap and one step, and a step by no more than max_gap.
        ahead = math.ceil((2 * max_gap + 3 / rate) * grid_rate) + 8
        self._work = np.zeros((ahead, n_channels))
        self.rows = np.zeros((_BLOCK + 2 * ahead, n_channels))
        self.begins = np.full(len(self.rows), np.nan)
        self.reset()

    def reset(self) -> None:
        """Forget all samples and counts."""
        self._state: Any = np.zeros(1, _CLOCK)
        self._channels: Any = np.zeros(self._n_channels, _CHANNEL)
        self._waiting = np.zeros(self._n_channels)
        self._channels["low"], self._channels["high"] = self._limits
        self._channels["t"] = np.nan
        state = self._state[0]
        state["rate"], state["grid_rate"], state["max_gap"] = self._rate, self._grid_rate, self._max_gap
        state["interval"] = state["tick"] = 1 / self._rate
        state["centre_gain"] = -math.expm1(-1 / (_CENTRE_SECONDS * self._rate))
        state["scale_decay"] = math.exp(-1 / (_SCALE_SECONDS * self._rate))
        state["warm_rows"] = math.ceil(_WARM_SECONDS * self._rate)
        state["lost_rows"] = math.ceil(2 * self._rate)

    def take(
        self, samples: NDArray[np.float64], times: NDArray[np.float64], timed: bool, begin: int
    ) -> tuple[int, int]:
        """Take samples from number ``begin`` on; return the number of the next one and how many rows were made."""
        return _advance(
            samples,
            times,
            timed,
            begin,
            self._state,
            self._channels,
            self._waiting,
            self._work,
            self.rows,
            self.begins,
        )

    def finish(self) -> int:
        """Hand on the rows that wait for a channel; return how many."""
        return _finish(self._state, self._channels, self._work, self.rows, self.begins)

    @property
    def counts(self) -> dict[str, int]:
        """What was wrong so far, by the names of StreamReport."""
        return {name: int(self._state[0][name]) for name in _COUNTS}

    @property
    def rate(self) -> float:
        """Rate of the samples in Hz, over about the last 64."""
        return float(1 / self._state[0]["interval"])

    @property
    def lost_channels(self) -> tuple[int, ...]:
        """Channels without a value for longer than max_gap, or still for two seconds while others moved."""
        lost = (self._channels["lost"] != 0) | (self._channels["unchanged"] >= self._state[0]["lost_rows"])
        return tuple(int(c) for c in np.flatnonzero(lost))
