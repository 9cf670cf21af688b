"""The trainer: history, drift, stopping, divergence, interruption and bit-identical resumption."""

import itertools
import math
import warnings

import numpy as np
import pytest
import scipy.sparse
from sklearn.exceptions import ConvergenceWarning

from gesda.callbacks import Callback, EarlyStopping
from gesda.engine import select
from gesda.engine.reference import ReferenceEngine
from gesda.schedule import PretrainSchedule
from gesda.spec import (
    FinetuneStats,
    HeadSpec,
    LayerSpec,
    NetworkSpec,
    OptimizerSpec,
    PretrainStats,
)
from gesda.trainer import Trainer

WIDTHS = (7, 6, 5, 4)
N_SAMPLES, N_CLASSES = 30, 3


@pytest.fixture
def seed():
    """A fresh seed; a failing test shows it as one of its values."""
    return int(np.random.default_rng().integers(2**32))


def network(optimizer="momentum", head_optimizer="adam"):
    layers = tuple(LayerSpec(n, m) for n, m in itertools.pairwise(WIDTHS))
    head = HeadSpec("softmax", N_CLASSES, OptimizerSpec(head_optimizer), dropout=(0.1, 0.2, 0.2, 0.0))
    return NetworkSpec(layers, OptimizerSpec(optimizer), head, seed=11)


def engine_of(seed, make=ReferenceEngine, spec=None):
    engine = make(spec or network())
    rng = np.random.default_rng(seed)
    engine.set_state({name: rng.normal(0, 0.4, shape) for name, shape in engine.spec.parameter_shapes().items()})
    return engine


def data_of(seed):
    rng = np.random.default_rng(seed)
    return rng.random((N_SAMPLES, WIDTHS[0]), dtype=np.float32), rng.integers(0, N_CLASSES, N_SAMPLES).astype(np.int32)


def schedule_of(kind="crosspre", stagger=1, epochs=(3, 2, 3), **options):
    return PretrainSchedule(kind, epochs, (0.3, 0.2, 0.1), batch_size=8, stagger=stagger, **options)


def finetuning(**options):
    return {"epochs": 4, "batch_size": 8, "learning_rate": 0.05} | options


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].tobytes() == other[name].tobytes(), f"{name} differs"


def without_seconds(history):
    return [{key: value for key, value in record.items() if key != "seconds"} for record in history]


class RowEngine:
    """A tiny engine, float32, every row for itself: encodings have the same bits from a cache and in a step.

    A training layer moves its weights by its own inputs and encodings and by noise of (layer, epoch, sample).
    """

    name, precision = "rows", "fp32"

    def __init__(self, spec):
        self.spec = spec
        self.state = {name: np.zeros(shape, np.float32) for name, shape in spec.state_shapes().items()}

    def place(self, data, n_layers=0, first_layer=0):
        return data if n_layers <= first_layer else self.encode(data, n_layers, first_layer)

    def get_state(self):
        return {name: array.copy() for name, array in self.state.items()}

    def set_state(self, state):
        self.state |= {name: np.array(array, np.float32) for name, array in state.items()}

    def get_parameters(self):
        return {name: self.state[name].copy() for name in self.spec.parameter_shapes()}

    def copy_parameters(self, into):
        for name, array in into.items():
            array[:] = self.state[name]

    def nonfinite_parameter(self):
        return next((name for name in self.spec.parameter_shapes() if not np.isfinite(self.state[name]).all()), None)

    def _row(self, row, k):
        return np.tanh(row @ self.state[f"layers.{k}.W"])

    def encode(self, data, n_layers=None, first_layer=0):
        codes = []
        for row in data:
            for k in range(first_layer, len(self.spec.layers) if n_layers is None else n_layers):
                row = self._row(row, k)
            codes.append(row)
        return np.array(codes)

    def pretrain_epoch(self, data, plan, poll=None):
        loss = np.where(plan.training, 0.0, math.nan)
        for sample in plan.order:
            row, updates = data[sample], {}
            for k in range(plan.first_layer, len(plan.training)):
                code = self._row(row, k)
                if plan.training[k]:
                    noise = np.random.default_rng((k, plan.epoch, sample)).random(row.shape, dtype=np.float32)
                    updates[k] = np.float32(plan.learning_rates[k]) * np.outer(noise - row, code)
                    loss[k] += float(np.abs(updates[k]).sum())
                row = code
            for k, update in updates.items():
                self.state[f"layers.{k}.W"] += update
        return PretrainStats(tuple(loss), (0.0,) * len(loss))


