"""Schedules: which layer trains when, in which order and at which rate."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesda.schedule import LayerProgress, PretrainSchedule, plan_epochs, plan_finetuning, rate_at

per_layer_epochs = st.lists(st.integers(0, 6), min_size=1, max_size=5).map(tuple)


def schedule_of(epochs, kind="crosspre", **options):
    return PretrainSchedule(kind, epochs, (0.1,) * len(epochs), batch_size=4, **options)


def plans_of(schedule, n_samples=10, seed=0, **options):
    return list(plan_epochs(schedule, n_samples, np.random.default_rng(seed), **options))


def answered(schedule, progress_at, n_samples=6):
    """The training flags of all epochs, each answered with `progress_at(epoch, training)`."""
    plans = plan_epochs(schedule, n_samples, np.random.default_rng(0))
    flags, plan = [], next(plans, None)
    while plan is not None:
        flags.append(plan.training)
        try:
            plan = plans.send(progress_at(plan.epoch, plan.training))
        except StopIteration:
            plan = None
    return flags


# ---- validation -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "greedy"}, "schedule must be one of 'crosspre', 'sequential'; got 'greedy'"),
        ({"epochs": ()}, "pretrain_epochs needs one entry per layer"),
        ({"epochs": (2, -1)}, "pretrain_epochs must be a whole number of at least 0; got -1"),
        ({"epochs": (2, 1.5)}, "pretrain_epochs must be a whole number"),
        ({"epochs": (2, True)}, "pretrain_epochs must be a whole number"),
        ({"learning_rates": (0.1,)}, "one entry for each of the 2 layers; got 1"),
        ({"learning_rates": (0.1, 0.0)}, "pretrain_learning_rate must be a finite number above 0"),
        ({"learning_rates": (0.1, math.nan)}, "pretrain_learning_rate must be a finite number above 0"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1; got 0"),
        ({"stagger": -1}, "stagger must be a whole number of at least 0; got -1"),
        ({"stagger": 0.5}, "stagger must be a whole number"),
        ({"stagger": "soon"}, "stagger must be a whole number of epochs or 'auto'; got 'soon'"),
        ({"handoff": "dirty"}, "handoff must be one of"),
        ({"rate_schedule": "step"}, "rate_schedule must be one of"),
        ({"rate_decay": -0.1}, "rate_decay must be a finite number of at least 0"),
        ({"rate_decay": 1.0, "rate_schedule": "exponential"}, "rate_decay must be below 1"),
        ({"settle_tolerance": math.inf}, "settle_tolerance must be a finite number"),
    ],
)
def test_a_schedule_refuses_what_does_not_fit_and_names_it(change, message):
    fitting = {"kind": "crosspre", "epochs": (2, 2), "learning_rates": (0.1, 0.1), "batch_size": 4}
    PretrainSchedule(**fitting)
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        PretrainSchedule(**(fitting | change))


def test_whole_numbers_of_other_types_are_taken():
    schedule = PretrainSchedule("crosspre", (np.int64(2), 2.0), (1, 1), np.int32(4), stagger=1.0)
    assert (schedule.epochs, schedule.batch_size, schedule.stagger) == ((2, 2), 4, 1)


@pytest.mark.parametrize("n_samples", [0, 2**32])
def test_numbers_of_samples_that_no_order_can_hold_are_refused(n_samples):
    with pytest.raises(ValueError, match="samples"):
        next(plan_epochs(schedule_of((1,)), n_samples, np.random.default_rng(0)))


# ---- learning rates -------------------------------------------------------------------------------
@given(st.floats(1e-3, 10), st.floats(0, 0.9), st.integers(1, 50), st.data())
def test_rates_follow_their_formulas(initial, decay, n_epochs, data):
    epoch = data.draw(st.integers(0, n_epochs - 1))
    assert rate_at("constant", initial, decay, epoch, n_epochs) == initial
    assert rate_at("inverse", initial, decay, epoch, n_epochs) == pytest.approx(initial / (1 + decay * epoch))
    expected = initial * math.exp(epoch * math.log1p(-decay))
    assert rate_at("exponential", initial, decay, epoch, n_epochs) == pytest.approx(expected)
    assert rate_at("cosine", initial, decay, 0, n_epochs) == initial
    assert rate_at("cosine", initial, decay, n_epochs, n_epochs) == pytest.approx(0.0, abs=1e-12)
    assert rate_at("cosine", initial, decay, epoch, 2 * epoch or 1) == pytest.approx(initial / (2 if epoch else 1))


def test_a_layers_rate_follows_its_own_epochs():
    schedule = PretrainSchedule("crosspre", (3, 3), (0.4, 0.8), 4, stagger=2, rate_schedule="inverse", rate_decay=1.0)
    rates = [plan.learning_rates for plan in plans_of(schedule)]
    expected = [(0.4, 0), (0.2, 0), (0.4 / 3, 0.8), (0, 0.4), (0, 0.8 / 3)]
    np.testing.assert_allclose(rates, expected)


# ---- pretraining ----------------------------------------------------------------------------------
@given(per_layer_epochs, st.integers(0, 8))
def test_layer_k_trains_from_k_staggers_on_for_its_epochs(epochs, stagger):
    trained = {
        (plan.epoch, k)
        for plan in plans_of(schedule_of(epochs, stagger=stagger))
        for k in range(len(epochs))
        if plan.training[k]
    }
    assert trained == {(k * stagger + e, k) for k, n in enumerate(epochs) for e in range(n)}


@given(per_layer_epochs, st.integers(0, 8), st.sampled_from(["crosspre", "sequential"]))
def test_the_number_of_plans_is_known_before(epochs, stagger, kind):
    schedule = schedule_of(epochs, kind, stagger=stagger)
    assert len(plans_of(schedule)) == schedule.n_epochs


@given(per_layer_epochs, st.integers(0, 2**32))
def test_sequential_is_crosspre_with_the_longest_stagger(epochs, seed):
    greedy = plans_of(schedule_of(epochs, "sequential"), seed=seed)
    staggered = plans_of(schedule_of(epochs, stagger=max(epochs)), seed=seed)
    assert len(greedy) == len(staggered)
    for one, other in zip(greedy, staggered, strict=True):
        assert (one.epoch, one.training, one.learning_rates) == (other.epoch, other.training, other.learning_rates)
        np.testing.assert_array_equal(one.order, other.order)
        assert one.training.index(True) == one.first_layer
        assert sum(one.training) == 1
        assert other.first_layer == 0


@given(st.integers(1, 40), st.integers(0, 2**32))
def test_every_epoch_visits_every_sample_once_in_a_fresh_order(n_samples, seed):
    plans = plans_of(schedule_of((3, 2)), n_samples, seed)
    for plan in plans:
        assert plan.order.dtype == np.uint32
        np.testing.assert_array_equal(np.sort(plan.order), np.arange(n_samples))
    if n_samples >= 20:
        assert len({plan.order.tobytes() for plan in plans}) == len(plans)


def test_idle_epochs_are_left_out_and_keep_their_numbers():
    assert [plan.epoch for plan in plans_of(schedule_of((2, 1, 2), stagger=4))] == [0, 1, 4, 8, 9]


def test_first_epoch_shifts_the_numbers_and_nothing_else():
    plain, shifted = plans_of(schedule_of((2, 2))), plans_of(schedule_of((2, 2)), first_epoch=7)
    assert [plan.epoch + 7 for plan in plain] == [plan.epoch for plan in shifted]
    assert [plan.learning_rates for plan in plain] == [plan.learning_rates for plan in shifted]


def test_the_handoff_reaches_the_plans():
    assert {plan.handoff for plan in plans_of(schedule_of((2, 2), handoff="noisy"))} == {"noisy"}


# ---- stagger="auto" -------------------------------------------------------------------------------
def unsettled(epoch, training):
    """A loss that halves and encodings that turn over in every epoch."""
    return LayerProgress((0.5**epoch,) * len(training), (1.0,) * len(training))


@pytest.mark.parametrize("answer", [unsettled, lambda epoch, training: None])
def test_auto_starts_a_layer_at_the_latest_when_the_one_under_it_is_done(answer):
    flags = answered(schedule_of((3, 2, 1), stagger="auto"), answer)
    assert flags == [(True, False, False)] * 3 + [(False, True, False)] * 2 + [(False, False, True)]


def test_auto_starts_a_layer_when_the_loss_below_hardly_falls():
    def progress(epoch, training):
        falls = (1.0, 0.5, 0.499, 0.4)[min(epoch, 3)]
        return LayerProgress((falls, 0.5**epoch), (1.0, 1.0))

    flags = answered(schedule_of((6, 2), stagger="auto", settle_tolerance=0.01), progress)
    # 0.5 -> 0.499 in epoch 2 is less than 1 %, so layer 1 trains in epochs 3 and 4.
    assert flags == [(True, False)] * 3 + [(True, True)] * 2 + [(True, False)]


def test_auto_starts_a_layer_when_the_encodings_below_hardly_move():
    def progress(epoch, training):
        return LayerProgress((0.5**epoch,) * 2, (0.5 if epoch == 0 else 0.005, 1.0))

    flags = answered(schedule_of((5, 1), stagger="auto", settle_tolerance=0.01), progress)
    assert flags == [(True, False)] * 2 + [(True, True)] + [(True, False)] * 2


def test_auto_takes_a_missing_drift_for_no_sign():
    flags = answered(schedule_of((3, 1), stagger="auto"), lambda e, t: LayerProgress((0.5**e,) * 2, (math.nan,) * 2))
    assert flags == [(True, False)] * 3 + [(False, True)]


@given(per_layer_epochs, st.integers(0, 2**32))
def test_auto_trains_every_layer_for_its_epochs_whatever_happens(epochs, seed):
    rng = np.random.default_rng(seed)
    schedule = schedule_of(epochs, stagger="auto", settle_tolerance=0.2)
    flags = answered(schedule, lambda e, t: LayerProgress(tuple(rng.random(len(t))), tuple(rng.random(len(t)))))
    assert tuple(sum(training[k] for training in flags) for k in range(len(epochs))) == epochs
    assert len(flags) <= schedule.n_epochs
    firsts = [[training[k] for training in flags].index(True) for k in range(len(epochs)) if epochs[k]]
    assert firsts == sorted(firsts)


# ---- fine-tuning ----------------------------------------------------------------------------------
def test_finetuning_visits_the_labelled_rows_in_fresh_orders():
    rows = np.random.default_rng().choice(100, 30, replace=False)
    plans = list(plan_finetuning(rows, np.random.default_rng(1), epochs=4, batch_size=8, learning_rate=0.2))
    assert [plan.epoch for plan in plans] == [0, 1, 2, 3]
    assert all(sorted(plan.order) == sorted(rows) and plan.order.dtype == np.uint32 for plan in plans)
    assert len({plan.order.tobytes() for plan in plans}) == 4


def test_finetuning_rates_follow_their_course():
    options = {"epochs": 3, "batch_size": 8, "rate_schedule": "exponential", "rate_decay": 0.5, "first_epoch": 5}
    plans = list(plan_finetuning([1, 2], np.random.default_rng(1), learning_rate=0.8, **options))
    assert [(plan.epoch, plan.learning_rate) for plan in plans] == [(5, 0.8), (6, 0.4), (7, 0.2)]


@pytest.mark.parametrize(
    ("change", "name"),
    [({"epochs": -1}, "max_iter"), ({"batch_size": 0}, "batch_size"), ({"learning_rate": 0}, "learning_rate_init"),
     ({"rate_schedule": "step"}, "rate_schedule"), ({"rows": []}, "samples")],
)  # fmt: skip
def test_finetuning_refuses_what_does_not_fit_before_the_first_plan(change, name):
    options = {"rows": [0, 1], "epochs": 1, "batch_size": 1, "learning_rate": 0.1} | change
    with pytest.raises(ValueError, match=name):
        plan_finetuning(options.pop("rows"), np.random.default_rng(0), **options)
