"""A fitted estimator as one file of C99 for microcontrollers: constants, a few loops over them, a function an output.

The program allocates nothing, writes to nothing but what its caller hands in, and needs expf and tanhf at most. Its
fixed text is c_source_template.c. May import scikit-learn, gesda's estimators and model files, and its neighbours.
"""

from __future__ import annotations

import importlib.resources
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

import gesda
from gesda.estimators import SdAClassifier, SdARegressor, StackedDenoisingAutoencoder
from gesda.export.quantization import QuantizedWeights, calibration_inputs, quantize_columns
from gesda.model_io import atomic_write

#: How weights are stored, and what the file says about it.
_WEIGHTS = {
    "fp32": "float32",
    "int8": "8 bits with a scale a column; a product's inputs are rounded to 16 bits, its sums have 32",
}
#: The kinds of model.
_ESTIMATORS = {"stack": StackedDenoisingAutoencoder, "classifier": SdAClassifier, "regressor": SdARegressor}
#: What a program can give, by the names of `to_onnx`: for which kinds, and the functions that it needs, its own last.
_OUTPUTS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "encodings": (tuple(_ESTIMATORS), ("encode",)),
    "reconstructions": (tuple(_ESTIMATORS), ("encode", "reconstruct")),
    "scores": (tuple(_ESTIMATORS), ("encode", "reconstruct", "score")),
    "labels": (("classifier",), ("encode", "logits", "classify")),
    "probabilities": (("classifier",), ("encode", "logits", "probabilities")),
    "predictions": (("regressor",), ("encode", "predict")),
}
_USUAL = {"stack": ["encodings"], "classifier": ["labels", "probabilities"], "regressor": ["predictions"]}
_HELPERS = ("round", "dense", "dense_back", "sigmoid", "tanh", "relu", "softmax")
#: Parameters by the last part of their names.
_ROLES = {"W": "weights", "b": "bias", "V": "decoder_weights", "c": "decoder_bias"}
#: The longest string that every C99 compiler takes.
_LONGEST_STRING = 4095
_KEYWORDS = frozenset(
    re.findall(
        r"\w+",
        """alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl concept const
        const_cast consteval constexpr constinit continue decltype default delete do double dynamic_cast else enum
        explicit export extern false float for friend goto if inline int long mutable namespace new noexcept not not_eq
        nullptr operator or or_eq private protected public register reinterpret_cast requires restrict return short
        signed sizeof static static_assert static_cast struct switch template this thread_local throw true try typedef
        typeid typename typeof union unsigned using virtual void volatile wchar_t while xor xor_eq""",
    )
)

#: Type, name and values of an array in the program.
_Array: TypeAlias = "tuple[str, str, NDArray[Any]]"