class ScriptedEngine(ReferenceEngine):
    """The reference engine with losses, weights or an interruption by script: ``script[epoch](engine)``."""

    def _scripted(self, plan, stats):
        act = self.script.get(plan.epoch)
        return stats if act is None else act(self, stats)

    def pretrain_epoch(self, data, plan, poll=None):
        return self._scripted(plan, super().pretrain_epoch(data, plan, poll))

    def finetune_epoch(self, data, targets, plan, sample_weight=None, poll=None):
        return self._scripted(plan, super().finetune_epoch(data, targets, plan, sample_weight, poll))


def scripted(script, seed=0):
    engine = engine_of(seed, ScriptedEngine)
    engine.script = script
    return engine


# ---- pretraining ----------------------------------------------------------------------------------
def test_the_history_has_a_record_for_each_training_layer_and_epoch(seed):
    trainer = Trainer(engine_of(seed)).pretrain(data_of(seed)[0], schedule_of(), np.random.default_rng(seed))
    assert [(r["epoch"], r["layer"], r["layer_epoch"]) for r in trainer.history] == [
        (0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 0, 2), (2, 1, 1), (2, 2, 0), (3, 2, 1), (4, 2, 2),
    ]  # fmt: skip
    assert all(r["phase"] == "pretrain" and r["learning_rate"] == (0.3, 0.2, 0.1)[r["layer"]] for r in trainer.history)
    assert all(math.isfinite(r["loss"]) and r["drift"] > 0 and r["seconds"] >= 0 for r in trainer.history)
    assert (trainer.n_epochs, trainer.epochs_done, trainer.interrupted, trainer.diverged) == (5, 5, False, False)


def test_training_reduces_the_reconstruction_loss(seed):
    schedule = schedule_of(stagger=0, epochs=(15, 15, 15))
    trainer = Trainer(engine_of(seed)).pretrain(data_of(seed)[0], schedule, np.random.default_rng(seed))
    for k in range(3):
        losses = [record["loss"] for record in trainer.history if record["layer"] == k]
        assert losses[-1] < losses[0]


@pytest.mark.parametrize("epochs", [(3, 3, 3), (2, 4, 3)])
def test_sequential_from_the_cache_gives_the_bits_of_the_longest_stagger(epochs, seed):
    states, histories = [], []
    for kind, stagger in (("sequential", 1), ("crosspre", max(epochs))):
        engine = engine_of(seed, RowEngine)
        trainer = Trainer(engine, probe_size=9)
        trainer.pretrain(data_of(seed)[0], schedule_of(kind, stagger, epochs), np.random.default_rng(seed))
        states.append(engine.get_state())
        histories.append(without_seconds(trainer.history))
    assert_same_bits(*states)
    assert histories[0] == histories[1]


def test_sequential_from_the_cache_gives_the_same_bits_on_the_cpu_engine(seed):
    cpu = pytest.importorskip("gesda.engine.cpu", reason="the C++ core is not built", exc_type=ImportError)
    states = []
    for kind in ("sequential", "crosspre"):
        engine = engine_of(seed, lambda spec: cpu.CpuEngine(spec, n_jobs=2))
        Trainer(engine).pretrain(data_of(seed)[0], schedule_of(kind, 3), np.random.default_rng(seed))
        states.append(engine.get_state())
    assert_same_bits(*states)


