"""What watches a training: the callback protocol, progress, log, early stopping and checkpoints.

A callback sees plain records (dictionaries) and the run, which is the trainer; it changes nothing but
may ask to stop. Imports `gesda.model_io` only when a checkpoint is written or read.

Records of pretraining, one for each training layer and epoch::

    {"phase": "pretrain", "epoch": int, "layer": int, "layer_epoch": int, "loss": float,
     "drift": float, "seconds": float, "learning_rate": float}

and of fine-tuning, one for each epoch::

    {"phase": "finetune", "epoch": int, "loss": float, "seconds": float, "learning_rate": float,
     "validation_score": float or None}
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from typing import IO, Any, Protocol, TextIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

Record: TypeAlias = dict[str, Any]


class Run(Protocol):
    """What a callback may read of the trainer that calls it.

    Attributes
    ----------
    engine : gesda.engine.Engine
        What executes the epochs.
    history : list of dict
        All records so far.
    phase : {"pretrain", "finetune"} or None
        What runs now.
    n_epochs, epochs_done : int
        Epochs planned for this phase (at most, if the schedule is adaptive), and how many are done.
    interrupted : bool
        Whether a KeyboardInterrupt has stopped the training.
    resumable : bool
        Whether `state` can tell the state exactly; false within an epoch.
    fresh : bool
        Whether nothing has been trained or restored yet.
    """

    engine: Any
    history: list[Record]
    phase: str | None
    n_epochs: int
    epochs_done: int
    interrupted: bool
    resumable: bool

    @property
    def fresh(self) -> bool:
        """Whether nothing has been trained or restored yet."""

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return all that the training needs to continue: arrays and JSON-able values."""

    def restore(self, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> None:
        """Continue from what `state` gave."""


class Callback:
    """Base of all callbacks: every hook does nothing.

    Each phase (pretraining, fine-tuning) begins and ends a train of its own; ``run.phase`` tells which.
    """

    def on_train_begin(self, run: Run) -> None:
        """Hear that a phase begins."""

    def on_epoch_end(self, run: Run, record: Record) -> bool | None:
        """Hear that an epoch has added `record` to the history; True asks to stop the phase."""
        return None

    def on_epoch_boundary(self, run: Run) -> None:
        """Hear that an epoch is done, records and bookkeeping included: `run.state()` is exact now."""

    def on_progress(self, run: Run, fraction: float) -> None:
        """Hear, about ten times a second, what fraction of the epoch is done, in [0, 1]."""

    def on_train_end(self, run: Run) -> None:
        """Hear that a phase ends, by an exception too."""

    def get_state(self) -> dict[str, Any]:
        """Return what the callback must remember across a resumption, JSON-able."""
        return {}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `get_state` gave."""


class Plateau:
    """Counts epochs without improvement, by the rule of scikit-learn's multi-layer perceptrons.

    Parameters
    ----------
    patience : int
        Exhausted when **more** than this many epochs in a row did not improve.
    tolerance : float
        By how much an epoch has to beat the best one to count as an improvement.
    maximise : bool
        Whether larger is better (a score) or smaller (a loss).

    Examples
    --------
    >>> plateau = Plateau(patience=1, tolerance=0.0, maximise=False)
    >>> [plateau.update(loss) for loss in (3.0, 2.0, 2.5, 2.5)], plateau.exhausted
    ([True, True, False, False], True)
    """

    def __init__(self, patience: int, tolerance: float, *, maximise: bool) -> None:
        if patience < 0:
            raise ValueError(f"the patience must be at least 0 epochs; got {patience!r}.")
        if not tolerance >= 0.0:
            raise ValueError(f"the tolerance must be at least 0; got {tolerance!r}.")
        self.patience, self.tolerance, self.maximise = patience, tolerance, maximise
        self.count = 0
        self.best = -math.inf if maximise else math.inf

    def update(self, value: float) -> bool:
        """Count an epoch; return whether it is the best so far. NaN is never an improvement."""
        sign = 1.0 if self.maximise else -1.0
        gain = sign * value - sign * self.best if math.isfinite(self.best) else sign * value + math.inf
        self.count = 0 if gain >= self.tolerance else self.count + 1
        if gain > 0.0:
            self.best = value
            return True
        return False

    @property
    def exhausted(self) -> bool:
        """Whether the patience is used up."""
        return self.count > self.patience

    def get_state(self) -> dict[str, Any]:
        """Count and best value."""
        return {"count": self.count, "best": self.best}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `get_state` gave."""
        self.count, self.best = int(state["count"]), float(state["best"])


class EarlyStopping(Callback):
    """Stop fine-tuning when the validation score no longer improves.

    It stops only; the trainer's own ``early_stopping=True`` restores the best weights as well.

    Parameters
    ----------
    patience : int, default=10
        Stop after more than this many epochs in a row without improvement.
    tolerance : float, default=1e-4
        Smallest rise of the score that counts as an improvement.
    """

    def __init__(self, patience: int = 10, tolerance: float = 1e-4) -> None:
        self.patience, self.tolerance = patience, tolerance
        self._plateau = Plateau(patience, tolerance, maximise=True)

    def on_train_begin(self, run: Run) -> None:
        """Start counting anew."""
        self._plateau = Plateau(self.patience, self.tolerance, maximise=True)

    def on_epoch_end(self, run: Run, record: Record) -> bool | None:
        """Count the epoch; ask to stop when the patience is used up."""
        if record["phase"] != "finetune":
            return None
        if record["validation_score"] is None:
            raise ValueError(
                "EarlyStopping needs a validation score and this training has none; "
                "set early_stopping=True or pass a score to the trainer."
            )
        self._plateau.update(record["validation_score"])
        return self._plateau.exhausted

    def get_state(self) -> dict[str, Any]:
        """Return the count and the best score."""
        return self._plateau.get_state()

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `get_state` gave."""
        self._plateau.set_state(state)


class Progress(Callback):
    """Show how far the training is: a bar on a terminal, one line per record in a log.

    Parameters
    ----------
    stream : text file, default=None
        Where to write; standard error by default.
    every : int, default=1
        In a log, write the records of every so many epochs only, and of a phase's last planned one.
    """

    def __init__(self, stream: TextIO | None = None, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1 epoch; got {every!r}.")
        self.stream, self.every = stream, every
        self._bar: Any = None
        self._done = 0

    def on_train_begin(self, run: Run) -> None:
        """Open a bar if the stream is a terminal."""
        stream = sys.stderr if self.stream is None else self.stream
        self._done = 0
        if stream.isatty():
            from tqdm import tqdm

            bar_format = "{desc} |{bar}| {n:.1f}/{total} [{elapsed}<{remaining}{postfix}]"
            self._bar = tqdm(total=run.n_epochs, desc=str(run.phase), file=stream, bar_format=bar_format)

    def on_progress(self, run: Run, fraction: float) -> None:
        """Move the bar within the epoch."""
        if self._bar is not None:
            self._bar.update(max(run.epochs_done + fraction - self._bar.n, 0.0))

    def on_epoch_end(self, run: Run, record: Record) -> bool | None:
        """Show the record."""
        if self._bar is not None:
            self._bar.total = max(run.n_epochs, run.epochs_done)
            self._bar.update(run.epochs_done - self._bar.n)
            self._bar.set_postfix_str(_summary(record))
        elif run.epochs_done % self.every == 0 or run.epochs_done == run.n_epochs:
            stream = sys.stderr if self.stream is None else self.stream
            print(f"{record['phase']} {run.epochs_done}/{run.n_epochs}: {_summary(record)}", file=stream, flush=True)
        return None

    def on_train_end(self, run: Run) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _summary(record: Record) -> str:
    text = f"layer {record['layer']} " if "layer" in record else ""
    text += f"loss {record['loss']:.4g}"
    if "drift" in record:
        text += f" drift {record['drift']:.2g}"
    if record.get("validation_score") is not None:
        text += f" score {record['validation_score']:.4g}"
    return f"{text} in {record['seconds']:.2g} s"


class JsonLinesLog(Callback):
    """Write every record as one line of JSON, at once.

    Values that JSON does not know (NaN, infinity) become ``null``.

    Parameters
    ----------
    path : str or path-like
    append : bool, default=False
        Whether to keep what the file holds; otherwise the first phase empties it.
    """

    def __init__(self, path: str | os.PathLike[str], append: bool = False) -> None:
        self.path, self.append = path, append
        self._file: IO[str] | None = None

    def on_train_begin(self, run: Run) -> None:
        """Open the file."""
        mode = "a" if self.append or not run.fresh else "w"
        self._file = open(self.path, mode, encoding="utf-8")  # noqa: SIM115 (closed in on_train_end)

    def on_epoch_end(self, run: Run, record: Record) -> bool | None:
        """Write the record."""
        if self._file is not None:
            line = {key: None if _is_nonfinite(value) else value for key, value in record.items()}
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
            self._file.flush()
        return None

    def on_train_end(self, run: Run) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _is_nonfinite(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


class Checkpoint(Callback):
    """Save the whole state of the training, so that it continues after a crash with the same bits.

    The file holds the parameters, the optimiser's state, the state of the random generator, the
    history and the stopping rules' bookkeeping; it is replaced atomically. To continue, train again with
    the same data, parameters and seed and ``Checkpoint(path, resume=True)``.

    Parameters
    ----------
    path : str or path-like
    every : int, default=1
        Epochs between two writes; the end of a phase is always written.
    resume : bool, default=False
        Whether to continue from the file if it exists.
    """

    def __init__(self, path: str | os.PathLike[str], every: int = 1, resume: bool = False) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1 epoch; got {every!r}.")
        self.path, self.every, self.resume = path, every, resume

    def on_train_begin(self, run: Run) -> None:
        """Continue from the file if asked to."""
        if self.resume and run.fresh and os.path.exists(self.path):
            from gesda.model_io import read_tensors

            run.restore(*read_tensors(self.path))

    def on_epoch_boundary(self, run: Run) -> None:
        """Write the file when it is time."""
        if run.resumable and run.epochs_done % self.every == 0:
            self._save(run)

    def on_train_end(self, run: Run) -> None:
        """Write the end of the phase."""
        # After an interrupted or failed epoch the file keeps the state of the last boundary.
        if run.resumable:
            self._save(run)

    def _save(self, run: Run) -> None:
        from gesda.model_io import write_tensors

        tensors, metadata = run.state()
        write_tensors(self.path, {name: np.ascontiguousarray(array) for name, array in tensors.items()}, metadata)
