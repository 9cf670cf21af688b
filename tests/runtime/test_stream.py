"""Streams of libgesda: the events of `GestureStream`, for whatever a sensor sends, through the C ABI.

Python's stream gets the answers of the runtime's recogniser, so that both decide by the same numbers and every start
and end has to agree; `test_recognizer` compares the answers themselves.
"""

from __future__ import annotations

import ctypes
import math
import os
import secrets
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("numba", reason="gesda.deepmotion needs numba: pip install 'gesda[deepmotion]'")

from gesda.deepmotion import GestureRecognizer, GestureStream
from gesda.model_io import read_tensors, write_tensors
from gesda.runtime import Event, Runtime, RuntimeStream

RATE = 100.0
NAMES = ("circle", "hook", "wave")
SMALL = {
    "n_members": 1, "hidden_layer_sizes": (24, 12), "pretrain_epochs": 2, "max_iter": 6, "n_jobs": 1, "random_state": 0,
}  # fmt: skip
Samples = NDArray[np.float32]


@pytest.fixture(scope="module")
def seed() -> int:
    value = int(os.environ.get("GESDA_TEST_SEED", secrets.randbelow(2**31)))
    print(f"GESDA_TEST_SEED={value}")
    return value


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


# ---- what is pushed -------------------------------------------------------------------------------
def gesture(name: str, duration: float = 1.0) -> NDArray[np.float64]:
    """Acceleration of a hand, (n, 3), nought at both ends."""
    t = np.linspace(0, 1, round(duration * RATE))
    a = 2 * np.pi * t
    shape = {
        "circle": (np.sin(a), np.cos(a), 0 * t),
        "hook": (0 * t, np.cos(1.5 * a), t * np.sin(1.5 * a)),
        "wave": (np.sin(2 * a), 0 * t, np.sin(2 * a) / 2),
        "shiver": (np.sin(9 * a), np.cos(7 * a), np.sin(8 * a)),
    }[name]
    return np.stack(shape, axis=1) * np.sqrt(np.sin(np.pi * t))[:, None]


def recording(rng: np.random.Generator, names: Any = NAMES, gap: float = 1.0, noise: float = 0.01) -> Samples:
    parts = [np.zeros((100, 3))]
    for name in names:
        parts += [gesture(name, rng.uniform(0.85, 1.15)), np.zeros((round(gap * RATE), 3))]
    samples = np.concatenate([*parts, np.zeros((100, 3))])
    return (samples + rng.normal((0, 0, 1), noise, samples.shape)).astype(np.float32)


def damaged(rng: np.random.Generator, samples: Samples) -> tuple[Samples, NDArray[np.float64]]:
    """All that may be wrong with samples and time stamps, some of it."""
    samples, n = samples.copy(), len(samples)
    times = rng.choice([0.0, 1e6]) + np.arange(n) / RATE + rng.uniform(-0.002, 0.002, n)

    def some(most: int) -> NDArray[np.int64]:
        return rng.integers(n, size=rng.integers(most))

    for wrong in (np.nan, np.inf, -1e30, 1e12, 1e4):
        rows = some(8)
        samples[rows, rng.integers(3, size=len(rows))] = wrong
    if rng.random() < 0.5:
        lost = rng.integers(n)
        samples[lost : lost + rng.integers(300), rng.integers(3)] = np.nan
    if rng.random() < 0.3:
        samples[rng.integers(n) :] += rng.normal(0, 100, 3)
    times[some(5)] = rng.choice([np.nan, np.inf, 1e300])
    times[some(5)] += rng.choice([-1e5, 1e5, 0.03, -0.03])
    if rng.random() < 0.5:
        times[rng.integers(n) :] += rng.choice([0.3, 5.0, -100.0, 1e7])
    if rng.random() < 0.5:
        slower = rng.integers(n)
        times[slower:] = times[slower] + rng.choice([0.5, 1.6]) * (times[slower:] - times[slower])
    kept = np.sort(rng.choice(n, size=round(0.9 * n)))  # some twice
    return samples[kept], times[kept]


