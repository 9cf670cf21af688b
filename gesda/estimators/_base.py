"""What the three estimators share: the fitted network, its engine for predictions, encodings and reconstructions.

Training goes X -> `gesda.ingest` -> `gesda.trainer` -> parameters; an estimator keeps the parameters as
plain NumPy arrays and makes an engine when it needs one, so that it pickles, clones and forks as any
scikit-learn estimator does.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from gesda.callbacks import Progress
from gesda.engine import Engine, select
from gesda.estimators import _network
from gesda.estimators._rates import batch_size
from gesda.ingest import Data, as_data, data_range, dense_rows, row_chunks
from gesda.schedule import PretrainSchedule
from gesda.spec import HeadSpec, LayerSpec, NetworkSpec, OptimizerSpec
from gesda.trainer import Trainer

#: What a random generator is for; with the seed and the number of the call it makes the generator.
_PURPOSES = {"weights": 0, "pretrain": 1, "finetune": 2, "split": 3}


class Runtime:
    """The engine that predicts, made on first use and never pickled.

    Calls are taken one at a time: an engine works on one array at a time and uses all its threads for it.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.engine: Engine | None = None


class StackMixin(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Base of the estimators; see there for the parameters."""

    _spec: NetworkSpec
    _parameters: dict[str, NDArray[np.float32]]
    #: Arrays that continued training needs instead of, or besides, the parameters (see `Engine.get_state`).
    _resume: dict[str, NDArray[Any]]
    #: Epochs run so far, per phase, and calls of fit and partial_fit that went into the weights.
    _progress: dict[str, int]
    #: Range of the training data: what ``reconstruction_loss="auto"`` and salt and pepper went by.
    _limits: tuple[float, float]
    _runtime: Runtime

    # ---- what a training needs --------------------------------------------------------------------
    def _check(self) -> dict[str, Any]:
        """Constructor parameters, checked and given per layer."""
        return _network.check_parameters(self.get_params(deep=False))

    def _is_trained(self) -> bool:
        return "_parameters" in self.__dict__

    def _make_layers(
        self, checked: Mapping[str, Any], data: Data, *, keep_limits: bool
    ) -> tuple[tuple[LayerSpec, ...], tuple[float, float]]:
        """The stack, and the data's range that it goes by; partial_fit keeps that of its first call."""
        limits = data_range(data)
        if not keep_limits:
            return _network.build_layers(checked, data.shape[1], limits), limits
        layers = _network.build_layers(checked, data.shape[1], self._limits)
        _network.check_limits(layers, limits)
        return layers, self._limits

    def _make_trainer(
        self, checked: Mapping[str, Any], layers: tuple[LayerSpec, ...], head: HeadSpec | None, *, proceed: bool
    ) -> tuple[Trainer, dict[str, int]]:
        """A trainer over an engine with the current weights (`proceed`) or new ones, and `_progress` so far."""
        progress = dict(self._progress) if proceed else {"pretrain": 0, "finetune": 0, "calls": 0}
        seed = self._spec.seed if proceed else _draw_seed(self.random_state)
        spec = NetworkSpec(layers, _network.pretrain_optimizer(checked), head, seed)
        arrays: Iterable[tuple[str, NDArray[Any]]]
        if proceed:
            state = {**self._parameters, **self._resume}
            shapes = spec.parameter_shapes()
            current = {name: array.shape for name, array in self._parameters.items()}
            if shapes != current:
                different = sorted(set(shapes.items()) ^ set(current.items()))
                raise ValueError(
                    f"training cannot continue from the current weights, because the network has changed "
                    f"(first difference: {different[0][0]} with shape {different[0][1]}); keep the layers, the "
                    f"features and the classes, or fit anew with warm_start=False."
                )
            known = spec.state_shapes()
            arrays = [(name, array) for name, array in state.items() if known.get(name) == array.shape]
        else:
            arrays = _network.initial_parameters(spec, _generator(seed, "weights"))
        engine = self._make_engine(spec)
        for name, array in arrays:
            engine.set_state({name: array})
        trainer = Trainer(engine, callbacks=self._callbacks(), probe_size=checked["probe_size"])
        trainer.history[:] = self.history_ if proceed else []
        return trainer, progress

    def _make_engine(self, spec: NetworkSpec) -> Engine:
        return select(
            self.device, spec, precision=self.precision, n_jobs=_threads(self.n_jobs),
            memory_limit=self.memory_limit, tune=self.tune,
        )  # fmt: skip

    def _callbacks(self) -> list[Any]:
        callbacks = self.callbacks
        if callbacks is not None and not isinstance(callbacks, Iterable):
            raise ValueError(f"callbacks must be None or a list of gesda.callbacks.Callback; got {callbacks!r}.")
        return ([Progress()] if self.verbose else []) + list(callbacks or ())

    def _pretrain(
        self,
        trainer: Trainer,
        progress: dict[str, int],
        data: Data,
        checked: Mapping[str, Any],
        learning_rates: tuple[float, ...],
        *,
        one_epoch: bool,
    ) -> None:
        """Pretrain by the schedule; or, for `partial_fit`, all layers at once for one epoch."""
        epochs = checked["pretrain_epochs"]
        if not any(epochs):
            return
        before = len(trainer.history)
        schedule = PretrainSchedule(
            kind="crosspre" if one_epoch else checked["schedule"],
            epochs=tuple(min(count, 1) for count in epochs) if one_epoch else epochs,
            learning_rates=learning_rates,
            batch_size=batch_size(checked["batch_size"], data.shape[0], one_epoch=one_epoch),
            stagger=0 if one_epoch else checked["stagger"],
            handoff=checked["handoff"],
            rate_schedule="constant" if one_epoch else checked["learning_rate"],
            rate_decay=0.0 if one_epoch else checked["learning_rate_decay"],
        )
        rng = _generator(trainer.engine.spec.seed, "pretrain", progress["calls"])
        trainer.pretrain(data, schedule, rng, first_epoch=progress["pretrain"])
        # One past the last epoch number, so that continued training repeats no noise.
        numbers = [record["epoch"] + 1 for record in trainer.history[before:]]
        progress["pretrain"] = max(numbers, default=progress["pretrain"])

    def _keep(
        self, trainer: Trainer, progress: dict[str, int], limits: tuple[float, float], *, optimizer_state: bool
    ) -> None:
        """Take over what a training has reached, complete or interrupted."""
        engine = trainer.engine
        self._spec, self._limits = engine.spec, limits
        self._parameters = engine.get_parameters()
        self._resume = {}
        if optimizer_state:
            state = engine.get_state()
            self._resume = {name: value for name, value in state.items() if name not in self._parameters}
        self._progress = {**progress, "calls": progress["calls"] + 1}
        self._runtime = Runtime()
        self.history_ = trainer.history
        self.device_ = engine.name
        if trainer.interrupted:
            warnings.warn("Training interrupted by user; the estimator keeps what it has learnt so far.", stacklevel=4)

    def _summarise(self) -> None:
        """Set the attributes that follow from the history."""
        raise NotImplementedError

    # ---- what a prediction needs ------------------------------------------------------------------
    def _data(self, X: Any) -> Data:
        check_is_fitted(self, "_parameters")
        return as_data(X, estimator=self, device=self.device)

    def _run(self, method: str, *arguments: Any, **options: Any) -> NDArray[np.float32]:
        """Call a method of the engine, which is made if there is none yet."""
        runtime = self._runtime
        with runtime.lock:
            if runtime.engine is None:
                # Without momentum or moments: predictions need no state of an optimiser.
                head = self._spec.head and replace(self._spec.head, optimizer=OptimizerSpec("sgd"))
                spec = replace(self._spec, optimizer=OptimizerSpec("sgd"), head=head)
                engine = self._make_engine(spec)
                engine.set_state(self._parameters)
                runtime.engine = engine
            result: NDArray[np.float32] = getattr(runtime.engine, method)(*arguments, **options)
        return result

    # ---- pickling ---------------------------------------------------------------------------------
    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("_runtime", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self._is_trained():
            self._runtime = Runtime()

    def __sklearn_is_fitted__(self) -> bool:
        return self._is_trained()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    # ---- public -----------------------------------------------------------------------------------
    @property
    def _n_features_out(self) -> int:
        return self._spec.layers[-1].n_hidden

    @property
    def coefs_(self) -> list[NDArray[np.float32]]:
        """Weight matrices (n_inputs, n_outputs) of the layers, then of the head if there is one."""
        return self._by_suffix("W")

    @property
    def intercepts_(self) -> list[NDArray[np.float32]]:
        """Hidden biases of the layers, then the head's bias if there is one."""
        return self._by_suffix("b")

    def _by_suffix(self, suffix: str) -> list[NDArray[np.float32]]:
        if not self._is_trained():
            raise AttributeError(f"This {type(self).__name__} is not fitted yet; call fit first.")
        return [array for name, array in self._parameters.items() if name.endswith(f".{suffix}")]

    def transform(self, X: Any, layer: int | None = None) -> NDArray[np.float32]:
        """Encode samples.

        Parameters
        ----------
        X : array-like, data frame or sparse matrix of shape (n_samples, n_features)
        layer : int, optional
            Whose encoding to return, counted from 0; negative numbers count from the last layer, which
            is the default.

        Returns
        -------
        codes : ndarray of float32, shape (n_samples, n_hidden)
            The clean encoding (no noise, no dropout), or a data frame if `set_output` asks for one.

        Raises
        ------
        ValueError
            For data that do not fit, for a layer that there is not, and for a layer other than the last
            with `set_output`, whose column names are those of the last layer.
        """
        data = self._data(X)
        n_layers = self._layer_count(layer)
        if n_layers != len(self._spec.layers):
            configured = getattr(self, "_sklearn_output_config", {}).get("transform")
            if (configured or sklearn.get_config()["transform_output"]) != "default":
                raise ValueError(
                    f"set_output names the features of the last layer only; for layer={layer!r} use "
                    f"set_output(transform='default')."
                )
        return self._run("encode", data, n_layers=n_layers)

    def inverse_transform(self, X: Any, layer: int | None = None) -> NDArray[np.float32]:
        """Decode encodings down to the input.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_hidden)
            Encodings as `transform` returns them.
        layer : int, optional
            Whose encodings they are; the last layer's by default.

        Returns
        -------
        reconstruction : ndarray of float32, shape (n_samples, n_features)

        Raises
        ------
        ValueError
            For encodings of another width than the layer's, NaN or infinity.
        """
        check_is_fitted(self, "_parameters")
        n_layers = self._layer_count(layer)
        data = as_data(X)
        width = self._spec.layers[n_layers - 1].n_hidden
        if data.shape[1] != width:
            raise ValueError(f"X has {data.shape[1]} columns; encodings of layer {n_layers - 1} have {width}.")
        return self._run("decode", dense_rows(data, slice(None)), n_layers=n_layers)

    def reconstruct(self, X: Any) -> NDArray[np.float32]:
        """Encode samples by the whole stack and decode them again: the denoised samples.

        Parameters
        ----------
        X : array-like, data frame or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        reconstruction : ndarray of float32, shape (n_samples, n_features)
        """
        data = self._data(X)
        result = np.empty(data.shape, dtype=np.float32)
        for rows in self._chunks(data):
            result[rows] = self._run("decode", self._run("encode", data[rows]))
        return result

    def score_samples(self, X: Any) -> NDArray[np.float32]:
        """How normal each sample is: the reconstruction error with a minus sign.

        As in scikit-learn's outlier detectors, **lower is more abnormal**; a threshold is yours to choose,
        for instance a low quantile of the training samples' scores.

        Parameters
        ----------
        X : array-like, data frame or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        scores : ndarray of float32, shape (n_samples,)
            Minus the mean over the features of the squared difference between a sample and its
            reconstruction by the whole stack, whatever loss it was trained with.
        """
        data = self._data(X)
        scores = np.empty(data.shape[0], dtype=np.float32)
        for rows in self._chunks(data):
            difference = self._run("decode", self._run("encode", data[rows])).astype(np.float64)
            difference -= dense_rows(data, rows)
            scores[rows] = -np.square(difference).mean(axis=1)
        return scores

    def infer(self, rows: NDArray[np.float32], give: str = "encodings") -> NDArray[np.float32]:
        """Encode or reconstruct rows that are known to be good: for programs that ask about one at a time.

        The checks of `transform` and `reconstruct` take longer than a small network; here they are left out.

        Parameters
        ----------
        rows : ndarray of float32, shape (n_samples, n_features)
            C-contiguous and finite; anything else is the caller's mistake, with undefined results.
        give : {"encodings", "reconstructions"}, default="encodings"

        Returns
        -------
        result : ndarray of float32, shape (n_samples, n_hidden) or (n_samples, n_features)

        Examples
        --------
        >>> import numpy as np
        >>> from gesda import StackedDenoisingAutoencoder
        >>> X = np.random.default_rng(0).random((20, 4), dtype=np.float32)
        >>> model = StackedDenoisingAutoencoder(3, pretrain_epochs=1, random_state=0).fit(X)
        >>> bool((model.infer(X) == model.transform(X)).all())
        True
        """
        codes = self._run("encode", rows, n_layers=len(self._spec.layers))
        return codes if give == "encodings" else self._run("decode", codes)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to one model file, atomically and without pickle.

        Callbacks, and a `random_state` that is a generator, are not saved.

        Parameters
        ----------
        path : str or path-like
            The file; an existing one is replaced.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before fit.
        gesda.model_io.ModelFileError
            When the file cannot be written, or a parameter or class label cannot be stored.
        """
        check_is_fitted(self, "_parameters")
        from gesda.estimators._persistence import save

        save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Any:
        """Read an estimator of this class from a model file.

        Parameters
        ----------
        path : str or path-like
            A file that `save` wrote.

        Returns
        -------
        estimator
            It predicts the same bits as the saved one.

        Raises
        ------
        gesda.model_io.ModelFileError
            A `ValueError`: when the file is damaged, no model, or that of another class.
        """
        from gesda.estimators._persistence import load

        return load(path, cls)

    # ---- small helpers ----------------------------------------------------------------------------
    def _layer_count(self, layer: int | None) -> int:
        """Layers up to and including `layer`."""
        total = len(self._spec.layers)
        if layer is None:
            return total
        if not isinstance(layer, int | np.integer) or isinstance(layer, bool) or not -total <= layer < total:
            raise ValueError(f"layer must be an integer in [{-total}, {total - 1}]; got {layer!r}.")
        return int(layer) % total + 1

    def _chunks(self, data: Data) -> Iterable[slice]:
        """Rows at a time, so that their widest encodings take a bounded amount of memory."""
        widest = max(data.shape[1], *(layer.n_hidden for layer in self._spec.layers))
        return row_chunks(data.shape[0], widest)


def _generator(seed: int, purpose: str, call: int = 0) -> np.random.Generator:
    """Independent generators, so that (say) fewer epochs of pretraining change no later shuffle."""
    return np.random.default_rng([seed, _PURPOSES[purpose], call])


def _draw_seed(random_state: Any) -> int:
    return int(check_random_state(random_state).randint(0, 2**64, dtype=np.uint64))


def _threads(n_jobs: int | None) -> int | None:
    """joblib's counting: -1 is all that this process may use, -2 all but one."""
    if n_jobs is None or n_jobs > 0:
        return n_jobs
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, available + 1 + n_jobs)
