"""Which samples are unlabelled, what they are good for, and what samples and classes weigh."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest

from gesda.estimators import SdAClassifier, SdARegressor, _labels


@pytest.mark.parametrize(
    ("y", "labels", "labelled"),
    [
        ([0, -1, 2], [0, 2], [1, 0, 1]),
        ([0.0, -1.0, 2.0], [0, 2], [1, 0, 1]),
        ([1, -1, 1], [1, -1, 1], [1, 1, 1]),
        ([1, -1, 0], [1, 0], [1, 0, 1]),
        ([2, -1, 2], [2, 2], [1, 0, 1]),
        (np.array(["a", None, "b"], dtype=object), ["a", "b"], [1, 0, 1]),
        (np.array(["a", np.nan, "b"], dtype=object), ["a", "b"], [1, 0, 1]),
        (pd.Series([1, None, -1], dtype="Int64"), [1, -1], [1, 0, 1]),
        (np.array([-1, None, 4], dtype=object), [-1, 4], [1, 0, 1]),
        (pd.Series([2, -1, 0], dtype="Int64"), [2, 0], [1, 0, 1]),
        (pl.Series([1, None, -1]), [1, -1], [1, 0, 1]),
        (pd.Series(["a", None, "b"], dtype="category"), ["a", "b"], [1, 0, 1]),
        (pl.Series(["a", None, "b"]), ["a", "b"], [1, 0, 1]),
        ([True, False], [True, False], [1, 1]),
    ],
)
def test_minus_one_and_missing_values_mark_unlabelled_samples(y, labels, labelled):
    found, mask = _labels.find_labels(y)
    assert found.tolist() == labels
    assert mask.tolist() == [bool(value) for value in labelled]


def test_minus_one_is_a_class_where_the_classes_are_known_to_have_it():
    assert _labels.find_labels([-1, 3], np.array([-1, 0, 3]))[1].all()
    assert _labels.find_labels([-1, 1], np.array([0, 1]))[1].tolist() == [False, True]


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0.0, np.nan], "y contains NaN.*-1"),
        ([0.0, np.inf], "y contains infinity"),
        ([-1, -1], "no labelled sample"),
        (np.array([None, None], dtype=object), "no labelled sample"),
        ([0.5, 1.5], "Unknown label type"),
        (np.array(["a", 1], dtype=object), "Unknown label type"),
        ([[0, 1], [1, 0]], "1d|shape"),
    ],
)
def test_labels_that_are_none_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        _labels.find_labels(y)


def test_unlabelled_samples_join_pretraining_and_not_fine_tuning(samples, make):
    X, y = samples
    some = y.copy()
    some[30:] = -1
    model = make(SdAClassifier).fit(X, some)
    assert model.classes_.tolist() == [0, 1, 2]
    split = make(SdAClassifier).fit(X[:30], y[:30], X_unlabeled=X[30:])
    np.testing.assert_array_equal(model.predict_proba(X), split.predict_proba(X))
    alone = make(SdAClassifier).fit(X[:30], y[:30])
    assert not np.array_equal(model.coefs_[0], alone.coefs_[0])
    # With no pretraining the unlabelled samples can have no effect.
    without = make(SdAClassifier, pretrain_epochs=0)
    fewer = without.fit(X, some).predict_proba(X)
    np.testing.assert_array_equal(fewer, without.fit(X[:30], y[:30]).predict_proba(X))


def test_a_regressor_takes_samples_without_targets_separately(samples, make):
    X, y = samples
    with_more = make(SdARegressor).fit(X[:30], y[:30], X_unlabeled=X[30:])
    assert not np.array_equal(with_more.coefs_[0], make(SdARegressor).fit(X[:30], y[:30]).coefs_[0])
    with pytest.raises(ValueError, match="5 features"):
        make(SdARegressor).fit(X, y, X_unlabeled=X[:, :5])


@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize("cls", [SdAClassifier, SdARegressor])
def test_a_sample_of_weight_two_is_two_samples(samples, make, rng, cls, device):
    X, y = samples
    weight = rng.integers(0, 4, size=len(y))
    model = make(cls, pretrain_epochs=0, batch_size=1000, device=device)
    weighted = model.fit(X, y, sample_weight=weight).predict(X)
    repeated = model.fit(X.repeat(weight, axis=0), y.repeat(weight)).predict(X)
    np.testing.assert_allclose(weighted, repeated, rtol=1e-4, atol=1e-5)


def test_the_scale_of_the_weights_has_no_effect(samples, make, rng):
    X, y = samples
    weight = rng.uniform(0.5, 2.0, size=len(y))
    small, large = (make(SdAClassifier).fit(X, y, sample_weight=factor * weight) for factor in (1.0, 1024.0))
    np.testing.assert_allclose(small.predict_proba(X), large.predict_proba(X), rtol=1e-6)
    equal = make(SdAClassifier).fit(X, y, sample_weight=np.full(len(y), 7.0))
    np.testing.assert_array_equal(equal.predict_proba(X), make(SdAClassifier).fit(X, y).predict_proba(X))


def test_a_class_weight_is_the_weight_of_its_samples(samples, make):
    X, y = samples
    by_class = make(SdAClassifier, class_weight={0: 3.0, 2: 0.5}).fit(X, y)
    by_sample = make(SdAClassifier).fit(X, y, sample_weight=np.array([3.0, 1.0, 0.5])[y])
    np.testing.assert_array_equal(by_class.predict_proba(X), by_sample.predict_proba(X))


def test_balanced_weights_count_weighted_samples():
    indices = np.array([0, 0, 0, 1], dtype=np.int32)
    weights = _labels.apply_class_weight("balanced", np.array([5, 6, 7]), indices, np.array([1.0, 1, 0, 1]))
    np.testing.assert_allclose(weights, [0.75, 0.75, 0, 1.5])


@pytest.mark.parametrize(
    ("class_weight", "message"),
    [("even", "class_weight must be"), ({9: 1.0}, "classes that y does not have"), ({0: -1.0}, "at least 0")],
)
def test_wrong_class_weights_are_refused(samples, make, class_weight, message):
    with pytest.raises(ValueError, match=message):
        make(SdAClassifier, class_weight=class_weight).fit(*samples)


def test_weights_that_cannot_be_used_are_refused(samples, make):
    X, y = samples
    model = make(SdAClassifier)
    with pytest.raises(ValueError, match="zero"):
        model.fit(X, y, sample_weight=np.zeros(len(y)))
    with pytest.raises(ValueError, match=r"(?i)negative"):
        model.fit(X, y, sample_weight=-np.ones(len(y)))
    with pytest.raises(ValueError, match="NaN"):
        model.fit(X, y, sample_weight=np.full(len(y), np.nan))
    with pytest.raises(ValueError, match="not in classes"):
        _labels.encode_labels(np.array([1, 4]), np.array([1, 2, 3]))