# ---- the two streams ------------------------------------------------------------------------------
def taught(seed: int, rate: float | None) -> GestureRecognizer:
    rng = np.random.default_rng([seed, 1])
    labels = [name for name in NAMES for _ in range(10)]
    examples = [gesture(name, rng.uniform(0.8, 1.2)) + rng.normal(0, 0.02, 3) for name in labels]
    return GestureRecognizer(normalization="centered", rate=rate, **SMALL).fit(examples, labels)


@pytest.fixture(scope="module")
def path(seed: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stream") / "gestures.gesda"
    taught(seed, RATE).save(path)
    return path


@pytest.fixture(scope="module")
def recognizer(path: Path) -> GestureRecognizer:
    return GestureRecognizer.load(path)


@pytest.fixture(scope="module")
def runtime(path: Path) -> Runtime:
    return Runtime(path)


class Through:
    """A recogniser for Python's stream that has the runtime answer."""

    def __init__(self, recognizer: GestureRecognizer, runtime: Runtime) -> None:
        self.n_channels_, self.rate_ = recognizer.n_channels_, recognizer.rate_
        self.duration_range_, self.threshold_ = recognizer.duration_range_, recognizer.threshold_
        self.classes_ = np.arange(runtime.n_outputs)
        self.runtime = runtime

    def recognize(self, sequence: Samples) -> SimpleNamespace:
        answer = self.runtime.recognize(sequence)
        label = None if answer.gesture < 0 else answer.gesture
        return SimpleNamespace(label=label, confidence=answer.confidence, familiarity=answer.familiarity)


def as_numbers(events: list[Any]) -> list[tuple[int, float, float, float, float]]:
    return [(-1 if e.label is None else e.label, e.confidence, e.familiarity, e.start, e.end) for e in events]


def in_pieces(
    rng: np.random.Generator, stream: RuntimeStream, samples: Samples, times: NDArray[np.float64] | None
) -> list[Event]:
    events, begin, most = [], 0, int(rng.choice([2, 30, 2000]))
    while begin < len(samples):
        end = begin + int(rng.integers(1, most))
        events += stream.push(samples[begin:end], None if times is None else times[begin:end])
        begin = end
    return events


def compare(found: list[Event], expected: list[Any]) -> None:
    assert [event.gesture for event in found] == [event[0] for event in expected]
    for event, (_, confidence, familiarity, start, end) in zip(found, expected, strict=True):
        assert (event.start, event.end) == pytest.approx((start, end), abs=1e-9, rel=0)
        assert event.confidence == pytest.approx(confidence, abs=1e-5)
        assert event.familiarity == pytest.approx(familiarity, abs=1e-4, rel=1e-5)


def compare_reports(found: dict[str, Any], python: GestureStream) -> None:
    expected = asdict(python.report)
    expected["n_lost_channels"] = len(expected.pop("lost_channels"))
    assert found == expected | {"in_motion": python.in_motion}


# ---- the same events ------------------------------------------------------------------------------
OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "unknown": {"unknown": True},
    "not continuous": {"unknown": True, "continuous": False},
    "one length": {"unknown": True, "candidates": 1},
    "many lengths": {"candidates": 33},
    "a short pause": {"unknown": True, "pause": 0.05},
    "a long pause": {"pause": 2.0},
    "short gaps": {"unknown": True, "max_gap": 0.035},
    "long gaps": {"max_gap": 3.0},
    "limits": {"limits": ((-1.5, -1.5, -0.5), 2.5)},
    "fewer samples": {"rate": 60.0},
    "more samples": {"rate": 250.0},
}


