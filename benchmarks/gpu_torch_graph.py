"""Steps of CrossPre on forked streams: a lane gathers minibatches, one lane a layer trains.

Layer k may work on minibatch s while the layer below is at s + 1 or s + 2: the lanes meet only where one
reads what the other wrote. What layers hand up lies in rings of `RING` minibatches; the mask of every
minibatch of a chunk is drawn at its start. A chunk is captured into one CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

RING = 3


class Scheduler(Protocol):
    """What lanes can do."""

    def begin(self) -> None: ...

    def submit(self, lane: int, work: Callable[[], None]) -> None: ...

    def record(self, lane: int) -> Any: ...

    def wait(self, lane: int, event: Any) -> None: ...

    def end(self) -> None: ...


class InOrder:
    """One lane for all: a CPU."""

    def begin(self) -> None:
        """Fork."""

    def submit(self, lane: int, work: Callable[[], None]) -> None:
        """Do some work."""
        work()

    def record(self, lane: int) -> Any:
        """Mark a place in a lane."""

    def wait(self, lane: int, event: Any) -> None:
        """Let a lane wait for another one's mark."""

    def end(self) -> None:
        """Join."""


class Lanes(InOrder):
    """CUDA streams, forked from the current one and joined to it."""

    def __init__(self, count: int) -> None:
        self._streams = [torch.cuda.Stream() for _ in range(count)]

    def begin(self) -> None:
        for stream in self._streams:
            stream.wait_stream(torch.cuda.current_stream())

    def submit(self, lane: int, work: Callable[[], None]) -> None:
        with torch.cuda.stream(self._streams[lane]):
            work()

    def record(self, lane: int) -> Any:
        return self._streams[lane].record_event()

    def wait(self, lane: int, event: Any) -> None:
        self._streams[lane].wait_event(event)

    def end(self) -> None:
        for stream in self._streams:
            torch.cuda.current_stream().wait_stream(stream)


@dataclass
class Inputs:
    """A layer's input in one place of its ring: x, x~ and d, one under the other."""

    stacked: Tensor  # (3 batch, n)

    def __post_init__(self) -> None:
        batch = len(self.stacked) // 3
        self.clean, self.noisy, self.delta = self.stacked.split(batch)
        self.both, self.factors = self.stacked[: 2 * batch], self.stacked[batch:]  # operands of products


#: The work of a step on its lane: up to what the next layer needs, and the rest.
Stages = tuple[Callable[[int, Inputs, Inputs | None, Tensor | None], None], Callable[[int, Inputs], None]]


class Pipeline:
    """A chunk of steps.

    Parameters
    ----------
    tensors : gpu_torch.Tensors
    stages : function of tensors, compiler and layer that gives its `Stages`
    compiler : torch.compile, or the identity
    chunk : number of steps
    """

    def __init__(self, tensors: Any, stages: Callable[..., Stages], compiler: Callable[..., Any], chunk: int) -> None:
        t, batch = tensors, tensors.batch
        options: dict[str, Any] = {"dtype": t.arithmetic.operand, "device": t.device}
        self.tensors, self.chunk, self.depth = t, chunk, t.depth
        self.order = torch.zeros(chunk, batch, dtype=torch.int64, device=t.device)
        widths = [W.shape[0] for W, _, _ in t.layers]
        self._rings = [[Inputs(torch.zeros(3 * batch, n, **options)) for _ in range(RING)] for n in widths]
        self._masks = [_masks(chunk, batch, n, t.device) for n in widths]
        self._stages = [stages(t, compiler, k) for k in range(t.depth)]
        self._gather = compiler(_gather)

    @torch.no_grad()
    def issue(self, lanes: Scheduler) -> None:
        """Give the lanes the work of the chunk."""
        if self.tensors.noise:
            for kept, _ in self._masks:
                kept.bernoulli_(1 - self.tensors.noise)
        lanes.begin()
        done: dict[tuple[int, int], Any] = {}  # a layer has done with a minibatch: its place in the ring is free
        for step in range(self.chunk):
            place = step % RING
            if step >= RING:
                lanes.wait(0, done[0, step - RING])
            lanes.submit(0, self._gathering(step, self._rings[0][place]))
            ready = lanes.record(0)
            for k in range(self.depth):
                lane, x = k + 1, self._rings[k][place]
                above = mask = None
                lanes.wait(lane, ready)
                if k < self.depth - 1:
                    above, mask = self._rings[k + 1][place], self._masks[k + 1][1][step]
                    if step >= RING:
                        lanes.wait(lane, done[k + 1, step - RING])
                encode, finish = self._stages[k]
                lanes.submit(lane, _later(encode, step, x, above, mask))
                ready = lanes.record(lane)
                lanes.submit(lane, _later(finish, step, x))
                done[k, step] = lanes.record(lane)
        lanes.end()

    def _gathering(self, step: int, x: Inputs) -> Callable[[], None]:
        return _later(self._gather, self.tensors.data, self.order[step], self._masks[0][1][step], x.clean, x.noisy)


