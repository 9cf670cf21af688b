"""Random networks, data and plans for the contract suite, and the comparison of two engines' updates."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from gesda.engine.reference import ReferenceEngine
from gesda.spec import FinetunePlan, HeadSpec, LayerSpec, NetworkSpec, OptimizerSpec, PretrainPlan

try:
    from gesda.engine import cpu

    CPU_VARIANTS, CPU_MISSING = list(cpu.available_variants()), ""
    CPU_BF16_VARIANTS = list(cpu.available_variants("bf16"))
except (ImportError, RuntimeError) as error:
    CPU_VARIANTS, CPU_BF16_VARIANTS, CPU_MISSING = [], [], f"the cpu engine is not there: {error}"

#: Largest error of an update against the reference, relative to the update's norm, after a few steps. Where
#: operands are rounded (test_rounded_products.py), a step chains four products of two operands each, every one rounded
#: by at most 2^-9 of itself in bf16, 2^-11 in TF32 and half precision.
TOLERANCE = {"fp32": 2e-4, "bf16": 8 * 2.0**-9, "tf32": 8 * 2.0**-11, "fp16": 8 * 2.0**-11}
#: Spacing of float32 around 1: a stored weight is rounded once a step, whatever the size of the update.
EPSILON = float(np.finfo(np.float32).eps)

WIDTHS = (1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 48, 63, 65, 100, 129)
OPTIMIZERS = {
    "sgd": OptimizerSpec("sgd"),
    "momentum": OptimizerSpec("momentum", momentum=0.8),
    "nesterov": OptimizerSpec("momentum", momentum=0.7, nesterov=True),
    "adam": OptimizerSpec("adam", beta_1=0.85, beta_2=0.99, epsilon=1e-4),
}
PENALTIES: dict[str, dict[str, float]] = {
    "free": {},
    "sparse": {"sparsity": 0.3, "sparsity_target": 0.2},
    "contractive": {"contractive": 0.1},
    "l2": {"l2": 0.02},
    "all": {"sparsity": 0.2, "contractive": 0.05, "l2": 0.01},
}
_FACTORS: dict[str, tuple[Any, ...]] = {
    "noise": ("none", "masking", "gaussian", "salt_and_pepper", "swap"),
    "activation": ("sigmoid", "tanh", "relu", "linear"),
    "output": ("cross_entropy", "sigmoid", "tanh", "relu", "linear"),
    "tied": (True, False),
    "penalty": tuple(PENALTIES),
    "emphasis": ((1.0, 1.0), (2.0, 0.5)),
    "optimizer": tuple(OPTIMIZERS),
    "handoff": ("clean", "noisy"),
}


# ---- combinations ---------------------------------------------------------------------------------
def _possible(row: dict[str, Any]) -> bool:
    emphasised = row["emphasis"] != (1.0, 1.0)
    sparse = row["penalty"] in ("sparse", "all")
    return not (emphasised and row["noise"] in ("none", "gaussian")) and not (sparse and row["activation"] != "sigmoid")


def _pairs(row: dict[str, Any]) -> set[tuple[Any, ...]]:
    return {(a, row[a], b, row[b]) for a, b in itertools.combinations(_FACTORS, 2)}


def covering_rows(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Random combinations of options until every possible pair of options has occurred."""
    every = [dict(zip(_FACTORS, values, strict=True)) for values in itertools.product(*_FACTORS.values())]
    possible = [row for row in every if _possible(row)]
    missing = set().union(*(_pairs(row) for row in possible))
    rows = []
    while missing:
        candidates = [possible[i] for i in rng.integers(len(possible), size=60)]
        best = max(candidates, key=lambda row: len(_pairs(row) & missing))
        if _pairs(best) & missing:
            rows.append(best)
            missing -= _pairs(best)
    return rows


def layer_from_row(row: dict[str, Any], n_visible: int, n_hidden: int, rng: np.random.Generator) -> LayerSpec:
    entropy = row["output"] == "cross_entropy"
    return LayerSpec(
        n_visible,
        n_hidden,
        activation=row["activation"],
        output_activation="sigmoid" if entropy else row["output"],
        loss="cross_entropy" if entropy else "squared_error",
        tied=row["tied"],
        noise=row["noise"],
        noise_level=float(rng.uniform(0.05, 0.6)),
        noise_range=(-0.2, 0.9) if rng.random() < 0.5 else (0.0, 1.0),
        emphasis=row["emphasis"],
        **PENALTIES[row["penalty"]],
    )


def covering_networks(rng: np.random.Generator) -> Iterator[tuple[NetworkSpec, str]]:
    """Stacks of 1 to 5 layers, each with the handoff to train it with, that together cover all pairs of options."""
    rows = covering_rows(rng)
    for optimizer, handoff in itertools.product(OPTIMIZERS, ("clean", "noisy")):
        stack: list[LayerSpec] = []
        for row in rows:
            if (row["optimizer"], row["handoff"]) != (optimizer, handoff):
                continue
            # Cross-entropy needs inputs in [0, 1], which only sigmoid encodings are.
            unfit = stack and row["output"] == "cross_entropy" and stack[-1].activation != "sigmoid"
            if unfit or len(stack) == 5 or (stack and rng.random() < 0.15):
                yield NetworkSpec(tuple(stack), OPTIMIZERS[optimizer], seed=draw_seed(rng)), handoff
                stack = []
            n_visible = stack[-1].n_hidden if stack else int(rng.choice(WIDTHS))
            stack.append(layer_from_row(row, n_visible, int(rng.choice(WIDTHS)), rng))
        if stack:
            yield NetworkSpec(tuple(stack), OPTIMIZERS[optimizer], seed=draw_seed(rng)), handoff


