"""Where motion begins and ends in a stream of uniform rows.

Activity is the variance of each channel over a short trailing window: a constant offset (gravity, a position) is no
activity, and what counts is how far the channel moves, not how fast it trembles. It is compared with the channel's rest
level, which follows what is ordinary at rest within a second, goes down with stiller windows in motion, and up by 1 dB
a second at most: a machine that starts in the room is rest after a while; a long motion, whose turning points are
still, is not. Motion begins where a channel (one in twenty, if there are many) exceeds its rest level 2.5 times, as a
standard deviation; it ends where all stay for ``pause`` under 1.9 times their rest level (more, if the window has few
samples), or under 0.15 of the motion's own peak, whichever is more. So nothing depends on the unit of a channel, and
nothing outlasts a motion but the rest level.

The kernel stops at the row where there is something to do and says what; Python does it and lets the kernel go on.
That row depends on the rows alone.

Imports NumPy, SciPy and numba only.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.signal import find_peaks
from scipy.special import chdtri

from gesda.deepmotion.streaming.clock import compiled

NOTHING, ENDED, SCAN, RESTED = 0, 1, 2, 3

# Ratios of variances: squares of those in the text above.
_GOES_ON = 1.9**2
_BEGINS_OVER_GOES_ON = 1.8
#: In a window of few samples noise varies more: motion exceeds what it does in one window of so many.
_RARELY = 3e-4
_OF_PEAK = 0.15**2
_FALL_SECONDS = 0.2
_REST_SECONDS = 0.7
_RISE_PER_SECOND = 10**0.1
#: What is this many times the variance of a window has never been rest, but came from a run that began in motion.
_NOT_REST = 10.0
#: The rest level is never further below a motion than this, so that it can rise to it within a minute.
_DEEPEST = 1e-6
#: Relative variance that rounding may feign.
_ROUNDING = 1e-12
#: A stop is this many times stiller than the motion on either side, as a standard deviation.
_STOP_DEPTH = 2.0
#: No more samples of the window than these are looked at, whatever the rate.
_WINDOW_SAMPLES = 24

_SPOT = np.dtype(
    [(name, np.int64) for name in ("window", "stride", "pause", "longest", "hop", "needed")]
    + [
        (name, np.int64)
        for name in ("row", "in_motion", "start", "last", "last_clear", "earliest", "next_scan", "motions")
    ]
    + [(name, np.int64) for name in ("ended_start", "ended_end", "cut_off")]
    + [(name, np.float64) for name in ("t_run", "goes_on", "begins", "fall", "follow", "rise", "peak_decay")],
    align=True,
)
_LEVELS = np.dtype([(name, np.float64) for name in ("rest", "peak")], align=True)


@compiled
def _variance(ring: Any, c: int, row: int, window: int, stride: int) -> tuple[float, float]:
    """Variance and squared mean of the trailing window, summed afresh: running sums would keep rounding errors."""
    capacity = len(ring)
    n = (window + stride - 1) // stride
    position = row % capacity
    total = 0.0
    at = position
    for _ in range(n):
        total += ring[at, c]
        at -= stride
        if at < 0:
            at += capacity
    mean = total / n
    squares = 0.0
    at = position
    for _ in range(n):
        difference = ring[at, c] - mean
        squares += difference * difference
        at -= stride
        if at < 0:
            at += capacity
    return squares / n, mean * mean


@compiled
def _rest_begins(spot: Any) -> int:
    """The row after the last of a motion that has come to rest."""
    s = spot[0]
    return int(s.last_clear - s.window // 2 + 1)


@compiled
def _end(spot: Any, levels: Any) -> bool:
    """End the motion, if there is one, at this row; whether there was something to look at."""
    s = spot[0]
    found = False
    s.cut_off = s.row
    if s.in_motion:
        s.ended_start = s.start
        # Noise may have put the end off, but not where the motion was last clear.
        # Motion that was going on at the last row fills the window; one that had ended before left it on the way.
        s.ended_end = s.row if s.last == s.row - 1 else _rest_begins(spot)
        found = True
    elif s.motions == 0 and s.row > 0 and s.row - s.earliest <= s.longest:
        # Too short for rest to be known: perhaps a sensor that sends while it moves, and nothing else.
        s.ended_start = s.earliest
        s.ended_end = s.row
        for c in range(len(levels)):
            found = found or levels[c].peak > 0
    s.in_motion = 0
    s.motions += 1
    s.earliest = s.ended_end if found else s.row
    for c in range(len(levels)):
        levels[c].peak = 0.0
    return found


@compiled
def _spot_row(spot: Any, levels: Any, ring: Any) -> int:
    """Look at the row that was just written; return what is to be done."""
    s = spot[0]
    row = s.row
    s.row += 1
    if s.row < s.window:
        return NOTHING
    above = 0
    clearly = 0
    for c in range(len(levels)):
        level = levels[c]
        variance, offset = _variance(ring, c, row, s.window, s.stride)
        if s.row == s.window:
            level.rest = 2 * variance  # a single window may be stiller than most
        rounding = _ROUNDING * offset
        rest = max(level.rest, rounding)
        if s.in_motion:
            level.peak = max(variance, level.peak * s.peak_decay)
            above += variance > max(s.goes_on * rest, _OF_PEAK * level.peak)
            clearly += variance > max(s.begins * rest, _OF_PEAK * level.peak)
        else:
            if s.motions == 0:
                level.peak = max(level.peak, variance - rounding)
            above += variance > s.begins * rest
            clearly = above
        if variance <= level.rest:
            # In motion any stiller window is a better guess; at rest it is as good as one that is less still.
            gain = s.fall if s.in_motion else s.follow
            level.rest = min(level.rest + (variance - level.rest) * gain, _NOT_REST * variance)
        elif variance <= s.goes_on * rest:
            level.rest += (variance - level.rest) * s.follow
        else:
            level.rest = max(level.rest, _DEEPEST * variance) * s.rise
    if above >= s.needed:
        if not s.in_motion:
            s.in_motion = 1
            # Nothing is known of rest before the first pause: the first motion may have begun with the run.
            s.start = max(s.earliest, row - s.window // 2) if row >= s.window + s.pause else s.earliest
            s.next_scan = s.longest
            s.motions += 1
            for c in range(len(levels)):
                levels[c].peak = 0.0
        s.last = row
    if clearly >= s.needed:
        s.last_clear = row
    if not s.in_motion:
        return NOTHING
    if row - s.last >= s.pause:
        _end(spot, levels)
        s.cut_off = s.ended_end
        return ENDED
    if row - s.last == (s.pause + 1) // 2:
        s.cut_off = _rest_begins(spot)
        return RESTED
    if row - s.start + 1 >= s.next_scan:
        s.next_scan += s.hop
        return SCAN
    return NOTHING


@compiled
def _advance(rows: Any, begins: Any, begin: int, n_rows: int, spot: Any, levels: Any, ring: Any) -> tuple[int, int]:
    """Take rows from ``begin`` on until there is something to do; number of the next row, what to do."""
    s = spot[0]
    i = begin
    while i < n_rows:
        if begins[i] == begins[i]:  # not NaN: a run begins
            if s.row > 0:
                ended = _end(spot, levels)
                s.row = 0
                if ended:
                    return i, ENDED
            s.t_run = begins[i]
            s.earliest = 0
            s.motions = 0
        for c in range(len(levels)):
            ring[s.row % len(ring), c] = rows[i, c]
        i += 1
        todo = _spot_row(spot, levels, ring)
        if todo != NOTHING:
            return i, todo
    return i, NOTHING


def find_stops(rows: NDArray[np.float32], window: int) -> list[int]:
    """Find the places in a motion (n, n_channels) where it all but stops for a moment."""
    if len(rows) <= window:
        return []
    variance = np.lib.stride_tricks.sliding_window_view(rows.astype(np.float64), window, axis=0).var(axis=-1)
    peak = variance.max(axis=0)
    activity = (variance / np.where(peak > 0, peak, 1.0)).max(axis=1)
    stillness = -0.5 * np.log(activity + _DEEPEST)
    peaks, _ = find_peaks(stillness, prominence=math.log(_STOP_DEPTH))
    return [int(peak) + window // 2 for peak in peaks]


class Lengths(NamedTuple):
    """What a spotter goes by, in rows."""

    window: int  # of the activity
    pause: int  # a motion ends after so many rows of rest
    shortest: int  # a motion shorter than this is none
    longest: int  # a motion longer than this holds several gestures
    hop: int  # rows from one scan of a long motion to the next


class Spotter:
    """Rows in; what to look at out.

    Parameters
    ----------
    n_channels : int
    rate : float
        Rows per second.
    sample_rate : float
        Samples per second, as far as it is known; rows between samples are no news.
    lengths : Lengths

    Attributes
    ----------
    capacity : int
        How many rows back one can look.
    """

    def __init__(self, n_channels: int, rate: float, sample_rate: float, lengths: Lengths) -> None:
        self.lengths = lengths
        self._rate = rate
        # While a motion is scanned, the scan may be behind by one longest motion and look back by another.
        self.capacity = 2 * lengths.longest + lengths.pause + lengths.window + 2 * lengths.hop
        self._ring = np.zeros((self.capacity, n_channels), np.float32)
        self._spot: Any = np.zeros(1, _SPOT)
        self._levels: Any = np.zeros(n_channels, _LEVELS)
        state = self._spot[0]
        state["window"] = lengths.window
        state["stride"] = math.ceil(lengths.window / _WINDOW_SAMPLES)
        state["pause"] = lengths.pause
        state["longest"] = lengths.longest
        state["hop"] = lengths.hop
        state["needed"] = math.ceil(n_channels / 20)
        freedom = max(1, min(lengths.window, round(lengths.window * sample_rate / rate)) - 1)
        state["goes_on"] = max(_GOES_ON, chdtri(freedom, _RARELY) / freedom)
        state["begins"] = _BEGINS_OVER_GOES_ON * state["goes_on"]
        state["fall"] = -math.expm1(-1 / (_FALL_SECONDS * rate))
        state["follow"] = -math.expm1(-1 / (_REST_SECONDS * rate))
        state["rise"] = _RISE_PER_SECOND ** (1 / rate)
        state["peak_decay"] = math.exp(-1 / lengths.longest)

    def take(self, rows: NDArray[np.float64], begins: NDArray[np.float64], begin: int, n_rows: int) -> tuple[int, int]:
        """Take rows from number ``begin`` on; return the number of the next one, and what is to be done.

        NOTHING; ENDED: a motion has; SCAN: one goes on and on; RESTED: one has rested for half a pause.
        """
        return _advance(rows, begins, begin, n_rows, self._spot, self._levels, self._ring)

    def finish(self) -> bool:
        """End the motion at the last row; whether there was one."""
        return bool(_end(self._spot, self._levels))

    def set_out(self, time: float) -> None:
        """Count rows from this time on, in seconds, until a run begins."""
        self._spot[0]["t_run"] = time

    @property
    def in_motion(self) -> bool:
        """Whether a motion is going on."""
        return bool(self._spot[0]["in_motion"])

    @property
    def row(self) -> int:
        """Number of the next row of the run."""
        return int(self._spot[0]["row"])

    @property
    def oldest(self) -> int:
        """The first row of the run that is still there."""
        return max(0, self.row - self.capacity)

    @property
    def start(self) -> int:
        """Row at which the motion that is going on began."""
        return int(self._spot[0]["start"])

    @property
    def ended(self) -> tuple[int, int]:
        """First row of the motion that has ended, and the row after its last."""
        return int(self._spot[0]["ended_start"]), int(self._spot[0]["ended_end"])

    @property
    def at_rest(self) -> tuple[int, int]:
        """What `ended` will be if the motion that rests does not go on before the pause is over."""
        return self.start, int(_rest_begins(self._spot))

    @property
    def cut_off(self) -> int:
        """The row after the last of the run, or of the motion if it ended by itself."""
        return int(self._spot[0]["cut_off"])

    def time(self, row: int) -> float:
        """Return the time of a row of the run in seconds."""
        return float(self._spot[0]["t_run"] + row / self._rate)

    def cut(self, start: int, end: int) -> NDArray[np.float32]:
        """Copy the rows from ``start`` up to ``end``, (end - start, n_channels)."""
        return self._ring.take(np.arange(start, end), axis=0, mode="wrap")
