"""`SdARegressor`: pretrain on all samples, fine-tune on numeric targets."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.utils import check_array, check_consistent_length, column_or_1d

from gesda.engine import Engine
from gesda.estimators import _labels
from gesda.estimators._docs import document
from gesda.estimators._supervised import SupervisedStack, Supervision
from gesda.ingest import Data, as_data
from gesda.trainer import Trainer


@document
class SdARegressor(RegressorMixin, SupervisedStack):  # type: ignore[misc]
    """Stacked denoising autoencoder, fine-tuned as a regressor.

    Each layer learns to restore its clean input from a corrupted copy, from all samples [1]_; then a linear
    output is put on top and the whole network is fine-tuned on half the squared error of the targets.
    These are standardised for the training, so that learning rates mean the same for every unit of measurement.

    Parameters
    ----------
    %(stack)s
    %(finetune)s
    %(training)s

    Attributes
    ----------
    target_mean_, target_scale_ : ndarray of float64, shape (n_outputs,)
        By what the targets were standardised: that of the first training.
    n_outputs_ : int
        Number of targets.
    %(fitted)s
    loss_curve_ : list of float
        Training loss of each epoch of fine-tuning, in standardised units.
    n_iter_ : int
        Epochs of fine-tuning.
    best_validation_score_ : float or None
        Best score on the samples set aside by `early_stopping`: 1 - the mean squared error of the
        standardised targets, an R^2 whose baseline is the mean of all labelled samples.
    validation_scores_ : list of float or None
        That score after each epoch.

    See Also
    --------
    StackedDenoisingAutoencoder : The stack alone.
    SdAClassifier : The same for classes.

    References
    ----------
    %(refs)s

    Examples
    --------
    >>> import numpy as np
    >>> from gesda import SdARegressor
    >>> X = np.random.default_rng(0).random((200, 3))
    >>> y = 1000 * X @ [1, 2, 3]
    >>> SdARegressor((32, 16), batch_size=16, random_state=0).fit(X, y).score(X, y) > 0.9
    True
    """

    _head = "linear"
    target_mean_: NDArray[np.float64]
    target_scale_: NDArray[np.float64]
    _targets_1d: bool
    #: Mean and scale for the training that runs.
    _new_scale: tuple[NDArray[np.float64], NDArray[np.float64]]

    def __init__(
        self,
        hidden_layer_sizes: Any = (256, 128),
        *,
        activation: Any = "sigmoid",
        noise: Any = "masking",
        noise_level: Any = 0.25,
        emphasis: Any = None,
        reconstruction_loss: Any = "auto",
        tied_weights: Any = True,
        sparsity: Any = 0.0,
        sparsity_target: Any = 0.05,
        contractive: Any = 0.0,
        schedule: str = "crosspre",
        stagger: Any = 1,
        handoff: str = "clean",
        pretrain_epochs: Any = 15,
        pretrain_learning_rate: Any = "auto",
        pretrain_solver: str = "sgd",
        pretrain_momentum: float = 0.9,
        pretrain_alpha: Any = 0.0,
        max_iter: int = 100,
        learning_rate_init: Any = "auto",
        solver: str = "sgd",
        momentum: float = 0.9,
        alpha: float = 0.0,
        dropout: Any = 0.0,
        input_dropout: float = 0.0,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        learning_rate: str = "constant",
        learning_rate_decay: float = 0.0,
        nesterovs_momentum: bool = True,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        batch_size: Any = "auto",
        warm_start: bool = False,
        probe_size: int = 256,
        device: str = "auto",
        precision: str = "fp32",
        memory_limit: int | None = None,
        tune: bool = False,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
        callbacks: Any = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.noise = noise
        self.noise_level = noise_level
        self.emphasis = emphasis
        self.reconstruction_loss = reconstruction_loss
        self.tied_weights = tied_weights
        self.sparsity = sparsity
        self.sparsity_target = sparsity_target
        self.contractive = contractive
        self.schedule = schedule
        self.stagger = stagger
        self.handoff = handoff
        self.pretrain_epochs = pretrain_epochs
        self.pretrain_learning_rate = pretrain_learning_rate
        self.pretrain_solver = pretrain_solver
        self.pretrain_momentum = pretrain_momentum
        self.pretrain_alpha = pretrain_alpha
        self.max_iter = max_iter
        self.learning_rate_init = learning_rate_init
        self.solver = solver
        self.momentum = momentum
        self.alpha = alpha
        self.dropout = dropout
        self.input_dropout = input_dropout
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.learning_rate = learning_rate
        self.learning_rate_decay = learning_rate_decay
        self.nesterovs_momentum = nesterovs_momentum
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.batch_size = batch_size
        self.warm_start = warm_start
        self.probe_size = probe_size
        self.device = device
        self.precision = precision
        self.memory_limit = memory_limit
        self.tune = tune
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose
        self.callbacks = callbacks

    def fit(self, X: Any, y: Any, *, sample_weight: Any = None, X_unlabeled: Any = None) -> SdARegressor:
        """Pretrain on all samples, then fine-tune on those with targets.

        An interruption by Ctrl-C leaves a usable estimator and a warning.

        Parameters
        ----------
        X : array-like, data frame or sparse matrix of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets.
        sample_weight : array-like of shape (n_samples,), optional
            Weights in fine-tuning; they are scaled to a mean of 1. Pretraining, which looks at no target,
            counts every sample once.
        X_unlabeled : array-like, data frame or sparse matrix of shape (n_unlabeled, n_features), optional
            Samples without targets, for pretraining.

        Returns
        -------
        SdARegressor
            Itself.

        Raises
        ------
        ValueError
            For parameters or data that do not fit, before any training.
        """
        return self._fit(X, y, sample_weight, X_unlabeled, one_epoch=False)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> SdARegressor:
        """Fine-tune for one epoch over the samples given.

        The first call pretrains all layers at once for one epoch before (those with `pretrain_epochs`
        above 0), and its targets' mean and standard deviation serve all later calls. The state of the
        optimiser is kept from call to call.

        Parameters
        ----------
        X : array-like, data frame or sparse matrix of shape (n_samples, n_features)
            The first call's range of values decides on ``reconstruction_loss="auto"``.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), optional

        Returns
        -------
        SdARegressor
            Itself.

        Raises
        ------
        ValueError
            For parameters or data that do not fit, before any training.
        """
        return self._fit(X, y, sample_weight, None, one_epoch=True)

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict the targets.

        Parameters
        ----------
        X : array-like, data frame or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        targets : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            float32 for samples given as float32, otherwise float64 (the computation is the same).
        """
        targets = self._run("predict", self._data(X))
        if self._targets_1d:
            targets = targets.ravel()
        return targets if _is_float32(X) else targets.astype(np.float64)

    def _fit(self, X: Any, y: Any, sample_weight: Any, X_unlabeled: Any, *, one_epoch: bool) -> SdARegressor:
        checked = self._check()
        proceed = self._is_trained() and (one_epoch or bool(checked["warm_start"]))
        self._require(y)
        data = as_data(X, estimator=self, reset=not proceed, device=self.device)
        targets = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
        if targets.ndim == 2 and targets.shape[1] == 1:
            targets = column_or_1d(targets, warn=True)
        is_1d = targets.ndim == 1
        targets = targets.reshape(len(targets), -1)
        check_consistent_length(data, targets)
        weights = _labels.sample_weights(sample_weight, data)
        rows = _labels.rows_that_count(weights)
        mean, scale = _mean_and_scale(targets[rows], weights[rows])
        if proceed:
            if len(self.target_mean_) != targets.shape[1]:
                raise ValueError(f"y has {targets.shape[1]} targets, the fitted network {len(self.target_mean_)}.")
            mean, scale = self.target_mean_, self.target_scale_
        with np.errstate(over="ignore"):
            standardised = ((targets - mean) / scale).astype(np.float32)
        if not np.isfinite(standardised).all():
            raise ValueError("Input y contains values too far apart for float32; scale the targets.")
        supervision = Supervision(standardised, rows, weights)
        data = self._join_unlabeled(data, X_unlabeled)
        self._new_scale = mean, scale
        try:
            self._train(
                data, supervision.padded(data.shape[0]), targets.shape[1], checked, proceed=proceed, one_epoch=one_epoch
            )
        finally:
            del self._new_scale
        self._targets_1d = is_1d
        return self

    def _keep(
        self, trainer: Trainer, progress: dict[str, int], limits: tuple[float, float], *, optimizer_state: bool
    ) -> None:
        """Give the head the targets' own units; keep the one it was trained in for further training."""
        super()._keep(trainer, progress, limits, optimizer_state=optimizer_state)
        self.target_mean_, self.target_scale_ = mean, scale = self._new_scale
        for name, offset in (("head.W", 0.0), ("head.b", mean)):
            trained = self._parameters[name]
            self._resume[name] = trained
            self._parameters[name] = (trained * scale + offset).astype(np.float32)

    def _score_of(self, engine: Engine, data: Data, supervision: Supervision, rows: NDArray[np.intp]) -> float:
        error = np.square(engine.predict(data) - supervision.targets[rows], dtype=np.float64).mean(axis=1)
        return 1.0 - float(np.average(error, weights=supervision.weights[rows]))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _mean_and_scale(
    targets: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted mean and standard deviation of each target; a constant target has the scale 1."""
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.average(targets, axis=0, weights=weights)
        scale = np.sqrt(np.average(np.square(targets - mean), axis=0, weights=weights))
    if not np.isfinite(scale).all() or not np.isfinite(mean).all():
        raise ValueError("Input y contains values too large to average; scale the targets.")
    # Relative to the mean: what rounding leaves of a constant is no scale.
    scale[scale <= 1e-12 * np.abs(mean)] = 1.0
    return mean, scale


def _is_float32(X: Any) -> bool:
    """Whether all of an array or data frame is float32."""
    types = [X.dtype] if hasattr(X, "dtype") else list(getattr(X, "dtypes", []))
    return bool(types) and all(str(kind).lower() == "float32" for kind in types)