def test_sequential_agrees_with_the_longest_stagger_on_the_reference_engine(seed):
    # The reference rounds what it hands out to float32 and computes in float64, so the cache costs the last bits.
    parameters = []
    for kind in ("sequential", "crosspre"):
        engine = engine_of(seed)
        Trainer(engine).pretrain(data_of(seed)[0], schedule_of(kind, 3), np.random.default_rng(seed))
        parameters.append(engine.get_parameters())
    for name, array in parameters[0].items():
        np.testing.assert_allclose(array, parameters[1][name], atol=1e-5, err_msg=name)


def test_drift_is_the_relative_change_of_the_encodings(seed):
    data, schedule = data_of(seed)[0], schedule_of(stagger=0, epochs=(1, 1, 1))
    engine = engine_of(seed)
    before = [engine.encode(data, n_layers=k + 1).astype(float) for k in range(3)]
    trainer = Trainer(engine, probe_size=N_SAMPLES + 5).pretrain(data, schedule, np.random.default_rng(seed))
    for record in trainer.history:
        old = before[record["layer"]]
        change = np.linalg.norm(engine.encode(data, n_layers=record["layer"] + 1) - old) / np.linalg.norm(old)
        assert record["drift"] == pytest.approx(change, rel=1e-5)


def test_the_drift_of_an_upper_layer_includes_what_the_layers_under_it_did(seed):
    # Layer 1 is done while layer 0 goes on; when layer 2 starts, what it starts from is the state of that moment.
    data, schedule = data_of(seed)[0], schedule_of(stagger=3, epochs=(6, 1, 1))
    engine, seen = engine_of(seed), []

    class Watch(Callback):
        def on_epoch_boundary(self, run):
            seen.append(engine.encode(data).astype(float))

    trainer = Trainer(engine, probe_size=N_SAMPLES, callbacks=[Watch()])
    trainer.pretrain(data, schedule, np.random.default_rng(seed))
    expected = np.linalg.norm(seen[-1] - seen[-2]) / np.linalg.norm(seen[-2])
    assert trainer.history[-1]["layer"] == 2
    assert trainer.history[-1]["drift"] == pytest.approx(expected, rel=1e-5)


def test_the_probe_changes_nothing_but_the_drift(seed):
    states = []
    for probe_size in (0, 5):
        engine = engine_of(seed)
        trainer = Trainer(engine, probe_size=probe_size)
        trainer.pretrain(data_of(seed)[0], schedule_of(), np.random.default_rng(seed))
        assert all(math.isnan(record["drift"]) == (probe_size == 0) for record in trainer.history)
        states.append(engine.get_state())
    assert_same_bits(*states)


@pytest.mark.parametrize("kind", ["crosspre", "sequential"])
def test_sparse_data_train_as_dense_data_do(kind, seed):
    data, states = data_of(seed)[0], []
    data[data < 0.5] = 0
    for form in (data, scipy.sparse.csr_array(data)):
        engine = engine_of(seed)
        Trainer(engine).pretrain(form, schedule_of(kind), np.random.default_rng(seed))
        states.append(engine.get_state())
    for name, array in states[0].items():
        np.testing.assert_allclose(array, states[1][name], rtol=1e-6, atol=1e-9)


def test_a_schedule_for_another_number_of_layers_is_refused():
    with pytest.raises(ValueError, match="the schedule has 1 layers and the network 3"):
        Trainer(engine_of(0)).pretrain(data_of(0)[0], PretrainSchedule("crosspre", (1,), (0.1,), 8), None)


def test_no_epochs_train_nothing(seed):
    engine = engine_of(seed)
    before = engine.get_state()
    trainer = Trainer(engine).pretrain(data_of(seed)[0], schedule_of(epochs=(0, 0, 0)), np.random.default_rng(seed))
    assert trainer.history == []
    assert_same_bits(before, engine.get_state())


