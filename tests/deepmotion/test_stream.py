"""GestureStream: what it finds, that pushes do not matter, and that nothing a sensor sends can harm it.

The recogniser is a stand-in, so that the stream alone is tested: the nearest of one example a
class, by the shape of the motion.
"""

from __future__ import annotations

import itertools
import math
import warnings
from dataclasses import asdict, dataclass, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gesda.deepmotion.streaming.stream import GestureEvent, GestureStream

RATE = 100.0
NAMES = ("circle", "wave", "hook")
FEW = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


def gesture(name: str, duration: float = 1.0, rate: float = RATE) -> np.ndarray:
    """Acceleration of a hand, (n, 3), nought at both ends."""
    t = np.linspace(0, 1, round(duration * rate))
    swell = np.sin(np.pi * t) ** 0.5
    a, b = 2 * np.pi * t, 4 * np.pi * t
    shape = {
        "circle": (np.sin(a), np.cos(a), 0 * t),
        "wave": (np.sin(b), 0 * t, np.sin(b) / 2),
        "hook": (0 * t, np.cos(1.5 * a), t * np.sin(1.5 * a)),
        "shiver": (np.sin(9 * a), np.cos(7 * a), np.sin(8 * a)),
    }[name]
    return np.stack(shape, axis=1) * swell[:, None]


def shape_of(sequence: np.ndarray, n: int = 32) -> np.ndarray:
    sequence = np.asarray(sequence, float)
    at = np.linspace(0, len(sequence) - 1, n)
    rows = np.stack([np.interp(at, np.arange(len(sequence)), column) for column in sequence.T], axis=1)
    rows -= rows.mean(axis=0)
    return (rows / (np.linalg.norm(rows) + 1e-9)).ravel()


@dataclass
class Answer:
    label: str | None
    confidence: float
    familiarity: float


class Nearest:
    """The stand-in: 1 - distance to the nearest example is the familiarity."""

    n_channels_ = 3
    rate_: float | None = RATE
    threshold_ = 0.4

    def __init__(self, durations: tuple[float, float] = (0.8, 1.2)) -> None:
        self.duration_range_ = durations
        self.classes_ = np.array(NAMES)
        self.examples = np.array([shape_of(gesture(name)) for name in NAMES])
        self.asked = 0

    def recognize(self, sequence: np.ndarray) -> Answer:
        assert sequence.dtype == np.float32 and sequence.ndim == 2 and np.isfinite(sequence).all()
        self.asked += 1
        distances = np.linalg.norm(self.examples - shape_of(sequence), axis=1)
        weights = np.exp(-8 * distances)
        best = int(distances.argmin())
        familiarity = 1 - distances[best]
        label = str(self.classes_[best]) if familiarity >= self.threshold_ else None
        return Answer(label, float(weights[best] / weights.sum()), float(familiarity))


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print("seed", seed)  # pytest shows it when the test fails
    return np.random.default_rng(seed)


def rest(seconds: float, rate: float = RATE) -> np.ndarray:
    return np.zeros((round(seconds * rate), 3))


def recording(
    rng: np.random.Generator,
    names: tuple[str, ...] = NAMES,
    gap: float = 1.0,
    noise: float = 0.01,
    offset: tuple[float, float, float] = (0.0, 0.0, 1.0),
    rate: float = RATE,
) -> tuple[np.ndarray, list[tuple[str, float, float]]]:
    """Gestures with rests between, noise and gravity; and what is where, in seconds."""
    parts, truth, n = [rest(gap, rate)], [], round(gap * rate)
    for name in names:
        motion = gesture(name, rng.uniform(0.85, 1.15), rate)
        truth.append((name, n / rate, (n + len(motion) - 1) / rate))
        parts += [motion, rest(gap, rate)]
        n += len(motion) + round(gap * rate)
    samples = np.concatenate(parts) + offset
    return samples + rng.normal(0, noise, samples.shape), truth


def labels(events: list[GestureEvent]) -> list[str | None]:
    return [event.label for event in events]