def to_c(
    model: Any,
    outputs: Sequence[str] | None = None,
    *,
    weights: str = "fp32",
    calibration: Any = None,
    name: str = "model",
) -> str:
    """Write a fitted estimator as a C program: one file, for microcontrollers.

    It compiles as C99 and as C++, by itself or included; where ``<NAME>_DECLARATIONS`` is defined it serves as its own
    header. Its first lines say what it takes and how to call it.

    Parameters
    ----------
    model : StackedDenoisingAutoencoder, SdAClassifier or SdARegressor
        Fitted.
    outputs : sequence of str, optional
        As for `to_onnx`. Each is a function of one row: ``"encodings"`` is ``<name>_encode``, ``"reconstructions"``
        ``<name>_reconstruct``, ``"scores"`` ``<name>_score``, ``"probabilities"`` ``<name>_probabilities``,
        ``"predictions"`` ``<name>_predict``, and ``"labels"`` ``<name>_classify``, which gives the number of a class,
        and the strings ``<name>_class_names``. What none of them needs is not in the file.
    weights : {"fp32", "int8"}, default="fp32"
        ``"int8"`` takes a quarter of the memory (see Notes).
    calibration : array-like, data frame or sparse matrix of shape (n_samples, n_features), optional
        For ``"int8"``: samples by which the scales are chosen, as in `save_model`. Some hundred do.
    name : str, default="model"
        What all names in the file begin with.

    Returns
    -------
    source : str
        ASCII text.

    Raises
    ------
    ValueError
        For outputs that the estimator does not have, other weights, calibration data that do not fit, a name that C
        does not allow, a class whose name is no C string, and weights that are not finite.
    TypeError
        For other models.
    sklearn.exceptions.NotFittedError
        Before fit.

    Notes
    -----
    **fp32** computes what the estimator computes; sums are taken in another order.

    **int8**: a weight is a whole number from -127 to 127 times its column's scale (`quantize_columns`). The inputs of a
    product are rounded row by row to whole numbers: the largest magnitude to ``Q = min(32767, floor((2**31 - 1) / (127
    n)))``, n the number of inputs, so that the sum of n products fits 32 bits and nothing saturates; halves away from
    zero. That sum times the row's scale, ``max|x| / Q``, times the column's scale, plus the bias, are floats. A tied
    decoder reads the same numbers the other way: a column's scale then belongs to an input, which is multiplied by it
    before it is rounded. Rounding a row moves a result by at most ``max|x| / (2 Q)`` times the sum of the weights'
    magnitudes: with 1000 inputs 3e-5 of the largest input for each weight. Rounding the weights, by up to 1/254 of the
    largest in a column, costs more.

    Weights are stored as they are read, the weights of an output in a row, so that the inner loop runs over
    neighbours; a tied decoder adds up the same rows.

    Examples
    --------
    >>> import numpy as np
    >>> from gesda import StackedDenoisingAutoencoder
    >>> X = np.random.default_rng(0).random((20, 4), dtype=np.float32)
    >>> model = StackedDenoisingAutoencoder((3, 2), pretrain_epochs=1, random_state=0).fit(X)
    >>> source = to_c(model, ["scores"], weights="int8", calibration=X, name="pump")
    >>> [line for line in source.splitlines() if line.endswith("*work);") and line.startswith("float")]
    ['float pump_score(const float input[PUMP_INPUTS], struct pump_work *work);']
    """
    if not isinstance(model, tuple(_ESTIMATORS.values())):
        raise TypeError(
            f"model must be a StackedDenoisingAutoencoder, SdAClassifier or SdARegressor; got {type(model).__name__}."
        )
    check_is_fitted(model, "_parameters")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or name in _KEYWORDS:
        raise ValueError(
            f"name must be a C identifier that begins with a letter and is no keyword of C or C++; got {name!r}."
        )
    if weights not in _WEIGHTS:
        raise ValueError(f"weights must be one of {', '.join(map(repr, _WEIGHTS))}; got {weights!r}.")
    if calibration is not None and weights != "int8":
        raise ValueError(f"calibration chooses the scales of weights='int8'; weights={weights!r} have none.")
    network = _Network(model, outputs)
    if weights == "int8":
        inputs = {} if calibration is None else calibration_inputs(model, calibration)
        network.quantize(inputs)
    return _Program(network, weights, name).text()


def save_c(
    model: Any,
    path: str | os.PathLike[str],
    outputs: Sequence[str] | None = None,
    *,
    weights: str = "fp32",
    calibration: Any = None,
    name: str = "model",
) -> str:
    """Write a fitted estimator to a file of C, atomically.

    Parameters
    ----------
    model : StackedDenoisingAutoencoder, SdAClassifier or SdARegressor
        Fitted.
    path : str or path-like
        An existing file is replaced.
    outputs, weights, calibration, name
        As for `to_c`.

    Returns
    -------
    source : str
        What was written.

    Raises
    ------
    ValueError, TypeError, sklearn.exceptions.NotFittedError
        As `to_c`.
    OSError
        When the file cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from gesda import StackedDenoisingAutoencoder
    >>> X = np.random.default_rng(0).random((20, 4), dtype=np.float32)
    >>> model = StackedDenoisingAutoencoder((3, 2), pretrain_epochs=1, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "pump.c")
    ...     save_c(model, path, name="pump") == path.read_text()
    True
    """
    source = to_c(model, outputs, weights=weights, calibration=calibration, name=name)
    with atomic_write(path) as file:
        file.write(source.encode("ascii"))
    return source