# ---- fine-tuning and its stopping rules ------------------------------------------------------------
def losses(values):
    """A script that reports these losses."""
    return {e: (lambda engine, stats, loss=loss: FinetuneStats(loss, 0.0)) for e, loss in enumerate(values)}


def test_finetuning_records_loss_rate_and_score(seed):
    data, targets = data_of(seed)
    scores = iter([0.1, 0.2, 0.3, 0.4])
    trainer = Trainer(engine_of(seed), validate=lambda: next(scores))
    trainer.finetune(data, targets, np.arange(20), np.random.default_rng(seed), **finetuning(rate_schedule="cosine"))
    assert [record["validation_score"] for record in trainer.history] == [0.1, 0.2, 0.3, 0.4]
    assert [record["epoch"] for record in trainer.history] == [0, 1, 2, 3]
    rates = [record["learning_rate"] for record in trainer.history]
    assert rates[0] == 0.05 and rates == sorted(rates, reverse=True)
    assert not trainer.converged


def test_finetuning_stops_when_the_loss_no_longer_falls():
    data, targets = data_of(0)
    trainer = Trainer(scripted(losses([3.0, 2.0, 1.9999, 2.5, 1.9999, 0.1, 0.0])))
    options = finetuning(epochs=7, n_iter_no_change=2, tol=0.01)
    trainer.finetune(data, targets, np.arange(20), np.random.default_rng(0), **options)
    # Epochs 2, 3 and 4 do not improve on 2.0 by 0.01: more than two in a row.
    assert len(trainer.history) == 5 and trainer.converged


def test_early_stopping_restores_the_best_weights(seed):
    data, targets = data_of(seed)
    engine, seen = engine_of(seed), []
    scores = iter([0.5, 0.8, 0.7, 0.6, 0.9])

    def score():
        seen.append(engine.get_parameters())
        return next(scores)

    trainer = Trainer(engine)
    options = finetuning(epochs=9, score=score, early_stopping=True, n_iter_no_change=1)
    trainer.finetune(data, targets, np.arange(20), np.random.default_rng(seed), **options)
    assert len(trainer.history) == 4 and trainer.converged and trainer.best_score == 0.8
    assert_same_bits(engine.get_parameters(), seen[1])


def test_early_stopping_without_a_score_is_refused():
    with pytest.raises(ValueError, match="early_stopping=True needs a score"):
        Trainer(engine_of(0)).finetune(*data_of(0), [0], np.random.default_rng(0), **finetuning(early_stopping=True))


def test_sample_weights_reach_the_engine(seed):
    data, targets = data_of(seed)
    found = []
    for weight in (None, np.ones(N_SAMPLES, np.float32), np.full(N_SAMPLES, 2, np.float32)):
        trainer = Trainer(engine_of(seed))
        options = finetuning(epochs=1, sample_weight=weight)
        trainer.finetune(data, targets, np.arange(20), np.random.default_rng(seed), **options)
        found.append(trainer.history[0]["loss"])
    assert found[0] == found[1] != found[2]


def test_on_the_cpu_engine_sequential_gives_the_bits_of_the_longest_stagger(seed):
    rng = np.random.default_rng(seed)
    widths = rng.integers(1, 150, 4).tolist()
    spec = NetworkSpec(tuple(LayerSpec(n, m) for n, m in itertools.pairwise(widths)), seed=seed)
    data = rng.random((rng.integers(5, 300), widths[0]), dtype=np.float32)
    batch_size, found = int(rng.integers(1, 140)), []
    for kind in ("sequential", "crosspre"):
        engine = engine_of(seed, lambda spec: select("cpu", spec), spec)
        schedule = PretrainSchedule(kind, (2, 2, 2), (0.1,) * 3, batch_size=batch_size, stagger=2)
        Trainer(engine).pretrain(data, schedule, np.random.default_rng(seed))
        found.append(engine.get_parameters())
    assert_same_bits(*found)


