"""fit, partial_fit, warm starts, early stopping, interruptions: what training does to an estimator."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import accuracy_score, r2_score

from gesda.callbacks import Callback
from gesda.estimators import SdAClassifier, SdARegressor, StackedDenoisingAutoencoder


def test_fit_learns(samples, make):
    X, y = samples
    model = make(SdAClassifier, max_iter=100).fit(X, y)
    assert accuracy_score(y, model.predict(X)) == model.score(X, y) > 0.95
    assert len(model.loss_curve_) == model.n_iter_ <= 100 and model.loss_curve_[-1] < model.loss_curve_[0]
    assert [c.shape for c in model.coefs_] == [(6, 9), (9, 5), (5, 3)]
    assert [b.shape for b in model.intercepts_] == [(9,), (5,), (3,)]
    np.testing.assert_allclose(model.predict_log_proba(X), np.log(model.predict_proba(X)), rtol=1e-6)


def test_regression_does_not_depend_on_the_unit_of_the_targets(samples, make):
    X, _ = samples
    y = np.column_stack([X[:, 0] + X[:, 1], X[:, 2] - X[:, 3]]).astype(np.float64)
    model = make(SdARegressor, hidden_layer_sizes=(30, 20), max_iter=200, pretrain_epochs=5)
    metres = model.fit(X, y).predict(X)
    millimetres = model.fit(X, 1000 * y + 5).predict(X)
    assert r2_score(y, metres) > 0.8
    np.testing.assert_allclose(millimetres, 1000 * metres + 5, rtol=1e-3, atol=1.0)
    assert metres.shape == y.shape and metres.dtype == np.float32 and model.n_outputs_ == 2
    assert model.predict(X.astype(np.float64)).dtype == np.float64
    np.testing.assert_allclose(
        model.coefs_[-1].T @ model.transform(X).T + model.intercepts_[-1][:, None], millimetres.T, rtol=1e-4, atol=0.1
    )


def test_a_constant_target_is_learnt(samples, make):
    X, _ = samples
    np.testing.assert_allclose(make(SdARegressor).fit(X, np.full(len(X), 7.5)).predict(X), 7.5, atol=1e-5)


def test_the_same_seed_gives_the_same_bits_whatever_n_jobs(samples, make, cls):
    X, y = samples
    one, two, three = (make(cls, n_jobs=n).fit(X, y) for n in (1, 2, -1))
    other = make(cls, random_state=1).fit(X, y)
    for first, second, third, different in zip(one.coefs_, two.coefs_, three.coefs_, other.coefs_, strict=True):
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first, third)
        assert not np.array_equal(first, different)


def test_without_pretraining_or_fine_tuning_the_other_half_still_works(samples, make):
    X, y = samples
    supervised = make(SdAClassifier, pretrain_epochs=0).fit(X, y)
    assert {record["phase"] for record in supervised.history_} == {"finetune"}
    pretrained = make(SdAClassifier, max_iter=0).fit(X, y)
    assert {record["phase"] for record in pretrained.history_} == {"pretrain"}
    assert pretrained.n_iter_ == 0
    alone = make(StackedDenoisingAutoencoder).fit(X)
    np.testing.assert_array_equal(pretrained.transform(X), alone.transform(X))
    assert [len(curve) for curve in alone.loss_curve_] == [2, 2] and alone.n_iter_ == 3


def test_sequential_is_crosspre_with_a_stagger_of_all_epochs(samples, make):
    X, _ = samples
    sequential = make(StackedDenoisingAutoencoder, schedule="sequential").fit(X)
    staggered = make(StackedDenoisingAutoencoder, stagger=2).fit(X)
    for first, second in zip(sequential.coefs_, staggered.coefs_, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cls", [SdAClassifier, SdARegressor])
def test_early_stopping_goes_back_to_the_best_epoch(samples, make, cls, output):
    X, y = samples
    rate = {"learning_rate_init": 0.5, "n_iter_no_change": 3}
    model = make(cls, early_stopping=True, validation_fraction=0.2, max_iter=60, **rate).fit(X, y)
    scores = model.validation_scores_
    assert model.best_validation_score_ == max(scores) and len(scores) == model.n_iter_
    # The weights are those after the first epoch with that score: train up to there only, and compare.
    best = int(np.argmax(scores)) + 1
    short = make(cls, early_stopping=True, validation_fraction=0.2, max_iter=best, **rate).fit(X, y)
    np.testing.assert_array_equal(output(short, X), output(model, X))
    assert make(cls).fit(X, y).validation_scores_ is None


def test_the_validation_samples_are_stratified_and_need_enough_labels(samples, make):
    X, y = samples
    with pytest.raises(ValueError, match=r"early_stopping=True cannot set .* Use early_stopping=False"):
        make(SdAClassifier, early_stopping=True).fit(X[:6], y[:6])


def test_a_warm_start_goes_on_from_the_current_weights(samples, make, cls, output):
    X, y = samples
    model = make(cls, warm_start=True).fit(X, y)
    before, records = output(model, X), len(model.history_)
    model.set_params(pretrain_learning_rate=1e-12)
    if cls is not StackedDenoisingAutoencoder:
        model.set_params(learning_rate_init=1e-12)
    model.fit(X, y)
    np.testing.assert_allclose(output(model, X), before, rtol=1e-4, atol=1e-5)
    assert len(model.history_) == 2 * records
    epochs = [record["epoch"] for record in model.history_ if record["phase"] == "pretrain"]
    assert max(epochs[: len(epochs) // 2]) < min(epochs[len(epochs) // 2 :])  # no noise comes twice
    with pytest.raises(ValueError, match="the network has changed"):
        model.set_params(hidden_layer_sizes=(9, 4)).fit(X, y)


def test_partial_fit_learns_batch_by_batch(samples, make, cls):
    X, y = samples
    model = make(cls, pretrain_solver="adam")
    if cls is not StackedDenoisingAutoencoder:
        model.set_params(solver="adam", learning_rate_init=0.02)
    options = {"classes": [0, 1, 2]} if cls is SdAClassifier else {}
    for _ in range(40):
        for batch in (slice(0, 30), slice(30, 60)):
            model.partial_fit(X[batch], y[batch], **options)
            options = {}
    if cls is StackedDenoisingAutoencoder:
        assert model.loss_curve_[0][-1] < 0.8 * model.loss_curve_[0][0]
    else:
        assert model.score(X, y) > 0.8
        assert {record["layer"] for record in model.history_ if record["phase"] == "pretrain"} == {0, 1}
        assert sum(record["phase"] == "finetune" for record in model.history_) == 80


def test_partial_fit_keeps_the_optimiser_through_a_pickle(samples, make, cls, output):
    import pickle

    X, y = samples
    straight, stored = (make(cls, pretrain_solver="adam").partial_fit(X, y) for _ in range(2))
    stored = pickle.loads(pickle.dumps(stored)).partial_fit(X, y)
    np.testing.assert_array_equal(output(stored, X), output(straight.partial_fit(X, y), X))


def test_partial_fit_refuses_other_classes_and_values_out_of_range(samples, make):
    X, y = samples
    model = make(SdAClassifier).partial_fit(X, y)
    with pytest.raises(ValueError, match="not in classes"):
        model.partial_fit(X, y + 5)
    with pytest.raises(ValueError, match="first call"):
        model.partial_fit(X, y, classes=[0, 1])
    with pytest.raises(ValueError, match="MinMaxScaler"):
        model.partial_fit(3 * X, y)
    regressor = make(SdARegressor).partial_fit(X, y)
    with pytest.raises(ValueError, match="2 targets"):
        regressor.partial_fit(X, np.column_stack([y, y]))


class _Interrupt(Callback):
    def __init__(self, phase: str) -> None:
        self.phase = phase

    def on_epoch_end(self, run, record):
        if record["phase"] == self.phase and record["epoch"] == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
def test_an_interruption_leaves_a_usable_estimator_and_a_warning(samples, make, phase):
    X, y = samples
    model = make(SdAClassifier, callbacks=[_Interrupt(phase)])
    with pytest.warns(UserWarning, match="interrupted"):
        model.fit(X, y)
    assert np.isfinite(model.predict_proba(X)).all()
    assert {record["phase"] for record in model.history_} <= {"pretrain", phase}
    assert model.n_iter_ == (0 if phase == "pretrain" else 2)


def test_a_divergence_warns_and_leaves_finite_weights(samples, make):
    X, _ = samples
    model = make(StackedDenoisingAutoencoder, activation="linear", pretrain_learning_rate=1e6, pretrain_epochs=9)
    with pytest.warns(ConvergenceWarning, match="diverged in epoch"):
        model.fit(50 * X)
    assert all(np.isfinite(weights).all() for weights in model.coefs_)


def test_a_failed_fit_changes_nothing(samples, make, cls, output):
    X, y = samples
    model = make(cls).fit(X, y)
    before = output(model, X)
    with pytest.raises(ValueError, match="NaN"):
        model.fit(np.full_like(X, np.nan), y)
    np.testing.assert_array_equal(output(model, X), before)


def test_unfitted_estimators_say_so(cls, samples, make):
    X, _ = samples
    model = make(cls)
    for method in ("transform", "inverse_transform", "reconstruct", "score_samples", "get_feature_names_out"):
        with pytest.raises(NotFittedError):
            getattr(model, method)(X)
    with pytest.raises(NotFittedError):
        model.save("nowhere")
    assert not hasattr(model, "coefs_") and not hasattr(clone(model), "n_outputs_")


def test_targets_that_cannot_be_used_are_refused(samples, make):
    X, y = samples
    with pytest.raises(ValueError, match="y contains NaN"):
        make(SdARegressor).fit(X, np.where(y == 0, np.nan, y))
    with pytest.raises(ValueError, match="too large to average"):
        make(SdARegressor).fit(X, np.where(y == 0, 1e308, -1e308))
    with pytest.raises(ValueError, match="inconsistent"):
        make(SdARegressor).fit(X, y[1:])


def test_progress_goes_to_standard_error(samples, make, capsys):
    make(SdAClassifier, verbose=1).fit(*samples)
    assert "finetune 5/5" in capsys.readouterr().err
