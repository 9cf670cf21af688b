"""The training that all contenders on the GPU do, its data, and the one yardstick of what they have learnt.

CrossPre at stagger 0: at step s every layer k takes the clean encoding x of minibatch s by the layers
under it, with their weights at the start of the step, corrupts it to x~, and all layers update:
h = s(x~ W + b), a = h W.T + c, d = s(a) - x, e = (d W) h (1 - h); W -= rate/B (x~.T e + d.T h), b and c
by the column sums of e and d; cross-entropy, summed over components and averaged over rows.

A case is a plain dictionary (it travels as JSON), made by `make_case`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
#: W (n, m), b (m), c (n) of each layer.
Layers = list[tuple[Float, Float, Float]]

#: Two contenders have learnt the same when their mean losses, and those of each layer, differ by no more.
TOLERANCE, LAYER_TOLERANCE = 0.02, 0.05


class Impossible(Exception):
    """A form cannot be built here; the message says why."""


@dataclass
class Trial:
    """A contender's built case."""

    reset: Callable[[], None]  # back to the initial weights
    stage: Callable[[NDArray[np.uint32]], Any]  # an order of visits (steps, batch), put where `run` wants it
    run: Callable[[Any], None]  # these steps; returns when the device is done
    layers: Callable[[], Layers]
    memory: Callable[[], int | None] = lambda: None  # peak bytes of device memory, by the library's allocator
    details: dict[str, Any] = field(default_factory=dict)


@dataclass
class Problem:
    """Arrays of a case: data (rows, n), rows to measure the loss on, and the initial weights."""

    data: Float
    held_out: Float
    layers: Layers


def make_case(widths: Sequence[int], batch: int, precision: str, *, quick: bool = False, **changes: Any) -> dict:
    """A case; `steps` are the two lengths whose times are subtracted, multiples of `chunk`."""
    chunk = 4 if quick else 64 if batch <= 100 else 16
    case: dict[str, Any] = {
        "widths": list(widths),
        "batch": batch,
        "precision": precision,
        "chunk": chunk,  # steps of a captured graph or of a compiled scan
        "steps": [chunk, 3 * chunk] if quick else [128, 1152] if batch <= 100 else [64, 320],
        "rounds": 3 if quick else 7,
        "rate": 0.05,
        "noise": 0.25,
        "rows": 64 if quick else 8192,
        "seed": 0,
        "where": "cuda",  # or cpu, or emulated (GeSdA's kernels; the peers then run on the cpu)
        "prepare_seconds": 45.0,  # no further form of a contender is tried after so long
    }
    return case | changes


def make_problem(case: dict[str, Any]) -> Problem:
    """Draw the arrays of a case; the same case gives the same arrays in every process.

    The data are noisy copies of 64 random patterns, so that there is something to learn, and a
    contender that learns something else shows by its loss.
    """
    rng = np.random.default_rng([case["seed"], 0])
    widths = case["widths"]
    patterns = (rng.random((64, widths[0])) < 0.3).astype(np.float32)
    held_out = min(256, case["rows"])

    def draw(rows: int) -> Float:
        noise = rng.random((rows, widths[0]), dtype=np.float32) * np.float32(0.3)
        return np.abs(patterns[rng.integers(0, len(patterns), rows)] - noise)

    limits = [np.sqrt(6.0 / (n + m)) for n, m in itertools.pairwise(widths)]
    layers = [
        (rng.uniform(-limit, limit, (n, m)).astype(np.float32), np.zeros(m, np.float32), np.zeros(n, np.float32))
        for limit, (n, m) in zip(limits, itertools.pairwise(widths), strict=True)
    ]
    return Problem(draw(case["rows"]), draw(held_out), layers)


def orders(case: dict[str, Any], number: int) -> list[NDArray[np.uint32]]:
    """A round's two orders of visits, (steps, batch); the same for every contender."""
    rng = np.random.default_rng([case["seed"], 1, number])
    return [rng.integers(0, case["rows"], (steps, case["batch"])).astype(np.uint32) for steps in case["steps"]]


def _sigmoid(a: Float) -> Float:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-a))


def reconstruction_losses(layers: Layers, x: Float, level: float, seed: int) -> list[float]:
    """Mean cross-entropy of each layer on rows that nobody trained on, corrupted by the same masks for everybody."""
    rng, losses = np.random.default_rng([seed, 2]), []
    for W, b, c in layers:
        noisy = np.where(rng.random(x.shape) < level, np.float32(0), x)
        a = _sigmoid(noisy @ W + b) @ W.T + c
        losses.append(float((np.maximum(a, 0) - a * x + np.log1p(np.exp(-np.abs(a)))).sum(1, dtype=np.float64).mean()))
        x = _sigmoid(x @ W + b)
    return losses


def loss_differences(losses: Sequence[float | None], others: Sequence[float | None]) -> tuple[float, float]:
    """Relative differences of the mean loss and of the worst layer's; infinite where one is not finite (None)."""
    if any(loss is None or not np.isfinite(loss) for loss in (*losses, *others)):
        return float("inf"), float("inf")
    ours, theirs = np.array(losses, dtype=np.float64), np.array(others, dtype=np.float64)
    return float(abs(ours.mean() / theirs.mean() - 1)), float(abs(ours / theirs - 1).max())


def same_training(differences: tuple[float, float]) -> bool:
    """Whether differences of losses are within the tolerances."""
    return differences[0] <= TOLERANCE and differences[1] <= LAYER_TOLERANCE


def flop_per_step(case: dict[str, Any]) -> int:
    """Operations of a step's products: 10 B n m a layer, and 2 B n m to hand a clean encoding up."""
    pairs = list(itertools.pairwise(case["widths"]))
    return sum((12 if k < len(pairs) - 1 else 10) * case["batch"] * n * m for k, (n, m) in enumerate(pairs))
