"""Callbacks: progress, log, early stopping and checkpoints, alone and on a real training."""

import contextlib
import io
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

import gesda.model_io
from gesda.callbacks import Callback, Checkpoint, EarlyStopping, JsonLinesLog, Plateau, Progress
from gesda.engine.reference import ReferenceEngine
from gesda.schedule import PretrainSchedule
from gesda.spec import HeadSpec, LayerSpec, NetworkSpec, OptimizerSpec
from gesda.trainer import Trainer

SPEC = NetworkSpec((LayerSpec(6, 5), LayerSpec(5, 4)), OptimizerSpec("adam"), HeadSpec("softmax", 2), seed=3)


def train(callbacks, seed=0, epochs=(3, 3), finetune_epochs=3, **finetuning):
    """Both phases on a small network; returns the trainer."""
    rng = np.random.default_rng(seed)
    engine = ReferenceEngine(SPEC)
    engine.set_state({name: rng.normal(0, 0.3, shape) for name, shape in SPEC.parameter_shapes().items()})
    data, targets = rng.random((20, 6), dtype=np.float32), rng.integers(0, 2, 20).astype(np.int32)
    trainer = Trainer(engine, callbacks=callbacks)
    trainer.pretrain(data, PretrainSchedule("crosspre", epochs, (0.01, 0.02), 8), rng)
    if not trainer.interrupted:
        options = {"epochs": finetune_epochs, "batch_size": 8, "learning_rate": 0.1} | finetuning
        trainer.finetune(data, targets, np.arange(15), rng, **options)
    return trainer


# ---- the protocol ---------------------------------------------------------------------------------
def test_every_hook_is_called_in_its_place():
    calls = []

    class Watch(Callback):
        def on_train_begin(self, run):
            calls.append(f"begin {run.phase} of {run.n_epochs}")

        def on_epoch_end(self, run, record):
            assert record in run.history
            calls.append(f"record {record['epoch']}.{record.get('layer', '-')}")

        def on_epoch_boundary(self, run):
            calls.append(f"boundary {run.epochs_done}")

        def on_train_end(self, run):
            calls.append("end")

    train([Watch()], epochs=(1, 1), finetune_epochs=1)
    assert calls == [
        "begin pretrain of 2", "record 0.0", "boundary 1", "record 1.1", "boundary 2", "end",
        "begin finetune of 1", "record 0.-", "boundary 1", "end",
    ]  # fmt: skip


def test_an_object_with_some_hooks_only_is_a_callback_too():
    seen = []
    train([SimpleNamespace(on_epoch_end=lambda run, record: seen.append(record)), Callback()])
    assert len(seen) == 9


def test_records_have_the_documented_keys():
    history = train([]).history
    pretrain = {"phase", "epoch", "layer", "layer_epoch", "loss", "drift", "seconds", "learning_rate"}
    finetune = {"phase", "epoch", "loss", "seconds", "learning_rate", "validation_score"}
    assert all(record.keys() == (pretrain if record["phase"] == "pretrain" else finetune) for record in history)
    json.dumps(history)  # plain values only


# ---- plateau and early stopping -------------------------------------------------------------------
@pytest.mark.parametrize("maximise", [True, False])
def test_a_plateau_counts_as_scikit_learns_perceptrons_do(maximise):
    rng = np.random.default_rng()
    values = rng.normal(size=200).round(2)
    tolerance = 0.1
    plateau = Plateau(3, tolerance, maximise=maximise)
    best, count = (-math.inf if maximise else math.inf), 0
    for value in values:
        if maximise:
            count = count + 1 if value < best + tolerance else 0
        else:
            count = count + 1 if value > best - tolerance else 0
        better = value > best if maximise else value < best
        best = value if better else best
        assert plateau.update(value) == better
        # Sums of decimals round differently only where a value sits exactly on the tolerance.
        if abs(abs(value - plateau.best) - tolerance) > 1e-9:
            assert (plateau.count > 0) == (count > 0)
        count = plateau.count
        assert plateau.best == best
        assert plateau.exhausted == (plateau.count > 3)


def test_nan_is_never_an_improvement():
    plateau = Plateau(0, 0.0, maximise=True)
    assert not plateau.update(math.nan)
    assert plateau.exhausted
    assert plateau.update(0.5)
    assert not plateau.exhausted


@pytest.mark.parametrize(("patience", "tolerance", "word"), [(-1, 0.0, "patience"), (1, -0.1, "tolerance")])
def test_a_plateau_refuses_what_makes_no_sense(patience, tolerance, word):
    with pytest.raises(ValueError, match=word):
        EarlyStopping(patience, tolerance)


def test_early_stopping_stops_finetuning_when_the_score_stays():
    scores = iter([0.5, 0.6, 0.6, 0.6, 0.6, 0.6])
    stopping = EarlyStopping(patience=1, tolerance=0.01)
    trainer = train([stopping], finetune_epochs=6, score=lambda: next(scores))
    assert [r["validation_score"] for r in trainer.history if r["phase"] == "finetune"] == [0.5, 0.6, 0.6, 0.6]


def test_early_stopping_without_a_score_says_what_to_do():
    with pytest.raises(ValueError, match=r"EarlyStopping needs a validation score.*set early_stopping=True"):
        train([EarlyStopping()])


# ---- progress -------------------------------------------------------------------------------------
def test_progress_writes_plain_lines_into_a_log():
    stream = io.StringIO()
    trainer = train([Progress(stream)], score=lambda: 0.75)
    lines = stream.getvalue().splitlines()
    assert len(lines) == len(trainer.history)
    assert lines[0].startswith("pretrain 1/4: layer 0 loss ") and " drift " in lines[0]
    assert lines[-1].startswith("finetune 3/3: loss ") and "score 0.75" in lines[-1]


