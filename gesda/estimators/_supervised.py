"""Pretraining followed by fine-tuning: what `SdAClassifier` and `SdARegressor` share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from gesda.engine import Engine
from gesda.estimators import _network
from gesda.estimators._base import StackMixin, _generator
from gesda.estimators._rates import batch_size, learning_rates
from gesda.ingest import Data, as_data, concatenate_rows, mean_square_norm
from gesda.trainer import Trainer


@dataclass
class Supervision:
    """What fine-tuning needs of the targets.

    Parameters
    ----------
    targets : ndarray
        As `Engine.finetune_epoch` wants them: one entry for each row of the data.
    rows : ndarray of int
        Rows that have a target and a weight above 0.
    weights : ndarray of float64, shape (n_samples,)
        Weight of each row; only those of `rows` matter.
    classes : ndarray of int, optional
        Class index of each row, for a validation set with every class in proportion.
    """

    targets: NDArray[Any]
    rows: NDArray[np.intp]
    weights: NDArray[np.float64]
    classes: NDArray[np.int32] | None = None

    def padded(self, n_rows: int) -> Supervision:
        """The same with entries, which nothing reads, for the samples below that have no target."""
        missing = n_rows - len(self.targets)
        if not missing:
            return self
        targets = np.concatenate([self.targets, np.zeros((missing, *self.targets.shape[1:]), self.targets.dtype)])
        return Supervision(targets, self.rows, np.concatenate([self.weights, np.zeros(missing)]), self.classes)


class SupervisedStack(StackMixin):
    """Base of the classifier and the regressor."""

    #: Kind of the head in `gesda.spec.HeadSpec`.
    _head: str

    @property
    def n_outputs_(self) -> int:
        """Outputs of the head: classes, or regression targets."""
        if not self._is_trained():
            raise AttributeError(f"This {type(self).__name__} is not fitted yet; call fit first.")
        return len(self._parameters["head.b"])

    def _score_of(self, engine: Engine, data: Data, supervision: Supervision, rows: NDArray[np.intp]) -> float:
        """The validation score: larger is better."""
        raise NotImplementedError

    def _require(self, y: Any) -> None:
        if y is None:
            raise ValueError(f"This {type(self).__name__} requires y to be passed, but the target y is None.")

    # ---- training ---------------------------------------------------------------------------------
    def _join_unlabeled(self, data: Data, X_unlabeled: Any) -> Data:
        """The samples of `fit` and, below them, those without labels."""
        if X_unlabeled is None:
            return data
        return concatenate_rows(data, as_data(X_unlabeled, estimator=self, name="X_unlabeled", device=self.device))

    def _train(
        self,
        data: Data,
        supervision: Supervision,
        n_outputs: int,
        checked: Mapping[str, Any],
        *,
        proceed: bool,
        one_epoch: bool,
    ) -> None:
        """Pretrain on all rows and fine-tune on those with a target; `one_epoch` is `partial_fit`."""
        layers, limits = self._make_layers(checked, data, keep_limits=proceed and one_epoch)
        head = _network.head_spec(checked, self._head, n_outputs)
        trainer, progress = self._make_trainer(checked, layers, head, proceed=proceed)
        training = supervision.rows
        score: Callable[[], float] | None = None
        if checked["early_stopping"] and not one_epoch:
            rng = _generator(trainer.engine.spec.seed, "split", progress["calls"])
            training, validation = _split(supervision, checked["validation_fraction"], rng)
            held_out = data[validation]

            def score_held_out() -> float:
                return self._score_of(trainer.engine, held_out, supervision, validation)

            score = score_held_out

        weights = normalized_weights(supervision.weights, training)
        pretrain_rates, rate = learning_rates(checked, layers, head, mean_square_norm(data))
        checked = {**checked, "learning_rate_init": rate}
        if not (proceed and one_epoch):
            self._pretrain(trainer, progress, data, checked, pretrain_rates, one_epoch=one_epoch)
        if not trainer.interrupted and (one_epoch or checked["max_iter"]):
            self._finetune(trainer, progress, data, supervision.targets, training, weights, score, checked, one_epoch)
        self._keep(trainer, progress, limits, optimizer_state=one_epoch)
        self._summarise()
        scores = [record["validation_score"] for record in self.history_ if record["phase"] == "finetune"]
        self.best_validation_score_ = None if score is None else trainer.best_score
        self.validation_scores_ = None if score is None else scores

    def _summarise(self) -> None:
        """Set the attributes that follow from the history."""
        self.loss_curve_ = [record["loss"] for record in self.history_ if record["phase"] == "finetune"]
        self.n_iter_ = len(self.loss_curve_)

    def _finetune(
        self,
        trainer: Trainer,
        progress: dict[str, int],
        data: Data,
        targets: NDArray[Any],
        rows: NDArray[np.intp],
        weights: NDArray[Any] | None,
        score: Callable[[], float] | None,
        checked: Mapping[str, Any],
        one_epoch: bool,
    ) -> None:
        before = len(trainer.history)
        trainer.finetune(
            data,
            targets,
            rows,
            _generator(trainer.engine.spec.seed, "finetune", progress["calls"]),
            epochs=1 if one_epoch else checked["max_iter"],
            batch_size=batch_size(checked["batch_size"], len(rows), one_epoch=one_epoch),
            learning_rate=checked["learning_rate_init"],
            rate_schedule="constant" if one_epoch else checked["learning_rate"],
            rate_decay=0.0 if one_epoch else checked["learning_rate_decay"],
            first_epoch=progress["finetune"],
            sample_weight=weights,
            score=score,
            n_iter_no_change=checked["n_iter_no_change"],
            tol=checked["tol"],
            early_stopping=score is not None,
        )
        progress["finetune"] += len(trainer.history) - before


def _split(
    supervision: Supervision, fraction: float, rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Training and validation rows; of each class in proportion."""
    rows = supervision.rows
    labels = None if supervision.classes is None else supervision.classes[rows]
    seed = int(rng.integers(2**31))
    try:
        training, validation = train_test_split(rows, test_size=fraction, stratify=labels, random_state=seed)
    except ValueError as error:
        raise ValueError(
            f"early_stopping=True cannot set validation_fraction={fraction:g} of the {len(rows)} labelled samples "
            f"aside: {str(error).rstrip('.')}. Use early_stopping=False, or more labelled samples."
        ) from error
    return np.sort(training), np.sort(validation)


def normalized_weights(weights: NDArray[np.float64], rows: NDArray[np.intp]) -> NDArray[Any] | None:
    """Weights scaled to a mean of 1 over `rows`, None where they are all alike.

    They stay float64: an engine rounds them to what it computes in.
    """
    chosen = weights[rows]
    if (chosen == chosen[0]).all():
        return None
    scaled = np.zeros(len(weights))
    scaled[rows] = chosen / chosen.mean()
    return scaled
