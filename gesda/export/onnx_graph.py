"""A fitted estimator as an ONNX graph: products with biases, activations, and what is read off them.

One input ``X`` (n, n_features) of float32, n free; the outputs by the names of `OUTPUTS`. Operators of opset 17, which
runtimes since ONNX Runtime 1.12 and TensorRT 8.5 know. Imports gesda's model files and its own neighbours only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

import gesda
from gesda.model_io import atomic_write

_OPSET, _IR_VERSION = 17, 8
_OPERATORS = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu"}

#: What a graph can give, and which estimators can: all, those with classes, or those with numbers to predict.
OUTPUTS = {
    "encodings": "any",
    "reconstructions": "any",
    "scores": "any",
    "probabilities": "classifier",
    "labels": "classifier",
    "predictions": "regressor",
}
_USUAL = {"classifier": ("labels", "probabilities"), "regressor": ("predictions",), "any": ("encodings",)}


def to_onnx(model: Any, outputs: Sequence[str] | None = None) -> Any:
    """Describe a fitted estimator as an ONNX model.

    Parameters
    ----------
    model : StackedDenoisingAutoencoder, SdAClassifier or SdARegressor
        Fitted.
    outputs : sequence of str, optional
        Among ``"encodings"`` (n, n_hidden), ``"reconstructions"`` (n, n_features), ``"scores"`` (n,): minus the mean
        squared error of the reconstruction, ``"probabilities"`` (n, n_classes), ``"labels"`` (n,) and
        ``"predictions"`` (n,) or (n, n_targets). By default what `predict` and `predict_proba` give, or `transform`.

    Returns
    -------
    onnx.ModelProto
        Checked by onnx. Its metadata hold the estimator's name, the classes and the names of the features, as JSON.

    Raises
    ------
    ValueError
        For outputs that the estimator does not have.
    sklearn.exceptions.NotFittedError
        Before fit.
    ImportError
        Without onnx, which the extra ``onnx`` brings.

    Examples
    --------
    >>> import numpy as np
    >>> from gesda import StackedDenoisingAutoencoder
    >>> X = np.random.default_rng(0).random((20, 4), dtype=np.float32)
    >>> model = StackedDenoisingAutoencoder((3, 2), pretrain_epochs=1, random_state=0).fit(X)
    >>> [output.name for output in to_onnx(model, ["encodings", "scores"]).graph.output]
    ['encodings', 'scores']
    """
    check_is_fitted(model, "_parameters")
    onnx = _import_onnx()
    kind = "classifier" if hasattr(model, "classes_") else "regressor" if hasattr(model, "predict") else "any"
    wanted = list(_USUAL[kind] if outputs is None else outputs)
    for name in wanted:
        if OUTPUTS.get(name) not in ("any", kind):
            known = [name for name, needed in OUTPUTS.items() if needed in ("any", kind)]
            raise ValueError(
                f"{type(model).__name__} has no output {name!r}; choose among {', '.join(map(repr, known))}."
            )
    if not wanted or len(set(wanted)) != len(wanted):
        raise ValueError(f"outputs must name one or more, each once; got {wanted!r}.")
    graph = _Graph(onnx, model)
    described = [graph.output(name) for name in wanted]
    n_features = model._spec.layers[0].n_visible
    source = onnx.helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, ["n", n_features])
    name = type(model).__name__
    result = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, name, [source], described, graph.constants),
        producer_name="gesda",
        producer_version=gesda.__version__,
        opset_imports=[onnx.helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
    )
    facts = {"estimator": name, "classes": getattr(model, "classes_", None)}
    facts["feature_names"] = getattr(model, "feature_names_in_", None)
    texts = {key: json.dumps(_plain(value)) for key, value in facts.items() if value is not None}
    onnx.helper.set_model_props(result, texts)
    onnx.checker.check_model(result, full_check=True)
    return result


def save_onnx(model: Any, path: str | os.PathLike[str], outputs: Sequence[str] | None = None) -> Any:
    """Write a fitted estimator to an ONNX file, atomically.

    Parameters
    ----------
    model : StackedDenoisingAutoencoder, SdAClassifier or SdARegressor
        Fitted.
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