# ---- divergence -----------------------------------------------------------------------------------
def lose_layer_1(engine, stats):
    return PretrainStats((stats.loss[0], math.nan, stats.loss[2]), stats.seconds)


def poison_layer_1(engine, stats):
    bias = np.full(WIDTHS[2], math.inf)
    engine.set_state({"layers.1.b": bias})
    return stats


@pytest.mark.parametrize("accident", [lose_layer_1, poison_layer_1])
def test_a_diverging_pretraining_stops_at_the_last_good_weights_and_says_where(accident, seed):
    data = data_of(seed)[0]
    good = []

    class Watch(Callback):
        def on_epoch_boundary(self, run):
            good.append(run.engine.get_parameters())

    trainer = Trainer(scripted({2: accident}, seed), callbacks=[Watch()])
    with pytest.warns(ConvergenceWarning, match="Pretraining diverged in epoch 2 at layer 1"):
        trainer.pretrain(data, schedule_of(stagger=0, epochs=(3, 3, 3)), np.random.default_rng(seed))
    assert trainer.diverged and {record["epoch"] for record in trainer.history} == {0, 1}
    assert_same_bits(trainer.engine.get_parameters(), good[-1])
    state = trainer.engine.get_state()
    assert not any(state[name].any() for name in state if name.startswith("pretrain."))


@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_diverging_finetuning_stops_at_the_last_good_or_the_best_weights(early_stopping, seed):
    data, targets = data_of(seed)
    engine = scripted(losses([2.0, 1.0, math.inf]), seed)
    good, scores = [], iter([0.9, 0.1])

    class Watch(Callback):
        def on_epoch_boundary(self, run):
            good.append(run.engine.get_parameters())

    trainer = Trainer(engine, callbacks=[Watch()], validate=lambda: next(scores))
    with pytest.warns(ConvergenceWarning, match="Fine-tuning diverged in epoch 2 at the output layer: its loss is inf"):
        options = finetuning(early_stopping=early_stopping)
        trainer.finetune(data, targets, np.arange(20), np.random.default_rng(seed), **options)
    assert trainer.diverged and len(trainer.history) == 2
    assert_same_bits(engine.get_parameters(), good[0 if early_stopping else 1])


def test_divergence_in_the_first_epoch_restores_the_initial_weights(seed):
    engine = scripted({0: lose_layer_1}, seed)
    initial = engine.get_parameters()
    with pytest.warns(ConvergenceWarning, match="diverged in epoch 0 at layer 1"):
        Trainer(engine).pretrain(data_of(seed)[0], schedule_of(stagger=0), np.random.default_rng(seed))
    assert_same_bits(engine.get_parameters(), initial)


def lose(values):
    """A script in which layer 1 reports these losses, from epoch 0."""

    def report(loss):
        return lambda engine, stats: PretrainStats((stats.loss[0], loss, stats.loss[2]), stats.seconds)

    return {epoch: report(loss) for epoch, loss in enumerate(values)}


@pytest.mark.parametrize(("values", "diverged"), [((3.0, 2.9e3), False), ((3.0, 3.1e3), True), ((0.0, 9.0), False)])
def test_a_finite_loss_far_above_the_layers_first_one_counts_as_divergence(values, diverged, seed):
    trainer = Trainer(scripted(lose(values), seed))
    schedule = schedule_of(stagger=0, epochs=(2, 2, 2))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.pretrain(data_of(seed)[0], schedule, np.random.default_rng(seed))
    assert trainer.diverged is diverged and len(trainer.history) == (3 if diverged else 6)
    assert bool(caught) is diverged
    if diverged:
        assert "epoch 1 at layer 1: its loss is 3.1e+03, where up to 3 is usual" in str(caught[0].message)


