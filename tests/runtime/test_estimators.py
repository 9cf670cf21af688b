"""libgesda gives what the estimators give: from their own files and from compact ones, in every variant."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from gesda import SdAClassifier, SdARegressor, StackedDenoisingAutoencoder, load
from gesda.export import WEIGHTS, save_model, without_dead_units
from gesda.runtime import Runtime

QUICK = {"pretrain_epochs": 2, "batch_size": 16, "n_jobs": 1, "device": "cpu"}
ACTIVATIONS = ["sigmoid", "tanh", "relu", "linear"]


def variants() -> list[str]:
    from gesda import _core

    return [name for name in _core.available_variants() if name != "avx512bf16"]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.gesda"


def stack(rng, activation="sigmoid", tied=True):
    """A stack of random widths, and data for it."""
    X = rng.random((70, rng.integers(1, 90)), dtype=np.float32)
    widths = tuple(int(width) for width in rng.integers(1, 70, size=rng.integers(1, 4)))
    options = {"reconstruction_loss": "squared_error", "tied_weights": tied, "pretrain_learning_rate": 1e-3}
    return StackedDenoisingAutoencoder(widths, activation=activation, **options, **QUICK).fit(X), X


def classifier(rng, classes, n_features=20):
    X = rng.random((90, n_features), dtype=np.float32)
    y = np.asarray(classes)[np.minimum((X[:, 0] * len(classes)).astype(int), len(classes) - 1)]
    return SdAClassifier((12, 6), max_iter=5, **QUICK).fit(X, y), X


def close(actual, expected, share=1e-5):
    """Equal but for a share of the largest value, or of 1."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=share * max(1.0, np.abs(expected).max(initial=0.0)))


# ---- the same answers -----------------------------------------------------------------------------
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("tied", [True, False])
def test_stacks_encode_reconstruct_and_score_alike(rng, path, activation, tied):
    model, X = stack(rng, activation, tied)
    model.save(path)
    for variant in variants():
        runtime = Runtime(path, variant, verify=True)
        assert (runtime.variant, runtime.kind, runtime.weights) == (variant, "autoencoder", "fp32")
        for n in (0, 1, 2, 3, 4, 5, 70):
            close(runtime.encode(X[:n]), model.transform(X[:n]) if n else np.zeros((0, runtime.n_hidden)))
            close(runtime.reconstruct(X[:n]), model.reconstruct(X[:n]) if n else np.zeros((0, X.shape[1])))
            close(runtime.score(X[:n]), model.score_samples(X[:n]) if n else np.zeros(0))


@pytest.mark.parametrize(
    "classes",
    [[-3, 5, 9], ["ä", 'left "quoted"', "right"], [1.0, 2.0, 4e5], [False, True], np.array([1, 200], np.uint8)],
)
def test_classifiers_answer_with_their_labels(rng, path, classes):
    model, X = classifier(rng, classes)
    model.save(path)
    runtime = Runtime(path)
    close(runtime.probabilities(X), model.predict_proba(X))
    np.testing.assert_array_equal(model.classes_[runtime.classify(X)], model.predict(X))
    as_text = [
        name if isinstance(name, str) else repr(name).removesuffix(".0") for name in np.asarray(classes).tolist()
    ]
    if isinstance(classes[0], bool):
        as_text = ["False", "True"]
    assert sorted(runtime.class_names) == sorted(as_text)


@pytest.mark.parametrize("n_targets", [1, 3])
def test_regressors_predict_alike(rng, path, n_targets):
    X = rng.random((80, 7), dtype=np.float32)
    y = 1e4 * X[:, :n_targets] + 5.0
    model = SdARegressor((9,), max_iter=5, **QUICK).fit(X, y[:, 0] if n_targets == 1 else y)
    model.save(path)
    runtime = Runtime(path)
    assert (runtime.kind, runtime.n_outputs) == ("regressor", n_targets)
    close(runtime.predict(X), model.predict(X).reshape(80, -1))


def test_many_rows_wide_layers_and_single_units(rng, path):
    X = rng.random((300, 3000), dtype=np.float32)
    model = StackedDenoisingAutoencoder((1, 2500, 1), **QUICK).fit(X[:40])
    model.save(path)
    close(Runtime(path).encode(X), model.transform(X))
    close(Runtime(path).reconstruct(X), model.reconstruct(X))


def test_extreme_inputs_do_no_harm(rng, path):
    model, X = stack(rng, "relu")
    save_model(model, path, weights="int8")
    for scale in (0.0, 1e-38, 1e30):
        assert np.isfinite(Runtime(path).encode(X * np.float32(scale))).all()


# ---- compact files --------------------------------------------------------------------------------
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("tied", [True, False])
def test_compact_files_are_the_model_that_python_loads_of_them(rng, path, weights, activation, tied):
    model, X = stack(rng, activation, tied)
    save_model(model, path, weights=weights, calibration=X if rng.random() < 0.5 else None)
    rounded = load(path)
    # Weights are the same; int8 rounds the rows as well, to 14 bits or more at these widths.
    share = 1e-3 if weights == "int8" else 1e-5
    for variant in variants():
        runtime = Runtime(path, variant)
        assert runtime.weights == weights
        for n in (1, 5, 70):
            close(runtime.encode(X[:n]), rounded.transform(X[:n]), share)
            close(runtime.reconstruct(X[:n]), rounded.reconstruct(X[:n]), share)
    tolerance = {"fp32": 0.0, "fp16": 2e-3, "int8": 5e-2}[weights]
    close(rounded.transform(X), model.transform(X), tolerance)


