"""save and load: the same bits come back, and a file that does not describe a model gets one clear error."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from sklearn.base import clone

import gesda.estimators
from gesda.estimators import SdAClassifier, SdARegressor, StackedDenoisingAutoencoder
from gesda.model_io import ModelFileError, read_tensors, write_tensors


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.gesda"


def test_a_loaded_estimator_predicts_the_same_bits(samples, make, cls, path, output):
    X, y = samples
    model = make(cls, tied_weights=(True, False), noise=["gaussian", "swap"], activation=("tanh", "sigmoid")).fit(X, y)
    model.save(path)
    for loaded in (cls.load(path), gesda.estimators.load(str(path))):
        assert type(loaded) is cls
        np.testing.assert_array_equal(output(loaded, X), output(model, X))
        np.testing.assert_array_equal(loaded.reconstruct(X), model.reconstruct(X))
        assert loaded.n_iter_ == model.n_iter_ and loaded.loss_curve_ == model.loss_curve_
        assert loaded.history_ == model.history_ and loaded.device_ == model.device_
        # The parameters came back too: they train the same network again.
        np.testing.assert_array_equal(output(clone(loaded).fit(X, y), X), output(model, X))


def test_training_continues_after_loading_as_without(samples, make, cls, path, output):
    X, y = samples
    model = make(cls, pretrain_solver="adam").partial_fit(X, y)
    model.save(path)
    np.testing.assert_array_equal(output(cls.load(path).partial_fit(X, y), X), output(model.partial_fit(X, y), X))


def test_names_classes_and_targets_come_back(samples, make, path):
    import pandas as pd

    X, y = samples
    table = pd.DataFrame(X, columns=list("uvwxyz"))
    labels = np.array(["no", "yes", "maybe"])[y]
    model = make(SdAClassifier, class_weight={"no": 2.0, "yes": 1}, early_stopping=True).fit(table, labels)
    model.save(path)
    loaded = SdAClassifier.load(path)
    assert loaded.feature_names_in_.tolist() == list("uvwxyz") and loaded.classes_.tolist() == ["maybe", "no", "yes"]
    assert (
        loaded.class_weight == {"no": 2.0, "yes": 1} and loaded.predict(table).tolist() == model.predict(table).tolist()
    )
    assert loaded.best_validation_score_ == model.best_validation_score_
    assert loaded.validation_scores_ == model.validation_scores_
    make(SdAClassifier, class_weight={0: 2.0}).fit(X, y).save(path)
    assert SdAClassifier.load(path).class_weight == {0: 2.0} and SdAClassifier.load(path).classes_.dtype == y.dtype
    regressor = make(SdARegressor).fit(X, np.column_stack([y, 100 + y]))
    regressor.save(path)
    np.testing.assert_array_equal(SdARegressor.load(path).predict(X), regressor.predict(X))
    assert SdARegressor.load(path).target_mean_[1] == regressor.target_mean_[1]


def test_a_generator_and_callbacks_are_left_out(samples, make, path):
    make(SdAClassifier, random_state=np.random.RandomState(0), callbacks=[]).fit(*samples).save(path)
    loaded = SdAClassifier.load(path)
    assert loaded.random_state is None and loaded.callbacks is None


def test_the_class_is_checked(samples, make, path):
    make(SdAClassifier).fit(*samples).save(path)
    with pytest.raises(ModelFileError, match="holds a SdAClassifier, not a SdARegressor"):
        SdARegressor.load(path)

    class Own(SdAClassifier):
        pass

    with pytest.raises(ModelFileError, match="Own is not one of GeSdA's own"):
        make(Own).fit(*samples).save(path)


def change(content, where, value):
    """Set a value deep in nested dictionaries and lists; the value `None`-like KeyError deletes it."""
    *parents, last = where
    for key in parents:
        content = content[key]
    if value is KeyError:
        del content[last]
    else:
        content[last] = value


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("estimator",), "Popen"),
        (("estimator",), ["SdAClassifier"]),
        (("params",), None),
        (("params", "solver"), "newton"),
        (("params", "solver"), KeyError),
        (("params", "command"), "ls"),
        (("params", "callbacks"), {"pairs": []}),
        (("params", "hidden_layer_sizes"), []),
        (("network",), []),
        (("network", "seed"), -1),
        (("network", "seed"), "1"),
        (("network", "layers"), []),
        (("network", "layers", 0, "n_hidden"), 10**12),
        (("network", "layers", 0, "n_hidden"), 8),
        (("network", "layers", 0, "n_hidden"), "9"),
        (("network", "layers", 0, "n_hidden"), True),
        (("network", "layers", 1, "activation"), "step"),
        (("network", "layers", 1, "tied"), False),
        (("network", "layers", 1, "noise_range"), [0]),
        (("network", "layers", 1, "emphasis"), [1.0, 1.0, 1.0]),
        (("network", "layers", 1, "noise_level"), float("nan")),
        (("network", "layers", 1, "colour"), "red"),
        (("network", "head"), None),
        (("network", "head", "kind"), "linear"),
        (("network", "head", "n_outputs"), 4),
        (("network", "head", "dropout"), [2.0, 0.0, 0.0]),
        (("network", "head", "optimizer"), {}),
        (("network", "optimizer", "kind"), "magic"),
        (("fitted", "n_features_in"), 7),
        (("fitted", "feature_names_in"), ["a"]),
        (("fitted", "feature_names_in"), [1, 2, 3, 4, 5, 6]),
        (("fitted", "limits"), [1.0, float("inf")]),
        (("fitted", "progress", "calls"), -1),
        (("fitted", "progress"), KeyError),
        (("fitted", "history"), {}),
        (("fitted", "history"), [{"phase": "lunch", "loss": 1.0, "epoch": 0}]),
        (("fitted", "history"), [{"phase": "pretrain", "loss": 1.0, "epoch": 0, "layer": 5}]),
        (("fitted", "history"), [{"phase": "pretrain"}]),
        (("fitted", "classes"), ["a", "b"]),
        (("fitted", "classes"), [1, 2, 3]),
    ],
    ids=str,
)
def test_altered_metadata_get_one_clear_error(samples, make, path, where, value):
    make(SdAClassifier).fit(*samples).save(path)
    tensors, metadata = read_tensors(path)
    altered = copy.deepcopy(metadata)
    change(altered, where, value)
    assert json.dumps(altered) != json.dumps(metadata)
    write_tensors(path, tensors, altered)
    with pytest.raises(ModelFileError, match="does not describe a model"):
        gesda.estimators.load(path)


@pytest.mark.parametrize("cls", [SdAClassifier, SdARegressor])
@pytest.mark.parametrize("kind", ["missing", "shape", "dtype", "nan", "extra", "resume"])
def test_altered_arrays_get_one_clear_error(samples, make, path, rng, cls, kind):
    make(cls).fit(*samples).save(path)
    tensors, metadata = read_tensors(path)
    name = rng.choice([name for name in tensors if name not in ("classes", "target_mean")])
    if kind == "missing" and name.startswith("resume."):
        name = "head.W"
    if kind == "missing":
        del tensors[name]
    elif kind == "shape":
        tensors[name] = tensors[name][..., :-1]
    elif kind == "dtype":
        tensors[name] = tensors[name].astype(bool)
    elif kind == "nan":
        tensors[name] = np.full_like(tensors[name], np.nan)
    else:
        tensors["extra" if kind == "extra" else "resume.extra"] = np.zeros(3, dtype=np.float32)
    write_tensors(path, tensors, metadata)
    with pytest.raises(ModelFileError, match="does not describe a model"):
        gesda.estimators.load(path)


def test_an_unsupervised_model_has_no_head(samples, make, path):
    make(StackedDenoisingAutoencoder).fit(samples[0]).save(path)
    tensors, metadata = read_tensors(path)
    assert not any(name.startswith("head") for name in tensors) and metadata["network"]["head"] is None