@pytest.mark.parametrize("probe_size", [0, 16])
def test_a_squared_error_that_explodes_in_the_first_epoch_restores_the_initial_weights(probe_size, seed):
    layer = LayerSpec(7, 6, "linear", "linear", "squared_error", noise="none")
    engine = engine_of(seed, spec=NetworkSpec((layer,), seed=3))
    initial, data = engine.get_parameters(), 100 * data_of(seed)[0]
    schedule = PretrainSchedule("crosspre", (3,), (1e-3,), batch_size=10)
    with pytest.warns(ConvergenceWarning, match=r"diverged in epoch 0 at layer 0: its loss is \d.*, where"):
        trainer = Trainer(engine, probe_size=probe_size).pretrain(data, schedule, np.random.default_rng(seed))
    assert trainer.diverged and not trainer.history
    assert_same_bits(engine.get_parameters(), initial)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_single_huge_sample_is_no_divergence(sparse, seed):
    layers = (LayerSpec(7, 6, "tanh", "linear", "squared_error"), LayerSpec(6, 5, "tanh", "tanh", "squared_error"))
    data = np.zeros((3000, 7), np.float32)
    data[np.random.default_rng(seed).integers(3000)] = 1e5
    engine = engine_of(seed, spec=NetworkSpec(layers, seed=3))
    schedule = PretrainSchedule("crosspre", (1, 1), (1e-9,) * 2, batch_size=500, stagger=0)
    trainer = Trainer(engine, probe_size=0)
    trainer.pretrain(scipy.sparse.csr_array(data) if sparse else data, schedule, np.random.default_rng(seed))
    assert not trainer.diverged and trainer.history[0]["loss"] > 1e6


def test_targets_of_any_size_do_not_count_as_divergence_and_an_explosion_does(seed):
    layers = (LayerSpec(7, 6),)
    data = data_of(seed)[0]
    for scale, loss, diverged in ((1e-6, 50.0, False), (1e6, 1e12, False), (1.0, 1e59, True)):
        engine = engine_of(seed, ScriptedEngine, NetworkSpec(layers, head=HeadSpec("linear", 2)))
        engine.script = losses([loss])
        targets = np.full((N_SAMPLES, 2), scale, np.float32)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer = Trainer(engine)
            trainer.finetune(data, targets, np.arange(20), np.random.default_rng(seed), **finetuning(epochs=1))
        assert trainer.diverged is diverged is bool(caught)


# ---- interruption ---------------------------------------------------------------------------------
def press_ctrl_c(engine, stats):
    raise KeyboardInterrupt


def report_incomplete(engine, stats):
    return type(stats)(stats.loss, stats.seconds, completed=False)


@pytest.mark.parametrize("event", [press_ctrl_c, report_incomplete])
@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
def test_an_interruption_ends_the_phase_keeps_the_history_and_says_so(event, phase):
    data, targets = data_of(0)
    ended = []

    class Watch(Callback):
        def on_train_end(self, run):
            ended.append(run.interrupted)

    trainer = Trainer(scripted({2: event}), callbacks=[Watch()])
    rng = np.random.default_rng(0)
    if phase == "pretrain":
        trainer.pretrain(data, schedule_of(), rng)
    else:
        trainer.finetune(data, targets, np.arange(20), rng, **finetuning())
    assert trainer.interrupted and ended == [True]
    assert {record["epoch"] for record in trainer.history} == {0, 1}
    with pytest.raises(RuntimeError, match="between epochs only"):
        trainer.state()


def test_ctrl_c_while_the_engine_polls_is_an_interruption(seed):
    class Impatient(Callback):
        def on_progress(self, run, fraction):
            raise KeyboardInterrupt

    class Polling(ReferenceEngine):
        def pretrain_epoch(self, data, plan, poll=None):
            poll(0.5)
            return super().pretrain_epoch(data, plan, poll)

    trainer = Trainer(engine_of(seed, Polling), callbacks=[Impatient()])
    assert trainer.pretrain(data_of(seed)[0], schedule_of(), np.random.default_rng(seed)).interrupted


