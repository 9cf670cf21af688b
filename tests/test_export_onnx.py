"""ONNX graphs give what the estimators give, run by ONNX Runtime."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from gesda import SdAClassifier, SdARegressor, StackedDenoisingAutoencoder

pytest.importorskip("onnx", reason="exporting needs onnx: pip install 'gesda[onnx]'")
pytest.importorskip("onnxruntime", reason="running a graph needs onnxruntime")

import onnx
import onnxruntime as runtime

from gesda.cli import main
from gesda.export import OUTPUTS, save_onnx, to_onnx

QUICK = {"pretrain_epochs": 2, "batch_size": 16, "n_jobs": 1, "device": "cpu"}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng()


def run(model, X, outputs=None):
    session = runtime.InferenceSession(to_onnx(model, outputs).SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"X": X.astype(np.float32)}), strict=True))


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "linear"])
@pytest.mark.parametrize("tied", [True, False])
def test_stacks_encode_reconstruct_and_score_alike(rng, activation, tied):
    X = rng.random((60, 13), dtype=np.float32)
    options = {"reconstruction_loss": "squared_error", "tied_weights": tied, "pretrain_learning_rate": 1e-3}
    model = StackedDenoisingAutoencoder((9, 7, 5), activation=activation, **options, **QUICK).fit(X)
    for n in (1, 60):
        given = run(model, X[:n], ["encodings", "reconstructions", "scores"])
        np.testing.assert_allclose(given["encodings"], model.transform(X[:n]), atol=1e-5)
        np.testing.assert_allclose(given["reconstructions"], model.reconstruct(X[:n]), atol=1e-5)
        np.testing.assert_allclose(given["scores"], model.score_samples(X[:n]), atol=1e-5)
    assert list(run(model, X)) == ["encodings"]


@pytest.mark.parametrize(
    "classes",
    [np.array([-3, 5, 9]), np.array(["ä", "left", "right"]), np.array([1.0, 2.0, 4.0]), np.array([False, True])],
)
def test_classifiers_answer_with_their_labels(rng, classes):
    X = rng.random((90, 8), dtype=np.float32)
    y = classes[(X[:, 0] * len(classes)).astype(int)]
    model = SdAClassifier((12, 6), max_iter=5, **QUICK).fit(X, y)
    given = run(model, X)
    assert list(given) == ["labels", "probabilities"]
    np.testing.assert_allclose(given["probabilities"], model.predict_proba(X), atol=1e-5)
    clear = np.abs(np.diff(np.sort(model.predict_proba(X), axis=1)[:, -2:], axis=1)[:, 0]) > 1e-4
    np.testing.assert_array_equal(given["labels"][clear], model.predict(X)[clear])
    several = run(model, X, ["encodings", "labels", "reconstructions"])
    np.testing.assert_allclose(several["encodings"], model.transform(X), atol=1e-5)


@pytest.mark.parametrize("n_targets", [0, 1, 3])
def test_regressors_predict_in_the_targets_units(rng, n_targets):
    X = rng.random((80, 6), dtype=np.float32)
    y = 1000 * X[:, 0] if not n_targets else 100 * X[:, :n_targets]
    model = SdARegressor((10,), max_iter=5, **QUICK).fit(X, y.ravel() if n_targets == 1 else y)
    predictions = run(model, X)["predictions"]
    assert predictions.shape == model.predict(X).shape
    np.testing.assert_allclose(predictions, model.predict(X), rtol=1e-5, atol=1e-3)


def test_the_file_tells_what_it_is_and_where_it_came_from(rng, tmp_path: Path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(rng.random((40, 3)), columns=["height", "width", "mass"])
    model = SdAClassifier((4,), max_iter=1, **QUICK).fit(frame, ["a", "b"] * 20)
    save_onnx(model, tmp_path / "model.onnx", ["labels"])
    read = onnx.load(tmp_path / "model.onnx")
    facts = {prop.key: json.loads(prop.value) for prop in read.metadata_props}
    assert facts == {"estimator": "SdAClassifier", "classes": ["a", "b"], "feature_names": ["height", "width", "mass"]}
    assert read.producer_name == "gesda" and len(list(tmp_path.iterdir())) == 1
    assert read.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"


def test_what_cannot_be_exported_is_said(rng, tmp_path: Path):
    X = rng.random((20, 4), dtype=np.float32)
    with pytest.raises(NotFittedError):
        to_onnx(StackedDenoisingAutoencoder())
    model = StackedDenoisingAutoencoder((3,), **QUICK).fit(X)
    for outputs in (["labels"], ["predictions"], ["nonsense"]):
        with pytest.raises(ValueError, match="'encodings', 'reconstructions', 'scores'"):
            to_onnx(model, outputs)
    for outputs in ([], ["scores", "scores"]):
        with pytest.raises(ValueError, match="each once"):
            to_onnx(model, outputs)
    with pytest.raises(OSError):
        save_onnx(model, tmp_path / "absent" / "model.onnx")
    assert [name for name, kinds in OUTPUTS.items() if "regressor" in kinds] == [
        "encodings",
        "reconstructions",
        "scores",
        "predictions",
    ]


def test_the_command_writes_the_file_that_python_writes(rng, tmp_path: Path, capsys):
    X = rng.random((30, 5), dtype=np.float32)
    model = SdAClassifier((4,), max_iter=1, **QUICK).fit(X, np.arange(30) % 3)
    model.save(tmp_path / "model.gesda")
    target = tmp_path / "model.onnx"
    argv = ["export", str(tmp_path / "model.gesda"), "--onnx", str(target), "--outputs", "labels,scores", "--json"]
    assert main(argv) == 0
    report = json.loads(capsys.readouterr().out)["onnx"]
    assert report["outputs"] == ["labels", "scores"] and report["bytes"] == target.stat().st_size
    assert target.read_bytes() == to_onnx(model, ["labels", "scores"]).SerializeToString()
    assert main([*argv[:-2], "predictions"]) == 1
    assert "has no output 'predictions'" in capsys.readouterr().err