class _Graph:
    """Nodes and constants, made as outputs ask for them."""

    def __init__(self, onnx: Any, model: Any) -> None:
        self._onnx, self._model = onnx, model
        self._layers, self._parameters = model._spec.layers, model._parameters
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._made: dict[str, str] = {}

    def output(self, name: str) -> Any:
        """Make what an output needs; return its description."""
        types, model = self._onnx.TensorProto, self._model
        element = types.FLOAT
        shape: list[Any] = ["n"]
        if name == "encodings":
            value, shape = self._encodings(), ["n", self._layers[-1].n_hidden]
        elif name == "reconstructions":
            value, shape = self._reconstructions(), ["n", self._layers[0].n_visible]
        elif name == "scores":
            value = self._scores()
        elif name == "probabilities":
            value, shape = self._probabilities(), ["n", len(model.classes_)]
        elif name == "labels":
            value = self._labels()
            element = self._onnx.helper.np_dtype_to_tensor_dtype(_storable(model.classes_).dtype)
        else:
            value = self._head()
            if model._targets_1d:
                value = self._node("Squeeze", [value, self._constant("last", np.array([1], dtype=np.int64))])
            else:
                shape = ["n", model._spec.head.n_outputs]
        self.nodes.append(self._onnx.helper.make_node("Identity", [value], [name]))
        return self._onnx.helper.make_tensor_value_info(name, element, shape)

    # ---- what outputs are made of -----------------------------------------------------------------
    def _encodings(self) -> str:
        value = "X"
        for k, layer in enumerate(self._layers):
            value = self._once(f"layers.{k}.h", self._dense, value, f"layers.{k}.W", f"layers.{k}.b", layer.activation)
        return value

    def _reconstructions(self) -> str:
        value = self._encodings()
        for k, layer in reversed(list(enumerate(self._layers))):
            weights = f"layers.{k}.W" if layer.tied else f"layers.{k}.V"
            value = self._once(
                f"layers.{k}.z", self._dense, value, weights, f"layers.{k}.c", layer.output_activation, layer.tied
            )
        return value

    def _scores(self) -> str:
        difference = self._node("Sub", [self._reconstructions(), "X"])
        mean = self._node("ReduceMean", [self._node("Mul", [difference, difference])], axes=[1], keepdims=0)
        return self._node("Neg", [mean])

    def _head(self) -> str:
        return self._once("head", self._dense, self._encodings(), "head.W", "head.b", "linear")

    def _probabilities(self) -> str:
        return self._once("softmax", self._node, "Softmax", [self._head()])

    def _labels(self) -> str:
        best = self._node("ArgMax", [self._probabilities()], axis=1, keepdims=0)
        return self._node("Gather", [self._constant("classes", _storable(self._model.classes_)), best])

    # ---- nodes ------------------------------------------------------------------------------------
    def _dense(self, value: str, weights: str, bias: str, activation: str, transposed: bool = False) -> str:
        inputs = [value, self._parameter(weights), self._parameter(bias)]
        result = self._node("Gemm", inputs, transB=int(transposed))
        return self._node(_OPERATORS[activation], [result]) if activation in _OPERATORS else result

    def _parameter(self, name: str) -> str:
        return self._once(f"parameter {name}", self._constant, name, self._parameters[name])

    def _constant(self, name: str, array: NDArray[Any]) -> str:
        self.constants.append(self._onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _node(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def _once(self, key: str, make: Callable[..., str], *arguments: Any) -> str:
        if key not in self._made:
            self._made[key] = make(*arguments)
        return self._made[key]


def _storable(classes: NDArray[Any]) -> NDArray[Any]:
    """Classes in a type that every runtime knows: 64 bit whole numbers, float32, bool, or text."""
    if classes.dtype.kind in "iu":
        return classes.astype(np.int64)
    if classes.dtype.kind == "f":
        return classes.astype(np.float32)
    return classes if classes.dtype.kind == "b" else classes.astype(object)


def _plain(value: Any) -> Any:
    return np.asarray(value).tolist() if not isinstance(value, str) else value


def _import_onnx() -> Any:
    try:
        import onnx
        import onnx.checker
        import onnx.helper
        import onnx.numpy_helper
    except ModuleNotFoundError as error:
        raise ImportError("exporting to ONNX needs onnx; install it with: pip install 'gesda[onnx]'.") from error
    return onnx
