"""NumPy and SciPy by hand: preallocated buffers, in-place updates, the BLAS of the PyPI wheels.

Two forms are tried: NumPy's matmul into preallocated arrays, and SciPy's sgemm, which adds
``- rate/B x~.T e`` to the weights inside the product and so saves a pass over a gradient array.
Masks come from raw 64-bit words of SFC64, four 16-bit draws a word: NumPy's fastest source.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg.blas import sgemm

from contenders.problem import Float, Run, make_problem


def _product(a: Float, b: Float, out: Float) -> None:
    """out = a b by NumPy."""
    np.matmul(a, b, out=out)


def _product_blas(a: Float, b: Float, out: Float) -> None:
    """out = a b by SciPy's sgemm, which sees the transposes of row-major arrays: out.T = b.T a.T."""
    _accumulate(a, b, out, 1.0, 0.0)


def _accumulate(a: Float, b: Float, out: Float, alpha: float, beta: float) -> None:
    """out = beta out + alpha a b without a temporary, whatever the order of a and b."""
    left, right = b.T, a.T
    flip_left, flip_right = not left.flags.f_contiguous, not right.flags.f_contiguous
    sgemm(
        alpha,
        left.T if flip_left else left,
        right.T if flip_right else right,
        beta=beta,
        c=out.T,
        trans_a=flip_left,
        trans_b=flip_right,
        overwrite_c=1,
    )


def _sigmoid(a: Float) -> None:
    np.negative(a, out=a)
    np.exp(a, out=a)
    a += 1
    np.reciprocal(a, out=a)


def _pretrain(case: dict[str, Any], blas: bool) -> Run:
    problem = make_problem(case)
    (W,), (b,), (c,) = problem.weights, problem.hidden_biases, problem.visible_biases
    batch, (n, m) = case["batch"], W.shape
    rate = np.float32(case["rate"] / case["batch"])
    source = np.random.SFC64(case["seed"])
    threshold = np.uint16(round(case["noise"] * 65536))
    x, noisy, d = (np.empty((batch, n), np.float32) for _ in range(3))
    h, e, slope = (np.empty((batch, m), np.float32) for _ in range(3))
    kept = np.empty((batch, n), bool)
    gradient = np.empty_like(W)
    second = np.empty_like(W)
    order = problem.order.astype(np.intp)
    product = _product_blas if blas else _product

    def run(epochs: int) -> None:
        for _ in range(epochs):
            for rows in order:
                np.take(problem.x, rows, axis=0, out=x, mode="clip")
                words = source.random_raw((batch * n + 3) // 4).view(np.uint16)[: batch * n].reshape(batch, n)
                np.greater_equal(words, threshold, out=kept)
                np.multiply(x, kept, out=noisy)
                product(noisy, W, h)
                np.add(h, b, out=h)
                _sigmoid(h)
                product(h, W.T, d)
                np.add(d, c, out=d)
                _sigmoid(d)
                np.subtract(d, x, out=d)
                product(d, W, e)
                np.subtract(1, h, out=slope)
                np.multiply(slope, h, out=slope)
                np.multiply(e, slope, out=e)
                if blas:
                    _accumulate(noisy.T, e, W, -rate, 1.0)
                    _accumulate(d.T, h, W, -rate, 1.0)
                else:
                    np.matmul(noisy.T, e, out=gradient)
                    np.matmul(d.T, h, out=second)
                    np.add(gradient, second, out=gradient)
                    np.multiply(gradient, rate, out=gradient)
                    np.subtract(W, gradient, out=W)
                np.subtract(b, rate * e.sum(0), out=b)
                np.subtract(c, rate * d.sum(0), out=c)

    return Run(run, lambda: problem.weights)


def _finetune(case: dict[str, Any], blas: bool) -> Run:
    problem = make_problem(case)
    weights, biases, batch = problem.weights, problem.hidden_biases, case["batch"]
    rate = np.float32(case["rate"] / batch)
    momentum = np.float32(case["momentum"] if case["optimizer"] == "momentum" else 0.0)
    velocities = [np.zeros_like(w) for w in weights] if momentum else [None] * len(weights)
    bias_velocities = [np.zeros_like(v) for v in biases]
    gradients = [np.empty_like(w) for w in weights]
    values = [np.empty((batch, w.shape[0]), np.float32) for w in weights]
    values.append(np.empty((batch, weights[-1].shape[1]), np.float32))
    deltas = [np.empty_like(value) for value in values]
    order, rows_of_batch = problem.order.astype(np.intp), np.arange(batch)
    product = _product_blas if blas else _product

    def update(k: int) -> None:
        W, b, V, x, d = weights[k], biases[k], velocities[k], values[k], deltas[k + 1]
        if blas and V is None:
            _accumulate(x.T, d, W, -rate, 1.0)
        elif blas:
            _accumulate(x.T, d, V, -rate, momentum)
            np.add(W, V, out=W)
        else:
            G = gradients[k]
            np.matmul(x.T, d, out=G)
            np.multiply(G, rate, out=G)
            if V is None:
                np.subtract(W, G, out=W)
            else:
                np.multiply(V, momentum, out=V)
                np.subtract(V, G, out=V)
                np.add(W, V, out=W)
        v = bias_velocities[k]
        np.multiply(v, momentum, out=v)
        np.subtract(v, rate * d.sum(0), out=v)
        np.add(b, v, out=b)

    def run(epochs: int) -> None:
        for _ in range(epochs):
            for rows in order:
                np.take(problem.x, rows, axis=0, out=values[0], mode="clip")
                for k, W in enumerate(weights):
                    product(values[k], W, values[k + 1])
                    np.add(values[k + 1], biases[k], out=values[k + 1])
                    if k < len(weights) - 1:
                        _sigmoid(values[k + 1])
                top = deltas[-1]
                np.subtract(values[-1], values[-1].max(1, keepdims=True), out=top)
                np.exp(top, out=top)
                np.divide(top, top.sum(1, keepdims=True), out=top)
                top[rows_of_batch, problem.labels[rows]] -= 1
                for k in range(len(weights) - 1, -1, -1):
                    if k:
                        h = values[k]
                        product(deltas[k + 1], weights[k].T, deltas[k])
                        np.multiply(deltas[k], h, out=deltas[k])
                        np.multiply(deltas[k], 1 - h, out=deltas[k])
                    update(k)

    return Run(run, lambda: problem.weights)


def make(case: dict[str, Any]) -> dict[str, Run]:
    """Both forms."""
    build = _pretrain if case["kind"] == "pretrain" else _finetune
    return {"matmul": build(case, blas=False), "sgemm": build(case, blas=True)}