# ---- the network as a list of products ------------------------------------------------------------
class _Product(NamedTuple):
    """One layer, there or back: which parameters it reads, its widths, and what follows."""

    matrix: str
    bias: str
    n_inputs: int
    n_outputs: int
    activation: str
    transposed: bool = False  # a tied decoder: the encoder's matrix the other way


class _Network:
    """What of a fitted estimator the chosen outputs need."""

    def __init__(self, model: Any, outputs: Sequence[str] | None) -> None:
        self.kind = next(kind for kind, estimator in _ESTIMATORS.items() if isinstance(model, estimator))
        self.outputs = _chosen(type(model).__name__, self.kind, outputs)
        self.parameters: Mapping[str, NDArray[np.float32]] = model._parameters
        self.quantized: dict[str, QuantizedWeights] = {}
        layers = model._spec.layers
        self.encoders = [
            _Product(f"layers.{k}.W", f"layers.{k}.b", layer.n_visible, layer.n_hidden, layer.activation)
            for k, layer in enumerate(layers)
        ]
        self.decoders: list[_Product] = []
        if set(self.outputs) & {"reconstructions", "scores"}:
            for k, layer in reversed(list(enumerate(layers))):
                matrix, activation = f"layers.{k}.{'W' if layer.tied else 'V'}", layer.output_activation
                widths = layer.n_hidden, layer.n_visible
                self.decoders.append(_Product(matrix, f"layers.{k}.c", *widths, activation, layer.tied))
        self.head: list[_Product] = []
        if set(self.outputs) & {"probabilities", "labels", "predictions"}:
            # A regressor's has the targets' mean and scale in it.
            n_inputs, n_outputs = self.parameters["head.W"].shape
            self.head.append(_Product("head.W", "head.b", n_inputs, n_outputs, "linear"))
        self.products = [*self.encoders, *self.decoders, *self.head]
        for key in self.used():
            if not np.isfinite(self.parameters[key]).all():
                raise ValueError(f"the model's parameters {key!r} hold NaN or infinity; train it again.")
        self.class_names = _class_names(model.classes_) if "labels" in self.outputs else []

    def used(self) -> list[str]:
        """The parameters that are read, each once."""
        return list(dict.fromkeys(key for product in self.products for key in (product.matrix, product.bias)))

    def quantize(self, inputs: Mapping[str, NDArray[np.float32]]) -> None:
        """Round the weights to 8 bits; their scales by what the products see, by the names of the weights."""
        for matrix in dict.fromkeys(product.matrix for product in self.products):
            self.quantized[matrix] = quantize_columns(self.parameters[matrix], inputs.get(matrix))


def _chosen(estimator: str, kind: str, outputs: Sequence[str] | None) -> list[str]:
    """The outputs, checked, each once and in the table's order."""
    wanted = list(_USUAL[kind] if outputs is None else outputs)
    known = [name for name, (kinds, _) in _OUTPUTS.items() if kind in kinds]
    for name in wanted:
        if name not in known:
            raise ValueError(f"{estimator} has no output {name!r}; choose among {', '.join(map(repr, known))}.")
    if not wanted or len(set(wanted)) != len(wanted):
        raise ValueError(f"outputs must name one or more, each once; got {wanted!r}.")
    return [name for name in known if name in wanted]


def _class_names(classes: NDArray[Any]) -> list[bytes]:
    """The classes as text in UTF-8."""
    names = []
    for label in np.asarray(classes).tolist():
        name = label if isinstance(label, bytes) else str(label).encode("utf-8", "backslashreplace")
        if len(name) > _LONGEST_STRING or 0 in name:
            raise ValueError(
                f"the class {str(label)[:40]!r} is no C string: of its {len(name)} bytes one is 0, or they are more "
                f"than {_LONGEST_STRING}; rename it, or leave 'labels' out of the outputs."
            )
        names.append(name)
    return names