def in_pieces(stream: GestureStream, samples: np.ndarray, times: np.ndarray | None, sizes: list[int]) -> list:
    events, begin = [], 0
    for size in itertools.cycle(sizes):
        if begin >= len(samples):
            return events
        end = begin + size
        events += stream.push(samples[begin:end], None if times is None else times[begin:end])
        begin = end
    raise AssertionError


# ---- what it finds --------------------------------------------------------------------------------
def test_gestures_between_rests_are_found_with_their_times(rng):
    samples, truth = recording(rng, tuple(rng.permutation(NAMES * 3)))
    events = GestureStream(Nearest()).push(samples)
    assert labels(events) == [name for name, _, _ in truth]
    for event, (_, start, end) in zip(events, truth, strict=True):
        assert event.start == pytest.approx(start, abs=0.15) and event.end == pytest.approx(end, abs=0.15)
        assert 0.5 < event.confidence <= 1 and event.familiarity > Nearest.threshold_


@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("offset", [(0.0, 0.0, 0.0), (500.0, -200.0, 9.81)])
def test_units_offsets_and_noise_do_not_matter(rng, scale, noise, offset):
    samples, truth = recording(rng, noise=noise)
    events = GestureStream(Nearest()).push(samples * scale + np.array(offset) * scale)
    assert labels(events) == [name for name, _, _ in truth]


def test_an_event_comes_a_pause_after_the_end_and_not_before(rng):
    samples, ((_, _, end),) = recording(rng, ("wave",), noise=0.003)
    stream = GestureStream(Nearest(), pause=0.4)
    came = next(i for i, sample in enumerate(samples) if stream.push(sample)) / RATE
    assert end + 0.3 <= came <= end + 1.0  # noise may put it off


def test_flush_ends_the_gesture_at_once(rng):
    samples, ((_, _, end),) = recording(rng, ("hook",))
    stream = GestureStream(Nearest())
    assert stream.push(samples[: round((end + 0.05) * RATE)]) == []
    assert stream.in_motion
    assert labels(stream.flush()) == ["hook"]
    assert not stream.in_motion and stream.flush() == []


@pytest.mark.parametrize("name", NAMES)
def test_a_sequence_that_is_all_there_is_gets_the_answer_of_the_recogniser(name, rng):
    sequence = gesture(name, rng.uniform(0.85, 1.15)) + rng.normal(0, 0.005, 3)
    stream = GestureStream(Nearest())
    (event,) = stream.push(sequence) + stream.flush()
    assert event.label == Nearest().recognize(sequence.astype(np.float32)).label == name


def test_a_gap_in_time_ends_a_gesture(rng):
    """A pen sends while it touches and nothing else."""
    strokes = [gesture(name) for name in NAMES]
    times = [np.arange(len(stroke)) / RATE + 10.0 * i for i, stroke in enumerate(strokes)]
    stream = GestureStream(Nearest())
    events = stream.push(np.concatenate(strokes), np.concatenate(times)) + stream.flush()
    assert labels(events) == list(NAMES)
    assert [event.start for event in events] == pytest.approx([0, 10, 20], abs=0.15)
    assert stream.report.gaps == 2


def test_a_motion_that_is_no_gesture_is_rejected_and_told_only_if_asked_for(rng):
    samples, ((_, start, end),) = recording(rng, ("shiver",))
    stream = GestureStream(Nearest())
    assert stream.push(samples) == [] and stream.report.rejected == 1
    (event,) = GestureStream(Nearest(), unknown=True).push(samples)
    assert event.label is None
    assert event.start == pytest.approx(start, abs=0.15) and event.end == pytest.approx(end, abs=0.15)


def test_rest_alone_asks_the_recogniser_nothing(rng):
    recognizer = Nearest()
    stream = GestureStream(recognizer)
    samples = rng.normal((0, 0, 1), 0.02, (60_000, 3))
    assert stream.push(samples) == [] and recognizer.asked == 0


def test_a_knock_is_too_short_to_ask_about(rng):
    samples = rng.normal(0, 0.01, (1000, 3))
    samples[500:510] += rng.normal(0, 1, (10, 3))
    recognizer = Nearest()
    assert GestureStream(recognizer, unknown=True).push(samples) == [] and recognizer.asked == 0


