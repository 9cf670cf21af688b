"""Features: what each is invariant to, and what it does with very short, constant and very large motions."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gesda.deepmotion.features import Augmentation, MotionFeatures, augmentation
from gesda.deepmotion.features.channels import spectrum, velocity
from gesda.deepmotion.features.local import KERNELS, LocalPatterns
from gesda.deepmotion.features.normalization import (
    NORMALIZATIONS,
    center_and_scale,
    find_body,
    relative_to_body,
    standardize_channels,
)
from gesda.deepmotion.features.orientation import align_gravity, magnitudes
from gesda.deepmotion.features.resampling import resample_arc, resample_time

RESAMPLERS = [resample_time, resample_arc]
lengths = st.integers(1, 40)
channels = st.integers(1, 4)
seeds = st.integers(0, 2**31)


def smooth(rng: np.random.Generator, length: int, n_channels: int) -> np.ndarray:
    """A random walk, smoothed: something like a motion."""
    return np.cumsum(rng.normal(size=(length, n_channels)), axis=0)


def rotation(rng: np.random.Generator) -> np.ndarray:
    matrix, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return matrix * np.sign(np.linalg.det(matrix))


# ---- resampling -----------------------------------------------------------------------------------
@pytest.mark.parametrize("resample", RESAMPLERS)
@settings(deadline=None, max_examples=60)
@given(lengths, channels, st.integers(1, 50), seeds)
def test_resampling_keeps_the_ends_and_the_range(resample, length, n_channels, n_steps, seed):
    sequence = np.random.default_rng(seed).normal(size=(length, n_channels))
    resampled = resample(sequence, n_steps)
    assert resampled.shape == (n_steps, n_channels)
    np.testing.assert_allclose(resampled[0], sequence[0], atol=1e-12)
    if n_steps > 1:
        np.testing.assert_allclose(resampled[-1], sequence[-1], atol=1e-9)
    assert (resampled <= sequence.max(axis=0) + 1e-9).all() and (resampled >= sequence.min(axis=0) - 1e-9).all()


def test_resampling_a_resampled_sequence_in_time_changes_nothing(rng):
    once = resample_time(smooth(rng, 37, 3), 64)
    np.testing.assert_array_equal(resample_time(once, 64), once)
    # Up to a multiple of the intervals and back again, every sample is met.
    np.testing.assert_allclose(resample_time(resample_time(once, 63 * 3 + 1), 64), once, atol=1e-12)


def test_resampling_a_straight_line_by_its_length_twice_changes_nothing(rng):
    times = np.sort(rng.uniform(size=30))
    line = times[:, None] * rng.normal(size=3)
    once = resample_arc(line, 20)
    np.testing.assert_allclose(resample_arc(once, 20), once, atol=1e-9)
    np.testing.assert_allclose(np.diff(once, axis=0), np.broadcast_to(once[1] - once[0], (19, 3)), atol=1e-9)


def test_resampling_in_time_does_not_see_the_overall_speed(rng):
    slow = smooth(rng, 41, 2)
    fast = slow[::2]
    np.testing.assert_allclose(resample_time(fast, 21), resample_time(slow, 21), atol=1e-12)


def test_resampling_by_length_does_not_see_rhythm_and_pauses(rng):
    path = smooth(rng, 25, 2)
    paused = np.repeat(path, rng.integers(1, 6, len(path)), axis=0)
    np.testing.assert_allclose(resample_arc(paused, 30), resample_arc(path, 30), atol=1e-9)


@pytest.mark.parametrize("resample", RESAMPLERS)
@pytest.mark.parametrize("sequence", [[[3.0, 4.0]], [[3.0, 4.0]] * 2, [[3.0, 4.0]] * 50])
def test_what_does_not_move_is_held(resample, sequence):
    np.testing.assert_array_equal(resample(np.array(sequence), 7), [[3.0, 4.0]] * 7)


def test_resampling_by_length_takes_the_largest_and_smallest_numbers(rng):
    for size in (1e-300, 1e300):
        path = smooth(rng, 20, 2)
        expected = resample_arc(path, 15) * size
        np.testing.assert_allclose(resample_arc(path * size, 15), expected, rtol=1e-9)


# ---- normalisation --------------------------------------------------------------------------------
def test_center_and_scale_does_not_see_place_and_size(rng):
    motion = smooth(rng, 30, 3)
    changed = motion * rng.uniform(0.01, 100) + rng.normal(size=3) * 10
    np.testing.assert_allclose(center_and_scale(changed), center_and_scale(motion), atol=1e-9)


def test_center_and_scale_commutes_with_rotation(rng):
    motion, turn = smooth(rng, 30, 3), rotation(rng)
    np.testing.assert_allclose(center_and_scale(motion @ turn), center_and_scale(motion) @ turn, atol=1e-9)


def test_standardized_channels_do_not_see_their_offsets_and_scales(rng):
    motion = smooth(rng, 30, 3)
    changed = motion * rng.uniform(0.01, 100, size=3) + rng.normal(size=3) * 10
    np.testing.assert_allclose(standardize_channels(changed), standardize_channels(motion), atol=1e-8)


def test_points_relative_to_the_body_do_not_see_where_it_goes(rng):
    points = smooth(rng, 30, 15)
    walk = np.tile(smooth(rng, 30, 3), 5)
    body = np.ones(5, dtype=bool)
    np.testing.assert_allclose(relative_to_body(points + walk, body), relative_to_body(points, body), atol=1e-9)
    body[3] = False
    np.testing.assert_array_equal(relative_to_body(points, body)[:, 9:12], points[:, 9:12])


def test_a_body_is_found_among_other_sensors(rng):
    walks = [np.tile(smooth(rng, 30, 3), 6) * 5 for _ in range(60)]
    joined = [np.hstack([smooth(rng, 30, 6) * 100, walk + smooth(rng, 30, 18)]) for walk in walks]
    assert find_body(joined).tolist() == 2 * [False] + 6 * [True]
    features = MotionFeatures(normalization="relative").fit(joined, rng)
    moved = joined[0] + np.concatenate([np.zeros(6), np.tile(rng.normal(size=3), 6)])
    one, other = (features.motions([motion])[0] for motion in (joined[0], moved))
    np.testing.assert_allclose(one, other, atol=1e-4)
    for n_channels in (9, 13):  # three points are none, thirteen channels are no points
        alone = [motion[:, :n_channels] for motion in joined]
        assert not find_body(alone).any()
        with pytest.raises(ValueError, match="points of a body"):
            MotionFeatures(normalization="relative").fit(alone, rng)


@pytest.mark.parametrize("normalize", [center_and_scale, standardize_channels])
@pytest.mark.parametrize("value", [0.0, 0.1, -7e5, 1e-30])
def test_constant_channels_become_zero(normalize, value):
    motion = np.full((20, 2), value)
    np.testing.assert_array_equal(normalize(motion), np.zeros((20, 2)))
    moving = np.stack([np.full(20, value), np.arange(20.0)], axis=1)
    np.testing.assert_allclose(normalize(moving)[:, 0], 0.0, atol=1e-9)
    assert np.abs(normalize(moving)[:, 1]).max() > 1


# ---- orientation ----------------------------------------------------------------------------------
def test_alignment_by_gravity_does_not_see_how_the_device_is_held(rng):
    motion = smooth(rng, 50, 3) * 0.1 + np.array([0.0, 0.0, 9.81])
    gyroscope = smooth(rng, 50, 3)
    turn = rotation(rng)
    kept = align_gravity(np.hstack([motion, gyroscope]))
    turned = align_gravity(np.hstack([motion @ turn, gyroscope @ turn]))
    np.testing.assert_allclose(turned, kept, atol=1e-6)
    np.testing.assert_allclose(kept[:, :2].mean(axis=0), 0.0, atol=1e-9)
    assert kept[:, 2].mean() > 9


def test_alignment_keeps_lengths_and_takes_what_has_no_direction(rng):
    motion = smooth(rng, 20, 6)
    np.testing.assert_allclose(magnitudes(align_gravity(motion)), magnitudes(motion), atol=1e-9)
    for still in (np.zeros((5, 3)), np.ones((1, 3)), np.array([[1.0, 0, 0], [-1.0, 0, 0]])):
        assert np.isfinite(align_gravity(still)).all()


def test_magnitudes_do_not_see_turns_that_go_on_during_the_motion(rng):
    motion = smooth(rng, 20, 6)
    turned = np.stack([(row.reshape(2, 3) @ rotation(rng)).ravel() for row in motion])
    np.testing.assert_allclose(magnitudes(turned), magnitudes(motion), atol=1e-9)


@pytest.mark.parametrize("turn", [align_gravity, magnitudes])
def test_channels_that_are_no_triples_are_an_error(turn):
    with pytest.raises(ValueError, match="triples"):
        turn(np.zeros((5, 4)))


# ---- channels -------------------------------------------------------------------------------------
def test_velocity_is_the_slope_and_does_not_see_offsets(rng):
    slope = rng.normal(size=3)
    line = np.arange(10.0)[:, None] * slope + rng.normal(size=3)
    np.testing.assert_allclose(velocity(line), np.broadcast_to(slope, (10, 3)), atol=1e-9)
    np.testing.assert_array_equal(velocity(np.ones((1, 3))), np.zeros((1, 3)))


def test_spectrum_does_not_see_cyclic_shifts_signs_and_offsets(rng):
    motion = rng.normal(size=(64, 2))
    changed = -np.roll(motion, int(rng.integers(64)), axis=0) + 5.0
    np.testing.assert_allclose(spectrum(changed), spectrum(motion), atol=1e-9)


def test_spectrum_adds_up_to_the_variance(rng):
    motion = rng.normal(size=(128, 2))
    np.testing.assert_allclose(np.expm1(spectrum(motion)).sum(axis=0), motion.var(axis=0) * 128, rtol=1e-9)


# ---- local patterns -------------------------------------------------------------------------------
def plain_shares(motion: np.ndarray, patterns: LocalPatterns) -> np.ndarray:
    """The definition, in loops over taps."""
    n_steps = len(motion)
    edges = [0, (n_steps + 2) // 3, (2 * n_steps + 2) // 3, n_steps]
    shares = []
    for d, dilation in enumerate(patterns.dilations_):
        for k, twos in enumerate(KERNELS):
            signal = motion @ patterns.mixtures_[d, k % 12]
            padded = np.pad(signal, 4 * dilation)
            weights = np.where(np.isin(np.arange(9), twos), 2.0, -1.0)
            response = sum(w * padded[j * dilation : j * dilation + n_steps] for j, w in enumerate(weights))
            for threshold in patterns.thresholds_[d, k]:
                above = response > threshold
                shares += [above.mean(), *(above[a:b].mean() for a, b in pairwise(edges))]
    return np.array(shares)


def test_local_patterns_are_what_their_definition_says(rng):
    motions = rng.normal(size=(5, 50, 3)).astype(np.float32)
    # Thresholds are responses of other motions: those of these would be met but for rounding.
    patterns = LocalPatterns(n_dilations=3, n_thresholds=2).fit(rng.normal(size=(4, 50, 3)).astype(np.float32), rng)
    shares = patterns.transform(motions)
    assert shares.shape == (5, patterns.n_features) and shares.min() >= 0 and shares.max() <= 1
    expected = np.stack([plain_shares(motion.astype(np.float64), patterns) for motion in motions])
    differences = np.abs(shares - expected)
    assert (differences > 1e-6).mean() < 0.001
    assert differences.max() < 0.1


def test_local_patterns_do_not_see_shifts_of_a_motion_amid_rest(rng):
    event = rng.normal(size=(10, 2)).astype(np.float32)
    early, late = np.zeros((2, 120, 2), dtype=np.float32)
    early[40:50], late[60:70] = event, event
    patterns = LocalPatterns(n_dilations=1, n_thresholds=1).fit(np.stack([early, late]), rng)
    shares = patterns.transform(np.stack([early, late])).reshape(2, -1, 4)
    np.testing.assert_array_equal(shares[0, :, 0], shares[1, :, 0])


# ---- augmentation ---------------------------------------------------------------------------------
STEPS = [
    augmentation.time_warp,
    augmentation.shift,
    augmentation.window_slice,
    augmentation.scale,
    augmentation.jitter,
    augmentation.rotate,
]


@pytest.mark.parametrize("step", STEPS)
@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(1, 40), channels, seeds)
def test_augmentation_keeps_the_shape_and_stays_finite(step, n, n_steps, n_channels, seed):
    rng = np.random.default_rng(seed)
    motions = rng.normal(size=(n, n_steps, n_channels)).astype(np.float32)
    before = motions.copy()
    changed = step(motions, rng)
    assert changed.shape == motions.shape and changed.dtype == np.float32 and np.isfinite(changed).all()
    np.testing.assert_array_equal(motions, before)


@pytest.mark.parametrize("step", [augmentation.time_warp, augmentation.shift, augmentation.window_slice])
def test_warps_visit_the_same_places(step, rng):
    line = np.linspace(0, 1, 50, dtype=np.float32).reshape(1, 50, 1).repeat(8, axis=0)
    warped = step(line, rng)
    assert (np.diff(warped, axis=1) >= 0).all() and warped.min() >= 0 and warped.max() <= 1
    assert not np.array_equal(warped[0], warped[1])


def test_rotation_keeps_lengths(rng):
    for n_channels, size in ((3, 3), (6, 3), (2, 2), (4, 2)):
        motions = rng.normal(size=(4, 9, n_channels)).astype(np.float32)
        turned = augmentation.rotate(motions, rng, 40.0)
        assert not np.allclose(turned, motions)
        lengths_of = [np.linalg.norm(array.reshape(4, 9, -1, size), axis=3) for array in (turned, motions)]
        np.testing.assert_allclose(*lengths_of, atol=1e-5)


def test_no_strength_changes_nothing(rng):
    motions = rng.normal(size=(3, 20, 2)).astype(np.float32)
    nothing = Augmentation(time_warp=0, shift=0, window=0, scale=0, jitter=0, rotation=0)
    np.testing.assert_array_equal(nothing(motions, rng), motions)


# ---- all together ---------------------------------------------------------------------------------
@pytest.mark.parametrize("normalization", [name for name in NORMALIZATIONS if name != "relative"])
@pytest.mark.parametrize("orientation", ["keep", "gravity", "magnitude"])
@pytest.mark.parametrize("resampling", ["time", "arc"])
def test_sequences_of_any_length_become_finite_rows(normalization, orientation, resampling, rng):
    sequences = [smooth(rng, length, 3) for length in (1, 2, 3, 17, 200)] + [np.zeros((9, 3)), np.full((4, 3), 1e30)]
    features = MotionFeatures(
        normalization=normalization, orientation=orientation, resampling=resampling, use_spectrum=True
    ).fit(sequences[:-1], rng)
    rows = features.rows(*features.motions(sequences))
    assert rows.shape == (7, features.n_features) and rows.dtype == np.float32 and np.isfinite(rows).all()


def test_a_row_does_not_depend_on_its_neighbours(rng):
    sequences = [smooth(rng, length, 3) for length in (10, 20, 30)]
    features = MotionFeatures().fit(sequences, rng)
    together = features.rows(*features.motions(sequences))
    for sequence, row in zip(sequences, together, strict=True):
        np.testing.assert_array_equal(features.rows(*features.motions([sequence]))[0], row)


def test_the_trajectory_can_be_read_back_from_a_row(rng):
    sequences = [smooth(rng, length, 2) for length in (30, 50)]
    features = MotionFeatures().fit(sequences, rng)
    motions, durations = features.motions(sequences)
    trajectory = features.trajectory_of(features.rows(motions, durations))
    assert trajectory.shape == (2, 32, 2)
    np.testing.assert_allclose(trajectory[:, [0, -1]], motions[:, [0, -1]], atol=1e-4)


@pytest.mark.parametrize("name", ["resampling", "normalization", "orientation"])
def test_an_unknown_choice_is_an_error_that_lists_the_known(name):
    with pytest.raises(ValueError, match=f"{name} must be one of"):
        MotionFeatures(**{name: "something"})