def test_other_errors_propagate_after_the_callbacks_have_ended():
    ended = []

    class Watch(Callback):
        def on_train_end(self, run):
            ended.append(run.resumable)

    def fail():
        raise OSError("no disk")

    trainer = Trainer(engine_of(0), callbacks=[Watch()], validate=fail)
    with pytest.raises(OSError, match="no disk"):
        trainer.finetune(*data_of(0), np.arange(20), np.random.default_rng(0), **finetuning())
    assert ended == [False]


def test_a_callback_may_stop_a_phase(seed):
    class Stop(Callback):
        def on_epoch_end(self, run, record):
            return record["epoch"] == 1

    trainer = Trainer(engine_of(seed), callbacks=[Stop()])
    trainer.pretrain(data_of(seed)[0], schedule_of(), np.random.default_rng(seed))
    assert {record["epoch"] for record in trainer.history} == {0, 1}
    assert not trainer.interrupted


# ---- resumption -----------------------------------------------------------------------------------
class Keep(Callback):
    """Keeps the state of every boundary, and of the end of every phase."""

    def __init__(self):
        self.states = []

    def on_epoch_boundary(self, run):
        self.states.append(run.state())

    def on_train_end(self, run):
        self.states.append(run.state())


def whole_training(trainer, seed, schedule, rng, **options):
    """Both phases as an estimator runs them, with something drawn and initialised in between."""
    data, targets = data_of(seed)
    trainer.pretrain(data, schedule, rng)
    trainer.engine.set_state({"head.W": rng.normal(0, 0.1, (WIDTHS[-1], N_CLASSES))})
    held_out = np.arange(20, 30)

    def score():
        return float(np.mean(trainer.engine.predict(data[held_out]).argmax(axis=1) == targets[held_out]))

    trainer.finetune(data, targets, np.arange(20), rng, **finetuning(score=score, n_iter_no_change=1, **options))
    return rng.random()


def generators():
    return [np.random.PCG64, np.random.MT19937]


@pytest.mark.parametrize("bits", generators())
@pytest.mark.parametrize(
    ("schedule", "options"),
    [
        (schedule_of("crosspre", 1), {"early_stopping": True, "epochs": 6}),
        (schedule_of("sequential"), {"rate_schedule": "cosine"}),
        (schedule_of("crosspre", "auto", settle_tolerance=0.3), {"early_stopping": True, "tol": 0.5}),
        (schedule_of("crosspre", 5, (2, 3, 1)), {"tol": 10.0}),
    ],
    ids=["crosspre", "sequential", "auto", "idle epochs"],
)
def test_a_training_resumed_at_any_boundary_gives_the_bits_of_an_uninterrupted_one(schedule, options, bits, seed):
    keep, engine = Keep(), engine_of(seed)
    whole = Trainer(engine, callbacks=[keep, EarlyStopping(patience=2)], probe_size=10)
    drawn_after = whole_training(whole, seed, schedule, np.random.Generator(bits(seed)), **options)
    assert len(keep.states) >= 5
    for tensors, metadata in keep.states:
        other = ReferenceEngine(network())  # zeros: everything has to come from the state
        trainer = Trainer(other, callbacks=[Callback(), EarlyStopping(patience=2)], probe_size=10)
        trainer.restore(tensors, metadata)
        assert whole_training(trainer, seed, schedule, np.random.Generator(bits(seed)), **options) == drawn_after
        assert_same_bits(engine.get_state(), other.get_state())
        assert without_seconds(trainer.history) == without_seconds(whole.history)
        assert (trainer.converged, trainer.best_score) == (whole.converged, whole.best_score)