@pytest.mark.parametrize("damage", [False, True])
@pytest.mark.parametrize("name", OPTIONS)
def test_it_finds_what_python_finds(name, damage, recognizer, runtime, rng):
    names = tuple(rng.choice([*NAMES, "shiver"], size=5))
    samples = recording(rng, names, gap=float(rng.choice([1.0, 0.28, 0.0])))
    samples, times = damaged(rng, samples) if damage else (samples, None)
    python, stream = GestureStream(Through(recognizer, runtime), **OPTIONS[name]), runtime.stream(**OPTIONS[name])
    middle = int(rng.integers(len(samples)))
    for part in (slice(middle), slice(middle, None)):
        stamps = None if times is None else times[part]
        expected = python.push(samples[part], stamps)
        compare(in_pieces(rng, stream, samples[part], stamps), as_numbers(expected))
        compare_reports(stream.report(), python)
        compare(stream.flush(), as_numbers(python.flush()))
        compare_reports(stream.report(), python)


def test_a_recogniser_that_knows_no_rate_takes_that_of_the_stream(seed, rng, tmp_path):
    unknowing = taught(seed, None)
    unknowing.save(tmp_path / "gestures.gesda")
    runtime = Runtime(tmp_path / "gestures.gesda")
    with pytest.raises(ValueError, match="give rate"):
        runtime.stream()
    samples = recording(rng)
    expected = GestureStream(Through(unknowing, runtime), rate=50.0, unknown=True).push(samples)
    compare(runtime.stream(rate=50.0, unknown=True).push(samples), as_numbers(expected))


def test_a_recogniser_that_knows_no_gesture_tells_motions(path, rng, tmp_path):
    forgetful = GestureRecognizer.load(path)
    for name in NAMES:
        forgetful.remove_gesture(name)
    forgetful.save(tmp_path / "none.gesda")
    samples = recording(rng)
    expected = as_numbers(GestureStream(forgetful, unknown=True).push(samples))
    assert len(expected) == 3
    compare(Runtime(tmp_path / "none.gesda").stream(unknown=True).push(samples), expected)


def test_the_recogniser_of_python_finds_the_same_gestures(recognizer, runtime, rng):
    samples = recording(rng, tuple(rng.permutation(NAMES * 3)))
    expected = GestureStream(recognizer, unknown=True).push(samples)
    found = runtime.stream(unknown=True).push(samples)
    assert [(event.start, event.end) for event in found] == [(event.start, event.end) for event in expected]
    same = [None if event.gesture < 0 else runtime.class_names[event.gesture] for event in found]
    assert np.mean([label == event.label for label, event in zip(same, expected, strict=True)]) > 0.8


def test_pushes_do_not_matter_to_the_last_bit(runtime, rng):
    samples, times = damaged(rng, recording(rng, (*NAMES, "shiver"), gap=0.3))
    streams = [runtime.stream(unknown=True) for _ in range(3)]
    whole = [stream.push(samples, times) + stream.flush() for stream in streams[:1]]
    pieces = [in_pieces(rng, stream, samples, times) + stream.flush() for stream in streams[1:]]
    assert pieces == whole * 2
    assert [stream.report() for stream in streams] == [streams[0].report()] * 3


# ---- the stream by itself -------------------------------------------------------------------------
def test_reset_makes_a_stream_as_new(runtime, rng):
    samples = recording(rng)
    stream = runtime.stream(unknown=True)
    first = stream.push(samples), stream.report()
    stream.push(rng.normal(0, 1e6, (500, 3)), 1e5 + np.arange(500))
    stream.reset()
    assert stream.report() == runtime.stream().report() and stream.flush() == []
    assert (stream.push(samples), stream.report()) == first


def test_events_that_nobody_takes_stop_the_stream_and_none_is_lost(runtime, rng):
    strokes = np.concatenate([gesture("shiver", 0.5) for _ in range(600)]).astype(np.float32)
    times = np.concatenate([10 * i + np.arange(50) / RATE for i in range(600)])
    expected = runtime.stream(unknown=True)
    events = expected.push(strokes, times) + expected.flush()
    assert len(events) == 600
    stream, taken, found, stops = runtime.stream(unknown=True), 0, [], 0
    while taken < len(strokes):
        taken += push_once(stream, strokes[taken:], times[taken:])
        assert push_once(stream, strokes[taken:], times[taken:]) == 0
        if taken == len(strokes):
            stream._library.gesda_stream_flush(stream._stream)  # there is room for what it brings
        found += stream._events()
        stops += 1
    assert found == events and stops >= 2