def _masks(chunk: int, batch: int, n: int, device: torch.device) -> tuple[Tensor, list[Tensor]]:
    """What masking keeps in each minibatch of a chunk, and all of it to draw; each aligned for vector loads."""
    kept = torch.ones(chunk, -(-batch * n // 16) * 16, dtype=torch.bool, device=device)
    return kept, [row[: batch * n].view(batch, n) for row in kept]


def _later(function: Callable[..., None], *arguments: Any) -> Callable[[], None]:
    return lambda: function(*arguments)


# The compiler is given the views that it writes, not what they are views of: one kernel, no copies.
def _gather(data: Tensor, rows: Tensor, mask: Tensor, clean: Tensor, noisy: Tensor) -> None:
    x = data[rows]
    clean.copy_(x)
    noisy.copy_(torch.where(mask, x, 0.0))


def fused_stages(t: Any, compiler: Callable[..., Any], layer: int) -> Stages:
    """Products by cuBLAS, as few as there can be; everything between them compiled.

    x and x~ are encoded in one product. Both terms of dW are one product of the stacked (x~, d) and (e, h);
    in float32 it adds to W itself, in half precision a compiled function updates W and its half copy.
    """
    product, batch, rate, top = t.arithmetic.product, t.batch, t.rate, layer == t.depth - 1
    W, b, c = t.layers[layer]
    weights = t.halves[layer] if t.arithmetic.half else W
    factors = torch.zeros(2 * batch, W.shape[1], dtype=t.arithmetic.operand, device=t.device)  # (e, h)
    e, h = factors.split(batch)

    def hand_up(a: Tensor, b: Tensor, mask: Tensor, h: Tensor, clean: Tensor, noisy: Tensor) -> None:
        code = torch.sigmoid(a[:batch] + b)
        clean.copy_(code)
        noisy.copy_(torch.where(mask, code, 0.0))
        h.copy_(torch.sigmoid(a[batch:] + b))

    def activate(a: Tensor, b: Tensor, h: Tensor) -> None:
        h.copy_(torch.sigmoid(a + b))

    def subtract(a: Tensor, c: Tensor, x: Tensor, d: Tensor) -> None:
        d.copy_(torch.sigmoid(a + c) - x)

    def slope(g: Tensor, h: Tensor, e: Tensor) -> None:
        h = h.float()
        e.copy_(g * h * (1 - h))

    def biases(e: Tensor, d: Tensor, b: Tensor, c: Tensor) -> None:
        b.sub_(rate * e.sum(0, dtype=torch.float32))
        c.sub_(rate * d.sum(0, dtype=torch.float32))

    def weights_too(gradient: Tensor, W: Tensor, half: Tensor) -> None:
        W.sub_(rate * gradient)
        half.copy_(W)

    hand_up, activate, subtract, slope = (compiler(f) for f in (hand_up, activate, subtract, slope))
    biases, weights_too = compiler(biases), compiler(weights_too)

    def encode(step: int, x: Inputs, above: Inputs | None, mask: Tensor | None) -> None:
        if top:
            activate(product(x.noisy, weights), b, h)
        else:
            assert above is not None
            hand_up(product(x.both, weights), b, mask, h, above.clean, above.noisy)

    def finish(step: int, x: Inputs) -> None:
        subtract(product(h, weights.t()), c, x.clean, x.delta)
        slope(product(x.delta, weights), h, e)
        if t.arithmetic.half:
            weights_too(product(x.factors.t(), factors), W, weights)
        else:
            W.addmm_(x.factors.t(), factors, alpha=-rate)
        biases(e, x.delta, b, c)

    return encode, finish


def whole_stages(t: Any, compiler: Callable[..., Any], layer: int) -> Stages:
    """The compiler gets all of a layer's step but the clean encoding, which the next layer waits for."""
    product, operand, batch, rate = t.arithmetic.product, t.arithmetic.operand, t.batch, t.rate
    W, b, c = t.layers[layer]
    top = layer == t.depth - 1

    def hand_up(x: Tensor, W: Tensor, b: Tensor, mask: Tensor, h: Tensor, clean: Tensor, noisy: Tensor) -> None:
        codes = torch.sigmoid(product(x, W.to(operand)) + b)
        clean.copy_(codes[:batch])
        noisy.copy_(torch.where(mask, codes[:batch], 0.0))
        h.copy_(codes[batch:])

    def activate(x: Tensor, W: Tensor, b: Tensor, h: Tensor) -> None:
        h.copy_(torch.sigmoid(product(x, W.to(operand)) + b))

    def rest(x: Tensor, noisy: Tensor, h: Tensor, W: Tensor, b: Tensor, c: Tensor) -> None:
        weights = W.to(operand)
        d = torch.sigmoid(product(h, weights.t()) + c) - x
        e = product(d.to(operand), weights) * h * (1 - h)
        W.sub_(rate * product(torch.cat([noisy, d.to(operand)]).t(), torch.cat([e.to(operand), h])))
        b.sub_(rate * e.sum(0))
        c.sub_(rate * d.sum(0))

    hand_up, activate, rest = compiler(hand_up), compiler(activate), compiler(rest)
    h = torch.zeros(batch, W.shape[1], dtype=operand, device=t.device)

    def encode(step: int, x: Inputs, above: Inputs | None, mask: Tensor | None) -> None:
        if top:
            activate(x.noisy, W, b, h)
        else:
            assert above is not None
            hand_up(x.both, W, b, mask, h, above.clean, above.noisy)

    def finish(step: int, x: Inputs) -> None:
        rest(x.clean, x.noisy, h, W, b, c)

    return encode, finish