# ---- the program ----------------------------------------------------------------------------------
class _Program:
    """The text of the file: sections of the template, what they leave open, and arrays."""

    def __init__(self, network: _Network, weights: str, name: str) -> None:
        self._network, self._weights, self._name = network, weights, name
        # What a product gives lies at the other end of the work's values than what it reads.
        encodings, decodings, head = (
            [product.n_outputs for product in part] for part in (network.encoders, network.decoders, network.head)
        )
        results = {
            "encodings": encodings[:-1],
            "reconstructions": encodings + decodings[:-1],
            "scores": encodings + decodings,
            "labels": encodings + head,
        }
        chains = [[0, *results.get(output, encodings)] for output in network.outputs]
        self._n_values = max(1, *(sum(chain[k : k + 2]) for chain in chains for k in range(len(chain))))

    def text(self) -> str:
        """The whole file."""
        network, sections = self._network, _sections(self._weights)
        prototypes, functions = [], []
        needed = [_OUTPUTS[output][1] for output in network.outputs]
        public = {names[-1] for names in needed}
        for name in dict.fromkeys(name for names in needed for name in names):
            comment, signature, body = re.split(r"(?<=\*/\n)|(?= {\n)", sections[name], maxsplit=2)
            prototypes += [f"{comment}{signature};"] if name in public else []
            function = signature + _completed(body, **self._steps(name))
            functions.append(function if name in public else f"static {function}")
        arrays = self._arrays()
        if network.class_names:
            prototypes.append("extern const char *const model_class_names[MODEL_CLASSES];")
        n_bytes = sum(values.nbytes for _, _, values in arrays)
        parts = [_completed(sections["top"], **self._facts(n_bytes), prototypes="\n".join(prototypes))]
        parts += [_array_text(*array) for array in arrays]
        parts += [sections["class_names"]] if network.class_names else []
        functions = ["\n\n".join(functions)]
        for name in reversed(_HELPERS):  # only what is called: compilers warn of the rest
            if any(f"model_{name}(" in text for text in functions):
                functions.insert(0, sections[name])
        text = self._named("\n\n".join([*parts, *functions, sections["end"]])) + "\n"
        # Last, when all else has its name: in these there may be anything.
        strings = ",\n".join(f"  {_string(name)}" for name in network.class_names)
        return _completed(text, file=f"{self._name}.c", strings=strings)

    def _named(self, text: str) -> str:
        prefixes = {"model_": f"{self._name}_", "MODEL_": f"{self._name.upper()}_"}
        return re.sub("model_|MODEL_", lambda found: prefixes[found.group()], text)

    def _facts(self, n_bytes: int) -> dict[str, str]:
        """What the file's first lines say. Nothing of the user's but the name goes into a comment."""
        network = self._network
        results = "classes" if network.kind == "classifier" else "targets"
        widths = {"INPUTS": network.encoders[0].n_inputs, "ENCODINGS": network.encoders[-1].n_outputs}
        widths |= {results.upper(): product.n_outputs for product in network.head}
        layers = ", ".join(str(product.n_outputs) for product in network.encoders)
        shape = [f"{widths['INPUTS']} inputs", f"layers of {layers}"]
        shape += [f"{product.n_outputs} {results}" for product in network.head]
        fields, n_bytes_work = [f"float values[{self._n_values}];"], 4 * self._n_values
        if self._weights == "int8":
            widest = max(product.n_inputs for product in network.products)
            fields.append(f"int16_t rounded[{widest}];")
            n_bytes_work += 4 * ((widest + 1) // 2)
        n_names = sum(len(name) + 1 for name in network.class_names)
        return {
            "model": f"{network.kind.capitalize()} of {', '.join(shape)}",
            "version": gesda.__version__,
            "weights": _WEIGHTS[self._weights],
            "constants": f"{n_bytes:,} bytes" + (f", and {n_names:,} of classes' names" if n_names else ""),
            "work": f"{n_bytes_work:,}",
            "widths": "\n".join(f"#define MODEL_{name} {width}" for name, width in widths.items()),
            "fields": "\n  ".join(fields),
        }

    def _arrays(self) -> list[_Array]:
        """Biases, scales, and matrices with the weights of an output in a row."""
        result: list[_Array] = []
        for key in self._network.used():
            quantized = self._network.quantized.get(key)
            if quantized is None:
                result.append(("float", _array_name(key), self._network.parameters[key].T))
            else:
                result.append(("int8_t", _array_name(key), quantized.codes.T))
                result.append(("float", _scales_name(key), quantized.scales))
        return result

    # ---- functions --------------------------------------------------------------------------------
    def _steps(self, function: str) -> dict[str, str]:
        """What the template leaves open in a function."""
        network = self._network
        n_layers = len(network.encoders)
        if function == "encode":
            unused = ["(void)work;"] if n_layers == 1 and self._weights == "fp32" else []
            return {"steps": "\n  ".join([*unused, *self._calls(network.encoders, 0, "input")])}
        codes = self._place(n_layers - 1, network.encoders[-1].n_outputs)
        back = function in ("reconstruct", "score")
        products = network.decoders if back else network.head
        steps = [f"model_encode(input, {codes}, work);", *self._calls(products, n_layers, codes)]
        result = self._place(n_layers + len(products) - 1, products[-1].n_outputs)
        return {"steps": "\n  ".join(steps), "result": result}

    def _calls(self, products: Sequence[_Product], first: int, source: str) -> list[str]:
        """Products one after the other, the last one into `output`; `first` counts those that a row has behind it."""
        calls = []
        for k, product in enumerate(products):
            target = "output" if k == len(products) - 1 else self._place(first + k, product.n_outputs)
            scales = f"{_scales_name(product.matrix)}, " if self._weights == "int8" else ""
            arrays = f"{_array_name(product.matrix)}, {scales}{_array_name(product.bias)}"
            widths = f"{product.n_inputs}, {product.n_outputs}"
            rounded = ", work->rounded" if self._weights == "int8" else ""
            function = "model_dense_back" if product.transposed else "model_dense"
            calls.append(f"{function}({arrays}, {widths},\n      {source}, {target}{rounded});")
            if product.activation != "linear":
                calls.append(f"model_{product.activation}({target}, {product.n_outputs});")
            source = target
        return calls

    def _place(self, k: int, width: int) -> str:
        """Where in the work a row lies after k + 1 products: at the beginning and at the end in turn."""
        return "work->values" if k % 2 == 0 else f"work->values + {self._n_values - width}"


# ---- text -----------------------------------------------------------------------------------------
def _sections(weights: str) -> dict[str, str]:
    """The template's sections by name: those for all weights, and those for these."""
    template = importlib.resources.files("gesda.export").joinpath("c_source_template.c").read_text("ascii")
    parts = re.split(r"^/\* ---- (\w+)(?:: (\w+))? ---- \*/\n", template, flags=re.MULTILINE)
    found = zip(parts[1::3], parts[2::3], parts[3::3], strict=True)
    return {name: text.strip() for name, kind, text in found if kind in (None, weights)}


def _completed(text: str, **missing: str) -> str:
    return re.sub(r"@(\w+)@", lambda found: missing.get(found[1], found[0]), text)


def _array_name(key: str) -> str:
    """The name of a parameter in the program: ``layers.0.W`` is ``model_weights_0``."""
    layer, role = key.rsplit(".", 1)
    return f"model_head_{_ROLES[role]}" if layer == "head" else f"model_{_ROLES[role]}_{layer.rpartition('.')[2]}"


def _scales_name(key: str) -> str:
    return _array_name(key).replace("weights", "scales")


def _array_text(kind: str, name: str, values: NDArray[Any]) -> str:
    shape = f"/* {values.shape[0]} rows of {values.shape[1]} */\n" if values.ndim == 2 else ""
    numbers = values.ravel().tolist()
    texts = list(map(_float if kind == "float" else str, numbers))
    per_line = 8 if kind == "float" else 20
    lines = ",\n".join("  " + ", ".join(texts[k : k + per_line]) for k in range(0, len(texts), per_line))
    return f"{shape}static const {kind} {name}[{len(texts)}] = {{\n{lines}\n}};"


def _float(value: float) -> str:
    """A float32 with as many digits as tell it from all others."""
    text = f"{value:.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


def _string(text: bytes) -> str:
    """A string of C: plain ASCII, the rest in three octal digits; no question mark begins a trigraph."""
    plain = set(range(32, 127)) - set(b'"\\?')
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text) + '"'