def test_compact_files_are_small(rng, path):
    X = rng.random((40, 300), dtype=np.float32)
    model = SdAClassifier((200, 100), solver="adam", **QUICK).partial_fit(X, X[:, 0] > 0.5, classes=[False, True])
    model.save(path)  # with the moments of adam, for training to go on
    whole = path.stat().st_size
    sizes = []
    for weights in WEIGHTS:
        save_model(model, path, weights=weights)
        sizes.append(path.stat().st_size)
    assert whole > 2.5 * sizes[0]
    assert sizes[0] > 1.9 * sizes[1] > 1.9 * 1.7 * sizes[2] > 0


def test_calibration_data_lessen_what_rounding_does(rng, path):
    X = np.abs(rng.normal(size=(500, 40)) * np.geomspace(1, 0.01, 40)).astype(np.float32)
    model = StackedDenoisingAutoencoder((30,), reconstruction_loss="squared_error", **QUICK).fit(X / X.max())
    W = model.coefs_[0]
    W[20:] *= 30  # large weights on inputs that are nearly zero
    X /= X.max()
    errors = []
    for calibration in (None, X):
        save_model(model, path, weights="int8", calibration=calibration)
        rounded = load(path)
        errors.append(float(np.square(X @ (rounded.coefs_[0] - W)).mean()))
    assert errors[1] < errors[0]


def test_dead_units_are_left_out_and_answers_stay(rng, path):
    X = rng.random((200, 10), dtype=np.float32)
    for tied in (True, False):
        options = {"activation": "relu", "reconstruction_loss": "squared_error", "tied_weights": tied}
        model = SdAClassifier((40, 20), max_iter=5, **options, **QUICK).fit(X, X[:, 0] > 0.5)
        dead = [rng.permutation(40)[:15], rng.permutation(20)[:5]]
        for k in (0, 1):  # one constant, the others off
            model._parameters[f"layers.{k}.W"][:, dead[k]] = 0.0
            model._parameters[f"layers.{k}.b"][dead[k]] = -1.0
            model._parameters[f"layers.{k}.b"][dead[k][0]] = 0.7
        model._runtime = type(model._runtime)()
        smaller = without_dead_units(model, X)
        widths = [layer.n_hidden for layer in smaller._spec.layers]
        assert widths[0] <= 25 and widths[1] <= 15
        close(smaller.predict_proba(X), model.predict_proba(X), 1e-4)
        save_model(smaller, path, weights="fp32")
        close(Runtime(path).probabilities(X), model.predict_proba(X), 1e-4)
        assert [layer.n_hidden for layer in load(path)._spec.layers] == widths
        assert model._spec.layers[0].n_hidden == 40  # the model itself is as before


# ---- several handles, several threads -------------------------------------------------------------
def test_each_thread_has_a_handle_of_its_own(rng, path):
    model, X = classifier(rng, ["a", "b", "c"])
    model.save(path)
    expected, wrong = model.predict_proba(X), []

    def ask():
        runtime = Runtime(path)
        for _ in range(50):
            if np.abs(runtime.probabilities(X) - expected).max() > 1e-5:
                wrong.append(1)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# ---- mistakes -------------------------------------------------------------------------------------
def test_what_a_model_cannot_is_said(rng, path):
    model, X = stack(rng)
    model.save(path)
    runtime = Runtime(path)
    for ask in (runtime.probabilities, runtime.classify, runtime.predict):
        with pytest.raises(TypeError, match="does not"):
            ask(X)
    with pytest.raises(TypeError, match="no gesture recogniser"):
        runtime.recognize(X)
    with pytest.raises(TypeError, match="no gesture recogniser"):
        runtime.stream()


def test_values_that_are_not_finite_are_named(rng, path):
    model, X = classifier(rng, [0, 1])
    model.save(path)
    for value in (np.nan, np.inf, -np.inf):
        row, column = int(rng.integers(90)), int(rng.integers(20))
        bad = X.copy()
        bad[row, column] = value
        with pytest.raises(ValueError, match=f"Row {row}, column {column} is not finite"):
            Runtime(path).classify(bad)


def test_files_that_are_no_models_are_refused(rng, tmp_path, path):
    model, _ = classifier(rng, [0, 1])
    model.save(path)
    with pytest.raises(OSError, match="cannot be opened"):
        Runtime(tmp_path / "nowhere.gesda")
    with pytest.raises(OSError, match="no regular file"):
        Runtime(tmp_path)
    with pytest.raises(ValueError, match="cannot run here"):
        Runtime(path, "sse9")
    (tmp_path / "text").write_text("hello, this is no model at all")
    with pytest.raises(ValueError, match="does not fit"):
        Runtime(tmp_path / "text")
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    Runtime(path)  # a bit of a weight: only the checksum tells
    with pytest.raises(ValueError, match="checksum"):
        Runtime(path, verify=True)


def test_a_file_cut_at_any_byte_is_refused(rng, path):
    X = rng.random((20, 3), dtype=np.float32)
    SdAClassifier((2,), **QUICK, max_iter=1).fit(X, X[:, 0] > 0.5).save(path)
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"\w"):
            Runtime(path)
