"""MotionDataset and check_sequences: whatever passes is float32, finite and of one number of channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesda.datasets import DataError
from gesda.deepmotion.data.sequences import MotionDataset, check_sequences, concatenate


def random_sequences(rng: np.random.Generator, n: int = 5, n_channels: int = 3) -> list[np.ndarray]:
    return [rng.normal(size=(int(rng.integers(1, 9)), n_channels)) for _ in range(n)]


@pytest.fixture
def rng() -> np.random.Generator:
    seed = int(np.random.default_rng().integers(2**32))
    print(f"seed {seed}")
    return np.random.default_rng(seed)


# ---- check_sequences ------------------------------------------------------------------------------
def test_sequences_become_contiguous_float32_of_the_same_values(rng: np.random.Generator) -> None:
    given_ = [np.asfortranarray(sequence) for sequence in random_sequences(rng)]
    for before, after in zip(given_, check_sequences(given_), strict=True):
        assert after.dtype == np.float32 and after.flags.c_contiguous
        np.testing.assert_array_equal(after, before.astype(np.float32))


def test_float32_sequences_are_not_copied(rng: np.random.Generator) -> None:
    sequence = rng.normal(size=(4, 2)).astype(np.float32)
    assert np.shares_memory(check_sequences([sequence])[0], sequence)


def test_one_dimensional_sequences_have_one_channel() -> None:
    assert [s.shape for s in check_sequences([[1, 2, 3], np.zeros(2)])] == [(3, 1), (2, 1)]


def test_a_three_dimensional_array_is_as_many_sequences(rng: np.random.Generator) -> None:
    array = rng.normal(size=(4, 7, 2))
    checked = check_sequences(array)
    np.testing.assert_array_equal(np.stack(checked), array.astype(np.float32))


def test_a_dataset_passes_as_it_is(rng: np.random.Generator) -> None:
    data = MotionDataset(tuple(random_sequences(rng)))
    assert all(one is other for one, other in zip(check_sequences(data), data.sequences, strict=True))


@given(st.integers(0, 4), st.integers(0, 6), st.integers(0, 2), st.sampled_from([np.nan, np.inf, -np.inf, 1e300]))
def test_a_value_that_is_not_finite_is_named_by_its_place(i: int, sample: int, channel: int, bad: float) -> None:
    sequences = np.zeros((5, 7, 3))
    sequences[i, sample, channel] = bad
    with pytest.raises(DataError, match=rf"motion: sequence {i}, sample {sample}, channel {channel} \(from 0\) is "):
        check_sequences(sequences, name="motion")


@pytest.mark.parametrize(
    ("sequences", "n_channels", "message"),
    [
        ([], None, "there are no sequences"),
        (np.zeros((0, 3, 2)), None, "there are no sequences"),
        (np.zeros((3, 4)), None, r"shape \(3, 4\).*X\[:, :, None\]"),
        (np.zeros(3), None, r"shape \(3,\)"),
        ([np.zeros((2, 2)), np.zeros((2, 3))], None, r"sequence 1 has 3 channel\(s\) where 2"),
        ([np.zeros((2, 2))], 3, r"sequence 0 has 2 channel\(s\) where 3"),
        (MotionDataset([[0.0]]), 3, r"sequence 0 has 1 channel\(s\) where 3"),
        ([np.zeros((2, 2, 2))], None, "sequence 0 has 3 dimension"),
        ([3.0], None, "sequence 0 has 0 dimension"),
        ([np.zeros((0, 2))], None, r"sequence 0 has shape \(0, 2\)"),
        ([np.zeros((2, 0))], None, r"sequence 0 has shape \(2, 0\)"),
        ([["a", "b"]], None, "sequence 0 is no array of real numbers"),
        ([[1j]], None, "sequence 0 is no array of real numbers"),
        ([[[1, 2], [3]]], None, "sequence 0 is no array of real numbers"),
        ([None], None, "sequence 0 is no array of real numbers"),
        ("text", None, "str holds no sequences"),
        (None, None, "NoneType holds no sequences"),
        ({"a": 1}, None, "dict holds no sequences"),
    ],
)
def test_what_is_no_list_of_sequences_is_refused(sequences: Any, n_channels: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_sequences(sequences, n_channels=n_channels)


# ---- MotionDataset --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("labels", "kept", "classes"),
    [
        ([3, -1, 1], [3, -1, 1], [1, 3]),
        (np.array([2.0, 2.0, 5.0]), [2, 2, 5], [2, 5]),
        ([1, None, 2], [1, -1, 2], [1, 2]),
        (["b", None, "a"], ["b", None, "a"], ["a", "b"]),
        (np.array(["b", "a", "b"]), ["b", "a", "b"], ["a", "b"]),
        ([None, None, None], [None, None, None], []),
    ],
)
def test_labels_are_whole_numbers_or_text(labels: Any, kept: list[Any], classes: list[Any]) -> None:
    data = MotionDataset([[0.0]] * 3, labels=labels)
    assert data.labels is not None and data.labels.tolist() == kept
    assert data.classes.tolist() == classes
    assert data.labels.dtype in (np.int64, object)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 2], r"labels have shape \(2,\)"),
        ([1, "a", 2], "labels mix text and numbers"),
        ([1, 2.5, 2], r"label 1 \(from 0\) is 2.5"),
        ([1, np.nan, 2], r"label 1 \(from 0\) is nan"),
        ([1, 2, [3]], r"label 2 \(from 0\)"),
        ([1, 2, 1e30], r"label 2 \(from 0\)"),
    ],
)
def test_other_labels_are_refused(labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        MotionDataset([[0.0]] * 3, labels=labels)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"channels": ("x",)}, "are no names for 2"),
        ({"channels": ("x", "x")}, "are no names for 2"),
        ({"rate": 0}, "rate must be a positive"),
        ({"rate": np.nan}, "rate must be a positive"),
        ({"groups": [1, 2]}, r"groups have shape \(2,\)"),
    ],
)
def test_parts_that_do_not_fit_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        MotionDataset([np.zeros((3, 2))], **parameters)


def test_a_selection_keeps_what_belongs_together(rng: np.random.Generator) -> None:
    n = 12
    sequences = [np.full((1 + i, 2), i) for i in range(n)]
    data = MotionDataset(tuple(sequences), np.arange(n) * 10, 25.0, ("x", "y"), np.arange(n) + 100, "set")
    mask = rng.random(n) < 0.5
    mask[0] = True
    for key in (mask, np.flatnonzero(mask), np.flatnonzero(mask).tolist(), slice(1, 9, 3), rng.permutation(n)):
        part = data[key]
        index = np.arange(n)[key]
        assert part.lengths.tolist() == (1 + index).tolist()
        assert part.labels is not None and part.labels.tolist() == (10 * index).tolist()
        assert part.groups is not None and part.groups.tolist() == (index + 100).tolist()
        assert (part.rate, part.channels, part.name, part.n_channels) == (25.0, ("x", "y"), "set", 2)


@pytest.mark.parametrize("key", [0, [], [7], [True], [0.5], slice(5, 5), "a", [[0]]])
def test_a_selection_of_nothing_or_of_what_is_not_there_is_refused(key: Any) -> None:
    with pytest.raises(DataError, match="sequence"):
        MotionDataset([[0.0]] * 3)[key]


def test_labeled_tells_which_sequences_have_a_label() -> None:
    assert MotionDataset([[0.0]] * 2).labeled.tolist() == [False, False]
    assert MotionDataset([[0.0]] * 2, labels=[-1, 4]).labeled.tolist() == [False, True]
    assert MotionDataset([[0.0]] * 2, labels=["a", None]).labeled.tolist() == [True, False]


def test_the_representation_tells_sizes_and_rate() -> None:
    shown = repr(MotionDataset([[0.0], [1.0, 2.0]], labels=["a", "b"], rate=50, name="pens"))
    assert shown == "<MotionDataset 'pens': 2 sequences of 1 to 2 samples, 1 channel(s), 50 Hz, 2 classes>"


# ---- concatenate ----------------------------------------------------------------------------------
@pytest.mark.parametrize(("label", "nothing"), [("a", None), (4, -1)])
def test_joined_sets_without_labels_are_unlabelled(label: Any, nothing: Any) -> None:
    both = concatenate([MotionDataset([[0.0]]), MotionDataset([[1.0], [2.0]], labels=[label, label])], name="both")
    assert both.labels is not None and both.labels.tolist() == [nothing, label, label]
    assert [float(s[0, 0]) for s in both.sequences] == [0, 1, 2]
    assert both.name == "both" and both.groups is None


def test_joined_sets_keep_their_groups() -> None:
    both = concatenate([MotionDataset([[0.0]], groups=[7]), MotionDataset([[1.0]], groups=[8])])
    assert both.groups is not None and both.groups.tolist() == [7, 8] and both.labels is None


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (MotionDataset([[0.0]], channels=("x",)), "resample or select channels"),
        (MotionDataset([[0.0]], rate=10), "resample or select channels"),
        (MotionDataset([[0.0]], labels=["a"]), "some have text"),
    ],
)
def test_sets_that_do_not_fit_are_not_joined(other: MotionDataset, message: str) -> None:
    with pytest.raises(DataError, match=message):
        concatenate([MotionDataset([[0.0]], labels=[1]), other])


def test_nothing_is_not_joined() -> None:
    with pytest.raises(DataError, match="no sets to join"):
        concatenate([])
