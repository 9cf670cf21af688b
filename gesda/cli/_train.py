"""``gesda train``: read, train, save, test."""

from __future__ import annotations

import argparse
import difflib
import time
from typing import Any

import numpy as np

from gesda.callbacks import Callback, Checkpoint, JsonLinesLog, Run
from gesda.cli._apply import measure
from gesda.cli._common import INTERRUPTED, UsageError, check_output, emit, note, read_data, warnings_as_notes
from gesda.datasets import Dataset

_ESTIMATORS = {"classify": "SdAClassifier", "regress": "SdARegressor", "encode": "StackedDenoisingAutoencoder"}
#: Parameters that have an option of their own, or none on a command line.
_NOT_SETTABLE = {
    "callbacks": "--log or --checkpoint",
    "verbose": "--quiet",
    "random_state": "--seed",
    "n_jobs": "--jobs",
    "device": "--device",
    "early_stopping": "--validation",
    "validation_fraction": "--validation",
    "warm_start": "--checkpoint with --resume",
}


class _Interruption(Callback):
    """Remembers whether Ctrl-C ended the training, and in which phase."""

    phase: str | None = None

    def on_train_end(self, run: Run) -> None:
        if run.interrupted:
            self.phase = run.phase


def run(arguments: argparse.Namespace) -> int:
    """Train a model and save it."""
    estimator = _make_estimator(arguments)
    for path in (arguments.output, arguments.log, arguments.checkpoint):
        if path is not None:
            check_output(path)
    if arguments.resume and not arguments.checkpoint:
        raise UsageError("--resume needs --checkpoint FILE.")

    data = read_data(arguments)
    if arguments.task != "encode" and data.y is None:
        raise ValueError(
            f"{data.name!r} has no labels, which --task {arguments.task} needs; name their column with --target, "
            f"or use --task encode."
        )
    if arguments.task == "regress" and data.y is not None and data.y.dtype.kind not in "if":
        raise ValueError(f"the labels of {data.name!r} are text, and --task regress needs numbers.")
    training, test = _split(arguments, data)
    unlabeled = None if arguments.unlabeled is None else read_data(arguments, arguments.unlabeled)

    interruption = _Interruption()
    estimator.set_params(callbacks=_callbacks(arguments, interruption))
    started = time.perf_counter()
    with warnings_as_notes():
        if arguments.task == "encode":
            samples = training.X if unlabeled is None else np.concatenate([training.X, unlabeled.X])
            estimator.fit(samples)
        else:
            estimator.fit(training.X, training.y, X_unlabeled=None if unlabeled is None else unlabeled.X)
    seconds = time.perf_counter() - started
    estimator.set_params(callbacks=None, verbose=0)
    estimator.save(arguments.output)

    result: dict[str, Any] = {
        "command": "train",
        "model": arguments.output,
        "estimator": type(estimator).__name__,
        "device": estimator.device_,
        "n_samples": len(training.X),
        "n_features": training.X.shape[1],
        "epochs": _epochs(estimator.history_),
        "seconds": round(seconds, 3),
        "interrupted": interruption.phase is not None,
    }
    lines = [
        f"trained {result['estimator']} on {result['n_samples']} samples of {result['n_features']} features "
        f"in {seconds:.1f} s ({estimator.device_})"
    ]
    if interruption.phase is not None:
        what = "pretraining" if interruption.phase == "pretrain" else "fine-tuning"
        untuned = interruption.phase == "pretrain" and arguments.task != "encode"
        note(
            f"interrupted in {what}; the model trained so far is saved to {arguments.output!r}"
            + (", but its output is not trained yet." if untuned else ".")
        )
    elif test is not None:
        scores = measure(estimator, test)
        result["test"] = scores
        lines += [f"test {name.removeprefix('n_').replace('_', ' ')}: {value:.6g}" for name, value in scores.items()]
    lines.append(f"saved to {arguments.output}")
    emit(arguments, result, lines)
    return INTERRUPTED if interruption.phase is not None else 0


def _make_estimator(arguments: argparse.Namespace) -> Any:
    import gesda

    estimator = getattr(gesda, _ESTIMATORS[arguments.task])()
    known = estimator.get_params()
    given = {
        name.removeprefix("set_"): value
        for name, value in vars(arguments).items()
        if name.startswith("set_") and value is not None
    }
    for name in given:
        if name not in known:
            raise UsageError(
                f"the parameter {name} is one of fine-tuning; it does not go with --task {arguments.task}."
            )
    for name, value in arguments.assignments:
        if name in _NOT_SETTABLE:
            raise UsageError(f"--set {name} is not possible; use {_NOT_SETTABLE[name]}.")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = (
                f"did you mean {close[0]}?"
                if close
                else f"it has {', '.join(sorted(set(known) - set(_NOT_SETTABLE)))}."
            )
            raise UsageError(f"{type(estimator).__name__} has no parameter {name!r}; {hint}")
        given[name] = value
    given = {name: _as_text(value) if isinstance(known[name], str) else value for name, value in given.items()}
    if arguments.validation is not None:
        if arguments.task == "encode":
            raise UsageError("--validation needs labels; it does not go with --task encode.")
        given |= {"early_stopping": True, "validation_fraction": arguments.validation}
    given |= {"random_state": arguments.seed, "n_jobs": arguments.jobs, "verbose": 0 if arguments.quiet else 1}
    if arguments.device is not None:
        given["device"] = arguments.device
    return estimator.set_params(**given)


def _as_text(value: Any) -> Any:
    """Take ``none`` for the name that it is where names are expected, as of the noise."""
    if isinstance(value, tuple):
        return tuple(map(_as_text, value))
    return "none" if value is None else value


def _callbacks(arguments: argparse.Namespace, interruption: Callback) -> list[Callback]:
    callbacks = [interruption]
    if arguments.log is not None:
        callbacks.append(JsonLinesLog(arguments.log))
    if arguments.checkpoint is not None:
        callbacks.append(Checkpoint(arguments.checkpoint, resume=arguments.resume))
    return callbacks


def _split(arguments: argparse.Namespace, data: Dataset) -> tuple[Dataset, Dataset | None]:
    """Training and test data."""
    if arguments.test_data is not None:
        test = read_data(arguments, arguments.test_data)
        if test.X.shape[1] != data.X.shape[1]:
            raise ValueError(
                f"{test.name!r} has {test.X.shape[1]} features, {data.name!r} {data.X.shape[1]}; give data of one kind."
            )
        if arguments.task != "encode" and test.y is None:
            raise ValueError(f"{test.name!r} has no labels to test on; give labelled data.")
        return data, test
    if arguments.test_fraction is None:
        return data, None
    order = np.random.default_rng(arguments.seed).permutation(len(data.X))
    n_test = max(1, round(arguments.test_fraction * len(order)))
    if n_test >= len(order):
        raise ValueError(f"{data.name!r} has {len(order)} samples, too few to keep some for a test.")
    parts = []
    for rows in (order[n_test:], order[:n_test]):
        y = None if data.y is None else data.y[rows]
        parts.append(Dataset(data.X[rows], y, data.feature_names, data.target_names, data.name))
    return parts[0], parts[1]


def _epochs(history: list[dict[str, Any]]) -> dict[str, int]:
    return {
        phase: len({record["epoch"] for record in history if record["phase"] == phase})
        for phase in ("pretrain", "finetune")
    }
