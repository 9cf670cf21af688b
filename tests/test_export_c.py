"""C programs give what the estimators give: compiled by the host's compiler, called through ctypes, or run."""

from __future__ import annotations

import ctypes
import re
import shutil
import string
import subprocess
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from sklearn.datasets import make_blobs
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import minmax_scale

from gesda import SdAClassifier, SdARegressor, StackedDenoisingAutoencoder, load
from gesda.export import save_model
from gesda.export.c_source import save_c, to_c
from gesda.export.quantization import quantize_columns

C = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
C += ["-Wdouble-promotion", "-Wfloat-equal", "-Wcast-qual", "-Wmissing-prototypes", "-Wstrict-prototypes", "-Wundef"]
CPP = ["-std=c++17", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="compiling the program needs gcc")
needs_gpp = pytest.mark.skipif(shutil.which("g++") is None, reason="compiling the program as C++ needs g++")

QUICK = {"pretrain_epochs": 1, "batch_size": 16, "n_jobs": 1, "device": "cpu"}
ANY = ["encodings", "reconstructions", "scores"]
FLOATS = {"encode": "encodings", "reconstruct": "reconstructions", "probabilities": "probabilities"}
GUARD = 16


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng()


def run(*command: object, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, check=False, **options)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-4000:]
    return done.stdout


class Program:
    """A program in a shared library, and beside it a file that sees the declarations only."""

    def __init__(self, source: str, folder: Path, name: str = "model") -> None:
        (folder / f"{name}.c").write_text(source, encoding="ascii")
        user = f'#define {name.upper()}_DECLARATIONS\n#include "{name}.c"\n#include "{name}.c"\n'
        user += "extern const unsigned long work_bytes;\n"
        user += f"const unsigned long work_bytes = sizeof(struct {name}_work);\n"
        (folder / "user.c").write_text(user)
        library = folder / "program.so"
        run("gcc", *C, "-O2", "-shared", "-fPIC", "-o", library, folder / f"{name}.c", folder / "user.c", "-lm")
        self.library = ctypes.CDLL(str(library))
        self.work_bytes = ctypes.c_ulong.in_dll(self.library, "work_bytes").value
        self.name, self.source, self.arrays = name, source, arrays_of(source, name)

    def __call__(self, function: str, X: np.ndarray, n_outputs: int = 0) -> np.ndarray:
        """Row by row, with work that was not initialised and guards behind all that is written."""
        call = getattr(self.library, f"{self.name}_{function}")
        call.restype = {"classify": ctypes.c_int, "score": ctypes.c_float}.get(function)
        results = []
        for row in np.ascontiguousarray(X, dtype=np.float32):
            given = row.copy()
            output = np.full(n_outputs + GUARD, np.nan, dtype=np.float32)
            work = np.full(self.work_bytes + GUARD, 255, dtype=np.uint8)  # NaN
            buffers = [given, work] if call.restype else [given, output, work]
            returned = call(*(ctypes.c_void_p(buffer.ctypes.data) for buffer in buffers))
            assert np.isnan(output[n_outputs:]).all() and (work[self.work_bytes :] == 255).all()
            np.testing.assert_array_equal(given, row)
            results.append(returned if call.restype else output[:n_outputs])
        return np.array(results)


def arrays_of(source: str, name: str = "model") -> dict[str, np.ndarray]:
    """The constants of a program, without its name, as arrays of the sizes declared."""
    arrays = {}
    for kind, array, size, numbers in re.findall(r"static const (\w+) (\w+)\[(\d+)\] = \{([^}]*)\};", source):
        texts = [text.strip().removesuffix("f") for text in numbers.split(",")]
        arrays[array.removeprefix(f"{name}_")] = np.array(texts, dtype=np.float32 if kind == "float" else np.int8)
        assert len(texts) == int(size)
    return arrays


# ---- the same computations in NumPy -----------------------------------------------------------------
ACTIVATIONS = {
    "sigmoid": lambda a: np.exp(-np.logaddexp(np.float32(0), -a)),
    "tanh": np.tanh,
    "relu": lambda a: np.maximum(a, np.float32(0)),
    "linear": lambda a: a,
}


