"""PyTorch on the CPU: by hand without autograd, by autograd and its SGD, and compiled.

By hand, the gradient never exists: ``W.addmm_(x~.T, e, alpha=-rate/B)`` updates inside the product,
with momentum ``V.addmm_(..., beta=momentum)``. No form computes a loss that it does not need.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from contenders.problem import Float, Run, make_problem


class _Tensors:
    """The problem as tensors."""

    def __init__(self, case: dict[str, Any]) -> None:
        torch.set_num_threads(case["threads"])
        torch.manual_seed(case["seed"])
        problem = make_problem(case)
        self.x = torch.from_numpy(problem.x)
        self.labels = torch.from_numpy(problem.labels).long()
        self.order = torch.from_numpy(problem.order.astype("int64"))
        self.weights = [torch.from_numpy(w) for w in problem.weights]
        self.biases = [torch.from_numpy(b) for b in problem.hidden_biases]
        self.visible = [torch.from_numpy(c) for c in problem.visible_biases]

    def arrays(self) -> list[Float]:
        """The weight matrices as they are now."""
        return [w.detach().numpy() for w in self.weights]


def _pretrain_hand(case: dict[str, Any], mask_type: torch.dtype) -> Run:
    t = _Tensors(case)
    W, b, c = t.weights[0], t.biases[0], t.visible[0]
    batch, (n, m) = case["batch"], W.shape
    rate, kept = -case["rate"] / case["batch"], 1.0 - case["noise"]
    x, noisy, d = (torch.empty(batch, n) for _ in range(3))
    h, e, slope = (torch.empty(batch, m) for _ in range(3))
    mask = torch.empty(batch, n, dtype=mask_type)

    @torch.no_grad()
    def run(epochs: int) -> None:
        for _ in range(epochs):
            for rows in t.order:
                torch.index_select(t.x, 0, rows, out=x)
                mask.bernoulli_(kept)
                torch.mul(x, mask, out=noisy)
                torch.addmm(b, noisy, W, out=h)
                h.sigmoid_()
                torch.addmm(c, h, W.t(), out=d)
                d.sigmoid_().sub_(x)
                torch.mm(d, W, out=e)
                torch.mul(h, h, out=slope)
                e.mul_(slope.neg_().add_(h))
                W.addmm_(noisy.t(), e, alpha=rate)
                W.addmm_(d.t(), h, alpha=rate)
                b.add_(e.sum(0), alpha=rate)
                c.add_(d.sum(0), alpha=rate)

    return Run(run, t.arrays)


def _finetune_hand(case: dict[str, Any]) -> Run:
    t = _Tensors(case)
    batch, depth = case["batch"], len(t.weights)
    rate = -case["rate"] / batch
    momentum = case["momentum"] if case["optimizer"] == "momentum" else 0.0
    velocities = [torch.zeros_like(w) for w in t.weights] if momentum else []
    bias_velocities = [torch.zeros_like(b) for b in t.biases]
    values = [torch.empty(batch, w.shape[0]) for w in t.weights] + [torch.empty(batch, case["n_outputs"])]
    deltas = [torch.empty_like(value) for value in values]
    slopes = [torch.empty_like(value) for value in values]
    each, minus_one = torch.arange(batch), torch.tensor(-1.0)

    @torch.no_grad()
    def run(epochs: int) -> None:
        for _ in range(epochs):
            for rows in t.order:
                torch.index_select(t.x, 0, rows, out=values[0])
                for k in range(depth):
                    torch.addmm(t.biases[k], values[k], t.weights[k], out=values[k + 1])
                    if k < depth - 1:
                        values[k + 1].sigmoid_()
                torch.softmax(values[-1], 1, out=deltas[-1])
                deltas[-1].index_put_((each, t.labels[rows]), minus_one, accumulate=True)
                for k in range(depth - 1, -1, -1):
                    d = deltas[k + 1]
                    if k:
                        torch.mm(d, t.weights[k].t(), out=deltas[k])
                        torch.mul(values[k], values[k], out=slopes[k])
                        deltas[k].mul_(slopes[k].neg_().add_(values[k]))
                    if momentum:
                        velocities[k].addmm_(values[k].t(), d, beta=momentum, alpha=rate)
                        t.weights[k].add_(velocities[k])
                        t.biases[k].add_(bias_velocities[k].mul_(momentum).add_(d.sum(0), alpha=rate))
                    else:
                        t.weights[k].addmm_(values[k].t(), d, alpha=rate)
                        t.biases[k].add_(d.sum(0), alpha=rate)

    return Run(run, t.arrays)


def make_hand(case: dict[str, Any]) -> dict[str, Run]:
    """In-place operations on preallocated buffers, no autograd."""
    if case["kind"] == "finetune":
        return {"in place": _finetune_hand(case)}
    return {
        "float masks": _pretrain_hand(case, torch.float32),
        "bool masks": _pretrain_hand(case, torch.bool),
    }


def _autograd(case: dict[str, Any], **how: bool) -> Run:
    t = _Tensors(case)
    trained = [*t.weights, *t.biases, *(t.visible if case["kind"] == "pretrain" else [])]
    for parameter in trained:
        parameter.requires_grad_(True)
    momentum = case["momentum"] if case["optimizer"] == "momentum" else 0.0
    optimizer = torch.optim.SGD(trained, lr=case["rate"], momentum=momentum, **how)
    functional = torch.nn.functional

    def pretrain_loss(rows: Tensor) -> Tensor:
        x = t.x[rows]
        noisy = x * torch.empty_like(x).bernoulli_(1.0 - case["noise"])
        h = torch.sigmoid(torch.addmm(t.biases[0], noisy, t.weights[0]))
        a = torch.addmm(t.visible[0], h, t.weights[0].t())
        return functional.binary_cross_entropy_with_logits(a, x, reduction="sum") / len(rows)

    def finetune_loss(rows: Tensor) -> Tensor:
        h = t.x[rows]
        for W, b in zip(t.weights[:-1], t.biases[:-1], strict=True):
            h = torch.sigmoid(torch.addmm(b, h, W))
        return functional.cross_entropy(torch.addmm(t.biases[-1], h, t.weights[-1]), t.labels[rows])

    loss = pretrain_loss if case["kind"] == "pretrain" else finetune_loss

    def run(epochs: int) -> None:
        for _ in range(epochs):
            for rows in t.order:
                optimizer.zero_grad(set_to_none=True)
                loss(rows).backward()
                optimizer.step()

    return Run(run, t.arrays)


def make_autograd(case: dict[str, Any]) -> dict[str, Run]:
    """What most users write, with either implementation of the optimiser."""
    return {"foreach": _autograd(case, foreach=True), "fused": _autograd(case, fused=True)}


def _pretrain_compiled(case: dict[str, Any], mode: str) -> Run:
    t = _Tensors(case)
    rate, level = case["rate"] / case["batch"], case["noise"]

    def step(data: Tensor, rows: Tensor, W: Tensor, b: Tensor, c: Tensor) -> None:
        x = data[rows]
        noisy = torch.where(torch.rand_like(x) < level, 0.0, x)
        h = torch.sigmoid(torch.addmm(b, noisy, W))
        d = torch.sigmoid(torch.addmm(c, h, W.t())) - x
        e = torch.mm(d, W) * h * (1 - h)
        W.sub_(rate * (torch.mm(noisy.t(), e) + torch.mm(d.t(), h)))
        b.sub_(rate * e.sum(0))
        c.sub_(rate * d.sum(0))

    compiled = torch.compile(step, dynamic=False, mode=mode)

    @torch.no_grad()
    def run(epochs: int) -> None:
        for _ in range(epochs):
            for rows in t.order:
                compiled(t.x, rows, t.weights[0], t.biases[0], t.visible[0])

    return Run(run, t.arrays)


def _finetune_compiled(case: dict[str, Any], mode: str) -> Run:
    t = _Tensors(case)
    rate = case["rate"] / case["batch"]
    momentum = case["momentum"] if case["optimizer"] == "momentum" else 0.0
    parameters = [*t.weights, *t.biases]
    velocities = [torch.zeros_like(p) for p in parameters]

    def step(data: Tensor, rows: Tensor, targets: Tensor) -> None:
        values = [data[rows]]
        for W, b in zip(t.weights[:-1], t.biases[:-1], strict=True):
            values.append(torch.sigmoid(torch.addmm(b, values[-1], W)))
        d = torch.softmax(torch.addmm(t.biases[-1], values[-1], t.weights[-1]), 1)
        d = d - torch.nn.functional.one_hot(targets, case["n_outputs"])
        depth = len(t.weights)
        for k in range(depth - 1, -1, -1):
            below = torch.mm(d, t.weights[k].t()) * values[k] * (1 - values[k]) if k else d
            for p, g in ((k, torch.mm(values[k].t(), d)), (depth + k, d.sum(0))):
                if momentum:
                    velocities[p].mul_(momentum).sub_(rate * g)
                    parameters[p].add_(velocities[p])
                else:
                    parameters[p].sub_(rate * g)
            d = below

    compiled = torch.compile(step, dynamic=False, mode=mode)

    @torch.no_grad()
    def run(epochs: int) -> None:
        for _ in range(epochs):
            for rows in t.order:
                compiled(t.x, rows, t.labels[rows])

    return Run(run, t.arrays)


def make_compiled(case: dict[str, Any]) -> dict[str, Run]:
    """The step by hand through Inductor, its own random numbers included."""
    build = _pretrain_compiled if case["kind"] == "pretrain" else _finetune_compiled
    torch._dynamo.reset()  # a new case is a new shape: no recompile limit, no stale graphs
    return {"default": build(case, "default")}