def test_progress_can_skip_epochs_in_a_log_but_not_the_last():
    stream = io.StringIO()
    train([Progress(stream, every=2)], epochs=(3, 0))
    starts = [line.split(":")[0] for line in stream.getvalue().splitlines()]
    assert starts == ["pretrain 2/3", "pretrain 3/3", "finetune 2/3", "finetune 3/3"]


def test_progress_draws_a_bar_on_a_terminal():
    stream = io.StringIO()
    stream.isatty = lambda: True
    progress = Progress(stream)
    train([progress, SimpleNamespace(on_epoch_end=lambda run, record: progress.on_progress(run, 0.5))])
    text = stream.getvalue()
    assert "pretrain |" in text and "4.0/4" in text and "finetune |" in text and "loss" in text


def test_progress_uses_standard_error_by_default(capsys):
    train([Progress()])
    found = capsys.readouterr()
    assert found.out == "" and "finetune 3/3" in found.err


@pytest.mark.parametrize("make", [lambda: Progress(every=0), lambda: Checkpoint("x", every=0)])
def test_every_has_to_be_at_least_one_epoch(make):
    with pytest.raises(ValueError, match="every must be at least 1 epoch; got 0"):
        make()


# ---- log ------------------------------------------------------------------------------------------
def test_the_log_holds_every_record_as_a_line_of_json(tmp_path):
    path = tmp_path / "log.jsonl"
    trainer = train([JsonLinesLog(path)])
    assert [json.loads(line) for line in path.read_text().splitlines()] == trainer.history


def test_the_log_starts_anew_unless_asked_to_append(tmp_path):
    path = tmp_path / "log.jsonl"
    n_records = len(train([JsonLinesLog(path)]).history)
    log = JsonLinesLog(path)
    train([log])
    train([log])  # one object, two trainings
    assert len(path.read_text().splitlines()) == n_records
    train([JsonLinesLog(path, append=True)])
    assert len(path.read_text().splitlines()) == 2 * n_records


def test_the_log_writes_null_for_what_json_does_not_know(tmp_path):
    log, run = JsonLinesLog(tmp_path / "log.jsonl"), SimpleNamespace(fresh=True)
    log.on_train_begin(run)
    log.on_epoch_end(run, {"loss": 1.0, "drift": math.nan, "validation_score": -math.inf})
    log.on_train_end(run)
    assert json.loads(log.path.read_text()) == {"loss": 1.0, "drift": None, "validation_score": None}


# ---- checkpoints ----------------------------------------------------------------------------------
class Crash(Callback):
    """Fails, or is interrupted, in one epoch of one phase."""

    def __init__(self, phase, epoch, error):
        self.when, self.error = (phase, epoch), error

    def on_epoch_end(self, run, record):
        if (record["phase"], record["epoch"]) == self.when:
            raise self.error


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("error", [OSError("power cut"), KeyboardInterrupt()], ids=["crash", "ctrl-c"])
@pytest.mark.parametrize(("phase", "epoch"), [("pretrain", 0), ("pretrain", 2), ("finetune", 0), ("finetune", 2)])
def test_a_training_continues_from_its_checkpoint_with_the_same_bits(phase, epoch, error, every, tmp_path):
    seed = int(np.random.default_rng().integers(2**32))
    path = tmp_path / "training.safetensors"
    whole = train([], seed).engine.get_state()
    with contextlib.suppress(OSError):
        assert train([Crash(phase, epoch, error), Checkpoint(path, every)], seed).interrupted
    assert path.exists() == ((phase, epoch) != ("pretrain", 0))
    resumed = train([Checkpoint(path, every, resume=True)], seed)
    assert len(resumed.history) == 9
    state = resumed.engine.get_state()
    assert all(state[name].tobytes() == whole[name].tobytes() for name in whole)


def test_a_training_may_crash_again_before_it_gets_on(tmp_path):
    path = tmp_path / "training.safetensors"
    whole = train([]).engine.get_state()
    for _ in range(3):  # the first crash is in the second fine-tuning epoch, the next ones as well: nothing is lost
        with pytest.raises(OSError, match="power cut"):
            train([Crash("finetune", 1, OSError("power cut")), Checkpoint(path, resume=True)])
    state = train([Checkpoint(path, resume=True)]).engine.get_state()
    assert all(state[name].tobytes() == whole[name].tobytes() for name in whole)


def test_a_resumed_training_runs_only_what_is_left(tmp_path):
    path = tmp_path / "training.safetensors"
    with pytest.raises(OSError, match="power cut"):
        train([Checkpoint(path), Crash("finetune", 1, OSError("power cut"))])
    seen = []
    train([Checkpoint(path, resume=True), SimpleNamespace(on_epoch_end=lambda run, record: seen.append(record))])
    assert [(record["phase"], record["epoch"]) for record in seen] == [("finetune", 1), ("finetune", 2)]


def test_without_resume_a_checkpoint_starts_anew(tmp_path):
    path = tmp_path / "training.safetensors"
    train([Checkpoint(path)], seed=1)
    assert len(train([Checkpoint(path)], seed=2).history) == 9


def test_a_finished_checkpoint_gives_the_finished_training(tmp_path):
    path = tmp_path / "training.safetensors"
    whole = train([Checkpoint(path, every=100)])
    tensors, metadata = gesda.model_io.read_tensors(path)
    assert metadata == {"content": "gesda training state"}
    again = train([Checkpoint(path, resume=True)])
    assert again.history == whole.history  # seconds too: nothing ran
    assert "engine.layers.0.W" in tensors


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    gesda.model_io.write_tensors(path, {"W": np.zeros(3, np.float32)}, {"a": 1})
    with pytest.raises(ValueError, match="no saved state of a training"):
        train([Checkpoint(path, resume=True)])
