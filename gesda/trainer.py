"""Runs epoch plans on an engine: pretraining, fine-tuning, history, stopping, resumption.

May import `gesda.schedule`, `gesda.callbacks`, `gesda.engine` and `gesda.spec`.

Memory: beyond the data and what the engine holds, the trainer keeps **one** copy of the parameters (to
go back to the last good or the best epoch; while it is replaced there are two for a moment) and the
encodings of the probe rows. A sequential schedule trades memory for time on purpose: it keeps the
encodings of all samples by the layers that are done.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
import zlib
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gesda._divergence import find_divergence, squared_error_scale
from gesda._pretraining import Pretraining, layer_progress
from gesda._training_state import Call, Saved, arrays_again, canonical, copies_of
from gesda.callbacks import Plateau, Record
from gesda.engine import Array, Data, Engine
from gesda.schedule import PretrainSchedule, plan_epochs, plan_finetuning
from gesda.spec import FinetunePlan, PretrainPlan


class Trainer:
    """Trains one engine's network, phase by phase, and keeps the record of it.

    Parameters
    ----------
    engine : gesda.engine.Engine
        What executes the epochs; its parameters are initialised already.
    callbacks : iterable of gesda.callbacks.Callback
        Told of everything, in this order.
    probe_size : int, default=256
        Rows of the data, chosen at random once, whose clean encodings measure the drift; 0 turns the
        measurement off (the drift is NaN then).
    validate : callable() -> float, optional
        Default of `finetune`'s `score`.

    Attributes
    ----------
    history : list of dict
        The records (see `gesda.callbacks`) of all complete epochs.
    phase : {"pretrain", "finetune"} or None
        What runs now, or ran last.
    n_epochs, epochs_done : int
        Epochs planned in this phase (at most, if the schedule is adaptive), and how many are done.
    interrupted : bool
        Whether Ctrl-C (a KeyboardInterrupt) ended the last phase. It is not raised again: the model is
        usable, and the caller decides. The epoch that was cut short is not in the history.
    diverged : bool
        Whether the last phase ended with a loss or weights that are not finite, or with a loss out of all
        proportion (see `gesda._divergence.find_divergence`). The parameters are those of the last good
        epoch then, and the phase's optimiser starts anew.
    converged : bool
        Whether a stopping rule (and not the number of epochs) ended the last phase.
    best_score : float or None
        Best validation score of the last fine-tuning with early stopping.
    resumable : bool
        Whether `state` can be asked: false within an epoch and after an interruption.
    fresh : bool
        Whether nothing has been trained or restored yet.

    Notes
    -----
    Resuming: make an engine and a trainer as before, call `restore`, then the same `pretrain` and
    `finetune` calls again, with generators in the same state. Calls that were complete return at once and leave
    the generator as they left it then; the one that was cut short continues where the state was taken. All
    weights, orders and records equal those of a training that was never interrupted, bit for bit.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        callbacks: Iterable[Any] = (),
        probe_size: int = 256,
        validate: Callable[[], float] | None = None,
    ) -> None:
        if probe_size < 0:
            raise ValueError(f"probe_size must be at least 0; got {probe_size!r}.")
        self.engine = engine
        self.callbacks = tuple(callbacks)
        self.probe_size = probe_size
        self.validate = validate
        self.history: list[Record] = []
        self.phase: str | None = None
        self.n_epochs = 0
        self.epochs_done = 0
        self.interrupted = self.diverged = self.converged = False
        self.best_score: float | None = None
        self.resumable = True
        self._calls: list[Call] = []  # pretrain and finetune calls so far, the running one last
        self._pending: Saved | None = None  # restored and not yet reached by the caller
        self._plateau: Plateau | None = None
        self._snapshot: dict[str, NDArray[np.float32]] = {}  # the last good or the best parameters
        self._scales: Mapping[int | None, float] = {}  # losses that a healthy training may start with

    # ---- the two phases ---------------------------------------------------------------------------
    def pretrain(
        self, data: Data, schedule: PretrainSchedule, rng: np.random.Generator, *, first_epoch: int = 0
    ) -> Trainer:
        """Pretrain the layers by a schedule.

        Parameters
        ----------
        data : ndarray or csr_array of float32, shape (n_samples, n_visible)
        schedule : PretrainSchedule
        rng : numpy.random.Generator
            Shuffles the samples.
        first_epoch : int, default=0
            Number of the first epoch, part of the noise's counter.

        Returns
        -------
        Trainer
            Itself; see `interrupted`, `diverged` and `history`.

        Raises
        ------
        ValueError
            When the schedule does not fit the network, or a restored state does not fit this call.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            When a loss or the weights turned non-finite, or a loss exploded.
        """
        n_layers = len(self.engine.spec.layers)
        if len(schedule.epochs) != n_layers:
            raise ValueError(f"the schedule has {len(schedule.epochs)} layers and the network {n_layers}.")
        worker = Pretraining(self.engine, data, self.probe_size)
        arguments = {"schedule": dataclasses.asdict(schedule), "first_epoch": first_epoch}
        arguments |= {"samples": data.shape[0], "checksum": worker.checksum()}

        def run(plan: PretrainPlan, call: Call) -> list[Record] | None:
            records = worker.run(plan, self._poll)
            for record in records or ():
                earlier = self.history[call.first_record :]
                record["layer_epoch"] = sum(other["layer"] == record["layer"] for other in earlier)
            return records

        plans = plan_epochs(schedule, data.shape[0], rng, first_epoch=first_epoch)
        return self._drive(Call("pretrain", arguments), plans, run, rng, schedule.n_epochs, worker.scales)

    def finetune(
        self,
        data: Data,
        targets: Array,
        rows: ArrayLike,
        rng: np.random.Generator,
        *,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        rate_schedule: str = "constant",
        rate_decay: float = 0.0,
        first_epoch: int = 0,
        sample_weight: NDArray[np.float32] | None = None,
        score: Callable[[], float] | None = None,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        early_stopping: bool = False,
    ) -> Trainer:
        """Fine-tune the whole network on labelled rows.

        Parameters
        ----------
        data : ndarray or csr_array of float32, shape (n_samples, n_visible)
        targets : ndarray, shape (n_samples,) int32 or (n_samples, n_outputs) float32
            One entry for each row of the data; those of rows that are not in `rows` are not looked at.
        rows : array_like of int
            Row numbers of the labelled training samples.
        rng : numpy.random.Generator
        epochs, batch_size, learning_rate, rate_schedule, rate_decay, first_epoch
            See `gesda.schedule.plan_finetuning`.
        sample_weight : ndarray of float32, shape (n_samples,), optional
        score : callable() -> float, optional
            The score on held-out rows, larger is better; called after each epoch.
        n_iter_no_change : int, default=10
        tol : float, default=1e-4
        early_stopping : bool, default=False
            With it, stop when the score, without it, when the training loss has not improved by `tol` in
            more than `n_iter_no_change` epochs in a row. With it the best weights are restored at the end.

        Returns
        -------
        Trainer
            Itself.

        Raises
        ------
        ValueError
            For parameters that do not fit, or early stopping without a score.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            When the loss or the weights turned non-finite, or the loss exploded.
        """
        score = self.validate if score is None else score
        if early_stopping and score is None:
            raise ValueError("early_stopping=True needs a score on held-out rows; pass score=.")
        plans = plan_finetuning(
            rows,
            rng,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            rate_schedule=rate_schedule,
            rate_decay=rate_decay,
            first_epoch=first_epoch,
        )
        labelled = np.ascontiguousarray(rows, dtype=np.uint32)
        arguments: dict[str, Any] = {
            "rows": [labelled.size, zlib.crc32(labelled.tobytes())],
            "epochs": epochs,
            "first_epoch": first_epoch,
            "batch_size": batch_size,
            "learning_rate": [learning_rate, rate_schedule, rate_decay],
            "stopping": [n_iter_no_change, tol, early_stopping],
        }

        placed: Any = None  # not before the first epoch: a restored call may have seen them all

        def run(plan: FinetunePlan, call: Call) -> list[Record] | None:
            nonlocal placed
            placed = self.engine.place(data) if placed is None else placed
            stats = self.engine.finetune_epoch(placed, targets, plan, sample_weight, self._poll)
            if not stats.completed:
                return None
            record: Record = {
                "phase": "finetune",
                "epoch": plan.epoch,
                "loss": float(stats.loss),
                "seconds": float(stats.seconds),
                "learning_rate": plan.learning_rate,
                "validation_score": None,
            }
            if score is not None and math.isfinite(record["loss"]):
                record["validation_score"] = float(score())
            return [record]

        plateau = Plateau(n_iter_no_change, tol, maximise=early_stopping)
        head, scales = self.engine.spec.head, dict[int | None, float]()
        if head is not None and head.kind == "linear" and labelled.size:
            largest = 1.0 if sample_weight is None else float(sample_weight[labelled].max())
            aims = targets[labelled]
            scales[None] = squared_error_scale(aims, aims.shape) * max(1.0, largest)
        return self._drive(Call("finetune", arguments), plans, run, rng, epochs, scales, plateau)

    # ---- the loop ---------------------------------------------------------------------------------
    def _drive(
        self,
        call: Call,
        plans: Generator[Any, Any, None],
        run: Callable[[Any, Call], list[Record] | None],
        rng: np.random.Generator,
        n_epochs: int,
        scales: Mapping[int | None, float],
        plateau: Plateau | None = None,
    ) -> Trainer:
        """Run the epochs of a call, those that a restored state has already seen without the engine."""
        self.phase, self.n_epochs, self.epochs_done = call.phase, n_epochs, 0
        self.interrupted = self.diverged = self.converged = False
        self._plateau, self.best_score, self._snapshot, self._scales = plateau, None, {}, scales
        call.first_record, call.rng_start = len(self.history), rng.bit_generator.state
        self.resumable = False
        try:
            self._notify("on_train_begin")
            call, finished = self._enter(call, rng)
            self._at_boundary()
            if not finished:
                try:
                    self._epochs(call, plans, run)
                except KeyboardInterrupt:
                    self.interrupted, self.resumable = True, False
                self._finish(call, rng)
        finally:
            self._notify("on_train_end")
        return self

    def _epochs(
        self, call: Call, plans: Generator[Any, Any, None], run: Callable[[Any, Call], list[Record] | None]
    ) -> None:
        done = _by_epoch(self.history[call.first_record :])
        self.epochs_done = len(done)
        if not self._snapshot:  # a restored state may have brought the best weights
            self._take_snapshot()
        plan = next(plans, None)
        while plan is not None:
            if done:
                records = done.pop(0)
            else:
                self.resumable = False
                fresh = run(plan, call)
                if fresh is None:
                    self.interrupted = True
                    return
                if self._refuse_divergence(plan, fresh, call):
                    call.stopped = "diverged"
                    self._at_boundary()
                    return
                records = fresh
                self._record(call, records)
            if not done and call.stopped:
                return
            try:
                plan = plans.send(layer_progress(records, len(self.engine.spec.layers)))
            except StopIteration:
                return

    def _record(self, call: Call, records: list[Record]) -> None:
        """Take the records of an epoch into the history and the stopping rules, and tell the callbacks."""
        self.history.extend(records)
        self.epochs_done += 1
        plateau = self._plateau
        if plateau is not None:
            value = records[0]["validation_score"] if plateau.maximise else records[0]["loss"]
            improved = plateau.update(value)
            if improved and plateau.maximise:
                self.best_score = value
                self._take_snapshot()
            if plateau.exhausted:
                call.stopped = "converged"
        # Every callback hears of every record, so no short-circuit.
        answers = [answer for record in records for answer in self._notify("on_epoch_end", record)]
        if any(answer is True for answer in answers):
            call.stopped = call.stopped or "callback"
        self._at_boundary()
        self._notify("on_epoch_boundary")

    def _at_boundary(self) -> None:
        # A call that was cut short has left the weights between two boundaries for good.
        # And the weights of a restored state belong to its last call: until that is reached they fit no other.
        self.resumable = self._pending is None and all(call.finished for call in self._calls[:-1])

    def _refuse_divergence(self, plan: PretrainPlan | FinetunePlan, records: list[Record], call: Call) -> bool:
        """Go back to the snapshot and warn if the epoch diverged; otherwise replace the snapshot."""
        earlier = self.history[call.first_record :]
        found = find_divergence(records, earlier, self.engine.nonfinite_parameter(), self._scales)
        if found is None:
            if self._plateau is None or not self._plateau.maximise:
                self._take_snapshot()
            return False
        where, what = found
        self._back_to_snapshot(fresh_optimizer=True)
        self.diverged = True
        from sklearn.exceptions import ConvergenceWarning

        name = {"pretrain": "Pretraining", "finetune": "Fine-tuning"}[str(self.phase)]
        warnings.warn(
            f"{name} diverged in epoch {plan.epoch} at {where}: {what}. The weights of the last good epoch are "
            f"restored; lower the learning rate or scale the data.",
            ConvergenceWarning,
            stacklevel=5,  # the caller of pretrain or finetune
        )
        return True

    def _take_snapshot(self) -> None:
        if not self._snapshot:
            self._snapshot = self.engine.get_parameters()
            return
        try:
            self.engine.copy_parameters(self._snapshot)
        except KeyboardInterrupt:  # no mixture of two epochs
            self.engine.copy_parameters(self._snapshot)
            raise

    def _back_to_snapshot(self, *, fresh_optimizer: bool) -> None:
        restored: dict[str, Array] = dict(self._snapshot)
        if fresh_optimizer:
            for name, shape in self.engine.spec.state_shapes().items():
                if name.startswith(f"{self.phase}."):
                    restored[name] = np.zeros(shape, dtype=np.int64 if name.endswith(".steps") else np.float32)
        self.engine.set_state(restored)

    def _finish(self, call: Call, rng: np.random.Generator) -> None:
        best = self._plateau is not None and self._plateau.maximise and self.best_score is not None
        if best and not self.diverged:
            self._back_to_snapshot(fresh_optimizer=False)
        self.converged = call.stopped == "converged"
        self.diverged = call.stopped == "diverged"
        call.finished = not self.interrupted
        call.rng_end = rng.bit_generator.state
        self._snapshot = {}

    def _notify(self, hook: str, *arguments: Any) -> list[Any]:
        found = (getattr(callback, hook, None) for callback in self.callbacks)
        return [method(self, *arguments) for method in found if method is not None]

    def _poll(self, fraction: float) -> bool:
        self._notify("on_progress", fraction)
        return False

    @property
    def fresh(self) -> bool:
        """Whether nothing has been trained or restored yet."""
        return not self._calls and self._pending is None

    # ---- resumption -------------------------------------------------------------------------------
    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return all that this training needs to continue: arrays by name, and JSON-able values.

        Raises
        ------
        RuntimeError
            Within an epoch or after an interruption, where no exact state exists.
        """
        if not self.resumable:
            raise RuntimeError(
                "the state of a training can be taken between epochs only; this one was interrupted within an "
                "epoch: continue from its last checkpoint."
            )
        position = {
            "history": self.history,
            "plateau": None if self._plateau is None else self._plateau.get_state(),
            "best_score": self.best_score,
            "callbacks": [_state_of(callback) for callback in self.callbacks],
        }
        keeps_best = self._plateau is not None and self._plateau.maximise
        return Saved.write(position, self._calls, self.engine, copies_of(self._snapshot) if keeps_best else {})

    def restore(self, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> None:
        """Continue from what `state` gave; see the notes of the class.

        Parameters
        ----------
        tensors, metadata
            Both parts of a state.

        Raises
        ------
        ValueError
            When this is no state of a training, or that of another network.
        """
        saved = Saved.read(tensors, metadata, self.engine)
        self.engine.set_state(saved.engine)
        self.history[:] = saved.records(0)
        self._calls, self._pending, self.resumable = [], saved, False

    def _enter(self, call: Call, rng: np.random.Generator) -> tuple[Call, bool]:
        """Match a call with a restored one: the call to go on with, and whether it is complete already."""
        saved = self._pending
        if saved is None:
            self._calls.append(call)
            return call, False
        earlier = saved.calls[len(self._calls)]
        if (earlier.phase, canonical(earlier.arguments)) != (call.phase, canonical(call.arguments)):
            raise ValueError(
                f"the saved training cannot continue here: it was {earlier.phase} with {earlier.arguments}, "
                f"this is {call.phase} with {call.arguments}. Train with the same parameters and data."
            )
        self._calls.append(earlier)
        self.history[:] = saved.records(len(self._calls))
        if len(self._calls) == len(saved.calls):
            # The caller may have initialised a head since `restore`, so the arrays are set here again.
            self.engine.set_state(saved.engine)
            self._snapshot = {} if earlier.finished else copies_of(saved.best)
            self.best_score = saved.position["best_score"]
            if self._plateau is not None:
                self._plateau.set_state(saved.position["plateau"])
            for callback, state in zip(self.callbacks, saved.position["callbacks"], strict=False):
                if state and hasattr(callback, "set_state"):
                    callback.set_state(state)
            self._pending = None
        self.converged, self.diverged = earlier.stopped == "converged", earlier.stopped == "diverged"
        rng.bit_generator.state = arrays_again(earlier.rng_end if earlier.finished else earlier.rng_start)
        return earlier, earlier.finished


def _by_epoch(records: list[Record]) -> list[list[Record]]:
    groups: dict[int, list[Record]] = {}
    for record in records:
        groups.setdefault(record["epoch"], []).append(record)
    return list(groups.values())


def _state_of(callback: Any) -> dict[str, Any]:
    return callback.get_state() if hasattr(callback, "get_state") else {}
