"""``gesda export``: model files for libgesda, C source, ONNX, and the report."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gesda import SdAClassifier, load
from gesda.cli import main
from gesda.deepmotion import GestureRecognizer, make_gestures
from gesda.runtime import Runtime

QUICK = {"pretrain_epochs": 2, "batch_size": 16, "n_jobs": 1, "device": "cpu"}


@pytest.fixture
def model(tmp_path):
    """Give the path of a classifier's file, and of a table with its data."""
    rng = np.random.default_rng()
    X = rng.random((80, 6), dtype=np.float32)
    y = (X[:, 0] > 0.5).astype(int)
    SdAClassifier((12, 6), max_iter=20, **QUICK).fit(X, y).save(tmp_path / "model.gesda")
    np.savetxt(tmp_path / "data.csv", np.column_stack([X, y]), delimiter=",", header="a,b,c,d,e,f,y", comments="")
    return tmp_path / "model.gesda", tmp_path / "data.csv", X


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory):
    data = make_gestures(6, random_state=1)
    fitted = GestureRecognizer(n_members=2, pretrain_epochs=2, max_iter=3, random_state=0).fit(data)
    path = tmp_path_factory.mktemp("recognizer") / "gestures.gesda"
    fitted.save(path)
    return fitted, path, data


def run(capsys, *arguments, expected=0):
    assert main([str(argument) for argument in arguments]) == expected
    printed = capsys.readouterr()
    return printed.err if expected else printed.out


def test_a_small_file_with_its_report(model, capsys, tmp_path):
    path, data, X = model
    small = tmp_path / "small.gesda"
    report = run(
        capsys, "export", path, "-o", small, "--weights", "int8", "--data", data, "--target", "y", "--report", "--json"
    )
    facts = json.loads(report)
    before, after = facts["report"]
    assert (before["weights"], after["weights"]) == ("fp32", "int8")
    assert after["weight_bytes"] < before["weight_bytes"] and facts["output"]["bytes"] == small.stat().st_size
    assert abs(after["accuracy"] - before["accuracy"]) <= 0.05 and after["median_us"] > 0
    np.testing.assert_allclose(load(small).predict_proba(X), load(path).predict_proba(X), atol=0.05)
    lines = run(capsys, "export", path, "-o", small, "--report")
    assert "before" in lines and "weight bytes" in lines and "accuracy" not in lines


def test_dead_units_go(model, capsys, tmp_path):
    path, data, X = model
    fitted = load(path)
    fitted._parameters["layers.0.W"][:, :5] = 0.0
    fitted.save(path)
    out = run(capsys, "export", path, "-o", tmp_path / "small.gesda", "--prune", "--data", data, "--target", "y")
    assert "hidden units were dead" in out
    assert load(tmp_path / "small.gesda")._spec.layers[0].n_hidden <= 7
    np.testing.assert_allclose(Runtime(tmp_path / "small.gesda").probabilities(X), fitted.predict_proba(X), atol=1e-3)


def test_several_forms_at_once(model, capsys, tmp_path):
    pytest.importorskip("onnx")
    path, _, _ = model
    out = run(capsys, "export", path, "--c", tmp_path / "m.c", "--onnx", tmp_path / "m.onnx", "--outputs", "labels")
    assert "m.c" in out and "m.onnx" in out
    assert "classify" in (tmp_path / "m.c").read_text()


@pytest.mark.parametrize("weights", ["fp16", "int8"])
def test_recognisers_become_small_too(recognizer, capsys, tmp_path, weights):
    fitted, path, data = recognizer
    small = tmp_path / "small.gesda"
    run(capsys, "export", path, "-o", small, "--weights", weights, "--report")
    assert small.stat().st_size < 0.7 * path.stat().st_size
    again, runtime = GestureRecognizer.load(small), Runtime(small)
    assert runtime.weights == weights
    probabilities = np.stack([runtime.recognize(motion).probabilities for motion in data.sequences])
    np.testing.assert_allclose(probabilities, again.predict_proba(data.sequences), atol=2e-3)
    np.testing.assert_allclose(probabilities, fitted.predict_proba(data.sequences), atol=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name what to write"),
        (("-o", "MODEL"), "names the model itself"),
        (("-o", "x.gesda", "--outputs", "labels"), "--outputs goes with"),
        (("--onnx", "x.onnx", "--weights", "int8"), "--weights goes with"),
        (("--c", "x.c", "--weights", "fp16"), "no numbers of 16 bits"),
        (("--c", "x.c", "--report"), "name it with --output"),
        (("-o", "x.gesda", "--prune"), "go with --data"),
        (("-o", "nowhere/x.gesda"), "nowhere"),
    ],
)
def test_contradictions_are_refused_and_nothing_is_written(model, capsys, tmp_path, monkeypatch, arguments, message):
    path, _, _ = model
    monkeypatch.chdir(tmp_path)
    content, before = path.read_bytes(), sorted(tmp_path.iterdir())
    given = [str(path) if argument == "MODEL" else argument for argument in arguments]
    assert message in run(capsys, "export", path, *given, expected=1 if "nowhere" in message else 2)
    assert path.read_bytes() == content and sorted(tmp_path.iterdir()) == before


def test_data_of_another_width_are_refused(model, capsys, tmp_path):
    path, _, _ = model
    np.savetxt(tmp_path / "wide.csv", np.ones((4, 9)), delimiter=",")
    assert "features" in run(
        capsys, "export", path, "-o", tmp_path / "s.gesda", "--data", tmp_path / "wide.csv", expected=1
    )
    assert not (tmp_path / "s.gesda").exists()


def test_recognisers_take_neither_data_nor_c(recognizer, capsys, tmp_path):
    _, path, _ = recognizer
    assert "gesture recogniser" in run(capsys, "export", path, "--c", tmp_path / "m.c", expected=2)