def test_a_gesture_between_rests_costs_one_question(rng):
    samples, truth = recording(rng)
    recognizer = Nearest()
    GestureStream(recognizer).push(samples)
    assert recognizer.asked == len(truth)


def test_a_gesture_with_a_rest_inside_is_joined(rng):
    whole = np.concatenate([gesture("hook", 0.6), rest(0.32), gesture("wave", 0.6)])
    recognizer = Nearest((1.0, 1.6))
    recognizer.examples[:] = shape_of(whole)
    samples = np.concatenate([rest(3), whole, rest(1)])
    samples += rng.normal(0, 0.003, samples.shape)
    stream = GestureStream(recognizer, pause=0.1)
    (event,) = stream.push(samples)
    assert event.end - event.start == pytest.approx(len(whole) / RATE, abs=0.15)
    assert stream.report.rejected == 1  # its first part


@pytest.mark.parametrize("name", [*NAMES, "shiver"])
def test_all_questions_are_asked_before_the_pause_is_over(rng, name):
    recognizer = Nearest()
    stream = GestureStream(recognizer, unknown=True)
    samples = np.concatenate([rest(1.0), gesture(name) + rng.normal(0, 0.01, (100, 3)), rest(1.0)])
    for sample in samples:
        before = recognizer.asked
        events = stream.push(sample)
        if events:
            assert recognizer.asked == before > 0
            assert [event.label for event in events] == [None if name == "shiver" else name]
            return
    pytest.fail("no event")


def test_what_was_taught_during_a_pause_counts(rng):
    recognizer = Nearest()
    stream = GestureStream(recognizer)
    for sample in np.concatenate([rest(1.0), gesture("wave") + rng.normal(0, 0.01, (100, 3)), rest(1.0)]):
        events = stream.push(sample)
        if events:
            assert events[0].label == "other"
            return
        if recognizer.asked:
            recognizer.classes_, recognizer.threshold_ = np.array(["other"] * 3), 0.39
    pytest.fail("no event")


def test_a_motion_without_end_leaves_nothing_behind(rng):
    stream = GestureStream(Nearest())
    stream.push(rest(1.0))
    turns = rng.uniform(5, 10) * np.arange(6000) / RATE  # faster, it would be taken for a machine after a while
    most = 0
    for block in np.split(np.stack([np.sin(turns), np.cos(turns), np.sin(2 * turns)], axis=1), 60):
        stream.push(block)
        most = max(most, len(stream._judge._answers))
    assert stream.in_motion and 0 < most <= 50


def test_a_motion_that_goes_on_after_half_a_pause_is_judged_as_a_whole(rng):
    recognizer = Nearest()
    stream = GestureStream(recognizer, pause=0.4)
    half = gesture("circle")[:50]
    still_for = np.tile(half[-1], (28, 1)) + rng.normal(0, 1e-3, (28, 3))  # longer than half a pause, not a whole one
    samples = np.concatenate([rest(1.0), half, still_for, gesture("circle")[50:], rest(1.0)])
    events = [event for sample in samples for event in stream.push(sample)]
    pieces = [event for event in events if event.end - event.start < 0.8]
    assert not pieces and recognizer.asked >= 2


def test_motions_of_two_runs_are_never_joined(rng):
    heard = []

    class Hears(Nearest):
        def recognize(self, sequence):
            heard.append(sequence)
            return super().recognize(sequence)

    stream = GestureStream(Hears((0.5, 3.0)))
    for i in range(3):
        samples, _ = recording(rng, ("shiver",), gap=0.6, offset=(0, 0, 1000.0 * i))
        stream.push(samples, 100 * i + np.arange(len(samples)) / RATE)
    assert len(heard) >= 3 and all(np.ptp(sequence[:, 2]) < 100 for sequence in heard)


