"""When which layer trains: sequential, CrossPre and fine-tuning schedules as pure generators of epoch plans.

May import `gesda.spec` only. A schedule knows no data and no engine: it turns numbers of epochs,
learning rates and a random generator into `PretrainPlan` and `FinetunePlan` records.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Generator, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gesda.spec import HANDOFFS, FinetunePlan, PretrainPlan

SCHEDULES = ("crosspre", "sequential")
RATE_SCHEDULES = ("constant", "inverse", "exponential", "cosine")


def _check_choice(parameter: str, value: object, known: Iterable[str]) -> None:
    names = tuple(known)
    if not isinstance(value, str) or value not in names:
        raise ValueError(f"{parameter} must be one of {', '.join(map(repr, names))}; got {value!r}.")


def _whole_number(parameter: str, value: object, low: int) -> int:
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        if not (isinstance(value, (float, np.floating)) and float(value).is_integer()):
            raise ValueError(f"{parameter} must be a whole number of at least {low}; got {value!r}.") from None
        number = int(value)
    if number < low or isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{parameter} must be a whole number of at least {low}; got {value!r}.")
    return number


def _check_rate_schedule(kind: str, decay: float) -> None:
    _check_choice("rate_schedule", kind, RATE_SCHEDULES)
    if not (math.isfinite(decay) and decay >= 0.0):
        raise ValueError(f"rate_decay must be a finite number of at least 0; got {decay!r}.")
    if kind == "exponential" and decay >= 1.0:
        raise ValueError(f"rate_decay must be below 1 with rate_schedule='exponential'; got {decay!r}.")


def _check_learning_rate(parameter: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0.0):
        raise ValueError(f"{parameter} must be a finite number above 0; got {value!r}.")


@dataclass(frozen=True)
class PretrainSchedule:
    """How a stack is pretrained: which layer trains in which global epoch, and how fast.

    Layer k trains in the global epochs ``[start_k, start_k + epochs[k])``. Before, it waits; after, it
    is frozen and only encodes.

    Parameters
    ----------
    kind : {"crosspre", "sequential"}
        ``"crosspre"``: ``start_k = k * stagger``. ``"sequential"``: the classic greedy order, one layer
        at a time; it is ``stagger=max(epochs)``, with the same orders, rates, noise and results, but
        reads the frozen layers' encodings from a cache.
    epochs : tuple of int
        Epochs of each layer; 0 leaves a layer untrained.
    learning_rates : tuple of float
        Initial learning rate of each layer.
    batch_size : int
        Rows of a minibatch; the last of an epoch may be smaller.
    stagger : int or "auto", default=1
        Epochs by which a layer starts after the one under it. 0 trains all at once. With ``"auto"``
        a layer starts when the one under it has settled, at the latest when that one is done.
    handoff : {"clean", "noisy"}, default="clean"
        Which encoding a training layer hands to the next one; see `gesda.spec.PretrainPlan`.
    rate_schedule : {"constant", "inverse", "exponential", "cosine"}, default="constant"
        Course of the learning rates over a layer's own epochs, see `rate_at`.
    rate_decay : float, default=0.0
        Decay of the inverse and the exponential course.
    settle_tolerance : float, default=0.01
        For ``stagger="auto"``: a layer has settled when its loss fell by less than this share within
        an epoch, or when its encodings of the probe rows changed by less than this share.

    Raises
    ------
    ValueError
        Naming the parameter that does not fit.

    Examples
    --------
    >>> schedule = PretrainSchedule("crosspre", epochs=(4, 4, 2), learning_rates=(0.1,) * 3, batch_size=32)
    >>> schedule.starts
    (0, 1, 2)
    >>> schedule.n_epochs
    5
    """

    kind: str
    epochs: tuple[int, ...]
    learning_rates: tuple[float, ...]
    batch_size: int
    stagger: float | str = 1
    handoff: str = "clean"
    rate_schedule: str = "constant"
    rate_decay: float = 0.0
    settle_tolerance: float = 0.01

    def __post_init__(self) -> None:
        _check_choice("schedule", self.kind, SCHEDULES)
        epochs = tuple(_whole_number("pretrain_epochs", epochs, 0) for epochs in self.epochs)
        if not epochs:
            raise ValueError("pretrain_epochs needs one entry per layer; got none.")
        if len(self.learning_rates) != len(epochs):
            raise ValueError(
                f"pretrain_learning_rate needs one entry for each of the {len(epochs)} layers; "
                f"got {len(self.learning_rates)}."
            )
        for rate in self.learning_rates:
            _check_learning_rate("pretrain_learning_rate", rate)
        object.__setattr__(self, "epochs", epochs)
        object.__setattr__(self, "learning_rates", tuple(float(rate) for rate in self.learning_rates))
        object.__setattr__(self, "batch_size", _whole_number("batch_size", self.batch_size, 1))
        if isinstance(self.stagger, str):
            if self.stagger != "auto":
                raise ValueError(f"stagger must be a whole number of epochs or 'auto'; got {self.stagger!r}.")
        else:
            object.__setattr__(self, "stagger", _whole_number("stagger", self.stagger, 0))
        _check_choice("handoff", self.handoff, HANDOFFS)
        _check_rate_schedule(self.rate_schedule, self.rate_decay)
        if not (math.isfinite(self.settle_tolerance) and self.settle_tolerance >= 0.0):
            raise ValueError(f"settle_tolerance must be a finite number of at least 0; got {self.settle_tolerance!r}.")

    @property
    def adaptive(self) -> bool:
        """Whether the starts depend on the progress of the training."""
        return self.kind == "crosspre" and self.stagger == "auto"

    @property
    def starts(self) -> tuple[int, ...]:
        """First global epoch of each layer; for ``stagger="auto"`` the latest one."""
        if self.adaptive:
            return tuple(sum(self.epochs[:k]) for k in range(len(self.epochs)))
        stagger = max(self.epochs) if self.kind == "sequential" else int(self.stagger)
        return tuple(k * stagger for k in range(len(self.epochs)))

    @property
    def n_epochs(self) -> int:
        """Number of plans, idle epochs left out; for ``stagger="auto"`` the largest possible one."""
        busy: set[int] = set()
        for start, epochs in zip(self.starts, self.epochs, strict=True):
            busy.update(range(start, start + epochs))
        return len(busy)


@dataclass(frozen=True)
class LayerProgress:
    """What an epoch did to each layer: the losses and the drifts, NaN for a layer that did not train."""

    loss: tuple[float, ...]
    drift: tuple[float, ...]


def rate_at(kind: str, initial: float, decay: float, epoch: int, n_epochs: int) -> float:
    """Learning rate of an epoch.

    Parameters
    ----------
    kind : {"constant", "inverse", "exponential", "cosine"}
        ``initial``, ``initial / (1 + decay * epoch)``, ``initial * (1 - decay) ** epoch``, or
        ``initial * (1 + cos(pi * epoch / n_epochs)) / 2``, which would be 0 in the epoch after the last.
    initial : float
        Rate of epoch 0.
    decay : float
        At least 0; below 1 for the exponential course.
    epoch : int
        The layer's own epoch, from 0.
    n_epochs : int
        The layer's number of epochs.

    Returns
    -------
    float

    Examples
    --------
    >>> [rate_at("inverse", 0.8, 1.0, epoch, 10) for epoch in (0, 1, 3)]
    [0.8, 0.4, 0.2]
    """
    _check_rate_schedule(kind, decay)
    if kind == "inverse":
        return initial / (1.0 + decay * epoch)
    if kind == "exponential":
        return float(initial * (1.0 - decay) ** epoch)
    if kind == "cosine":
        return initial * 0.5 * (1.0 + math.cos(math.pi * epoch / n_epochs))
    return initial


def _check_rows(n_rows: int) -> None:
    if not 1 <= n_rows < 2**32:
        raise ValueError(f"training needs between 1 and 2**32 - 1 samples; got {n_rows}.")


def plan_epochs(
    schedule: PretrainSchedule, n_samples: int, rng: np.random.Generator, *, first_epoch: int = 0
) -> Generator[PretrainPlan, LayerProgress | None, None]:
    """Yield the plans of a pretraining, epoch by epoch.

    Every plan has a fresh permutation of the samples, drawn from `rng` when the plan is made. Global
    epochs in which no layer trains are left out and draw nothing; the others keep their numbers. A
    sequential plan has ``first_layer=k``: its data are the encodings by the layers under k.

    Parameters
    ----------
    schedule : PretrainSchedule
    n_samples : int
        Rows of the data.
    rng : numpy.random.Generator
    first_epoch : int, default=0
        Number of the first global epoch, so that a training that continues an earlier one does not
        repeat its noise.

    Yields
    ------
    PretrainPlan
        For ``stagger="auto"`` answer each with ``.send(LayerProgress)``; an epoch that is not answered
        settles nothing. Other schedules need no answer.
    """
    _check_rows(n_samples)
    n_layers = len(schedule.epochs)
    starts: list[int | None] = [0] + [None] * (n_layers - 1) if schedule.adaptive else list(schedule.starts)
    previous_loss = [math.nan] * n_layers
    settled = [False] * n_layers
    epoch = 0
    while True:
        if schedule.adaptive:
            _start_settled(starts, schedule.epochs, settled, epoch)
        own = [None if start is None else epoch - start for start in starts]  # each layer's own epoch
        training = tuple(e is not None and 0 <= e < n for e, n in zip(own, schedule.epochs, strict=True))
        if not any(training):
            if all(e is not None and e >= n for e, n in zip(own, schedule.epochs, strict=True)):
                return
            epoch += 1
            continue
        rates = tuple(
            rate_at(schedule.rate_schedule, rate, schedule.rate_decay, e, n) if trains and e is not None else 0.0
            for rate, e, n, trains in zip(schedule.learning_rates, own, schedule.epochs, training, strict=True)
        )
        order = np.arange(n_samples, dtype=np.uint32)
        rng.shuffle(order)
        progress = yield PretrainPlan(
            epoch=first_epoch + epoch,
            order=order,
            batch_size=schedule.batch_size,
            training=training,
            learning_rates=rates,
            first_layer=training.index(True) if schedule.kind == "sequential" else 0,
            handoff=schedule.handoff,
        )
        if schedule.adaptive and progress is not None:
            for k in range(n_layers):
                if training[k]:
                    loss, drift, before = progress.loss[k], progress.drift[k], previous_loss[k]
                    # NaN compares false: without an earlier loss or a probe nothing has settled.
                    fell_little = before - loss < schedule.settle_tolerance * abs(before)
                    settled[k] = fell_little or drift < schedule.settle_tolerance
                    previous_loss[k] = loss
        epoch += 1


def _start_settled(starts: list[int | None], epochs: tuple[int, ...], settled: list[bool], epoch: int) -> None:
    """Let the layers start now whose lower neighbour has settled or is done."""
    for k in range(1, len(starts)):
        below = starts[k - 1]
        if starts[k] is None and below is not None and (settled[k - 1] or epoch >= below + epochs[k - 1]):
            starts[k] = epoch


def plan_finetuning(
    rows: ArrayLike,
    rng: np.random.Generator,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    rate_schedule: str = "constant",
    rate_decay: float = 0.0,
    first_epoch: int = 0,
) -> Generator[FinetunePlan, None, None]:
    """Yield the plans of a fine-tuning, epoch by epoch.

    Parameters
    ----------
    rows : array_like of int, shape (n_labelled,)
        Row numbers of the labelled training samples; every epoch visits them in a fresh order.
    rng : numpy.random.Generator
    epochs : int
    batch_size : int
    learning_rate : float
        Of the first epoch.
    rate_schedule, rate_decay
        Course of the learning rate, see `rate_at`.
    first_epoch : int, default=0
        Number of the first epoch; it enters the dropout masks.

    Yields
    ------
    FinetunePlan

    Raises
    ------
    ValueError
        Naming the parameter that does not fit; raised by the call, before the first plan.

    Examples
    --------
    >>> plans = plan_finetuning([3, 5, 8], np.random.default_rng(0), epochs=2, batch_size=2, learning_rate=0.1)
    >>> [(plan.epoch, sorted(plan.order.tolist())) for plan in plans]
    [(0, [3, 5, 8]), (1, [3, 5, 8])]
    """
    visited = np.ascontiguousarray(rows, dtype=np.uint32)
    _check_rows(visited.size)
    epochs = _whole_number("max_iter", epochs, 0)
    batch_size = _whole_number("batch_size", batch_size, 1)
    _check_learning_rate("learning_rate_init", learning_rate)
    _check_rate_schedule(rate_schedule, rate_decay)

    def plans() -> Generator[FinetunePlan, None, None]:
        for epoch in range(epochs):
            order: NDArray[np.uint32] = visited.copy()
            rng.shuffle(order)
            rate = rate_at(rate_schedule, learning_rate, rate_decay, epoch, epochs)
            yield FinetunePlan(first_epoch + epoch, order, batch_size, rate)

    return plans()