def forward(model, X: np.ndarray, multiply) -> dict[str, np.ndarray]:
    """All outputs; `multiply` takes the name of a matrix, inputs, and whether it is to be transposed."""
    p, layers = model._parameters, model._spec.layers
    x = X
    for k, layer in enumerate(layers):
        x = ACTIVATIONS[layer.activation](multiply(f"layers.{k}.W", x, False) + p[f"layers.{k}.b"])
    codes = z = x
    for k, layer in reversed(list(enumerate(layers))):
        a = multiply(f"layers.{k}.{'W' if layer.tied else 'V'}", z, layer.tied) + p[f"layers.{k}.c"]
        z = ACTIVATIONS[layer.output_activation](a)
    result = {"encodings": codes, "reconstructions": z, "scores": -np.square(z - X).mean(axis=1)}
    if "head.W" in p:
        a = result["predictions"] = multiply("head.W", codes, False) + p["head.b"]
        e = np.exp(a - a.max(axis=1, keepdims=True))
        result |= {"probabilities": e / e.sum(axis=1, keepdims=True), "labels": a.argmax(axis=1)}
    return result


def whole_numbers(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inputs of a product in int8, and what a step of one stands for."""
    limit = np.float32(min(32767, (2**31 - 1) // (127 * x.shape[1])))
    largest = np.abs(x).max(axis=1, keepdims=True)
    scaled = np.where(largest > 1e-30, x * (limit / np.maximum(largest, np.float32(1e-30))), np.float32(0))
    return np.trunc(scaled + np.copysign(np.float32(0.5), scaled)).astype(np.int64), largest / limit


def emulated(model, X: np.ndarray, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the scheme of `to_c` gives with the codes and scales of a program."""

    def multiply(key: str, x: np.ndarray, back: bool) -> np.ndarray:
        name = c_name(key)
        scales = arrays[name.replace("weights", "scales")]
        codes = arrays[name].reshape(len(scales), -1).astype(np.int64)  # a row an output
        whole, step = whole_numbers(x * scales if back else x)
        sums = whole @ (codes if back else codes.T)
        assert np.abs(sums).max() < 2**31
        return sums.astype(np.float32) * step * (1 if back else scales)

    with np.errstate(over="ignore"):  # in the scores of enormous rows
        return forward(model, X.astype(np.float32), multiply)


def c_name(key: str) -> str:
    layer, role = key.rsplit(".", 1)
    name = {"W": "weights", "b": "bias", "V": "decoder_weights", "c": "decoder_bias"}[role]
    return f"head_{name}" if layer == "head" else f"{name}_{layer.split('.')[1]}"


def close(given: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(given, expected, rtol=0, atol=tolerance * max(1.0, float(np.abs(expected).max())))


# ---- the same answers ------------------------------------------------------------------------------
@needs_gcc
@pytest.mark.parametrize(
    ("activation", "tied"),
    [
        *((activation, tied) for activation in ("sigmoid", "tanh", "relu", "linear") for tied in (True, False)),
        (("relu", "sigmoid", "tanh"), (True, False, True)),
        (("linear", "tanh", "sigmoid"), (False, True, False)),
    ],
)
def test_stacks_encode_reconstruct_and_score_alike(rng, tmp_path, activation, tied):
    X = rng.random((40, 13), dtype=np.float32) * rng.choice([1, 3])  # beyond 1 the decoder ends linear
    options = {"activation": activation, "tied_weights": tied, "pretrain_learning_rate": 1e-3}
    model = StackedDenoisingAutoencoder((40, 7, 5), **options, **QUICK).fit(X)
    (tmp_path / "whole").mkdir()
    program = Program(to_c(model, ANY), tmp_path)
    whole = Program(to_c(model, ANY, weights="int8", calibration=X), tmp_path / "whole")
    expected = emulated(model, X, whole.arrays)
    for function, output, n in (("encode", "encodings", 5), ("reconstruct", "reconstructions", 13)):
        method = model.transform if function == "encode" else model.reconstruct
        close(program(function, X, n), method(X), 1e-5)
        close(whole(function, X, n), expected[output], 3e-4)
    close(program("score", X), model.score_samples(X), 1e-5)
    close(whole("score", X), expected["scores"], 3e-4)


@needs_gcc
@pytest.mark.parametrize("classes", [[-3, 5, 9], ["left", "right", "ä"], [1.0, 2.0, 4.0], [False, True]])
def test_classifiers_answer_with_numbers_of_classes(rng, tmp_path, classes):
    X = rng.random((90, 8), dtype=np.float32)
    y = np.array(classes)[(X[:, 0] * len(classes)).astype(int)]
    model = SdAClassifier((12, 6), max_iter=5, **QUICK).fit(X, y)
    program = Program(to_c(model), tmp_path)
    given, expected = program("probabilities", X, len(classes)), model.predict_proba(X)
    np.testing.assert_allclose(given, expected, atol=1e-5)
    clear = np.abs(np.diff(np.sort(expected, axis=1)[:, -2:], axis=1)[:, 0]) > 1e-4
    np.testing.assert_array_equal(model.classes_[program("classify", X)][clear], model.predict(X)[clear])
    assert class_names(program, len(classes)) == [str(label) for label in classes]


@needs_gcc
def test_probabilities_of_large_logits_do_not_overflow(rng, tmp_path):
    X = rng.random((20, 4), dtype=np.float32)
    model = SdAClassifier(3, max_iter=1, **QUICK).fit(X, np.arange(20) % 3)
    model._parameters["head.b"][:] = [[150, 149, 100], [-150, -149, -200], [3e38, 0, -3e38]][rng.integers(3)]
    program = Program(to_c(model), tmp_path)
    np.testing.assert_allclose(program("probabilities", X, 3), model.predict_proba(X), atol=1e-4)
    np.testing.assert_array_equal(program("classify", X), model.predict_proba(X).argmax(axis=1))


@needs_gcc
@pytest.mark.parametrize("n_targets", [0, 1, 3])
def test_regressors_predict_in_the_targets_units(rng, tmp_path, n_targets):
    X = rng.random((80, 6), dtype=np.float32)
    y = 5e4 + 1000 * X[:, 0] if not n_targets else 100 * X[:, :n_targets]
    model = SdARegressor((10,), max_iter=5, **QUICK).fit(X, y.ravel() if n_targets == 1 else y)
    expected = model.predict(X).reshape(80, -1)
    close(Program(to_c(model), tmp_path)("predict", X, expected.shape[1]), expected, 2e-6)
    (tmp_path / "whole").mkdir()
    whole = Program(to_c(model, weights="int8"), tmp_path / "whole")
    emulation, centre = emulated(model, X, whole.arrays)["predictions"], expected.mean()
    close(whole("predict", X, expected.shape[1]) - centre, emulation - centre, 3e-4)


@needs_gcc
@pytest.mark.parametrize("weights", ["fp32", "int8"])
def test_layers_of_one_unit_empty_rows_and_columns_without_weights(rng, tmp_path, weights):
    X = np.vstack([np.zeros((1, 1)), rng.random((30, 1))]).astype(np.float32)
    model = SdAClassifier((1, 1), max_iter=1, **QUICK).fit(X, np.arange(31) % 2)
    model._parameters["layers.0.W"][:] = 0.0
    program = Program(to_c(model, [*ANY, "labels", "probabilities"], weights=weights), tmp_path)
    for function, expected in (("encode", model.transform(X)), ("reconstruct", model.reconstruct(X))):
        np.testing.assert_allclose(program(function, X, 1), expected, atol=1e-2 if weights == "int8" else 1e-5)
    single = StackedDenoisingAutoencoder(1, **QUICK).fit(X)
    (tmp_path / "single").mkdir()
    given = Program(to_c(single, weights=weights), tmp_path / "single")("encode", X, 1)
    np.testing.assert_allclose(given, single.transform(X), atol=1e-2 if weights == "int8" else 1e-5)


# ---- eight bits ------------------------------------------------------------------------------------
def linear_layer(rng, weights: np.ndarray, bias: np.ndarray | None = None) -> StackedDenoisingAutoencoder:
    """A fitted stack of one linear layer with these weights."""
    X = rng.random((20, len(weights)), dtype=np.float32)
    options = {"activation": "linear", "reconstruction_loss": "squared_error", "pretrain_learning_rate": 1e-6}
    model = StackedDenoisingAutoencoder(weights.shape[1], **options, **QUICK).fit(X)
    model._parameters["layers.0.W"][:] = weights
    model._parameters["layers.0.b"][:] = 0.0 if bias is None else bias
    return model


@needs_gcc
@pytest.mark.parametrize("n_inputs", [3, 516, 517, 945])
def test_rounding_costs_at_most_half_a_step_of_an_input_and_saturates_nothing(rng, tmp_path, n_inputs):
    weights = rng.normal(size=(n_inputs, 33)).astype(np.float32)
    weights[:, 0], weights[:, 1] = 2.0, 0.0
    model = linear_layer(rng, weights, rng.normal(size=33).astype(np.float32))
    X = rng.normal(size=(20, n_inputs)).astype(np.float32) * np.float32(10.0) ** rng.integers(-20, 20, (20, 1))
    X[0], X[1] = 7.0, -7.0  # the largest sums there are
    program = Program(to_c(model, ["encodings"], weights="int8"), tmp_path)
    given = program("encode", X, 33)
    quantized = quantize_columns(weights)
    np.testing.assert_array_equal(program.arrays["weights_0"].reshape(33, -1).T, quantized.codes)
    np.testing.assert_array_equal(program.arrays["scales_0"], quantized.scales)
    emulation = emulated(model, X, program.arrays)["encodings"]
    assert (np.abs(given - emulation) <= 1e-6 * np.abs(emulation).max(axis=1, keepdims=True)).all()
    limit = min(32767, (2**31 - 1) // (127 * n_inputs))
    largest = np.abs(X).max(axis=1, keepdims=True).astype(np.float64)
    exact = X.astype(np.float64) @ quantized.weights + model._parameters["layers.0.b"]
    bound = largest / (2 * limit) * np.abs(quantized.weights.astype(np.float64)).sum(axis=0)
    assert (np.abs(given - exact) <= 1.01 * bound + 1e-6 * np.abs(exact) + 1e-6).all()


@needs_gcc
def test_classes_of_eight_bits_are_those_of_the_estimator(rng, tmp_path):
    seed = int(rng.integers(2**31))
    X, y = make_blobs(600, n_features=20, centers=6, cluster_std=2.0, center_box=(-8, 8), random_state=seed)
    X = minmax_scale(X).astype(np.float32)
    model = SdAClassifier((32, 16), max_iter=40, random_state=seed, **QUICK).fit(X, y)
    program = Program(to_c(model, weights="int8", calibration=X[:200]), tmp_path)
    assert (model.classes_[program("classify", X)] == model.predict(X)).mean() > 0.97
    assert np.abs(program("probabilities", X, 6) - model.predict_proba(X)).mean() < 0.02


def test_calibration_gives_each_layer_its_own_inputs(rng, tmp_path):
    X = rng.random((200, 12), dtype=np.float32) * np.linspace(0.01, 1, 12, dtype=np.float32)
    model = SdAClassifier((40, 30), tied_weights=(True, False), max_iter=3, **QUICK).fit(X, np.arange(200) % 10)
    outputs = ["labels", "reconstructions"]
    plain = arrays_of(to_c(model, outputs, weights="int8"))
    source = to_c(model, outputs, weights="int8", calibration=X)
    chosen = arrays_of(source)
    codes = model.transform(X)
    seen = {"layers.0.W": X, "layers.1.W": model.transform(X, layer=0), "layers.1.V": codes, "head.W": codes}
    for key, inputs in seen.items():
        quantized, name = quantize_columns(model._parameters[key], inputs), c_name(key)
        np.testing.assert_array_equal(chosen[name].reshape(quantized.codes.T.shape).T, quantized.codes)
        np.testing.assert_array_equal(chosen[name.replace("weights", "scales")], quantized.scales)
    assert (chosen["weights_0"] != plain["weights_0"]).any() and (chosen["weights_1"] != plain["weights_1"]).any()
    assert source == to_c(model, outputs, weights="int8", calibration=scipy.sparse.csr_array(X))


def test_a_program_has_the_weights_of_a_compact_file(rng, tmp_path):
    X = rng.random((100, 9), dtype=np.float32)
    model = SdAClassifier((8, 5), tied_weights=(True, False), max_iter=2, **QUICK).fit(X, np.arange(100) % 2)
    save_model(model, tmp_path / "small.gesda", weights="int8", calibration=X)
    source = to_c(load(tmp_path / "small.gesda"), ["labels", "scores"])  # the file's weights, as floats again
    arrays = arrays_of(to_c(model, ["labels", "scores"], weights="int8", calibration=X))
    for name, expected in arrays_of(source).items():
        given = arrays[name]
        if given.dtype == np.int8:
            scales = arrays[name.replace("weights", "scales")]
            given = (given.reshape(len(scales), -1) * scales[:, None]).ravel()
        np.testing.assert_array_equal(given, expected)


# ---- constants -------------------------------------------------------------------------------------
@needs_gcc
def test_every_float_is_read_back_exactly(rng, tmp_path):
    bits = rng.integers(0, 2**32, 3000, dtype=np.uint32)
    bits = np.concatenate([bits, bits[:500] & 0x807FFFFF])  # denormal
    values = bits.view(np.float32)
    values = np.concatenate([values[np.isfinite(values)], np.array([1, -2, 3e38, 1e9, 16777216, 0.1], np.float32)])
    model = linear_layer(rng, np.zeros((1, len(values)), dtype=np.float32), values)
    program = Program(to_c(model), tmp_path)
    np.testing.assert_array_equal(program("encode", np.zeros((1, 1)), len(values))[0], values)
    np.testing.assert_array_equal(
        program.arrays["bias_0"].view(np.uint32)[values != 0], values.view(np.uint32)[values != 0]
    )


def test_only_what_the_outputs_need_is_in_the_file(rng):
    X = rng.random((30, 5), dtype=np.float32)
    model = SdAClassifier((4, 3), tied_weights=(True, False), max_iter=1, **QUICK).fit(X, np.arange(30) % 2)
    encoder = {f"{name}_{k}" for name in ("weights", "bias") for k in (0, 1)}
    head = {"head_weights", "head_bias"}
    decoder = {"decoder_weights_1", "decoder_bias_0", "decoder_bias_1"}
    for outputs, arrays in (
        (None, encoder | head),
        (["encodings"], encoder),
        (["probabilities"], encoder | head),
        (["scores"], encoder | decoder),
        (["labels", "reconstructions"], encoder | head | decoder),
    ):
        source = to_c(model, outputs)
        assert set(arrays_of(source)) == arrays
        assert ("class_names" in source) == (outputs is None or "labels" in outputs)
        whole = set(arrays_of(to_c(model, outputs, weights="int8")))
        assert whole == arrays | {name.replace("weights", "scales") for name in arrays if "weights" in name}
    assert "expf" not in re.sub(r"/\*.*?\*/", "", to_c(linear_layer(rng, np.ones((2, 2)))), flags=re.DOTALL)


def test_what_a_program_gives_by_default_is_what_a_graph_gives(rng):
    pytest.importorskip("onnx", reason="exporting to ONNX needs onnx: pip install 'gesda[onnx]'")
    from gesda.export import to_onnx

    X = rng.random((20, 4), dtype=np.float32)
    functions = {"encodings": "encode", "labels": "classify", "predictions": "predict"}
    for model in (
        StackedDenoisingAutoencoder(3, **QUICK).fit(X),
        SdAClassifier(3, max_iter=1, **QUICK).fit(X, np.arange(20) % 2),
        SdARegressor(3, max_iter=1, **QUICK).fit(X, X[:, 0]),
    ):
        graph = [functions.get(output.name, output.name) for output in to_onnx(model).graph.output]
        assert set(re.findall(r"^(?:void|int) model_(\w+)\(.*;$", to_c(model), re.MULTILINE)) == set(graph)


# ---- the text --------------------------------------------------------------------------------------
def class_names(program: Program, n: int) -> list[str]:
    names = (ctypes.c_char_p * n).in_dll(program.library, f"{program.name}_class_names")
    return [name.decode("utf-8") for name in names]


@needs_gcc
def test_names_of_classes_reach_the_program_as_they_are_and_break_nothing(rng, tmp_path):
    hostile = [
        'say "hi"', "back\\slash", "end\\", "new\nline", "\r\t\x07\x7f", "??/", "what??!", "*/ int x; /*", "// \\",
        "ÄΩ漢字🎉", "\n12", "@file@ @strings@", "model_x MODEL_WORK", '", "b', "};", "#include <stdio.h>", " ",
        "\u2028", "%s", "x" * 4095,
    ]  # fmt: skip
    points = rng.integers(1, 0x10FFFF, (100, 8))
    points[(points >= 0xD800) & (points < 0xE000)] = 63
    random = ["".join(map(chr, row)) for row in points]
    random += ["".join(rng.choice(list('?\\/"*\n0'), 12)) for _ in range(100)]
    labels = np.unique([*hostile, *random])
    X = rng.random((2 * len(labels), 3), dtype=np.float32)
    model = SdAClassifier(2, max_iter=1, **QUICK).fit(X, np.tile(labels, 2))
    source = to_c(model, ["labels"], name="model_model")
    assert class_names(Program(source, tmp_path, "model_model"), len(labels)) == list(model.classes_)
    assert '#include "model_model.c"' in source
    assert source.isascii() and not set(source) & set("\r\t\x07\x7f") and "??" not in source
    model.classes_ = np.array([b"raw", *["lone \ud800"] * (len(labels) - 1)], dtype=object)
    assert '"raw"' in to_c(model) and '"lone \\134ud800"' in to_c(model)


@needs_gcc
@needs_gpp
@pytest.mark.parametrize("weights", ["fp32", "int8"])
def test_the_file_is_also_cpp_and_its_own_header_and_shares_a_program_with_others(rng, tmp_path, weights):
    X = rng.random((40, 5), dtype=np.float32)
    model = SdAClassifier((4, 3), tied_weights=(True, False), max_iter=1, **QUICK).fit(X, np.arange(40) % 2)
    for name in ("first", "second"):
        save_c(model, tmp_path / f"{name}.c", [*ANY, "labels", "probabilities"], weights=weights, name=name)
    both = '#include "first.c"\n#include "second.c"\n'
    (tmp_path / "both.c").write_text(both)
    main = "#define FIRST_DECLARATIONS\n#define SECOND_DECLARATIONS\n" + both
    main += "int main() { static first_work work; float input[FIRST_INPUTS] = {};\n"
    main += "return first_classify(input, &work) >= FIRST_CLASSES || !second_class_names[0]; }\n"
    (tmp_path / "main.cpp").write_text(main)
    run("gcc", *C, "-O2", "-c", tmp_path / "both.c", "-o", tmp_path / "c.o")
    run("g++", *CPP, "-O2", "-x", "c++", "-c", tmp_path / "both.c", "-o", tmp_path / "cpp.o")
    for built in ("c.o", "cpp.o"):  # the same symbols, whichever compiler
        run("g++", *CPP, tmp_path / "main.cpp", tmp_path / built, "-lm", "-o", tmp_path / "main")
        run(tmp_path / "main")


@needs_gcc
@pytest.mark.parametrize("weights", ["fp32", "int8"])
def test_nothing_is_allocated_nothing_global_is_written_and_the_sizes_are_true(rng, tmp_path, weights):
    X = rng.random((40, 31), dtype=np.float32)
    model = SdAClassifier((20, 9), max_iter=1, **QUICK).fit(X, np.arange(40) % 3)
    source = to_c(model, [*ANY, "labels", "probabilities"], weights=weights)
    code = re.sub(r"static const \w+ \w+\[\d+\] = \{[^}]*\};", "", re.sub(r"/\*.*?\*/", "", source, flags=re.DOTALL))
    assert not re.search(r"\b(malloc|calloc|free|printf|double|stdio|static (?!void|float))\b", code)
    assert len(source.splitlines()) - sum(len(a) // 8 + 3 for a in arrays_of(source).values()) < 250
    program = Program(source, tmp_path)
    assert f"struct model_work, {program.work_bytes:,} bytes" in source
    run("gcc", *C, "-O0", "-fno-pic", "-c", tmp_path / "model.c", "-o", tmp_path / "model.o")
    symbols = [line.split() for line in run("nm", "-S", tmp_path / "model.o").decode().splitlines()]
    assert {fields[-1] for fields in symbols if fields[-2] == "U"} <= {"expf", "memset", "memcpy", "memmove"}
    assert {fields[-2] for fields in symbols} <= set("UTtRr")  # code and constants, no data
    constants = [int(fields[1], 16) for fields in symbols if fields[-2] == "r" and not fields[-1].startswith(".")]
    n_bytes = sum(array.nbytes for array in program.arrays.values())
    assert sum(constants) == n_bytes and f"Constants (flash): {n_bytes:,} bytes, and 6 of classes' names" in source


# ---- values that no sensor should give, other processors ---------------------------------------------
MAIN = string.Template("""#include <stdio.h>
#include <stdlib.h>
#define MODEL_DECLARATIONS
#include "model.c"

/* Every buffer is as large as it has to be, so that the sanitizer sees what goes beyond. */
static float *floats(size_t n) { return (float *)malloc(n * sizeof(float)); }

int main(void) {
  float *input = floats(MODEL_INPUTS);
  while (fread(input, sizeof(float), MODEL_INPUTS, stdin) == MODEL_INPUTS) {
    struct model_work *work = (struct model_work *)malloc(sizeof(struct model_work));
    float *encodings = floats(MODEL_ENCODINGS), *restored = floats(MODEL_INPUTS), *shares = floats(MODEL_CLASSES);
    float rest[2];
    model_encode(input, encodings, work);
    model_reconstruct(input, restored, work);
    model_probabilities(input, shares, work);
    rest[0] = model_score(input, work);
    rest[1] = (float)model_classify(input, work);
    fwrite(encodings, sizeof(float), MODEL_ENCODINGS, stdout);
    fwrite(restored, sizeof(float), MODEL_INPUTS, stdout);
    fwrite(shares, sizeof(float), MODEL_CLASSES, stdout);
    fwrite(rest, sizeof(float), 2, stdout);
    free(work); free(encodings); free(restored); free(shares);
  }
  free(input);
  return 0;
}
""").template


def executable(model, weights: str, folder: Path, compiler: str, *flags: str) -> Path:
    save_c(model, folder / "model.c", [*ANY, "labels", "probabilities"], weights=weights)
    (folder / "main.c").write_text(MAIN)
    binary = folder / f"{compiler}-main"
    run(compiler, *C[:-1], "-O2", *flags, folder / "main.c", folder / "model.c", "-o", binary, "-lm")
    return binary


def answers(command: list[object], X: np.ndarray) -> np.ndarray:
    given = np.frombuffer(run(*command, input=np.ascontiguousarray(X, dtype=np.float32).tobytes()), dtype=np.float32)
    return given.reshape(len(X), -1)


def sanitizes() -> bool:
    """Whether gcc brings the sanitizers' libraries."""
    command = ["gcc", "-fsanitize=address,undefined", "-x", "c", "-", "-o", "/dev/null"]
    return (
        shutil.which("gcc") is not None
        and not subprocess.run(
            command, input=b"int main(void) { return 0; }", capture_output=True, check=False
        ).returncode
    )


@pytest.mark.skipif(not sanitizes(), reason="needs gcc with the address and undefined behaviour sanitizers")
@pytest.mark.parametrize("weights", ["fp32", "int8"])
@pytest.mark.parametrize(
    ("activation", "tied"), [("sigmoid", True), ("linear", (True, False)), ("relu", (False, True))]
)
def test_whatever_comes_in_nothing_undefined_happens(rng, tmp_path, weights, activation, tied):
    X = rng.normal(size=(40, 37)).astype(np.float32)
    options = {"activation": activation, "tied_weights": tied, "pretrain_learning_rate": 1e-4}
    model = SdAClassifier((33, 5), max_iter=1, learning_rate_init=1e-4, **options, **QUICK).fit(X, np.arange(40) % 3)
    sanitizers = "-fsanitize=undefined,address,float-cast-overflow,float-divide-by-zero", "-fno-sanitize-recover"
    binary = executable(model, weights, tmp_path, "gcc", "-g", *sanitizers)
    tame = np.vstack([X, np.zeros((1, 37)), X[:8] * 1e3, X[:8] * 1e-33, X[:8] * 1e-44]).astype(np.float32)
    wild = np.repeat(X[:8], 8, axis=0) * np.float32(10.0) ** rng.integers(20, 38, (64, 1)).astype(np.float32)
    special = np.array([np.inf, -np.inf, np.nan, np.finfo(np.float32).max, np.finfo(np.float32).min], dtype=np.float32)
    wild[::2, 3] = rng.choice(special, 32)
    wild[1] = special[3]
    given = answers([binary], np.vstack([tame, wild]))
    assert given.shape == (len(tame) + len(wild), 5 + 37 + 3 + 2)
    assert set(given[:, -1]) <= {0.0, 1.0, 2.0}
    assert np.isfinite(given[: len(tame)]).all()
    np.testing.assert_allclose(given[: len(tame), 42:45].sum(axis=1), 1.0, atol=1e-5)
    lost = np.isnan(wild).any(axis=1) if weights == "fp32" else ~np.isfinite(wild).all(axis=1)
    assert np.isnan(given[len(tame) :][lost, :-1]).all()  # nothing makes an answer of what is none
    if weights == "fp32":
        errors = np.abs(given[: len(tame), :5] - model.transform(tame)).max(axis=1)
        assert (errors <= 1e-5 * (1 + np.abs(tame).max(axis=1))).all()


@needs_gcc
@pytest.mark.parametrize("weights", ["fp32", "int8"])
@pytest.mark.parametrize(
    ("compiler", "emulator"), [("aarch64-linux-gnu-gcc", "qemu-aarch64"), ("arm-linux-gnueabihf-gcc", "qemu-arm")]
)
def test_other_processors_give_the_same(rng, tmp_path, compiler, emulator, weights):
    for program in (compiler, emulator):
        if shutil.which(program) is None:
            pytest.skip(f"running what was compiled for another processor needs {program}")
    X = rng.normal(size=(50, 41)).astype(np.float32)
    options = {"activation": ("tanh", "sigmoid"), "tied_weights": (True, False), "pretrain_learning_rate": 1e-3}
    model = SdAClassifier((35, 6), max_iter=3, **options, **QUICK).fit(X, np.arange(50) % 4)
    here = answers([executable(model, weights, tmp_path, "gcc")], X)
    there = answers([emulator, executable(model, weights, tmp_path, compiler, "-static")], X)
    np.testing.assert_allclose(there, here, atol=1e-5 if weights == "fp32" else 1e-3)


# ---- what cannot be exported -------------------------------------------------------------------------
def test_what_cannot_be_exported_is_said(rng, tmp_path):
    X = rng.random((20, 4), dtype=np.float32)
    with pytest.raises(NotFittedError):
        to_c(StackedDenoisingAutoencoder())
    with pytest.raises(TypeError, match="SdARegressor; got dict"):
        to_c({})
    model = StackedDenoisingAutoencoder((3,), **QUICK).fit(X)
    for outputs in (["labels"], ["predictions"], ["nonsense"]):
        with pytest.raises(ValueError, match="choose among 'encodings', 'reconstructions', 'scores'"):
            to_c(model, outputs)
    for outputs in ([], ["scores", "scores"]):
        with pytest.raises(ValueError, match="each once"):
            to_c(model, outputs)
    with pytest.raises(ValueError, match="weights must be one of 'fp32', 'int8'; got 'int4'"):
        to_c(model, weights="int4")
    for name in ("", "1st", "a-b", "a b", "_x", "ä", "int", "restrict", "class", "a\n"):
        with pytest.raises(ValueError, match="no keyword of C or C"):
            to_c(model, name=name)
    with pytest.raises(ValueError, match="calibration chooses the scales of weights='int8'"):
        to_c(model, calibration=X)
    for calibration, message in ((X[:, :3], "3 features"), (np.full((2, 4), np.nan), "NaN"), (X[:0], "0 sample")):
        with pytest.raises(ValueError, match=message):
            to_c(model, weights="int8", calibration=calibration)
    model._parameters["layers.0.c"][1] = np.inf
    with pytest.raises(ValueError, match=r"layers\.0\.c"):
        to_c(model, ["scores"])
    assert "decoder_bias" not in to_c(model)
    with pytest.raises(OSError):
        save_c(model, tmp_path / "absent" / "model.c")


def test_classes_that_are_no_c_strings_are_refused(rng):
    X = rng.random((20, 4), dtype=np.float32)
    for label in ("a\0b", "x" * 4096, "ä" * 2048):
        model = SdAClassifier(3, max_iter=1, **QUICK).fit(X, ["plain", label] * 10)
        with pytest.raises(ValueError, match="is no C string"):
            to_c(model)
        assert "classify" not in to_c(model, ["probabilities"])


def test_saving_replaces_a_file_by_the_same_text(rng, tmp_path):
    model = StackedDenoisingAutoencoder(3, **QUICK).fit(rng.random((20, 4), dtype=np.float32))
    path = tmp_path / "model.c"
    path.write_text("older")
    source = save_c(model, path, ["scores"], weights="int8")
    assert path.read_bytes().decode("ascii") == source == to_c(model, ["scores"], weights="int8")
    assert len(list(tmp_path.iterdir())) == 1
