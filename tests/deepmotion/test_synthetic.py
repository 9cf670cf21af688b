"""Simulated gestures: what they are, what each parameter changes, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gesda.datasets import DataError
from gesda.deepmotion.data.sequences import MotionDataset
from gesda.deepmotion.data.synthetic import GESTURES, make_gesture_stream, make_gestures, make_scribbles, stream_of

SEED = int(np.random.default_rng().integers(2**31))
KINDS = ("accelerometer", "gyroscope", "pointer")
CLEAN: dict[str, Any] = {"noise": 0, "drift": 0, "resolution": 0, "limit": 1e6, "orientation": 0}


@pytest.fixture(autouse=True)
def shown_seed() -> None:
    print(f"seed {SEED}")


def resampled(data: MotionDataset, n: int = 64) -> np.ndarray:
    rows = []
    for sequence in data.sequences:
        at = np.linspace(0, len(sequence) - 1, n)
        row = np.stack([np.interp(at, np.arange(len(sequence)), channel) for channel in sequence.T], axis=1)
        rows.append(((row - row.mean(0)) / (row.std(0) + 1e-6)).ravel())
    return np.array(rows)


def same(one: MotionDataset, other: MotionDataset) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one.sequences, other.sequences, strict=True))


@pytest.mark.parametrize(("kind", "n_channels"), [("accelerometer", 3), ("gyroscope", 6), ("pointer", 2)])
def test_every_gesture_has_as_many_sequences_as_asked_for(kind: Any, n_channels: int) -> None:
    data = make_gestures(3, kind=kind, n_users=2, n_unlabeled=4, rate=50, random_state=SEED)
    assert data.labels is not None and data.groups is not None
    assert data.labels.tolist() == [name for name in GESTURES for _ in range(3)] + [None] * 4
    assert set(data.groups.tolist()) == {0, 1} and data.rate == 50 and data.n_channels == n_channels
    assert len(GESTURES) >= 16


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_data_and_another_does_not(kind: Any) -> None:
    one, again, other = (
        make_gestures(2, kind=kind, gestures=3, n_unlabeled=2, random_state=s) for s in (SEED, SEED, SEED + 1)
    )
    assert same(one, again)
    assert not any(np.array_equal(a, b) for a, b in zip(one.sequences, other.sequences, strict=True))


def test_a_generator_gives_new_data_at_each_call() -> None:
    rng = np.random.default_rng(SEED)
    one, other = (make_gestures(1, gestures=1, random_state=rng) for _ in range(2))
    assert not np.array_equal(one.sequences[0], other.sequences[0])


@pytest.mark.parametrize("kind", KINDS)
def test_more_repetitions_other_gestures_and_unlabelled_motion_leave_a_sequence_as_it_was(kind: Any) -> None:
    few = make_gestures(2, kind=kind, gestures=["letter_Z"], random_state=SEED)
    many = make_gestures(5, kind=kind, gestures=["check", "letter_Z"], n_unlabeled=3, random_state=SEED)
    assert same(few, many[5:7])


def test_noise_changes_neither_length_nor_motion() -> None:
    clean, noisy = (
        make_gestures(4, gestures=4, random_state=SEED, **(CLEAN | {"noise": noise})) for noise in (0.0, 0.05)
    )
    difference = np.concatenate([a - b for a, b in zip(clean.sequences, noisy.sequences, strict=True)])
    assert 0.04 < difference.std() < 0.06


def test_unlabelled_gestures_are_not_copies_of_labelled_ones() -> None:
    data = make_gestures(4, gestures=1, n_unlabeled=4, scribbles=0.0, n_users=1, random_state=SEED)
    for i in range(4):
        assert not any(np.array_equal(data.sequences[i], data.sequences[4 + j]) for j in range(4))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_scribbles_are_the_share_asked_for(share: float) -> None:
    data = make_gestures(1, kind="pointer", gestures=["line_right"], n_unlabeled=60, scribbles=share, random_state=SEED)
    # A line to the right ends to the right of its start, by nearly all of its way; few scribbles do.
    ways = [np.diff(sequence, axis=0) for sequence in data.sequences[1:]]
    straight = [way[:, 0].sum() / np.hypot(*way.T).sum() for way in ways]
    assert np.mean(np.array(straight) > 0.75) == pytest.approx(1 - share, abs=0.25)


# ---- physics --------------------------------------------------------------------------------------
def test_a_device_at_rest_feels_gravity_alone() -> None:
    data = make_gestures(20, gestures=["circle_cw"], tremor=0, random_state=SEED, **(CLEAN | {"orientation": 30}))
    ends = np.array([np.linalg.norm(sequence[[0, -1]], axis=1) for sequence in data.sequences])
    # The first and last 20 ms or more are rest; the filter of the hand reaches a little into it.
    np.testing.assert_allclose(ends, 1.0, atol=0.1)


def test_a_line_to_the_right_speeds_up_to_the_right_and_then_slows_down() -> None:
    data = make_gestures(20, gestures=["line_right"], style=0, variation=0, tremor=0, random_state=SEED, **CLEAN)
    for sequence in data.sequences:
        x = sequence[:, 0]
        assert x.argmax() < x.argmin() and x.max() > 0.1 and x.min() < -0.1


def test_left_and_right_are_mirror_images() -> None:
    right, left = (
        make_gestures(30, kind="pointer", gestures=[name], style=0, variation=0, random_state=SEED, **CLEAN)
        for name in ("line_right", "line_left")
    )
    for data, sign in ((right, 1), (left, -1)):
        for sequence in data.sequences:
            assert sign * (sequence[-1, 0] - sequence[0, 0]) == pytest.approx(0.4, rel=0.05)


def test_the_pointer_counts_down_the_screen() -> None:
    data = make_gestures(5, kind="pointer", gestures=["line_down"], random_state=SEED)
    assert all(sequence[-1, 1] > sequence[0, 1] + 0.1 for sequence in data.sequences)


def test_angular_rate_is_the_change_of_the_orientation() -> None:
    # At rest before and after, the accelerometer shows the tilt; the integral of the rate must lead from one to the
    # other.
    data = make_gestures(
        10,
        kind="gyroscope",
        gestures=["line_up"],
        tremor=0,
        rate=400,
        random_state=SEED,
        **(CLEAN | {"orientation": 20}),
    )
    from scipy.spatial.transform import Rotation

    for sequence in data.sequences:
        acc, rate = np.float64(sequence[:, :3]), np.deg2rad(np.float64(sequence[:, 3:])) / 400
        turn = Rotation.identity()
        for step in rate[:-1]:
            turn = turn * Rotation.from_rotvec(step)
        predicted = turn.inv().apply(acc[0] / np.linalg.norm(acc[0]))
        assert np.rad2deg(np.arccos(np.clip(predicted @ acc[-1] / np.linalg.norm(acc[-1]), -1, 1))) < 4


def test_speed_spreads_the_durations() -> None:
    narrow, wide = (
        np.log(make_gestures(40, gestures=["square"], n_users=40, speed=speed, random_state=SEED).lengths).std()
        for speed in (0.0, 0.5)
    )
    assert wide > 0.25 > 0.2 > narrow


def test_the_hand_slows_down_at_corners() -> None:
    data = make_gestures(10, kind="pointer", gestures=["letter_V"], style=0.05, random_state=SEED, **CLEAN)
    for sequence in data.sequences:
        speed = np.hypot(*np.diff(np.float64(sequence), axis=0).T)
        lowest = int(sequence[:, 1].argmax())
        assert speed[max(lowest - 2, 0) : lowest + 2].min() < 0.6 * speed.max()


def test_values_are_clipped_and_rounded() -> None:
    data = make_gestures(5, gestures=["letter_W"], limit=1.5, resolution=0.25, random_state=SEED)
    values = np.concatenate(data.sequences)
    assert np.abs(values).max() == 1.5
    np.testing.assert_array_equal(values, np.round(values * 4) / 4)


def test_drift_is_a_bias_of_its_size() -> None:
    clean, drifting = (
        make_gestures(100, gestures=["check"], random_state=SEED, **(CLEAN | {"drift": drift})) for drift in (0.0, 0.3)
    )
    bias = [(b - a).mean(axis=0) for a, b in zip(clean.sequences, drifting.sequences, strict=True)]
    assert 0.25 < np.std(bias) < 0.4


@pytest.mark.parametrize("rate", [5.0, 20.0, 1000.0])
@pytest.mark.parametrize("kind", KINDS)
def test_any_rate_gives_finite_data_of_that_duration(kind: Any, rate: float) -> None:
    data = make_gestures(1, kind=kind, gestures=4, n_unlabeled=1, rate=rate, random_state=SEED)
    reference = make_gestures(1, kind=kind, gestures=4, n_unlabeled=1, random_state=SEED)
    np.testing.assert_allclose(data.lengths / rate, reference.lengths / 100, atol=0.6 / rate + 0.006)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_nearest_neighbours_find_most_gestures_of_other_users_but_not_all(kind: Any) -> None:
    data = make_gestures(16, kind=kind, n_users=8, random_state=SEED)
    assert data.labels is not None and data.groups is not None
    X, train = resampled(data), data.groups < 4
    distance = (X[~train] ** 2).sum(1)[:, None] + (X[train] ** 2).sum(1) - 2 * X[~train] @ X[train].T
    accuracy = (data.labels[train][distance.argmin(1)] == data.labels[~train]).mean()
    assert 0.6 < accuracy < 0.98


# ---- streams --------------------------------------------------------------------------------------
def test_a_stream_holds_each_sequence_where_it_says() -> None:
    data = make_gestures(2, gestures=3, random_state=SEED)
    samples, intervals = stream_of(data, gap=(0.1, 0.4), random_state=SEED)
    assert data.labels is not None
    assert [label for label, _, _ in intervals] == data.labels.tolist()
    end = 0.0
    for sequence, (_, start, stop) in zip(data.sequences, intervals, strict=True):
        i, j = round(start * 100), round(stop * 100)
        np.testing.assert_array_equal(samples[i : j + 1], sequence)
        assert 0.1 - 1e-9 <= start - end <= 0.42
        end = stop
    assert 0.09 <= len(samples) / 100 - end <= 0.42


def test_a_stream_without_gaps_is_the_sequences_alone() -> None:
    data = make_gestures(1, gestures=3, random_state=SEED)
    samples, _ = stream_of(data, gap=(0, 0))
    np.testing.assert_array_equal(samples, np.concatenate(data.sequences))


def test_rests_have_the_noise_asked_for() -> None:
    samples, _ = stream_of(MotionDataset([np.zeros((1, 2))] * 50, rate=100), gap=(1, 1), noise=[0.5, 0.0])
    assert 0.45 < samples[:, 0].std() < 0.55 and samples[:, 1].std() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_of_gestures_has_as_many_of_each_and_random_motion_among_them(kind: Any) -> None:
    samples, intervals = make_gesture_stream(
        12, kind=kind, gestures=["check", "wave", "spiral"], n_scribbles=5, random_state=SEED
    )
    labels = [label for label, _, _ in intervals]
    assert {label: labels.count(label) for label in set(labels)} == {"check": 4, "wave": 4, "spiral": 4, None: 5}
    assert np.isfinite(samples).all() and samples.dtype == np.float32
    assert np.array_equal(
        samples,
        make_gesture_stream(12, kind=kind, gestures=["check", "wave", "spiral"], n_scribbles=5, random_state=SEED)[0],
    )


def test_scribbles_have_no_label() -> None:
    data = make_scribbles(5, random_state=SEED)
    assert len(data) == 5 and not data.labeled.any()


# ---- errors ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_per_class": 0}, "n_per_class and n_unlabeled"),
        ({"n_per_class": -1}, "n_per_class and n_unlabeled"),
        ({"n_users": 0}, "n_users at least 1"),
        ({"kind": "sonar"}, "kind must be one of"),
        ({"gestures": ["salute"]}, "unknown: 'salute'"),
        ({"gestures": ["wave", "wave"]}, "name each once"),
        ({"gestures": []}, "name each once"),
        ({"gestures": 99}, "there are 22 gestures"),
        ({"noise": -1}, "noise must be"),
        ({"style": np.nan}, "style must be"),
        ({"rate": 0}, "rate and limit must be positive"),
        ({"limit": 0}, "rate and limit must be positive"),
        ({"scribbles": 2}, "scribbles must lie"),
        ({"random_state": -3}, "random_state must not"),
    ],
)
def test_parameters_out_of_range_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make_gestures(**parameters)


@pytest.mark.parametrize("gap", [(2, 1), (-1, 1), (0, np.inf), (np.nan, 1)])
def test_a_gap_that_is_no_interval_is_refused(gap: tuple[float, float]) -> None:
    with pytest.raises(DataError, match="gap must be two times"):
        stream_of(MotionDataset([[0.0]]), gap=gap)
    with pytest.raises(DataError, match="n_gestures and n_scribbles"):
        make_gesture_stream(0)
