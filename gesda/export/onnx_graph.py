"""A fitted estimator, or a recogniser of gestures, as an ONNX model.

One input ``X`` of float32: rows (n, n_features), or motions (n, length, n_channels) of one length; n and length are
free. The outputs by the names of `OUTPUTS`. `onnx_nodes` has what graphs are made of, `onnx_recognizer` and
`onnx_motion` what recognisers do. Imports gesda's model files and its own neighbours only.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from gesda.export.onnx_nodes import Layers, Nodes, Output, storable
from gesda.export.onnx_recognizer import RecognizerGraph
from gesda.model_io import atomic_write

_ESTIMATORS = ("stack", "classifier", "regressor")
#: What a graph can give, and what kinds of model can give it.
OUTPUTS = {
    "encodings": _ESTIMATORS,
    "reconstructions": _ESTIMATORS,
    "scores": _ESTIMATORS,
    "probabilities": ("classifier", "recognizer"),
    "labels": ("classifier", "recognizer"),
    "predictions": ("regressor",),
    "familiarity": ("recognizer",),
    "accepted": ("recognizer",),
}
_USUAL = {"classifier": ("labels", "probabilities"), "regressor": ("predictions",), "stack": ("encodings",)}


def to_onnx(model: Any, outputs: Sequence[str] | None = None) -> Any:
    """Describe a fitted estimator, or a recogniser of gestures, as an ONNX model.

    Parameters
    ----------
    model : StackedDenoisingAutoencoder, SdAClassifier, SdARegressor or GestureRecognizer
        Fitted; a recogniser needs a gesture.
    outputs : sequence of str, optional
        Of an estimator: ``"encodings"`` (n, n_hidden), ``"reconstructions"`` (n, n_features), ``"scores"`` (n,): minus
        the mean squared error of the reconstruction, ``"probabilities"`` (n, n_classes), ``"labels"`` (n,) and
        ``"predictions"`` (n,) or (n, n_targets). By default what `predict` and `predict_proba` give, or `transform`.

        Of a recogniser, by default all: ``"labels"`` (n,), the most probable gestures, rejected or not, as `predict`
        gives them; ``"probabilities"`` (n, n_gestures), in the order of ``classes_``; ``"familiarity"`` (n,); and
        ``"accepted"`` (n,), bool: whether that is at least ``threshold_``. A gesture is recognised where both say so:
        ``labels[accepted]``.

    Returns
    -------
    onnx.ModelProto
        Checked by onnx. Its input is ``X`` of float32: rows (n, n_features), or for a recogniser motions
        (n, length, n_channels), with n and length free. Its metadata hold as JSON the estimator's name, the classes and
        the names of the features, or a recogniser's classes, rate, number of channels and threshold.

    Raises
    ------
    ValueError
        For outputs that the model does not have, and for a recogniser without gestures.
    sklearn.exceptions.NotFittedError
        Before fit.
    ImportError
        Without onnx, which the extra ``onnx`` brings.

    Notes
    -----
    A graph does not check its input: what is not finite gives answers that mean nothing.

    A recogniser's graph takes what a sensor gives and does all the rest, partly in double precision: it is for ONNX
    Runtime and the like, not for accelerators that lack that type. A motion takes some 2 MB while it is worked on, so
    large sets are better given in parts. Its answers are the recogniser's within 1e-5, with one exception: with
    ``orientation="gravity"``, where no horizontal heading stands out (one or two samples, no horizontal motion, motion
    that is symmetric), rounding picks it, here as there.

    Examples
    --------
    >>> import numpy as np
    >>> from gesda import StackedDenoisingAutoencoder
    >>> X = np.random.default_rng(0).random((20, 4), dtype=np.float32)
    >>> model = StackedDenoisingAutoencoder((3, 2), pretrain_epochs=1, random_state=0).fit(X)
    >>> [output.name for output in to_onnx(model, ["encodings", "scores"]).graph.output]
    ['encodings', 'scores']
    """
    recognizes = hasattr(model, "recognize_all")
    check_is_fitted(model, None if recognizes else "_parameters")
    nodes = Nodes()
    graph = RecognizerGraph(nodes, model) if recognizes else _EstimatorGraph(nodes, model)
    name = type(model).__name__
    wanted = list(graph.usual if outputs is None else outputs)
    for output in wanted:
        if graph.kind not in OUTPUTS.get(output, ()):
            known = [repr(known) for known, kinds in OUTPUTS.items() if graph.kind in kinds]
            raise ValueError(f"{name} has no output {output!r}; choose among {', '.join(known)}.")
    if not wanted or len(set(wanted)) != len(wanted):
        raise ValueError(f"outputs must name one or more, each once; got {wanted!r}.")
    return nodes.model(name, graph.shape, {output: graph.output(output) for output in wanted}, graph.facts)


def save_onnx(model: Any, path: str | os.PathLike[str], outputs: Sequence[str] | None = None) -> Any:
    """Write a fitted estimator, or a recogniser of gestures, to an ONNX file, atomically.

    Parameters
    ----------
    model : StackedDenoisingAutoencoder, SdAClassifier, SdARegressor or GestureRecognizer
        As for `to_onnx`.
    path : str or path-like
        An existing file is replaced.
    outputs : sequence of str, optional
        As for `to_onnx`.

    Returns
    -------
    onnx.ModelProto
        What was written.

    Raises
    ------
    ValueError, sklearn.exceptions.NotFittedError, ImportError
        As `to_onnx`.
    OSError
        When the file cannot be written.
    """
    result = to_onnx(model, outputs)
    with atomic_write(path) as file:
        file.write(result.SerializeToString())
    return result


class _EstimatorGraph:
    """What an estimator answers; parts are made once, as outputs ask for them."""

    def __init__(self, nodes: Nodes, model: Any) -> None:
        self._nodes, self._model, self._layers = nodes, model, Layers(nodes, model)
        self.kind = (
            "classifier" if hasattr(model, "classes_") else "regressor" if hasattr(model, "predict") else "stack"
        )
        self.usual = _USUAL[self.kind]
        self.shape: list[str | int] = ["n", model._spec.layers[0].n_visible]
        self.facts = {
            "estimator": type(model).__name__,
            "classes": getattr(model, "classes_", None),
            "feature_names": getattr(model, "feature_names_in_", None),
        }

    def output(self, name: str) -> Output:
        """Make what an output needs."""
        model, layers = self._model, self._layers
        if name == "encodings":
            return Output(layers.encodings, np.float32, ("n", model._spec.layers[-1].n_hidden))
        if name == "reconstructions":
            return Output(layers.reconstructions, np.float32, ("n", model._spec.layers[0].n_visible))
        if name == "scores":
            return Output(self._scores(), np.float32, ("n",))
        if name == "probabilities":
            return Output(self._probabilities, np.float32, ("n", len(model.classes_)))
        if name == "labels":
            classes = storable(model.classes_)
            best = self._nodes("ArgMax", self._probabilities, axis=1, keepdims=0)
            return Output(self._nodes("Gather", self._nodes.constant(classes, "classes"), best), classes.dtype, ("n",))
        if model._targets_1d:
            return Output(self._nodes("Squeeze", layers.head, np.array([1], dtype=np.int64)), np.float32, ("n",))
        return Output(layers.head, np.float32, ("n", model._spec.head.n_outputs))

    @cached_property
    def _probabilities(self) -> str:
        return self._nodes("Softmax", self._layers.head)

    def _scores(self) -> str:
        difference = self._nodes("Sub", self._layers.reconstructions, "X")
        mean = self._nodes("ReduceMean", self._nodes("Mul", difference, difference), axes=[1], keepdims=0)
        return self._nodes("Neg", mean)