def push_once(stream: RuntimeStream, samples: Samples, times: NDArray[np.float64]) -> int:
    taken = ctypes.c_size_t()
    addresses = samples.ctypes.data, times.ctypes.data
    assert stream._library.gesda_stream_push(stream._stream, *addresses, len(samples), ctypes.byref(taken)) == 0
    return taken.value


def test_numbers_of_any_kind_do_no_harm(runtime, rng):
    stream = runtime.stream(unknown=True)
    pushed = 0
    for _ in range(30):
        samples = rng.integers(2**32, size=(int(rng.integers(1, 200)), 3), dtype=np.uint32).view(np.float32)
        kinds = [
            None,
            rng.integers(2**63, size=len(samples)).view(np.float64),
            np.cumsum(rng.choice([0.01, 0.01, 0.0, -0.01, 0.3, 1e9, -1e9, 5e-324], size=len(samples))),
        ]
        for event in stream.push(samples, kinds[rng.integers(3)]):
            assert math.isfinite(event.start) and math.isfinite(event.end)
        pushed += len(samples)
    report = stream.report()
    assert report["received"] == pushed and report["used"] <= pushed
    samples = recording(rng, ("wave",))
    clean = runtime.stream(unknown=True).push(samples)
    times = 1e7 + np.arange(len(samples)) / RATE  # a time that no junk has: the clock is set, a run begins
    last = stream.push(samples, times)[-1]
    assert (last.gesture, last.start - 1e7) == (clean[-1].gesture, pytest.approx(clean[-1].start, abs=1e-6))


def test_a_jump_seen_before_the_clock_was_put_back_leaves_no_rows_of_a_time_to_come(runtime, rng):
    before, after = recording(rng, ()), recording(rng, ("wave",))
    after[:, 0] += 500.0  # a jump that lasts
    n = len(before)
    times = np.arange(n + len(after)) / RATE
    expected = runtime.stream(unknown=True).push(np.concatenate([before, after]), times)
    # The first sample of the jump comes once more, alone, after a minute of nothing; then the clock is put back.
    nothing = np.full((301, 3), np.nan, np.float32)
    nothing[-1, 0] = 500.0
    meanwhile = times[n - 1] + 0.2 * np.arange(1, 302)
    samples = np.concatenate([before, nothing, after])
    found = runtime.stream(unknown=True).push(samples, np.concatenate([times[:n], meanwhile, times[n:]]))
    assert found
    compare(found, expected)


# ---- errors ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "options",
    [
        {"rate": -1.0},
        {"rate": math.nan},
        {"rate": 1e7},
        {"pause": 0.0},
        {"pause": 61.0},
        {"max_gap": 0.01},
        {"max_gap": math.inf},
        {"candidates": 0},
        {"candidates": 65},
        {"limits": (1, -1)},
        {"limits": ((0, 0, 1), 1)},
        {"limits": (math.nan, 1)},
    ],
)
def test_options_out_of_range_are_the_errors_of_python(options, recognizer, runtime):
    words = f"{next(iter(options))}.*; give"
    with pytest.raises(ValueError, match=words):
        GestureStream(recognizer, **options)
    with pytest.raises(ValueError, match=words):
        runtime.stream(**options)


@pytest.mark.parametrize("longest", [1e7, 1e15, 1e300])
def test_examples_of_absurd_length_are_an_error_before_memory_is_taken(longest, path, tmp_path):
    tensors, metadata = read_tensors(path)
    durations = tensors["memory.durations"].copy()
    durations[-1] = longest
    write_tensors(tmp_path / "absurd.gesda", tensors | {"memory.durations": durations}, metadata)
    with pytest.raises((ValueError, MemoryError), match=r"longest gesture|MB"):
        Runtime(tmp_path / "absurd.gesda").stream()
