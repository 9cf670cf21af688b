"""The reference's noise: Philox's published vectors, ARCHITECTURE's draws, and their statistics."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from engine_cases import draw_seed

from gesda.engine._reference_noise import corrupt, dropout_scale, normal, philox4x32, swap_partners, uniform16
from gesda.spec import LayerSpec

#: A test of a true hypothesis fails once in a million runs.
P_VALUE = 1e-6


def noisy_layer(kind, level, n_columns=130):
    return LayerSpec(n_columns, 1, noise=kind, noise_level=level, noise_range=(-2.0, 3.0))


def ids_of(n):
    return np.arange(n, dtype=np.uint32)


def assert_rate(n_hits, n_draws, probability):
    assert scipy.stats.binomtest(int(n_hits), int(n_draws), probability).pvalue > P_VALUE


# ---- the generator and the draws ------------------------------------------------------------------
@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0,) * 4, (0,) * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_philox_gives_the_known_answers_of_random123(counter, key, words):
    assert " ".join(f"{word:08x}" for word in philox4x32(counter, key)) == words


def test_a_16_bit_draw_comes_from_the_documented_word(rng):
    seed, layer, epoch = draw_seed(rng), 3, 17
    ids = rng.integers(2**32, size=4, dtype=np.uint32)
    drawn = uniform16(seed, "partner", layer, epoch, ids, 200)
    for row, j in zip(rng.integers(4, size=50), rng.integers(200, size=50), strict=True):
        counter = (ids[row], j // 64 * 8 + j % 8, epoch, 1 << 16 | layer)
        words = philox4x32(counter, (seed % 2**32, seed // 2**32))
        q = j % 64 // 8
        assert drawn[row, j] == int(words[q // 2]) // (1 if q % 2 == 0 else 65536) % 65536


def test_a_normal_draw_comes_from_the_documented_pair(rng):
    seed, ids = draw_seed(rng), np.array([7], dtype=np.uint32)
    drawn = normal(seed, "corruption", 2, 5, ids, 100)
    for j in rng.integers(80, size=30):
        first = j - 8 if j % 16 >= 8 else j  # columns j and j + 8 share their two words
        w0, w1 = (
            int(philox4x32((7, c // 32 * 8 + c % 8, 5, 2), (seed % 2**32, seed // 2**32))[c % 32 // 8])
            for c in (first, first + 8)
        )
        radius = np.sqrt(-2 * np.log(((w0 >> 8) + 1) / 2**24))
        angle = 2 * np.pi * (w1 >> 8) / 2**24
        expected = radius * (np.sin(angle) if j % 16 >= 8 else np.cos(angle))
        np.testing.assert_allclose(drawn[0, j], expected, rtol=1e-12, atol=1e-12)


def test_16_bit_draws_are_uniform(rng):
    drawn = uniform16(draw_seed(rng), "corruption", 0, 0, ids_of(2000), 100)
    assert scipy.stats.chisquare(np.bincount((drawn >> 8).ravel(), minlength=256)).pvalue > P_VALUE
    assert scipy.stats.chisquare(np.bincount((drawn & 255).ravel(), minlength=256)).pvalue > P_VALUE


def test_draws_of_other_rows_columns_epochs_layers_and_purposes_are_uncorrelated(rng):
    seed, ids = draw_seed(rng), ids_of(2000)
    base = uniform16(seed, "corruption", 0, 0, ids, 130)
    others = {
        "row": (base[:-1], base[1:]),
        "column": (base[:, :-1], base[:, 1:]),
        "eighth column": (base[:, :-8], base[:, 8:]),
        "epoch": (base, uniform16(seed, "corruption", 0, 1, ids, 130)),
        "layer": (base, uniform16(seed, "corruption", 1, 0, ids, 130)),
        "purpose": (base, uniform16(seed, "partner", 0, 0, ids, 130)),
        "seed": (base, uniform16((seed + 2**32) % 2**64, "corruption", 0, 0, ids, 130)),
    }
    for what, (one, other) in others.items():
        assert scipy.stats.pearsonr(one.ravel(), other.ravel()).pvalue > P_VALUE, what


# ---- corruption -----------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["masking", "salt_and_pepper", "swap"])
@pytest.mark.parametrize("level", [0.05, 0.25, 0.7])
def test_components_are_corrupted_at_the_rate_of_the_level(rng, kind, level):
    x = rng.random((2000, 130))
    _, corrupted = corrupt(noisy_layer(kind, level), draw_seed(rng), 0, 0, ids_of(2000), x)
    assert_rate(corrupted.sum(), x.size, level)


@pytest.mark.parametrize("kind", ["masking", "salt_and_pepper", "swap"])
def test_level_zero_corrupts_nothing_and_level_one_everything(rng, kind):
    x = rng.random((300, 130))
    for level in (0.0, 1.0):
        _, corrupted = corrupt(noisy_layer(kind, level), draw_seed(rng), 0, 0, ids_of(300), x)
        assert (corrupted == bool(level)).all()


@pytest.mark.parametrize("kind", ["none", "masking", "salt_and_pepper", "swap"])
def test_what_is_not_corrupted_stays(rng, kind):
    x = rng.random((100, 130))
    noisy, corrupted = corrupt(noisy_layer(kind, 0.3), draw_seed(rng), 0, 0, ids_of(100), x)
    np.testing.assert_array_equal(noisy[~corrupted], x[~corrupted])
    if kind == "masking":
        assert not noisy[corrupted].any()


def test_salt_and_pepper_tosses_a_fair_coin(rng):
    x = rng.random((2000, 130))
    noisy, corrupted = corrupt(noisy_layer("salt_and_pepper", 0.3), draw_seed(rng), 0, 0, ids_of(2000), x)
    assert set(np.unique(noisy[corrupted])) == {-2.0, 3.0}
    assert_rate((noisy[corrupted] == 3.0).sum(), corrupted.sum(), 0.5)


def test_gaussian_noise_is_normal_with_the_level_as_deviation(rng):
    x = rng.random((1500, 130))
    noisy, corrupted = corrupt(noisy_layer("gaussian", 0.4), draw_seed(rng), 0, 0, ids_of(1500), x)
    draws = ((noisy - x) / 0.4).ravel()
    assert not corrupted.any()
    assert scipy.stats.kstest(draws, "norm").pvalue > P_VALUE
    assert abs(draws.mean()) < 5 / np.sqrt(draws.size)
    assert abs(draws.var() - 1) < 5 * np.sqrt(2 / draws.size)
    assert abs((draws**4).mean() - 3) < 5 * np.sqrt(96 / draws.size)


def test_the_two_normals_of_a_pair_are_independent(rng):
    draws = normal(draw_seed(rng), "corruption", 0, 0, ids_of(3000), 128)
    columns = np.flatnonzero(np.arange(128) % 16 < 8)
    one, other = draws[:, columns].ravel(), draws[:, columns + 8].ravel()
    assert scipy.stats.pearsonr(one, other).pvalue > P_VALUE
    assert scipy.stats.pearsonr(one**2, other**2).pvalue > P_VALUE


@pytest.mark.parametrize("n_rows", [2, 3, 20, 100])
def test_a_swap_partner_is_any_other_row_with_equal_probability(rng, n_rows):
    distances = []
    for epoch in range(40_000 // n_rows // 10):
        partners = swap_partners(draw_seed(rng), 0, epoch, ids_of(n_rows), 100)
        distances.append((partners - np.arange(n_rows)[:, None]) % n_rows)
    counts = np.bincount(np.concatenate(distances).ravel(), minlength=n_rows)
    assert counts[0] == 0
    assert n_rows == 2 or scipy.stats.chisquare(counts[1:]).pvalue > P_VALUE


def test_swap_takes_the_same_column_of_the_partner(rng):
    x = np.arange(20 * 50.0).reshape(20, 50)
    seed = draw_seed(rng)
    noisy, corrupted = corrupt(noisy_layer("swap", 0.5, 50), seed, 1, 2, ids_of(20), x)
    partners = swap_partners(seed, 1, 2, ids_of(20), 50)
    np.testing.assert_array_equal(noisy[corrupted], np.take_along_axis(x, partners, axis=0)[corrupted])
    np.testing.assert_array_equal(noisy % 50, x % 50)


def test_swap_leaves_a_single_row_alone(rng):
    x = rng.random((1, 50))
    noisy, corrupted = corrupt(noisy_layer("swap", 1.0, 50), draw_seed(rng), 0, 0, ids_of(1), x)
    np.testing.assert_array_equal(noisy, x)
    assert corrupted.all()


@pytest.mark.parametrize("kind", ["masking", "salt_and_pepper", "gaussian"])
def test_noise_depends_on_the_sample_not_on_its_place_or_batch(rng, kind):
    x, seed, ids = rng.random((60, 130)), draw_seed(rng), rng.permutation(5000)[:60].astype(np.uint32)
    whole, _ = corrupt(noisy_layer(kind, 0.3), seed, 0, 4, ids, x)
    order = rng.permutation(60)
    shuffled, _ = corrupt(noisy_layer(kind, 0.3), seed, 0, 4, ids[order], x[order])
    np.testing.assert_array_equal(shuffled, whole[order])
    parts = [corrupt(noisy_layer(kind, 0.3), seed, 0, 4, ids[i : i + 7], x[i : i + 7])[0] for i in range(0, 60, 7)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_a_wider_layer_continues_the_columns_of_a_narrower_one(rng):
    seed = draw_seed(rng)
    np.testing.assert_array_equal(
        uniform16(seed, "corruption", 0, 0, ids_of(9), 65), uniform16(seed, "corruption", 0, 0, ids_of(9), 300)[:, :65]
    )


# ---- dropout --------------------------------------------------------------------------------------
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(rng, rate):
    scale = dropout_scale(rate, draw_seed(rng), 1, 0, ids_of(2000), 130)
    np.testing.assert_allclose(np.unique(scale), [0.0, 1 / (1 - rate)])
    assert_rate((scale == 0).sum(), scale.size, rate)


def test_without_dropout_everything_is_kept(rng):
    assert (dropout_scale(0.0, draw_seed(rng), 1, 0, ids_of(20), 30) == 1.0).all()