def test_a_restored_history_comes_back_call_by_call(seed):
    keep = Keep()
    whole = Trainer(engine_of(seed), callbacks=[keep])
    whole_training(whole, seed, schedule_of(), np.random.default_rng(seed))
    trainer = Trainer(engine_of(seed))
    trainer.restore(*keep.states[-1])
    assert trainer.history == [] and not trainer.resumable  # nothing has been asked for yet
    trainer.pretrain(data_of(seed)[0], schedule_of(), np.random.default_rng(seed))
    assert trainer.history == [record for record in whole.history if record["phase"] == "pretrain"]
    assert not trainer.resumable  # the weights are already those of the fine-tuning


def state_after_pretraining(seed=0):
    trainer = Trainer(engine_of(seed)).pretrain(data_of(seed)[0], schedule_of(), np.random.default_rng(seed))
    return trainer.state()


def test_a_state_of_another_network_is_refused():
    other = Trainer(ReferenceEngine(network(optimizer="adam")))
    with pytest.raises(ValueError, match="another network"):
        other.restore(*state_after_pretraining())
    assert other.fresh


def test_a_state_goes_on_only_with_the_same_call_and_the_same_data(seed):
    for data_seed, schedule in ((0, schedule_of(stagger=2)), (1, schedule_of())):
        trainer = Trainer(engine_of(seed))
        trainer.restore(*state_after_pretraining(0))
        with pytest.raises(ValueError, match="the saved training cannot continue here"):
            trainer.pretrain(data_of(data_seed)[0], schedule, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tensors, metadata: tensors.pop("trainer"), "no saved state"),
        (lambda tensors, metadata: metadata.update(content="a model"), "no saved state"),
        (lambda tensors, metadata: tensors.update(trainer=tensors["trainer"][:-5]), "no saved state"),
        (lambda tensors, metadata: tensors.update(trainer=np.frombuffer(b"[1]", np.uint8)), "no saved state"),
        (lambda tensors, metadata: tensors.pop("engine.layers.0.W"), "damaged: engine.layers.0.W"),
        (lambda tensors, metadata: tensors.update({"engine.head.b": np.zeros(9)}), "damaged: engine.head.b"),
        (lambda tensors, metadata: tensors.update({"best.head.b": np.zeros(3)}), "damaged: best.layers.0.W"),
    ],
)
def test_a_damaged_state_is_refused(damage, message):
    tensors, metadata = state_after_pretraining()
    damage(tensors, metadata)
    with pytest.raises(ValueError, match=message):
        Trainer(engine_of(0)).restore(tensors, metadata)


def test_a_state_of_a_later_format_is_refused():
    tensors, metadata = state_after_pretraining()
    text = bytes(tensors["trainer"]).replace(b'"version": 1', b'"version": 2')
    with pytest.raises(ValueError, match="format 2, this gesda reads 1"):
        Trainer(engine_of(0)).restore(tensors | {"trainer": np.frombuffer(text, np.uint8)}, metadata)


def test_training_warns_of_nothing_when_all_is_well(seed):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer = Trainer(engine_of(seed)).pretrain(data_of(seed)[0], schedule_of(), np.random.default_rng(seed))
    assert trainer.resumable and not trainer.fresh


def test_a_negative_probe_is_refused():
    with pytest.raises(ValueError, match="probe_size must be at least 0; got -1"):
        Trainer(engine_of(0), probe_size=-1)


def test_ctrl_c_while_weights_are_copied_leaves_no_mixture_of_two_epochs(seed):
    class Interrupted(RowEngine):
        copies = 0

        def copy_parameters(self, into):
            self.copies += 1
            if self.copies == 1:  # between the arrays of one copy
                name = next(iter(into))
                super().copy_parameters({name: into[name]})
                raise KeyboardInterrupt
            super().copy_parameters(into)

    engine = engine_of(seed, Interrupted)
    trainer = Trainer(engine)
    trainer._take_snapshot()
    engine.set_state({name: array + 1 for name, array in engine.get_parameters().items()})
    with pytest.raises(KeyboardInterrupt):
        trainer._take_snapshot()
    expected = engine.get_parameters()
    assert set(trainer._snapshot) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(trainer._snapshot[name], array)