def test_gestures_without_rest_between_are_found_by_the_recogniser(rng):
    names = tuple(rng.permutation(NAMES * 3))
    samples, truth = recording(rng, names, gap=0.0)
    samples = np.concatenate([rest(1), samples, rest(1)])
    samples += rng.normal(0, 0.01, samples.shape)
    recognizer = Nearest()
    events = GestureStream(recognizer).push(samples)
    found = 0
    for name, start, end in truth:
        overlaps = [e for e in events if min(e.end - 1, end) - max(e.start - 1, start) > 0.6 * (end - start)]
        found += [e.label for e in overlaps] == [name]
    assert found >= 4  # of 9; 7 on the average
    assert all(b.start >= a.end for a, b in itertools.pairwise(events))
    assert recognizer.asked < 300


@pytest.mark.parametrize("durations", [(0.8, 1.2), (0.3, 3.0)])
def test_an_endless_motion_keeps_the_number_of_questions_bounded(rng, durations):
    n = 6000
    t = np.arange(n) / RATE
    samples = np.stack([np.sin(40 * t) * (1.5 + np.sin(t)), np.cos(37 * t), np.sin(33 * t)], axis=1)
    samples = np.concatenate([rest(1), samples]) + rng.normal(0, 0.01, (n + 100, 3))
    recognizer = Nearest(durations)
    stream = GestureStream(recognizer)
    most = 0
    for begin in range(0, len(samples), 10):
        before = recognizer.asked
        stream.push(samples[begin : begin + 10])
        most = max(most, recognizer.asked - before)
    assert 100 < recognizer.asked < 4000
    assert most <= 40


def test_without_continuous_a_long_motion_is_rejected(rng):
    samples, _ = recording(rng, NAMES, gap=0.0)
    samples = np.concatenate([rest(1), samples, rest(1)]) + rng.normal(0, 0.01, (len(samples) + 200, 3))
    recognizer = Nearest()
    stream = GestureStream(recognizer, continuous=False)
    assert stream.push(samples) == [] and recognizer.asked == 0 and stream.report.rejected == 1


# ---- what the recogniser learns meanwhile ---------------------------------------------------------
def test_a_stream_without_gestures_tells_motions_and_learns_with_the_recogniser(rng):
    recognizer = Nearest()
    recognizer.classes_ = np.array([])
    recognizer.duration_range_ = None
    stream = GestureStream(recognizer, unknown=True)
    samples, _ = recording(rng, ("wave",))
    assert labels(stream.push(samples)) == [None] and recognizer.asked == 0
    recognizer.classes_, recognizer.duration_range_ = np.array(NAMES), (0.8, 1.2)
    (event,) = stream.push(samples)
    assert event.label == "wave" and event.start == pytest.approx(len(samples) / RATE + 1, abs=0.15)


@pytest.mark.parametrize("known_rate", [None, 50.0, 200.0])
def test_samples_at_another_rate_are_brought_to_that_of_the_recogniser(rng, known_rate):
    recognizer = Nearest((80, 120) if known_rate is None else (0.8, 1.2))
    recognizer.rate_ = known_rate
    samples, truth = recording(rng)
    events = GestureStream(recognizer, rate=RATE).push(samples)
    assert labels(events) == [name for name, _, _ in truth]
    assert events[0].start == pytest.approx(truth[0][1], abs=0.15)


