"""Constructor parameters: per-layer values, what follows from them, and one clear error for each wrong one."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.preprocessing import scale

from gesda.estimators import SdAClassifier, SdARegressor, StackedDenoisingAutoencoder, _network
from gesda.estimators._rates import batch_size, learning_rates

WRONG = [
    ({"hidden_layer_sizes": 0}, "hidden_layer_sizes"),
    ({"hidden_layer_sizes": ()}, "hidden_layer_sizes"),
    ({"hidden_layer_sizes": (3, 2.5)}, "hidden_layer_sizes"),
    ({"activation": "softplus"}, "activation must be one of"),
    ({"activation": ("tanh",)}, "activation has 1 values; give one, or one for each of the 2 layers"),
    ({"noise": "hail"}, "noise must be one of"),
    ({"noise_level": -0.1}, "noise_level"),
    ({"noise_level": 1.5}, "noise_level"),
    ({"noise_level": "much"}, "noise_level"),
    ({"emphasis": (1, 2, 3)}, "emphasis"),
    ({"emphasis": (0, 0)}, "emphasis"),
    ({"emphasis": [(1, 2)]}, "emphasis has 1 entries"),
    ({"emphasis": (2, 1), "noise": "gaussian"}, "emphasis needs a noise"),
    ({"reconstruction_loss": "hinge"}, "reconstruction_loss must be one of"),
    ({"tied_weights": 1}, "tied_weights must be True or False"),
    ({"sparsity": 0.1, "activation": "tanh"}, "sparsity needs activation='sigmoid'"),
    ({"sparsity_target": 0.0}, "sparsity_target"),
    ({"contractive": math.nan}, "contractive"),
    ({"schedule": "parallel"}, "schedule must be one of"),
    ({"stagger": -1}, "stagger"),
    ({"stagger": "later"}, "stagger"),
    ({"handoff": "dirty"}, "handoff"),
    ({"pretrain_epochs": 1.5}, "pretrain_epochs"),
    ({"pretrain_epochs": True}, "pretrain_epochs"),
    ({"pretrain_learning_rate": 0}, "pretrain_learning_rate must be 'auto' or"),
    ({"pretrain_solver": "lbfgs"}, "pretrain_solver"),
    ({"pretrain_momentum": 1.0}, "pretrain_momentum"),
    ({"pretrain_alpha": -1}, "pretrain_alpha"),
    ({"learning_rate": "wild"}, "learning_rate must be one of"),
    ({"learning_rate_decay": -1}, "learning_rate_decay"),
    ({"beta_1": 1.0}, "beta_1"),
    ({"epsilon": 0.0}, "epsilon"),
    ({"batch_size": 0}, "batch_size"),
    ({"batch_size": "large"}, "batch_size"),
    ({"warm_start": "yes"}, "warm_start"),
    ({"probe_size": -1}, "probe_size"),
    ({"device": "abacus"}, "device must be one of"),
    ({"precision": "fp8"}, "precision must be one of"),
    ({"n_jobs": 0}, "n_jobs"),
    ({"callbacks": 3}, "callbacks"),
    ({"random_state": "dice"}, "dice"),
]
WRONG_SUPERVISED = [
    ({"max_iter": -1}, "max_iter"),
    ({"learning_rate_init": -0.1}, "learning_rate_init must be 'auto' or"),
    ({"solver": "newton"}, "solver"),
    ({"momentum": -0.5}, "momentum"),
    ({"alpha": -0.5}, "alpha"),
    ({"dropout": 1.0}, "dropout"),
    ({"input_dropout": 1.0}, "input_dropout"),
    ({"early_stopping": None}, "early_stopping"),
    ({"validation_fraction": 1.0}, "validation_fraction"),
    ({"n_iter_no_change": 0}, "n_iter_no_change"),
    ({"tol": -1}, "tol"),
]


@pytest.mark.parametrize(("params", "message"), WRONG, ids=[str(params) for params, _ in WRONG])
def test_a_wrong_parameter_is_named_before_any_training(samples, make, cls, params, message):
    model = make(cls, **params)
    with pytest.raises(ValueError, match=message):
        model.fit(*samples)
    assert not hasattr(model, "history_")


@pytest.mark.parametrize("cls", [SdAClassifier, SdARegressor])
@pytest.mark.parametrize(("params", "message"), WRONG_SUPERVISED, ids=[str(params) for params, _ in WRONG_SUPERVISED])
def test_a_wrong_parameter_of_fine_tuning_is_named(samples, make, cls, params, message):
    with pytest.raises(ValueError, match=message):
        make(cls, **params).fit(*samples)


def test_every_layer_can_have_its_own(samples, make):
    X, y = samples
    model = make(
        SdAClassifier,
        activation=("tanh", "sigmoid"),
        noise=["gaussian", "salt_and_pepper"],
        noise_level=np.array([0.5, 0.1]),
        emphasis=[None, (2, 1)],
        reconstruction_loss=("squared_error", "auto"),
        tied_weights=(True, False),
        sparsity=(0.0, 0.1),
        sparsity_target=(0.05, 0.2),
        contractive=(0.1, 0.0),
        pretrain_alpha=(0.0, 0.01),
        pretrain_epochs=(3, 1),
        pretrain_learning_rate=(0.01, 0.02),
        dropout=(0.5, 0.0),
    ).fit(X, y)
    first, second = model._spec.layers
    assert (first.activation, first.noise, first.noise_level, first.tied) == ("tanh", "gaussian", 0.5, True)
    assert (second.activation, second.noise, second.noise_level, second.tied) == (
        "sigmoid",
        "salt_and_pepper",
        0.1,
        False,
    )
    assert second.emphasis == (2, 1) and first.emphasis == (1, 1)
    assert (first.contractive, second.sparsity, second.sparsity_target, second.l2) == (0.1, 0.1, 0.2, 0.01)
    assert second.noise_range == (-1, 1)  # the range of the tanh layer below
    assert model._spec.head.dropout == (0.0, 0.5, 0.0)
    rates = {(r["layer"], r["learning_rate"]) for r in model.history_ if r["phase"] == "pretrain"}
    assert rates == {(0, 0.01), (1, 0.02)}
    assert [r["layer"] for r in model.history_ if r["phase"] == "pretrain"].count(0) == 3


def layers_of(activation, limits, **params):
    settings = {**StackedDenoisingAutoencoder((4, 3)).get_params(), "activation": activation, **params}
    return _network.build_layers(_network.check_parameters(settings), 5, limits)


@pytest.mark.parametrize(
    ("activation", "limits", "expected"),
    [
        ("sigmoid", (0, 1), [("cross_entropy", "sigmoid"), ("cross_entropy", "sigmoid")]),
        ("sigmoid", (0, 1.5), [("squared_error", "linear"), ("cross_entropy", "sigmoid")]),
        ("tanh", (-1, 1), [("squared_error", "linear"), ("squared_error", "tanh")]),
        ("relu", (0.2, 0.7), [("cross_entropy", "sigmoid"), ("squared_error", "linear")]),
        ("linear", (0, 2), [("squared_error", "linear"), ("squared_error", "linear")]),
    ],
)
def test_the_automatic_loss_goes_by_the_range_of_a_layers_input(activation, limits, expected):
    assert [(layer.loss, layer.output_activation) for layer in layers_of(activation, limits)] == expected


def test_cross_entropy_outside_of_its_range_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"\[0, 1\]; X ranges from -2 to 1.*MinMaxScaler"):
        layers_of("sigmoid", (-2, 1), reconstruction_loss="cross_entropy")
    with pytest.raises(ValueError, match=r"layer 1 reads the tanh encoding of layer 0.*squared_error"):
        layers_of("tanh", (0, 1), reconstruction_loss="cross_entropy")


def test_salt_and_pepper_takes_its_grains_from_the_range_of_the_input():
    first, second = layers_of("sigmoid", (-3, 7), noise="salt_and_pepper")
    assert (first.noise_range, second.noise_range) == ((-3, 7), (0, 1))
    with pytest.raises(ValueError, match=r"layer 1 reads the relu encoding.*masking"):
        layers_of("relu", (0, 1), noise="salt_and_pepper")


def test_initial_weights_lie_in_glorots_range_and_biases_are_zero(rng):
    from gesda.spec import HeadSpec, LayerSpec, NetworkSpec

    layer = LayerSpec(40, 60, activation="sigmoid", output_activation="linear", loss="squared_error", tied=False)
    upper = LayerSpec(60, 30, activation="relu", output_activation="tanh", loss="squared_error")
    parameters = dict(_network.initial_parameters(NetworkSpec((layer, upper), head=HeadSpec("softmax", 3)), rng))
    bounds = {"layers.0.W": 4 * math.sqrt(6 / 100), "layers.0.V": math.sqrt(6 / 100), "layers.1.W": math.sqrt(6 / 60)}
    for name, value in parameters.items():
        largest = np.abs(value).max()
        assert value.dtype == np.float32
        if name in bounds:
            assert 0.95 * bounds[name] < largest <= bounds[name] * (1 + 1e-6)
        else:
            assert largest == 0


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "linear"])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_automatic_rate_does_not_diverge(rng, make, activation, scale):
    X = scale * rng.normal(size=(100, 4)) @ rng.normal(size=(4, 20))
    model = make(StackedDenoisingAutoencoder, hidden_layer_sizes=(150, 30), activation=activation, pretrain_epochs=5)
    losses = model.fit(X).loss_curve_
    assert all(np.isfinite(loss).all() and loss[-1] <= 1.05 * loss[0] for loss in losses)


def test_a_given_rate_is_taken_as_it_is():
    params = {**SdAClassifier((4, 3)).get_params(), "pretrain_learning_rate": [0.7, "auto"], "learning_rate_init": 0.3}
    checked = _network.check_parameters(params)
    layers = _network.build_layers(checked, 5, (0, 9))
    head = _network.head_spec(checked, "softmax", 3)
    assert learning_rates(checked, layers, head, 100.0) == ((0.7, 0.1), 0.3)
    adam = {**checked, "solver": "adam", "pretrain_solver": "adam", "learning_rate_init": "auto"}
    assert learning_rates(adam, layers, head, 100.0) == ((0.7, 0.001), 0.001)


@pytest.mark.parametrize(
    ("given", "n_rows", "one_epoch", "expected"),
    [
        ("auto", 10, False, 4),
        ("auto", 1000, False, 40),
        ("auto", 10**6, False, 128),
        ("auto", 10, True, 128),
        (7, 10, True, 7),
    ],
)
def test_the_automatic_batch_gives_small_data_enough_updates(given, n_rows, one_epoch, expected):
    assert batch_size(given, n_rows, one_epoch=one_epoch) == expected


def test_the_defaults_learn_small_data():
    X, y = load_iris(return_X_y=True)
    assert SdAClassifier(random_state=0).fit(scale(X), y).score(scale(X), y) > 0.85


def test_every_parameter_is_documented(cls):
    for name in cls().get_params():
        assert re.search(rf"^(\w+, )*{name}(, \w+)* : ", cls.__doc__, re.MULTILINE), name
    assert "%(" not in cls.__doc__ and "{and_" not in cls.__doc__
