"""gesda.spec: what is refused and how it is said, the shapes of the state, the codes of kernels/math.hpp."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

import gesda.spec as spec_module
from gesda.spec import (
    ACTIVATION_RANGES,
    ACTIVATIONS,
    HEADS,
    LOSSES,
    NOISES,
    OPTIMIZERS,
    STREAMS,
    FinetunePlan,
    HeadSpec,
    LayerSpec,
    NetworkSpec,
    OptimizerSpec,
    PretrainPlan,
)

MATH_HPP = Path(__file__).parents[1] / "kernels" / "math.hpp"


def plan(**options):
    defaults = {
        "epoch": 0,
        "order": np.arange(4, dtype=np.uint32),
        "batch_size": 2,
        "training": (True, True),
        "learning_rates": (0.1, 0.1),
    }
    return PretrainPlan(**{**defaults, **options})


# ---- validation -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_visible": 0}, "n_visible must be at least 1; got 0"),
        ({"n_hidden": -3}, "n_hidden must be at least 1; got -3"),
        ({"activation": "softplus"}, "activation must be one of 'sigmoid', 'tanh', 'relu', 'linear'; got 'softplus'"),
        ({"output_activation": "step"}, "output_activation must be one of"),
        ({"loss": "hinge"}, "loss must be one of 'cross_entropy', 'squared_error'; got 'hinge'"),
        ({"noise": "speckle"}, "noise must be one of"),
        ({"noise_level": -0.1}, r"noise_level must be a finite number in \[0, 1\]; got -0.1"),
        ({"noise_level": 1.5}, r"noise_level must be a finite number in \[0, 1\]; got 1.5"),
        ({"noise_level": np.nan}, "noise_level must be a finite number"),
        ({"noise": "gaussian", "noise_level": np.inf}, r"noise_level must be a finite number in \[0, inf\)"),
        ({"noise_range": (1.0, 0.0)}, "noise_range must be two finite numbers in order"),
        ({"noise_range": (0.0, np.inf)}, "noise_range must be two finite numbers"),
        ({"emphasis": (-1.0, 1.0)}, "emphasis must be a finite number"),
        ({"emphasis": (2.0, 1.0), "noise": "gaussian"}, "emphasis needs a noise that corrupts some components"),
        ({"emphasis": (2.0, 1.0), "noise": "none"}, "emphasis needs a noise that corrupts some components"),
        ({"output_activation": "linear"}, "cross_entropy loss needs output_activation='sigmoid'; got 'linear'"),
        ({"sparsity": -1.0}, "sparsity must be a finite number"),
        ({"contractive": np.nan}, "contractive must be a finite number"),
        ({"l2": -1e-9}, "l2 must be a finite number"),
        ({"sparsity_target": 0.0}, r"sparsity_target must be a finite number in \(0, 1\)"),
        ({"sparsity_target": 1.0}, r"sparsity_target must be a finite number in \(0, 1\)"),
        ({"sparsity": 0.1, "activation": "tanh"}, "sparsity needs activation='sigmoid'; got 'tanh'"),
    ],
)
def test_a_layer_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        LayerSpec(**{"n_visible": 4, "n_hidden": 3, **options})


@pytest.mark.parametrize(
    "options",
    [
        {"noise_level": 0.0},
        {"noise_level": 1.0},
        {"noise": "gaussian", "noise_level": 7.0},
        {"noise_range": (0.5, 0.5)},
        {"noise": "swap", "emphasis": (0.0, 1.0)},
        {"loss": "squared_error", "output_activation": "linear"},
        {"sparsity": 3.0, "contractive": 2.0, "l2": 1.0},
    ],
)
def test_a_layer_takes_its_limits(options):
    LayerSpec(4, 3, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "rmsprop"}, "solver must be one of 'sgd', 'momentum', 'adam'; got 'rmsprop'"),
        ({"momentum": 1.0}, r"momentum must be a finite number in \[0, 1\)"),
        ({"beta_1": 1.0}, "beta_1 must be a finite number"),
        ({"beta_2": -0.1}, "beta_2 must be a finite number"),
        ({"epsilon": 0.0}, r"epsilon must be a finite number in \(0, inf\)"),
    ],
)
def test_an_optimizer_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        OptimizerSpec(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "crf"}, "head must be one of 'softmax', 'linear'; got 'crf'"),
        ({"n_outputs": 0}, "n_outputs must be at least 1; got 0"),
        ({"l2": -1.0}, "alpha must be a finite number"),
        ({"dropout": (0.0, 1.0)}, r"dropout must be a finite number in \[0, 1\)"),
    ],
)
def test_a_head_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        HeadSpec(**{"kind": "softmax", "n_outputs": 3, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ()}, "a network needs at least one layer"),
        ({"layers": (LayerSpec(4, 3), LayerSpec(2, 2))}, "layer 1 reads 2 values, layer 0 writes 3"),
        ({"head": HeadSpec("linear", 1, dropout=(0.1,))}, "one rate for the input and one for each of the 1 layers"),
        ({"seed": -1}, "seed must fit into 64 bits; got -1"),
        ({"seed": 2**64}, "seed must fit into 64 bits"),
    ],
)
def test_a_network_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        NetworkSpec(**{"layers": (LayerSpec(4, 3),), **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"learning_rates": (0.1,)}, "one entry per layer"),
        ({"training": (False, False)}, "trains at least one layer"),
        ({"training": (True, True), "first_layer": 1}, "none below first_layer"),
        ({"training": (True, False), "first_layer": 1}, "trains at least one layer"),
        ({"handoff": "dirty"}, "handoff must be one of 'clean', 'noisy'; got 'dirty'"),
    ],
)
def test_a_plan_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        plan(**options)


def test_a_finetuning_plan_refuses_empty_batches():
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        FinetunePlan(0, np.arange(4, dtype=np.uint32), 0, 0.1)


@pytest.mark.parametrize(
    "record", [LayerSpec(2, 1), OptimizerSpec(), HeadSpec("linear", 1), NetworkSpec((LayerSpec(2, 1),)), plan()]
)
def test_records_are_immutable(record):
    name = dataclasses.fields(record)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, name, getattr(record, name))


# ---- shapes ---------------------------------------------------------------------------------------
LAYERS = (LayerSpec(5, 4), LayerSpec(4, 3, tied=False))


def test_parameters_of_tied_and_untied_layers_and_of_the_head():
    assert NetworkSpec(LAYERS, head=HeadSpec("softmax", 2)).parameter_shapes() == {
        "layers.0.W": (5, 4),
        "layers.0.b": (4,),
        "layers.0.c": (5,),
        "layers.1.W": (4, 3),
        "layers.1.b": (3,),
        "layers.1.c": (4,),
        "layers.1.V": (3, 4),
        "head.W": (3, 2),
        "head.b": (2,),
    }


@pytest.mark.parametrize(("kind", "slots"), [("sgd", ()), ("momentum", ("velocity",)), ("adam", ("mean", "variance"))])
def test_optimizer_state_of_pretraining_covers_every_array_of_the_layers(kind, slots):
    network = NetworkSpec(LAYERS, OptimizerSpec(kind))
    parameters, state = network.parameter_shapes(), network.state_shapes()
    expected = dict(parameters)
    expected.update({f"pretrain.{name}.{slot}": shape for name, shape in parameters.items() for slot in slots})
    assert state == {**expected, "pretrain.steps": (2,)}


def test_optimizer_state_of_finetuning_leaves_out_the_decoders():
    network = NetworkSpec(LAYERS, head=HeadSpec("linear", 2, OptimizerSpec("momentum")))
    tuned = {name for name in network.state_shapes() if name.startswith("finetune.")}
    arrays = ("layers.0.W", "layers.0.b", "layers.1.W", "layers.1.b", "head.W", "head.b")
    assert tuned == {f"finetune.{name}.velocity" for name in arrays} | {"finetune.steps"}
    assert network.state_shapes()["finetune.steps"] == (1,)
    assert network.state_shapes()["finetune.head.W.velocity"] == (3, 2)


# ---- codes ----------------------------------------------------------------------------------------
def enumerations():
    if not MATH_HPP.exists():
        pytest.skip("kernels/math.hpp is not there")
    found = re.findall(r"enum\s+(\w+)\s*:\s*int\s*\{([^}]*)\}", MATH_HPP.read_text())
    return {name: dict(re.findall(r"k(\w+)\s*=\s*(\d+)", body)) for name, body in found}


@pytest.mark.parametrize(
    ("enumeration", "table"),
    [
        ("Activation", ACTIVATIONS),
        ("Loss", LOSSES),
        ("Noise", NOISES),
        ("Optimizer", OPTIMIZERS),
        ("Head", HEADS),
        ("Stream", STREAMS),
    ],
)
def test_codes_are_those_of_the_kernels(enumeration, table):
    # kSaltAndPepper is salt_and_pepper; kLinearHead, which must differ from kLinear, is linear.
    written = {
        re.sub(r"(?<!^)([A-Z])", r"_\1", name.removesuffix(enumeration)).lower(): int(code)
        for name, code in enumerations()[enumeration].items()
    }
    assert written == dict(table)


def test_every_activation_has_a_range():
    assert set(ACTIVATION_RANGES) == set(ACTIVATIONS)


def test_spec_imports_nothing_of_gesda():
    imported = {
        name
        for node in ast.walk(ast.parse(Path(spec_module.__file__).read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not any(name.startswith("gesda") for name in imported)
