"""What graphs are put together from: nodes, constants, an estimator's layers, and the model around them.

Operators of opset 17, which runtimes since ONNX Runtime 1.12 and TensorRT 8.5 know. The only file that imports onnx.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import gesda

_OPSET, _IR_VERSION = 17, 8
_OPERATORS = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu"}


class Output(NamedTuple):
    """What a graph gives: a value's name, the type of its elements, its shape with names for what is free."""

    value: str
    dtype: Any
    shape: Sequence[str | int]


class Nodes:
    """Nodes and constants, in the order in which they were asked for.

    Examples
    --------
    >>> import numpy as np
    >>> nodes = Nodes()
    >>> nodes("Add", nodes("Mul", "X", np.float32(2.0)), np.float32(1.0))
    'add_1'
    >>> [node.op_type for node in nodes.nodes], len(nodes.constants)
    (['Mul', 'Add'], 2)
    """

    def __init__(self) -> None:
        self._onnx = _import_onnx()
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._shared: dict[Any, str] = {}

    def __call__(self, operator: str, *inputs: str | NDArray[Any] | np.generic, **attributes: Any) -> str:
        """Add a node of one output; inputs are the names of values, or arrays, which become constants."""
        return self.several(1, operator, *inputs, **attributes)[0]

    def several(
        self, n_outputs: int, operator: str, *inputs: str | NDArray[Any] | np.generic, **attributes: Any
    ) -> list[str]:
        """Add a node of several outputs; give their names."""
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        name = f"{operator.lower()}_{len(self.nodes)}"
        outputs = [name] if n_outputs == 1 else [f"{name}_{k}" for k in range(n_outputs)]
        self.nodes.append(self._onnx.helper.make_node(operator, names, outputs, name=name, **attributes))
        return outputs

    def constant(self, array: NDArray[Any] | np.generic, name: str = "") -> str:
        """Add a constant; equal ones are there once, under the name that the first one got."""
        plain = np.array(array, order="C")  # ascontiguousarray would make a scalar a vector
        content = plain.tobytes() if plain.dtype != object else tuple(plain.tolist())
        key = (plain.dtype.str, plain.shape, content)
        if key not in self._shared:
            self._shared[key] = name or f"constant_{len(self.constants)}"
            self.constants.append(self._onnx.numpy_helper.from_array(plain, self._shared[key]))
        return self._shared[key]

    def cast(self, value: str, dtype: Any) -> str:
        """Change the type of the elements."""
        return self("Cast", value, to=self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def model(self, name: str, shape: Sequence[str | int], outputs: dict[str, Output], facts: dict[str, Any]) -> Any:
        """Make the model, whose input is ``X`` of float32, and have it checked.

        Parameters
        ----------
        name : str
            Of the graph.
        shape : sequence of str or int
            Of the input; names for what is free.
        outputs : dict of str to Output
            By the names that they shall have.
        facts : dict
            Metadata, written as JSON; None is left out.

        Returns
        -------
        onnx.ModelProto
        """
        helper = self._onnx.helper
        described = []
        for output, (value, dtype, free) in outputs.items():
            self.nodes.append(helper.make_node("Identity", [value], [output], name=output))
            element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
            described.append(helper.make_tensor_value_info(output, element, list(free)))
        source = helper.make_tensor_value_info("X", self._onnx.TensorProto.FLOAT, list(shape))
        result = helper.make_model(
            helper.make_graph(self.nodes, name, [source], described, self.constants),
            producer_name="gesda",
            producer_version=gesda.__version__,
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
        )
        texts = {key: json.dumps(_plain(value)) for key, value in facts.items() if value is not None}
        helper.set_model_props(result, texts)
        self._onnx.checker.check_model(result, full_check=True)
        return result


class Layers:
    """The layers of a fitted estimator; each is made once, however often it is asked for.

    Parameters
    ----------
    nodes : Nodes
    model : estimator
        Fitted.
    source : str, default="X"
        What the first layer reads.
    prefix : str, default=""
        Of the parameters' names.
    """

    def __init__(self, nodes: Nodes, model: Any, source: str = "X", prefix: str = "") -> None:
        self._nodes, self._source, self._prefix = nodes, source, prefix
        self._layers, self._parameters = model._spec.layers, model._parameters

    @cached_property
    def encodings(self) -> str:
        """Encodings by the last layer, (n, n_hidden)."""
        value = self._source
        for k, layer in enumerate(self._layers):
            value = self._dense(value, f"layers.{k}.W", f"layers.{k}.b", layer.activation)
        return value

    @cached_property
    def reconstructions(self) -> str:
        """What is restored from the encodings, (n, n_features)."""
        value = self.encodings
        for k, layer in reversed(list(enumerate(self._layers))):
            weights = f"layers.{k}.W" if layer.tied else f"layers.{k}.V"
            value = self._dense(value, weights, f"layers.{k}.c", layer.output_activation, layer.tied)
        return value

    @cached_property
    def head(self) -> str:
        """Logits, or predictions in the targets' units, (n, n_outputs)."""
        return self._dense(self.encodings, "head.W", "head.b", "linear")

    def _dense(self, value: str, weights: str, bias: str, activation: str, transposed: bool = False) -> str:
        inputs = [self._nodes.constant(self._parameters[name], self._prefix + name) for name in (weights, bias)]
        result = self._nodes("Gemm", value, *inputs, transB=int(transposed))
        return self._nodes(_OPERATORS[activation], result) if activation in _OPERATORS else result


def storable(classes: NDArray[Any]) -> NDArray[Any]:
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