# ---- stream against batch -------------------------------------------------------------------------
def damaged(rng: np.random.Generator, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Everything that goes wrong, in one recording."""
    samples = samples.copy()
    times = 1e6 + np.arange(len(samples)) / RATE + rng.uniform(-0.002, 0.002, len(samples))
    n = len(samples)
    samples[rng.integers(n, size=20), rng.integers(3, size=20)] = np.nan
    samples[rng.integers(n, size=5)] = np.inf
    samples[rng.integers(n, size=10), rng.integers(3, size=10)] *= 1e4
    times[rng.integers(n, size=5)] = np.nan
    times[rng.integers(n, size=5)] += rng.choice([-1e5, 1e5, 0.03, -0.03], size=5)
    keep = np.sort(rng.choice(n, size=round(0.95 * n), replace=False))
    keep = np.sort(np.concatenate([keep, rng.choice(keep, size=10)]))
    return samples[keep], times[keep]


@pytest.mark.parametrize("gap", [1.0, 0.28, 0.0])
def test_how_samples_are_split_into_pushes_does_not_matter_to_the_last_bit(rng, gap):
    samples, _ = recording(rng, tuple(rng.permutation((*NAMES * 2, "shiver"))), gap=gap)
    samples, times = damaged(rng, np.concatenate([rest(1), samples]))
    whole = GestureStream(Nearest(), unknown=True)
    expected = whole.push(samples, times) + whole.flush()
    assert expected
    for sizes in ([1], [7], [1024], rng.integers(0, 60, size=50).tolist()):
        stream = GestureStream(Nearest(), unknown=True)
        assert in_pieces(stream, samples, times, sizes) + stream.flush() == expected
        assert stream.report == whole.report


def test_times_that_say_what_is_assumed_change_nothing(rng):
    samples, _ = recording(rng)
    expected = GestureStream(Nearest()).push(samples)
    assert GestureStream(Nearest()).push(samples, np.arange(len(samples)) / RATE) == expected


def test_what_is_cut_is_what_was_pushed(rng):
    heard = []

    class Hears(Nearest):
        def recognize(self, sequence):
            heard.append(sequence)
            return super().recognize(sequence)

    samples, _ = recording(rng, ("wave",))
    (event,) = GestureStream(Hears()).push(samples)
    start, end = round(event.start * RATE), round(event.end * RATE)
    np.testing.assert_array_equal(heard[0], samples[start : end + 1].astype(np.float32))


def test_reset_makes_a_stream_as_new(rng):
    samples, _ = recording(rng)
    stream = GestureStream(Nearest())
    first = stream.push(samples), stream.report
    stream.push(rng.normal(0, 1e6, (500, 3)))
    stream.reset()
    assert stream.report.received == 0
    assert (stream.push(samples), stream.report) == first


# ---- what is wrong with samples -------------------------------------------------------------------
def test_dropped_samples_are_interpolated_and_counted(rng):
    samples, truth = recording(rng)
    keep = rng.random(len(samples)) > 0.2
    keep[[0, -1]] = True
    stream = GestureStream(Nearest())
    events = stream.push(samples[keep], np.flatnonzero(keep) / RATE)
    assert labels(events) == [name for name, _, _ in truth]
    assert stream.report.missing == pytest.approx((~keep).sum(), rel=0.3)
    assert stream.report.gaps == 0


def test_a_hole_is_filled_on_a_straight_line():
    heard = []

    class Hears(Nearest):
        def recognize(self, sequence):
            heard.append(sequence)
            return super().recognize(sequence)

    wave = gesture("wave")
    wave[40:50] = np.nan
    stream = GestureStream(Hears())
    stream.push(wave)
    stream.flush()
    w = np.linspace(0, 1, 12)[1:-1, None]
    np.testing.assert_allclose(heard[0][40:50], (1 - w) * wave[39] + w * wave[50], atol=1e-6)


def test_late_and_duplicated_samples_are_dropped_and_counted(rng):
    samples, truth = recording(rng)
    times = np.arange(len(samples)) / RATE
    places = np.sort(rng.choice(np.arange(20, len(samples), 3), size=30, replace=False))
    twice = places[::2]
    late = places[1::2]
    after = np.concatenate([twice, late]) + 1
    order = np.insert(np.arange(len(samples)), after, np.concatenate([twice, late - 10]))
    garbage = samples[order] + np.where(np.diff(order, prepend=-1) <= 0, 50.0, 0.0)[:, None]
    stream = GestureStream(Nearest())
    events = stream.push(garbage, times[order])
    assert events == GestureStream(Nearest()).push(samples, times)
    assert (stream.report.duplicated, stream.report.late) == (len(twice), len(late))
    assert [name for name, _, _ in truth] == labels(events)


def test_one_wrong_time_stamp_is_late_and_a_clock_that_was_set_is_followed(rng):
    samples, truth = recording(rng)
    times = np.arange(len(samples)) / RATE
    times[150] = 1e9
    times[170] = -5.0
    stream = GestureStream(Nearest())
    assert labels(stream.push(samples, times)) == [name for name, _, _ in truth]
    assert (stream.report.late, stream.report.gaps) == (2, 0)
    samples, _ = recording(rng, ("hook",))
    (event,) = stream.push(samples, np.arange(len(samples)) / RATE - 1000)
    assert event.label == "hook" and event.start == pytest.approx(-999, abs=0.15)
    assert (stream.report.late, stream.report.gaps) == (2, 1)


@pytest.mark.parametrize("time", [np.nan, np.inf, -np.inf, 1e300, 1.7e18])
def test_a_time_stamp_that_is_no_time_in_seconds_drops_its_sample(rng, time):
    samples, _ = recording(rng)
    times = np.arange(len(samples)) / RATE
    times[::50] = time
    stream = GestureStream(Nearest())
    assert len(stream.push(samples, times)) == len(NAMES)
    assert stream.report.not_finite == len(times[::50]) and stream.report.late == 0


def test_spikes_are_taken_out_and_counted(rng):
    samples, truth = recording(rng, ("wave", *NAMES))
    clean = GestureStream(Nearest()).push(samples)
    places = rng.choice(np.arange(250, len(samples) - 1, 5), size=30, replace=False)
    samples[places, rng.integers(3, size=30)] += rng.choice([-1, 1], size=30) * 10 ** rng.uniform(2, 9, size=30)
    stream = GestureStream(Nearest())
    events = stream.push(samples)
    assert stream.report.out_of_range == 30
    assert labels(events) == [name for name, _, _ in truth]
    for event, expected in zip(events, clean, strict=True):
        assert event.start == pytest.approx(expected.start, abs=0.05)


def test_a_jump_that_lasts_is_believed():
    stream = GestureStream(Nearest())
    stream.push(np.concatenate([np.random.default_rng().normal(0, 0.01, (200, 3)), np.full((200, 3), 1000.0)]))
    assert stream.report.out_of_range == 0


def test_limits_say_what_is_no_measurement(rng):
    samples, truth = recording(rng)
    samples[::10] = 3.0
    stream = GestureStream(Nearest(), limits=((-2, -2, -2), 2.5))
    assert labels(stream.push(samples)) == [name for name, _, _ in truth]
    assert stream.report.out_of_range == 3 * len(samples[::10])


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_a_lost_channel_is_reported_and_the_others_go_on(rng, value):
    samples, truth = recording(rng)
    samples[220:, 2] = value  # in the rest after the first gesture; circle and hook are told apart without it
    stream = GestureStream(Nearest())
    events = stream.push(samples)
    assert len(events) >= 2 and events[0].label == truth[0][0]
    assert stream.report.lost_channels == (2,)
    stream.push(samples[:200])
    assert stream.report.lost_channels == ()


def test_a_channel_that_stands_still_while_others_move_is_lost(rng):
    samples = rng.normal(0, 0.01, (1000, 3))
    samples[300:, 1] = 7.0
    stream = GestureStream(Nearest())
    stream.push(samples[:450])
    assert stream.report.lost_channels == ()
    stream.push(samples[450:])
    assert stream.report.lost_channels == (1,)
    stream.reset()
    stream.push(np.ones((1000, 3)))  # all still is rest
    assert stream.report.lost_channels == ()


def test_values_that_come_every_other_sample_are_interpolated_for_each_channel(rng):
    """Two sensors of different rates, merged."""
    samples, truth = recording(rng)
    samples[1::2, 2] = np.nan
    stream = GestureStream(Nearest())
    assert labels(stream.push(samples)) == [name for name, _, _ in truth]
    assert stream.report.not_finite == len(samples[1::2]) and stream.report.missing == 0


def test_a_changing_rate_is_followed_and_reported(rng):
    stream = GestureStream(Nearest())
    start = 0.0
    for rate in (100.0, 60.0, 250.0):
        samples, truth = recording(rng, rate=rate)
        times = start + np.arange(len(samples)) / rate
        start = times[-1] + 1 / rate
        assert labels(stream.push(samples, times)) == [name for name, _, _ in truth]
        assert stream.report.rate == pytest.approx(rate, rel=0.02)
    assert stream.report.gaps == 0


def test_samples_without_times_follow_the_last_time_stamp(rng):
    samples, _ = recording(rng)
    stream = GestureStream(Nearest())
    times = 50 + np.arange(100) / RATE
    mixed = stream.push(samples[:100], times) + stream.push(samples[100:])
    plain = GestureStream(Nearest()).push(samples)
    assert [e.start for e in mixed] == pytest.approx([50 + e.start for e in plain])


def test_a_single_channel_takes_a_flat_array_as_samples(rng):
    class One(Nearest):
        n_channels_ = 1

        def recognize(self, sequence):
            assert sequence.shape[1] == 1
            return Answer("x", 1.0, 1.0)

    samples, _ = recording(rng, ("wave",))
    assert labels(GestureStream(One()).push(samples[:, 0])) == ["x"]
    assert GestureStream(One()).push([]) == []


# ---- errors ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("samples", "times", "error", "words"),
    [
        (np.zeros((4, 2)), None, ValueError, r"shape \(4, 2\)"),
        (np.zeros(4), None, ValueError, r"takes \(n, 3\)"),
        (np.zeros((2, 2, 3)), None, ValueError, "shape"),
        (1.0, None, ValueError, "shape"),
        ([[1, 2, 3], [1, 2]], None, ValueError, "equal length"),
        ([["a", "b", "c"]], None, TypeError, "real numbers"),
        (np.zeros((2, 3), complex), None, TypeError, "complex128"),
        (np.zeros((2, 3), bool), None, TypeError, "bool"),
        ([[1, 2, 10**400]], None, TypeError, "real numbers"),
        (np.zeros((2, 3)), [1.0], ValueError, "each of the 2 samples"),
        (np.zeros((2, 3)), 1.0, ValueError, "each of the 2 samples"),
        (np.zeros((2, 3)), np.zeros(2, "datetime64[s]"), TypeError, "times"),
    ],
)
def test_wrong_shapes_and_types_are_errors_and_nothing_is_taken(samples, times, error, words):
    stream = GestureStream(Nearest())
    with pytest.raises(error, match=words):
        stream.push(samples, times)
    assert stream.report == GestureStream(Nearest()).report


@pytest.mark.parametrize(
    "parameters",
    [
        {"rate": 0},
        {"rate": math.nan},
        {"pause": 0},
        {"max_gap": 0.01},
        {"candidates": 0},
        {"limits": (1, -1)},
        {"limits": ((0, 0), 1)},
        {"limits": (math.nan, 1)},
    ],
)
def test_parameters_out_of_range_are_errors(parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        GestureStream(Nearest(), **parameters)


def test_a_recogniser_that_is_not_fitted_or_knows_no_rate_is_an_error():
    with pytest.raises(ValueError, match="fit it"):
        GestureStream(object())
    recognizer = Nearest()
    recognizer.rate_ = None
    with pytest.raises(ValueError, match="give rate="):
        GestureStream(recognizer)


def test_none_and_masked_values_are_missing():
    stream = GestureStream(Nearest())
    stream.push([[1.0, None, 2.0]])
    stream.push(np.ma.masked_greater([[1.0, 5.0, 2.0]], 4.0))
    assert stream.report.not_finite == 2 and stream.report.used == 2


# ---- anything at all ------------------------------------------------------------------------------
NUMBERS = st.one_of(
    st.floats(-3, 3), st.floats(allow_nan=True, allow_infinity=True), st.sampled_from([0.0, 1e12, -1e300, 1e-300])
)
SAMPLES = st.integers(0, 30).flatmap(
    lambda n: st.lists(st.lists(NUMBERS, min_size=3, max_size=3), min_size=n, max_size=n)
)
DTYPES = st.sampled_from([">f8", "<f4", "f2", "i1", "i8", "u8", "f8", "O"])
STEPS = st.lists(st.sampled_from([0.01, 0.01, 0.01, 0.0, -0.01, 0.1, 10.0, -10.0, 1e12, np.nan, np.inf]), max_size=30)

PUSH = st.tuples(SAMPLES, DTYPES, STEPS, st.booleans(), st.booleans())


def junk(samples: list, dtype: str) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.array(samples, dtype=float).reshape(-1, 3).astype(dtype)


@FEW
@given(pushes=st.lists(PUSH, max_size=6), seed=st.integers(0))
def test_a_clean_gesture_is_recognised_after_whatever_came_before(pushes, seed):
    recognizer = Nearest()
    stream = GestureStream(recognizer)
    now = 0.0
    for samples, dtype, steps, timed, flush in pushes:
        block = junk(samples, dtype)
        times = None
        if timed:
            times = now + np.cumsum(np.resize([*steps, 0.01], len(block)))
            now = float(np.nan_to_num(times[-1], nan=0.0, posinf=0.0, neginf=0.0)) if len(times) else now
        assert isinstance(stream.push(block, times), list)
        if flush:
            assert isinstance(stream.flush(), list)
    samples, _ = recording(np.random.default_rng(seed), ("wave",))
    # A time that no junk has: the clock is set, and a new run begins.
    events = stream.push(samples, 1e7 + np.arange(len(samples)) / RATE)
    (expected,) = GestureStream(Nearest()).push(samples)
    assert events[-1].start == pytest.approx(1e7 + expected.start, abs=1e-6) and expected.label == "wave"
    assert events[-1].end == pytest.approx(1e7 + expected.end, abs=1e-6)
    assert replace(events[-1], start=expected.start, end=expected.end) == expected
    counts = asdict(stream.report)
    assert counts.pop("lost_channels") == () and min(counts.values()) >= 0


@FEW
@given(blocks=st.lists(st.tuples(SAMPLES, DTYPES), max_size=4), seed=st.integers(0))
def test_a_clean_gesture_is_recognised_after_junk_without_times(blocks, seed):
    stream = GestureStream(Nearest())
    for samples, dtype in blocks:
        assert isinstance(stream.push(junk(samples, dtype)), list)
    samples, _ = recording(np.random.default_rng(seed), ("wave",), gap=3.0)
    assert labels(stream.push(samples))[-1:] == ["wave"]


@FEW
@given(
    shape=st.lists(st.integers(0, 5), max_size=4),
    dtype=st.sampled_from(["f8", "f4", "i4", "b1", "c16", "U3", "O", "S2", "M8[s]", "V4"]),
    times=st.one_of(st.none(), st.floats(), st.lists(st.floats(), max_size=5), st.just("now"), st.just([True])),
)
def test_any_array_gives_a_list_or_an_error_that_says_why(shape, dtype, times):
    stream = GestureStream(Nearest())
    try:
        assert isinstance(stream.push(np.zeros(shape, dtype), times), list)
    except (TypeError, ValueError) as error:
        assert str(error).startswith(("samples", "times"))
        assert stream.report.received == 0


def test_a_value_put_aside_before_the_clock_was_put_back_leads_nowhere(rng):
    stream = GestureStream(Nearest())
    times = np.arange(300) / RATE
    stream.push(rng.normal(0, 1, (300, 3)), times)
    far, none = [1e6, 0, 0], [np.nan] * 3
    late = [(0.2, [1e6, np.nan, np.nan]), (0.4, none), (0.6, none)]  # far out, so it waits for two others
    again = [(0.01, far), (0.02, far), (0.03, far)]  # the clock goes back; what is far out is believed now
    for step, sample in late + again:
        stream.push([sample], [times[-1] + step])
        rows = stream._clock._channels["row"]
        assert rows.max() <= 304 and np.ptp(rows) <= 1


def test_rows_that_are_gone_are_not_asked_about(rng):
    recognizer = Nearest()
    stream = GestureStream(recognizer)
    judge = stream._judge
    stream.push(rng.normal(0, 1, (judge.spotter.capacity + 100, 3)))
    recognizer.asked = 0
    oldest = judge.spotter.oldest
    assert oldest >= 99
    gone, there = judge._ask([(oldest - 1, oldest + 60), (oldest, oldest + 60)])
    assert gone.answer.label is None and gone.answer.familiarity == 0.0 and recognizer.asked == 1
    assert there.answer is not gone.answer
