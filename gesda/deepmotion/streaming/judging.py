"""From motions to gestures: which stretch of rows the recogniser is asked about, and what becomes an event.

Each question is a chance to take a scribble for a gesture, so there are few:

- A motion between two pauses is asked about as a whole. If it is no gesture, it may be the end of one that has a rest
  inside: then it is asked about together with the motion before, or with all since the run of samples began. And it may
  hold more than a gesture, like the way to where the next one begins: then the stretches between its stops are asked
  about, short rests of less than ``pause``.
- A motion longer than any gesture is scanned while it goes on: the stretches between its stops, and every ``hop``, as
  there may be no stops, all lengths of gestures that end there.

All that will be asked when a pause is over is asked when half of it is, so that the event need not wait for answers.

The stretch that scores best is an event once none better has ended within half the shortest gesture after it. The next
gesture begins where it ends.

Imports NumPy, and the spotting.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gesda.deepmotion.streaming.spotting import ENDED, NOTHING, RESTED, Lengths, Spotter, find_stops

# What a gesture may be shorter or longer than all that were taught: people are not clocks.
_SHORTEST = 0.5
_LONGEST = 1.5
#: Seconds, as long as the recogniser has been taught nothing.
_ANY_DURATION = (0.3, 3.0)
_WINDOW_SECONDS = 0.15
#: About so many questions at most at a time.
_QUESTIONS_AT_END = 8


class Answer(Protocol):
    """What a recogniser says of a sequence."""

    @property
    def label(self) -> Any:
        """The gesture, or None."""

    @property
    def confidence(self) -> float:
        """Its probability."""

    @property
    def familiarity(self) -> float:
        """How much the motion is like the known ones."""


class Recognizer(Protocol):
    """What the stream needs of a recogniser; ``threshold_`` is used if it is there."""

    @property
    def n_channels_(self) -> int:
        """Of a sequence."""

    @property
    def rate_(self) -> float | None:
        """Hz, if known."""

    @property
    def duration_range_(self) -> Any:
        """Shortest and longest gesture: seconds, or samples if the rate is not known."""

    @property
    def classes_(self) -> Any:
        """The gestures."""

    def recognize(self, sequence: NDArray[np.float32]) -> Answer:
        """Say which gesture a motion (n, n_channels_) is."""


@dataclass(frozen=True)
class GestureEvent:
    """A gesture that was recognised in a stream.

    Attributes
    ----------
    label : object
        The gesture's name or number as it was taught; None for a motion that is no known gesture.
    confidence : float
        The recogniser's probability of the label, 0 to 1.
    familiarity : float
        How much the motion is like those the recogniser knows; larger is more.
    start, end : float
        Times of the first and last sample in seconds: on the clock of the time stamps, or from the first sample on.
    """

    label: Any
    confidence: float
    familiarity: float
    start: float
    end: float


class _Candidate(NamedTuple):
    score: float
    start: int
    end: int
    answer: Answer


#: What is said as long as no gesture was taught.
_NOTHING_KNOWN = GestureEvent(None, 0.0, 0.0, 0.0, 0.0)


class Judge:
    """Uniform rows in, events out.

    Parameters
    ----------
    recognizer : Recognizer
    rate : float
        Rows per second.
    sample_rate : float
        Samples per second, as far as it is known.
    pause : float
        Seconds.
    unknown, continuous : bool
    n_lengths : int
        Lengths of gestures to try in a long motion.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        rate: float,
        sample_rate: float,
        pause: float,
        unknown: bool,
        continuous: bool,
        n_lengths: int,
    ) -> None:
        self._recognizer = recognizer
        self._rate = rate
        self._sample_rate = sample_rate
        self._pause = pause
        self._unknown = unknown
        self._continuous = continuous
        self._n_lengths = n_lengths
        self.reset()

    def reset(self) -> None:
        """Forget what was heard so far."""
        self.events = 0
        self.rejected = 0
        self._durations = self._taught_durations()
        self._threshold = getattr(self._recognizer, "threshold_", None)
        self.spotter = self._make_spotter()

    # ---- what the recogniser knows ----------------------------------------------------------------
    def _taught_durations(self) -> tuple[float, float]:
        """Shortest and longest gesture in seconds."""
        known = getattr(self._recognizer, "duration_range_", None)
        if known is None or len(self._recognizer.classes_) == 0:
            return _ANY_DURATION
        shortest, longest = float(known[0]), float(known[1])
        if self._recognizer.rate_ is None:
            shortest, longest = shortest / self._rate, longest / self._rate
        return (shortest, longest) if 0 <= shortest <= longest < math.inf else _ANY_DURATION

    def _make_spotter(self) -> Spotter:
        shortest = max(4, round(self._durations[0] * self._rate))  # in rows
        longest = max(shortest, round(self._durations[1] * self._rate))
        self._lengths = sorted({round(n) for n in np.geomspace(shortest, longest, self._n_lengths)})
        self._begin_motion(0)
        lengths = Lengths(
            window=max(3, round(min(_WINDOW_SECONDS * self._rate, shortest / 4))),
            pause=max(3, round(self._pause * self._rate)),
            shortest=math.ceil(_SHORTEST * shortest),
            longest=math.ceil(_LONGEST * longest),
            # An end is missed by an eighth of the shortest gesture at worst; the second bound is for very unlike ones.
            hop=max(1, round(shortest / 4), round(longest / 16)),
        )
        return Spotter(self._recognizer.n_channels_, self._rate, self._sample_rate, lengths)

    def follow_recognizer(self) -> None:
        """Change to the gestures that the recogniser knows now; what is going on is given up if lengths change."""
        threshold = getattr(self._recognizer, "threshold_", None)
        if threshold != self._threshold:  # each lesson sets another
            self._threshold = threshold
            self._answers.clear()
        durations = self._taught_durations()
        if durations != self._durations:
            self._durations = durations
            before = self.spotter
            self.spotter = self._make_spotter()
            self.spotter.set_out(before.time(before.row))

    def _ask(self, stretches: Sequence[tuple[int, int]]) -> list[_Candidate]:
        """Ask the recogniser about the rows from a start up to an end, for some pairs of them."""
        if len(self._recognizer.classes_) == 0:
            return [_Candidate(0.0, start, end, _NOTHING_KNOWN) for start, end in stretches]
        # Of rows that are gone there is nothing to ask.
        new = [stretch for stretch in stretches if stretch not in self._answers and stretch[0] >= self.spotter.oldest]
        motions = [self.spotter.cut(start, end) for start, end in new]
        together = getattr(self._recognizer, "recognize_all", None)
        if together is not None and len(motions) > 1:
            answers = together(motions)
        else:
            answers = [self._recognizer.recognize(motion) for motion in motions]
        self._answers.update(zip(new, answers, strict=True))
        threshold = float(getattr(self._recognizer, "threshold_", 0.0))
        candidates = []
        for start, end in stretches:
            answer = self._answers.get((start, end), _NOTHING_KNOWN)
            # How sure, how far above what is known at all, for how long: the whole of a gesture beats a part of it.
            excess = float(answer.familiarity) - threshold
            score = float(answer.confidence) * (end - start) * (max(excess, 0.0) if math.isfinite(excess) else 1.0)
            candidates.append(_Candidate(score, start, end, answer))
        return candidates

    # ---- motions ----------------------------------------------------------------------------------
    def take(self, rows: NDArray[np.float64], begins: NDArray[np.float64], n_rows: int) -> list[GestureEvent]:
        """Take rows; return the gestures that have ended."""
        events: list[GestureEvent] = []
        begin = 0
        while begin < n_rows:
            begin, todo = self.spotter.take(rows, begins, begin, n_rows)
            if todo == NOTHING:
                break
            if todo != ENDED:
                self._answers.clear()  # to what was asked when the motion seemed to end, and did not
            if todo == ENDED:
                self._end_motion(events)
            elif todo == RESTED:
                self._think_ahead()
            elif self._continuous:
                self._scan(self.spotter.row, 2 * len(self._lengths), events)
        return events

    def finish(self) -> list[GestureEvent]:
        """End the motion at the last row."""
        events: list[GestureEvent] = []
        if self.spotter.finish():
            self._end_motion(events)
        self._begin_motion()
        return events

    def _begin_motion(self, joinable: int | None = None) -> None:
        self._joinable = joinable  # where the motion before began, if it was no gesture, or the run
        self._next_end: int | None = None  # of the scan by hops; None: it has not begun
        self._last_stop = 0  # at which stretches were asked about
        self._earliest = 0  # where the next gesture may begin
        self._best: _Candidate | None = None
        self._rejected: _Candidate | None = None
        self._found = False
        self._answers: dict[tuple[int, int], Answer] = {}

    def _think_ahead(self) -> None:
        """Ask all that will be asked if the motion has ended, while its pause goes on: then the answers are there."""
        before = dict(self.__dict__)
        try:
            self._judge_ended(*self.spotter.at_rest, [])
        finally:
            self.__dict__.update(before)  # all but the answers, which the dictionary keeps

    def _end_motion(self, events: list[GestureEvent]) -> None:
        joinable = self._judge_ended(*self.spotter.ended, events)
        # Rows are counted from the start of a run: none of a run that has ended can be joined to the next.
        self._begin_motion(joinable if self.spotter.row > 0 else 0)

    def _judge_ended(self, start: int, end: int, events: list[GestureEvent]) -> int | None:
        """Judge a motion that has ended; return from where on the next one may be joined to it."""
        joinable: int | None = None
        if self._next_end is not None:
            self._end_scan(end, events)
            if not self._found:
                self._reject(start, end, self._rejected, events)
        elif end - start > self.spotter.lengths.longest:
            self._reject(start, end, None, events)
        else:
            joinable = self._judge(start, end, events)
        return joinable

    def _judge(self, start: int, end: int, events: list[GestureEvent]) -> int | None:
        """Ask about a motion between pauses; return from where on the next one may be joined to it."""
        lengths = self.spotter.lengths
        joinable = self._joinable
        if joinable is None or end - joinable > lengths.longest:
            joinable = start
        candidate = self._ask([(start, end)])[0] if end - start >= lengths.shortest else None
        if (candidate is None or candidate.answer.label is None) and joinable < start:
            # Of a run that was cut off before rest was known, the end is not known either.
            whole = self.spotter.cut_off if joinable == 0 else end
            joined = self._ask([(joinable, whole if whole - joinable <= lengths.longest else end)])[0]
            candidate = candidate if joined.answer.label is None else joined
        if candidate is None:
            return joinable
        if candidate.answer.label is not None:
            self._emit(candidate, events)
        elif self._continuous:
            self._earliest = start
            self._consider(self._between_stops(end, True), events)
            self._settle(events)
        if self._found:
            return None
        self._reject(start, end, candidate, events)
        return joinable

    def _emit(self, candidate: _Candidate, events: list[GestureEvent]) -> None:
        self._found = True
        self.events += 1
        self._append(candidate.answer, candidate.start, candidate.end, events)

    def _reject(self, start: int, end: int, candidate: _Candidate | None, events: list[GestureEvent]) -> None:
        self.rejected += 1
        if self._unknown:
            self._append(_NOTHING_KNOWN if candidate is None else candidate.answer, start, end, events)

    def _append(self, answer: Answer, start: int, end: int, events: list[GestureEvent]) -> None:
        confidence, familiarity = float(answer.confidence), float(answer.familiarity)
        times = self.spotter.time(start), self.spotter.time(end - 1)
        events.append(GestureEvent(answer.label, confidence, familiarity, *times))

    # ---- long motions -----------------------------------------------------------------------------
    def _consider(self, stretches: Sequence[tuple[int, int]], events: list[GestureEvent]) -> None:
        """Ask about stretches, and weigh the answers in the order of their ends."""
        before = 0
        there = [stretch for stretch in stretches if stretch[0] >= self.spotter.oldest]
        for candidate in sorted(self._ask(there), key=lambda candidate: candidate.end):
            if candidate.end > before:
                self._settle_before(before, events)
                before = candidate.end
            if candidate.start < self._earliest:
                continue  # an event since then holds a part of it
            if candidate.answer.label is not None:
                if self._best is None or candidate.score > self._best.score:
                    self._best = candidate
            elif self._rejected is None or candidate.answer.familiarity > self._rejected.answer.familiarity:
                self._rejected = candidate

    def _settle(self, events: list[GestureEvent]) -> None:
        """Make the best candidate an event; the next gesture begins after it."""
        if self._best is not None:
            self._emit(self._best, events)
            self._earliest = self._best.end
            self._best = None

    def _settle_before(self, end: int, events: list[GestureEvent]) -> None:
        # What begins after the best one is no gesture yet by then, so nothing was passed over in its favour.
        if self._best is not None and end - self._best.end >= self.spotter.lengths.shortest:
            self._settle(events)

    def _between_stops(self, row: int, ended: bool) -> list[tuple[int, int]]:
        """Stretches between the stops up to ``row``, itself a stop if the motion has ended; by their ends."""
        lengths = self.spotter.lengths
        # Noise that is almost a motion may put its end off until the rows are gone.
        first = max(self._earliest, row - 2 * lengths.longest, self.spotter.oldest)
        stops = [first, *(first + stop for stop in find_stops(self.spotter.cut(first, row), lengths.window))]
        if ended:
            stops.append(row)
        stretches: list[tuple[int, int]] = []
        for i, end in enumerate(stops):
            if end <= self._last_stop:
                continue
            if len(stretches) >= len(self._lengths) and not ended:
                break  # the others at the next hop
            fitting = [s for s in stops[:i] if s >= self._earliest and lengths.shortest <= end - s <= lengths.longest]
            stretches += [(start, end) for start in fitting[-len(self._lengths) :]]
            self._last_stop = end
        every = max(1, math.ceil(len(stretches) / _QUESTIONS_AT_END))
        return stretches[::-1][::every][::-1]

    def _scan(self, row: int, questions: int, events: list[GestureEvent]) -> None:
        """Ask about stretches that end no later than ``row``, of which some are behind when the scan begins."""
        if self._next_end is None:
            self._earliest = self.spotter.start
            self._next_end = self._earliest + self._lengths[0]
        stretches = self._between_stops(row, False)
        while self._next_end <= row and len(stretches) < questions:
            stretches += self._ending(self._next_end)
            self._next_end += self.spotter.lengths.hop
        self._consider(stretches, events)
        self._settle_before(self._next_end - self.spotter.lengths.hop, events)

    def _ending(self, end: int) -> list[tuple[int, int]]:
        """All stretches that end here."""
        return [(end - length, end) for length in self._lengths if end - length >= self._earliest]

    def _end_scan(self, end: int, events: list[GestureEvent]) -> None:
        """Ask about what is left of a long motion that has ended; coarser if much is left."""
        assert self._next_end is not None
        lengths = self.spotter.lengths
        stretches = self._between_stops(end, True)
        ends = range(self._next_end, end, lengths.hop)
        every = max(1, math.ceil(len(ends) * len(self._lengths) / _QUESTIONS_AT_END))
        stretches += [pair for at in (*ends[::-1][::every][::-1], end) for pair in self._ending(at)]
        self._consider(stretches, events)
        for _ in range(2):  # the rest of the motion as a whole, against the best; and what is left after that
            if lengths.shortest <= end - self._earliest <= lengths.longest:
                self._consider([(self._earliest, end)], events)
            if self._best is None:
                break
            self._settle(events)