def draw_seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**64, dtype=np.uint64))


def stack(widths: tuple[int, ...], optimizer: str = "sgd", seed: int = 5, **layer_options: Any) -> NetworkSpec:
    """A network of equal layers with the given widths, the input's first."""
    layers = tuple(LayerSpec(n, m, **layer_options) for n, m in itertools.pairwise(widths))
    return NetworkSpec(layers, OPTIMIZERS[optimizer], seed=seed)


def with_head(spec: NetworkSpec, kind: str, n_outputs: int, **options: Any) -> NetworkSpec:
    return replace(spec, head=HeadSpec(kind, n_outputs, **options))


# ---- data, states, plans --------------------------------------------------------------------------
def random_state(spec: NetworkSpec, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Parameters of a scale that keeps the units in their sensitive range."""
    return {
        name: (rng.normal(size=shape) / np.sqrt(sum(shape) / 2 if len(shape) == 2 else 25)).astype(np.float32)
        for name, shape in spec.parameter_shapes().items()
    }


def random_data(n_samples: int, n_columns: int, rng: np.random.Generator) -> np.ndarray:
    """Values in [0, 1], about a third of them exact zeros."""
    x = rng.random((n_samples, n_columns))
    return np.where(x < 0.35, 0.0, x).astype(np.float32)


def default_rate(spec: NetworkSpec) -> float:
    if spec.optimizer.kind == "adam":
        return 0.005
    return min(0.1, 2.0 / max(layer.n_visible + layer.n_hidden for layer in spec.layers))


def pretrain_plan(
    spec: NetworkSpec,
    n_samples: int,
    batch_size: int,
    *,
    epoch: int = 0,
    training: tuple[bool, ...] | None = None,
    first_layer: int = 0,
    handoff: str = "clean",
    rate: float | None = None,
    rng: np.random.Generator | None = None,
) -> PretrainPlan:
    order = np.arange(n_samples, dtype=np.uint32) if rng is None else rng.permutation(n_samples).astype(np.uint32)
    if training is None:
        training = tuple(k >= first_layer for k in range(len(spec.layers)))
    rates = tuple((rate or default_rate(spec)) * (1 + 0.1 * k) for k in range(len(spec.layers)))
    return PretrainPlan(epoch, order, batch_size, training, rates, first_layer, handoff)


def finetune_plan(
    n_samples: int, batch_size: int, rng: np.random.Generator, *, epoch: int = 0, rate: float = 0.05
) -> FinetunePlan:
    return FinetunePlan(epoch, rng.permutation(n_samples).astype(np.uint32), batch_size, rate)


def random_targets(spec: NetworkSpec, n_samples: int, rng: np.random.Generator) -> np.ndarray:
    assert spec.head is not None
    if spec.head.kind == "softmax":
        return rng.integers(spec.head.n_outputs, size=n_samples).astype(np.int32)
    return rng.normal(size=(n_samples, spec.head.n_outputs)).astype(np.float32)


# ---- comparison -----------------------------------------------------------------------------------
def reference_like(engine: Any) -> ReferenceEngine:
    """A reference engine in the same state."""
    reference = ReferenceEngine(engine.spec)
    reference.set_state(engine.get_state())
    return reference


def assert_same_updates(engine: Any, reference: ReferenceEngine, before: dict[str, np.ndarray]) -> None:
    """The engine's arrays moved from ``before`` as the reference's did, within the precision's tolerance."""
    ours, theirs = engine.get_state(), reference.get_state()
    assert set(ours) == set(theirs)
    steps = max(int(array.max()) for name, array in theirs.items() if name.endswith(".steps"))
    for name, expected in theirs.items():
        if name.endswith(".steps"):
            np.testing.assert_array_equal(ours[name], expected, err_msg=name)
            continue
        start = np.asarray(before.get(name, 0.0), dtype=np.float64)
        moved = np.linalg.norm(expected - start)
        allowed = TOLERANCE[engine.precision] * moved + steps * EPSILON * np.linalg.norm(expected)
        error = np.linalg.norm(ours[name].astype(np.float64) - expected)
        assert error <= allowed, (
            f"{name} {expected.shape}: error {error:.3g}, allowed {allowed:.3g}, moved {moved:.3g}; {engine.spec}"
        )


def assert_same_bits(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert set(one) == set(other)
    for name, array in one.items():
        assert array.dtype == other[name].dtype, name
        assert array.tobytes() == other[name].tobytes(), f"{name} differs by up to {np.abs(array - other[name]).max()}"


def is_emulated(engine: Any) -> bool:
    """Whether an emulator runs this engine's kernels, a thousand times slower than a device."""
    return type(getattr(engine, "_device", None)).__name__ == "EmulatedDevice"


def assert_losses_agree(engine: Any, ours: tuple[float, ...], theirs: tuple[float, ...]) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE[engine.precision], atol=1e-6, equal_nan=True)


def assert_pretrains_like_reference(
    engine: Any, data: Any, plans: list[PretrainPlan], state: dict[str, np.ndarray]
) -> None:
    engine.set_state(state)
    reference = reference_like(engine)
    for plan in plans:
        ours, theirs = engine.pretrain_epoch(data, plan), reference.pretrain_epoch(data, plan)
        assert ours.completed
        assert_losses_agree(engine, ours.loss, theirs.loss)
    assert_same_updates(engine, reference, state)
