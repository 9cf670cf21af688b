"""`StackedDenoisingAutoencoder`: features, denoising and anomaly scores without labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from gesda.estimators._base import StackMixin
from gesda.estimators._docs import document
from gesda.estimators._rates import learning_rates
from gesda.ingest import Data, as_data, mean_square_norm


@document
class StackedDenoisingAutoencoder(StackMixin):
    """Stacked denoising autoencoder: learns features by restoring samples from corrupted copies.

    Each layer learns to restore its clean input from a corrupted copy; its encoding is the next layer's
    input [1]_. With CrossPre all layers pretrain at once.

    Parameters
    ----------
    %(stack)s
    %(training)s

    Attributes
    ----------
    %(fitted)s
    loss_curve_ : list of list of float
        For each layer its reconstruction loss by its own epochs.
    n_iter_ : int
        Epochs of pretraining in which some layer trained.

    See Also
    --------
    SdAClassifier, SdARegressor : The same stack, fine-tuned with labels.

    References
    ----------
    %(refs)s

    Examples
    --------
    >>> import numpy as np
    >>> from gesda import StackedDenoisingAutoencoder
    >>> X = np.random.default_rng(0).random((100, 20))
    >>> model = StackedDenoisingAutoencoder((8, 4), pretrain_epochs=2, random_state=0).fit(X)
    >>> model.transform(X).shape, model.reconstruct(X).shape, model.score_samples(X).shape
    ((100, 4), (100, 20), (100,))
    """

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

    def fit(self, X: Any, y: Any = None) -> StackedDenoisingAutoencoder:
        """Pretrain the stack.

        An interruption by Ctrl-C leaves a usable estimator and a warning.

        Parameters
        ----------
        X : array-like, data frame or sparse matrix of shape (n_samples, n_features)
        y : ignored
            Present for pipelines.

        Returns
        -------
        StackedDenoisingAutoencoder
            Itself.

        Raises
        ------
        ValueError
            For parameters or data that do not fit, before any training.
        """
        checked = self._check()
        proceed = bool(checked["warm_start"]) and self._is_trained()
        self._train(
            as_data(X, estimator=self, reset=not proceed, device=self.device), checked, proceed=proceed, one_epoch=False
        )
        return self

    def partial_fit(self, X: Any, y: Any = None) -> StackedDenoisingAutoencoder:
        """Pretrain all layers at once for one epoch over the samples given.

        Parameters
        ----------
        X : array-like, data frame or sparse matrix of shape (n_samples, n_features)
            The first call's range of values decides on ``reconstruction_loss="auto"``.
        y : ignored

        Returns
        -------
        StackedDenoisingAutoencoder
            Itself.

        Raises
        ------
        ValueError
            For parameters or data that do not fit, before any training.
        """
        checked = self._check()
        proceed = self._is_trained()
        self._train(
            as_data(X, estimator=self, reset=not proceed, device=self.device), checked, proceed=proceed, one_epoch=True
        )
        return self

    def score(self, X: Any, y: Any = None) -> float:
        """Mean of `score_samples`: minus the mean squared reconstruction error; larger is better.

        Parameters
        ----------
        X : array-like, data frame or sparse matrix of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        score : float
        """
        return float(np.mean(self.score_samples(X), dtype=np.float64))

    def _train(self, data: Data, checked: dict[str, Any], *, proceed: bool, one_epoch: bool) -> None:
        layers, limits = self._make_layers(checked, data, keep_limits=proceed and one_epoch)
        trainer, progress = self._make_trainer(checked, layers, None, proceed=proceed)
        rates, _ = learning_rates(checked, layers, None, mean_square_norm(data))
        self._pretrain(trainer, progress, data, checked, rates, one_epoch=one_epoch)
        self._keep(trainer, progress, limits, optimizer_state=one_epoch)
        self._summarise()

    def _summarise(self) -> None:
        """Set the attributes that follow from the history."""
        layers = range(len(self._spec.layers))
        self.loss_curve_ = [[record["loss"] for record in self.history_ if record["layer"] == k] for k in layers]
        self.n_iter_ = len({record["epoch"] for record in self.history_})
