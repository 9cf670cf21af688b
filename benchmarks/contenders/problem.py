"""The problem that all contenders solve: the same data, initial weights and order of the samples.

A case is a plain dictionary (it travels as JSON): ``kind`` ("pretrain" or "finetune"), ``layers``
(widths, input first), ``n_outputs`` (fine-tuning), ``batch``, ``n_batches`` (minibatches an epoch),
``optimizer`` ("sgd" or "momentum"), ``momentum``, ``noise``, ``rate``, ``rows`` and ``seed``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]


@dataclass
class Run:
    """A contender's built case: train so many epochs when called; ``weights()`` are its matrices now."""

    train: Callable[[int], None]
    weights: Callable[[], list[Float]]
    details: dict[str, Any] = field(default_factory=dict)  # what else the result file should know

    def __call__(self, epochs: int) -> None:
        self.train(epochs)


@dataclass
class Problem:
    """Arrays of a case: ``x`` (rows, n), ``labels`` (rows,), ``order`` (n_batches, batch), parameters."""

    x: Float
    labels: NDArray[np.int32]
    order: NDArray[np.uint32]
    weights: list[Float]  # (n_k, m_k) of each layer; with a head, its matrix last
    hidden_biases: list[Float]
    visible_biases: list[Float]


def make_problem(case: dict[str, Any]) -> Problem:
    """Draw the arrays of a case; the same case gives the same arrays in every process."""
    rng = np.random.default_rng(case["seed"])
    widths = [*case["layers"], *([case["n_outputs"]] if case["kind"] == "finetune" else [])]
    rows, visits = case["rows"], case["n_batches"] * case["batch"]
    # Like grey-scale images: many zeros, the rest between 0 and 1.
    x = rng.random((rows, widths[0]), dtype=np.float32)
    x[x < 0.5] = 0.0
    order = np.concatenate([rng.permutation(rows) for _ in range(-(-visits // rows))])[:visits]
    limits = [np.sqrt(6.0 / (n + m)) for n, m in itertools.pairwise(widths)]
    return Problem(
        x=x,
        labels=rng.integers(0, case["n_outputs"], rows).astype(np.int32),
        order=order.astype(np.uint32).reshape(case["n_batches"], case["batch"]),
        weights=[
            rng.uniform(-limit, limit, (n, m)).astype(np.float32)
            for limit, n, m in zip(limits, widths, widths[1:], strict=False)
        ],
        hidden_biases=[np.zeros(m, np.float32) for m in widths[1:]],
        visible_biases=[np.zeros(n, np.float32) for n in widths[:-1]],
    )


def flop_per_step(case: dict[str, Any]) -> int:
    """Floating-point operations of a step's matrix products.

    Tied autoencoder: encode, decode, e = d W, and two terms of dW, 2 B n m each. Fine-tuning: forward,
    dW and the gradient to the layer below, which the lowest layer does not need.
    """
    batch, widths = case["batch"], case["layers"]
    pairs = list(itertools.pairwise(widths))
    if case["kind"] == "pretrain":
        return sum(10 * batch * n * m for n, m in pairs)
    pairs.append((widths[-1], case["n_outputs"]))
    return sum(6 * batch * n * m for n, m in pairs) - 2 * batch * widths[0] * widths[1]


def make_case(kind: str, layers: list[int], batch: int, *, quick: bool = False, **changes: Any) -> dict[str, Any]:
    """A case with an epoch long enough that what an epoch costs once does not show."""
    case: dict[str, Any] = {
        "kind": kind,
        "layers": list(layers),
        "n_outputs": 10,
        "batch": batch,
        "n_batches": 1,
        "optimizer": "sgd",
        "momentum": 0.9,
        "noise": 0.25,
        "rate": 0.01,
        "rows": 2048 if quick else 16384,
        "seed": 7,
        "try_seconds": 0.03 if quick else 0.3,
        "engine": "cpu",
    }
    case.update(changes)
    if "n_batches" not in changes:
        operations = 2e8 if quick else 1.5e10
        case["n_batches"] = int(min(max(round(operations / flop_per_step(case)), 4 if quick else 8), 1024))
    return case
