"""`SdAClassifier`: pretrain on all samples, fine-tune on the labelled ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import check_is_fitted

from gesda.engine import Engine
from gesda.estimators import _labels
from gesda.estimators._base import Runtime
from gesda.estimators._docs import document
from gesda.estimators._supervised import SupervisedStack, Supervision
from gesda.ingest import Data, as_data


@document
class SdAClassifier(ClassifierMixin, SupervisedStack):  # type: ignore[misc]
    """Stacked denoising autoencoder, fine-tuned as a classifier.

    Each layer learns to restore its clean input from a corrupted copy, from all samples [1]_; then a
    softmax output is put on top and the whole network is fine-tuned on the labelled samples.

    Parameters
    ----------
    %(stack)s
    %(finetune)s
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in fine-tuning: they multiply the samples' own.
    %(training)s

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted class labels.
    n_outputs_ : int
        Number of classes.
    %(fitted)s
    loss_curve_ : list of float
        Training loss of each epoch of fine-tuning.
    n_iter_ : int
        Epochs of fine-tuning.
    best_validation_score_ : float or None
        Best accuracy on the samples set aside by `early_stopping`.
    validation_scores_ : list of float or None
        That accuracy after each epoch.

    See Also
    --------
    StackedDenoisingAutoencoder : The stack alone.
    SdARegressor : The same for numbers.

    References
    ----------
    %(refs)s

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.preprocessing import minmax_scale
    >>> from gesda import SdAClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = SdAClassifier((16, 8), batch_size=16, random_state=0).fit(minmax_scale(X), y)
    >>> model.score(minmax_scale(X), y) > 0.9
    True
    """

    _head = "softmax"
    classes_: NDArray[Any]

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
        class_weight: Any = None,
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
        self.class_weight = class_weight
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

    def fit(self, X: Any, y: Any, *, sample_weight: Any = None, X_unlabeled: Any = None) -> SdAClassifier:
        """Pretrain on all samples, then fine-tune on the labelled ones.

        An interruption by Ctrl-C leaves a usable estimator and a warning.

        Parameters
        ----------
        X : array-like, data frame or sparse matrix of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
            Class labels. Numeric labels of -1 mean unlabelled, unless the labels are exactly -1 and 1: that
            is a binary problem. In arrays of objects (pandas' missing values too) None and NaN mean
            unlabelled, and where one of them occurs -1 is a class as any other.
        sample_weight : array-like of shape (n_samples,), optional
            Weights in fine-tuning; they are scaled to a mean of 1. Pretraining, which looks at no label,
            counts every sample once.
        X_unlabeled : array-like, data frame or sparse matrix of shape (n_unlabeled, n_features), optional
            More samples for pretraining.

        Returns
        -------
        SdAClassifier
            Itself.

        Raises
        ------
        ValueError
            For parameters or data that do not fit, before any training.
        """
        checked = self._check()
        proceed = bool(checked["warm_start"]) and self._is_trained()
        self._require(y)
        data = as_data(X, estimator=self, reset=not proceed, device=self.device)
        labels, labelled = _labels.find_labels(y, self.classes_ if proceed else None)
        classes = self.classes_ if proceed else np.unique(labels)
        supervision = self._supervision(data, labels, labelled, classes, sample_weight)
        data = self._join_unlabeled(data, X_unlabeled)
        supervision = supervision.padded(data.shape[0])
        self._train(data, supervision, len(classes), checked, proceed=proceed, one_epoch=False)
        self.classes_ = classes
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> SdAClassifier:
        """Fine-tune for one epoch over the samples given.

        The first call pretrains all layers at once for one epoch before (those with `pretrain_epochs`
        above 0). The state of the optimiser is kept from call to call.

        Parameters
        ----------
        X : array-like, data frame or sparse matrix of shape (n_samples, n_features)
            The first call's range of values decides on ``reconstruction_loss="auto"``.
        y : array-like of shape (n_samples,)
            As in `fit`; -1 is a class if `classes` has it, and otherwise means unlabelled.
        classes : array-like of shape (n_classes,), optional
            All classes that any call will bring. Needed in the first call only, and there only if y lacks
            some of them.
        sample_weight : array-like of shape (n_samples,), optional
            As in `fit`.

        Returns
        -------
        SdAClassifier
            Itself.

        Raises
        ------
        ValueError
            For parameters or data that do not fit, before any training.
        """
        checked = self._check()
        proceed = self._is_trained()
        self._require(y)
        data = as_data(X, estimator=self, reset=not proceed, device=self.device)
        known = self.classes_ if proceed else None
        if classes is not None:
            given = np.unique(classes)
            if known is not None and not np.array_equal(given, known):
                raise ValueError(
                    f"classes={given.tolist()!r} is not that of the first call, {known.tolist()!r}; leave it out."
                )
            known = given
        labels, labelled = _labels.find_labels(y, known)
        if known is None:
            known = np.unique(labels)
        supervision = self._supervision(data, labels, labelled, known, sample_weight)
        self._train(data, supervision, len(known), checked, proceed=proceed, one_epoch=True)
        self.classes_ = known
        return self

    def add_classes(self, classes: Any) -> SdAClassifier:
        """Give the head an output for each new class; the others keep theirs.

        What the network says about the classes it knew keeps its order; the new ones are learnt by the next `fit`
        with ``warm_start=True`` or `partial_fit`. The optimiser's state is dropped.

        Parameters
        ----------
        classes : array-like of shape (n_new_classes,)
            Labels of the kind in ``classes_``; those known already are left out.

        Returns
        -------
        SdAClassifier
            Itself.

        Raises
        ------
        ValueError
            For labels of another kind than those known, text among numbers for instance.
        sklearn.exceptions.NotFittedError
            Before fit.

        Examples
        --------
        >>> import numpy as np
        >>> from gesda import SdAClassifier
        >>> X = np.random.default_rng(0).random((20, 4))
        >>> model = SdAClassifier(3, pretrain_epochs=1, max_iter=1, random_state=0).fit(X, [0, 2] * 10)
        >>> model.add_classes([1]).predict_proba(X).shape
        (20, 3)
        """
        check_is_fitted(self, "_parameters")
        new = np.asarray(classes).reshape(-1)
        if (new.dtype.kind in "biuf") != (self.classes_.dtype.kind in "biuf"):
            known = self.classes_.tolist()
            raise ValueError(f"classes={new.tolist()!r} are of another kind than those known, {known!r}.")
        grown = np.union1d(self.classes_, new)
        columns = np.searchsorted(grown, self.classes_)
        W, b = self._parameters["head.W"], self._parameters["head.b"]
        wider = np.zeros((len(W), len(grown)), dtype=np.float32)
        wider[:, columns] = W
        # As unlikely as the least likely class, until examples say more.
        biases = np.full(len(grown), b.min(), dtype=np.float32)
        biases[columns] = b
        self._parameters = {**self._parameters, "head.W": wider, "head.b": biases}
        assert self._spec.head is not None
        self._spec = replace(self._spec, head=replace(self._spec.head, n_outputs=len(grown)))
        self._resume = {}
        self._runtime = Runtime()
        self.classes_ = grown
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict the most probable class of each sample.

        Parameters
        ----------
        X : array-like, data frame or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        labels : ndarray of shape (n_samples,)
        """
        best = self.predict_proba(X).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[best]
        return labels

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Predict the probabilities of the classes.

        Parameters
        ----------
        X : array-like, data frame or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        probabilities : ndarray of float32, shape (n_samples, n_classes)
            In the order of ``classes_``.
        """
        return self._run("predict", self._data(X))

    def predict_log_proba(self, X: Any) -> NDArray[np.float32]:
        """Predict the logarithms of the classes' probabilities.

        Parameters
        ----------
        X : array-like, data frame or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        log_probabilities : ndarray of float32, shape (n_samples, n_classes)
            Minus infinity where a probability is too small for float32.
        """
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def _supervision(
        self,
        data: Data,
        labels: NDArray[Any],
        labelled: NDArray[np.bool_],
        classes: NDArray[Any],
        sample_weight: Any,
    ) -> Supervision:
        check_consistent_length(data, labelled)
        indices = np.zeros(len(labelled), dtype=np.int32)
        indices[labelled] = _labels.encode_labels(labels, classes)
        weights = _labels.sample_weights(sample_weight, data)
        weights[labelled] = _labels.apply_class_weight(self.class_weight, classes, indices[labelled], weights[labelled])
        return Supervision(indices, _labels.rows_that_count(weights, labelled), weights, classes=indices)

    def _score_of(self, engine: Engine, data: Data, supervision: Supervision, rows: NDArray[np.intp]) -> float:
        right = engine.predict(data).argmax(axis=1) == supervision.targets[rows]
        return float(np.average(right, weights=supervision.weights[rows]))
