"""PyTorch: eager, through torch.compile, and as one captured CUDA graph with the layers on forked streams.

All compute the gradients by hand but for one eager form. Products of half-precision operands give
float32 (`out_dtype`), as GeSdA's do; the weights stay float32.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from gpu_problem import Impossible, Layers, Problem, Trial
from gpu_torch_graph import InOrder, Lanes, Pipeline, fused_stages, whole_stages
from torch import Tensor

Step = Callable[[Tensor], None]


class Arithmetic:
    """Products in a precision."""

    def __init__(self, precision: str, device: torch.device) -> None:
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        self.operand = torch.float16 if precision == "fp16" else torch.float32
        self.half, self._cuda = precision == "fp16", device.type == "cuda"

    def product(self, left: Tensor, right: Tensor) -> Tensor:
        """left right, of `operand`s, summed and returned in float32."""
        if not self.half:
            return torch.mm(left, right)
        if self._cuda:
            return torch.mm(left, right, out_dtype=torch.float32)
        return torch.mm(left.float(), right.float())


class Tensors:
    """The problem on the device."""

    def __init__(self, case: dict[str, Any], problem: Problem) -> None:
        self.device = torch.device("cuda" if case["where"] == "cuda" else "cpu")
        self._before = self._allocated(torch.cuda.memory_allocated)
        torch.manual_seed(case["seed"])
        self.arithmetic = Arithmetic(case["precision"], self.device)
        self.case, self._initial = case, problem.layers
        self.data = torch.from_numpy(problem.data).to(self.device)
        self.layers = [
            tuple(torch.from_numpy(part.copy()).to(self.device) for part in parts) for parts in problem.layers
        ]
        self.halves = [W.half() for W, _, _ in self.layers] if self.arithmetic.half else []
        self.batch, self.rate = case["batch"], case["rate"] / case["batch"]
        self.noise, self.depth = case["noise"], len(self.layers)

    @torch.no_grad()
    def reset(self) -> None:
        for parts, initial in zip(self.layers, self._initial, strict=True):
            for tensor, values in zip(parts, initial, strict=True):
                tensor.copy_(torch.from_numpy(values))
        for half, (W, _, _) in zip(self.halves, self.layers, strict=True) if self.halves else ():
            half.copy_(W)

    def stage(self, order: Any) -> Tensor:
        return torch.from_numpy(order.astype(np.int64)).to(self.device)

    def arrays(self) -> Layers:
        return [tuple(part.detach().cpu().numpy().copy() for part in parts) for parts in self.layers]  # type: ignore[misc]

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _allocated(self, statistic: Callable[[], int]) -> int | None:
        return statistic() if self.device.type == "cuda" else None

    def forget_peak(self) -> None:
        """Compiling and tuning are over: memory counts from here on."""
        self._allocated(torch.cuda.reset_peak_memory_stats)  # type: ignore[arg-type]

    def peak(self) -> int | None:
        """The most that was allocated since, less what others held before."""
        found = self._allocated(torch.cuda.max_memory_allocated)
        return None if found is None or self._before is None else found - self._before

    def trial(self, steps: Callable[[Tensor], None], **details: Any) -> Trial:
        """A trial of a function of staged orders."""

        def run(order: Tensor) -> None:
            steps(order)
            self.synchronize()

        return Trial(self.reset, self.stage, run, self.arrays, self.peak, details)


# ---- eager ----------------------------------------------------------------------------------------
def _hand_step(t: Tensors) -> Step:
    """In place where that saves a kernel, and the update within the product."""
    product, operand, half = t.arithmetic.product, t.arithmetic.operand, t.arithmetic.half
    rate = t.rate

    def affine(bias: Tensor, x: Tensor, W: Tensor) -> Tensor:
        return product(x, W).add_(bias) if half else torch.addmm(bias, x, W)

    @torch.no_grad()
    def step(rows: Tensor) -> None:
        x = t.data.index_select(0, rows)
        for k, (W, b, c) in enumerate(t.layers):
            weights = t.halves[k] if half else W
            clean = x.to(operand)
            noisy = clean * torch.empty_like(clean).bernoulli_(1 - t.noise) if t.noise else clean
            h = affine(b, noisy, weights).sigmoid_()
            above = affine(b, clean, weights).sigmoid_() if k < t.depth - 1 else None
            d = affine(c, h.to(operand), weights.t()).sigmoid_().sub_(x)
            e = product(d.to(operand), weights).mul_(h - h * h)
            for left, right in ((noisy, e.to(operand)), (d.to(operand), h.to(operand))):
                if half:
                    W.sub_(product(left.t(), right), alpha=rate)
                else:
                    W.addmm_(left.t(), right, alpha=-rate)
            b.sub_(e.sum(0), alpha=rate)
            c.sub_(d.sum(0), alpha=rate)
            if half:
                weights.copy_(W)
            if above is not None:
                x = above

    return step


def _autograd_step(t: Tensors) -> Step:
    """As most users would write it."""
    if t.arithmetic.half:
        raise Impossible("autocast rounds the results of products to half precision: other arithmetic")
    parameters = [part.requires_grad_(True) for parts in t.layers for part in parts]
    optimizer = torch.optim.SGD(parameters, lr=t.case["rate"], fused=t.device.type == "cuda")
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits

    def step(rows: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        x, losses = t.data[rows], []
        for W, b, c in t.layers:
            noisy = x * torch.empty_like(x).bernoulli_(1 - t.noise)
            h = torch.sigmoid(torch.addmm(b, noisy, W))
            losses.append(cross_entropy(torch.addmm(c, h, W.t()), x, reduction="sum"))
            with torch.no_grad():
                x = torch.sigmoid(torch.addmm(b, x, W))
        (torch.stack(losses).sum() / len(rows)).backward()
        optimizer.step()

    return step


def _one_by_one(make: Callable[[Tensors], Step], case: dict[str, Any], problem: Problem) -> Trial:
    tensors = Tensors(case, problem)
    step = make(tensors)
    tensors.forget_peak()

    def steps(order: Tensor) -> None:
        for rows in order:
            step(rows)

    return tensors.trial(steps)


# ---- torch.compile --------------------------------------------------------------------------------
def _whole_step(t: Tensors) -> Callable[..., None]:
    """A step as one function of tensors, for the compiler; the products of a layer stacked where that saves one."""
    product, operand = t.arithmetic.product, t.arithmetic.operand
    batch, rate, level, last = t.batch, t.rate, t.noise, t.depth - 1

    def step(data: Tensor, rows: Tensor, layers: list[tuple[Tensor, Tensor, Tensor]]) -> None:
        x = data[rows]
        for k, (W, b, c) in enumerate(layers):
            noisy = torch.where(torch.rand_like(x) < level, 0.0, x)
            weights = W.to(operand)
            inputs = (torch.cat([noisy, x]) if k < last else noisy).to(operand)
            codes = torch.sigmoid(product(inputs, weights) + b)
            h = codes[:batch]
            d = torch.sigmoid(product(h.to(operand), weights.t()) + c) - x
            e = product(d.to(operand), weights) * h * (1 - h)
            W.sub_(rate * product(torch.cat([noisy, d]).to(operand).t(), torch.cat([e, h]).to(operand)))
            b.sub_(rate * e.sum(0))
            c.sub_(rate * d.sum(0))
            x = codes[batch:]

    return step


def _compiled(mode: str, case: dict[str, Any], problem: Problem) -> Trial:
    _fresh_compiler()
    tensors = Tensors(case, problem)
    for tensor in (tensors.data, *(part for parts in tensors.layers for part in parts)):
        torch._dynamo.mark_static_address(tensor)  # updated in place: the captured graph needs no copy of them
    step = torch.compile(_whole_step(tensors), mode=mode, dynamic=False, fullgraph=True)

    @torch.no_grad()
    def steps(order: Tensor) -> None:
        for rows in order:
            step(tensors.data, rows, tensors.layers)

    steps(tensors.stage(np.zeros((4, tensors.batch), np.uint32)))  # compiles, tunes and captures
    tensors.forget_peak()
    return tensors.trial(steps)


def _fresh_compiler() -> None:
    """Forget earlier cases: a new case is a new shape, and the limit of recompilations means eager."""
    torch._dynamo.reset()
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# ---- one graph, forked streams --------------------------------------------------------------------
def _graph(stages: Callable[..., Any], mode: str | None, case: dict[str, Any], problem: Problem) -> Trial:
    _fresh_compiler()
    tensors = Tensors(case, problem)
    chunk, lanes = case["chunk"], InOrder()
    compiler = partial(torch.compile, dynamic=False, fullgraph=True, mode=mode) if mode else lambda function: function
    if tensors.device.type == "cuda":
        lanes = Lanes(tensors.depth + 1)
    pipeline = Pipeline(tensors, stages, compiler, chunk)
    pipeline.issue(lanes)  # compiles
    tensors.synchronize()
    tensors.forget_peak()
    replay: Callable[[], None] = partial(pipeline.issue, lanes)
    if tensors.device.type == "cuda":
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            pipeline.issue(lanes)
        replay = graph.replay

    def steps(order: Tensor) -> None:
        for first in range(0, len(order), chunk):
            pipeline.order.copy_(order[first : first + chunk])
            replay()

    return tensors.trial(steps, steps_of_a_graph=chunk, captured=tensors.device.type == "cuda")


def forms(kind: str, case: dict[str, Any], problem: Problem) -> dict[str, Callable[[], Trial]]:
    """Ways to write it: eager, compile (max-autotune) or graph."""
    if kind == "eager":
        builders = {"by hand": _hand_step, "autograd": _autograd_step}
        return {name: partial(_one_by_one, builder, case, problem) for name, builder in builders.items()}
    mode = "default" if case["where"] != "cuda" else "max-autotune"
    if kind == "compile":
        return {mode: partial(_compiled, mode, case, problem)}
    whole = "default" if case["where"] != "cuda" else "max-autotune-no-cudagraphs"
    return {
        "cuBLAS, the rest compiled": partial(_graph, fused_stages, "default", case, problem),
        "compiled whole": partial(_graph, whole_stages, whole, case, problem),
    }
