"""From sequences of motion to rows of numbers, as nodes: what `gesda.deepmotion.features` does.

One function a step; shapes are in the comments: n motions of L samples, C channels, T steps. Up to the normalised
motion all is computed in double precision, then in single, as Python does it. Where a sum meets a threshold, the last
bit decides: see `_shares`.

Imports its neighbour only, nothing of gesda.deepmotion. What is written there too,
tests/deepmotion/test_recognizer_onnx.py holds equal.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gesda.export.onnx_nodes import Nodes

BY_TRAINING, FARTHEST = ("global", "relative"), 1e3
ROUNDING = 1e-6
N_BANDS = 8
N_TAPS, N_MIXTURES = 9, 12
KERNELS = np.array(list(combinations(range(N_TAPS), 3)), dtype=np.int64)

_ZERO, _ONE = np.float64(0.0), np.float64(1.0)


def add_rows(nodes: Nodes, features: Any) -> str:
    """Add all nodes from the input ``X``, sequences (n, L, n_channels), to rows.

    Parameters
    ----------
    nodes : Nodes
    features : MotionFeatures
        Fitted.

    Returns
    -------
    str
        The name of the rows: float32, (n, n_features).
    """
    length = nodes("Shape", "X", start=1, end=2)  # (1,)
    motions = _normalized(nodes, _resampled(nodes, _turned(nodes, features), length, features), features)  # (n, T, C)
    duration = nodes.cast(nodes("Log", nodes.cast(length, np.float64)), np.float32)
    everyone = nodes("Concat", nodes("Shape", "X", start=0, end=1), _integers(1), axis=0)
    parts = [
        nodes("Reshape", nodes("Gather", motions, features._picked.astype(np.int64), axis=1), _integers(0, -1)),
        nodes("Expand", duration, everyone),
    ]
    if features.use_spectrum:
        parts.append(_spectrum(nodes, motions, features.n_steps))
    if features.use_velocity:
        motions = _with_velocity(nodes, motions, features)
    parts.append(_shares(nodes, motions, features._patterns, features.n_steps))
    return nodes("Div", nodes("Sub", nodes("Concat", *parts, axis=1), features._mean), features._deviation)


# ---- orientation ----------------------------------------------------------------------------------
def _turned(nodes: Nodes, features: Any) -> str:
    """Sequences (n, L, C): as they are in float32, or turned in float64."""
    if features.orientation == "keep":
        return "X"
    values = nodes.cast("X", np.float64)
    if features.orientation == "magnitude":
        return _norms(nodes, nodes("Reshape", values, _integers(0, 0, -1, 3)), axes=[3], keepdims=0)
    return _aligned_with_gravity(nodes, values, features.n_motion_channels)


def _aligned_with_gravity(nodes: Nodes, values: str, n_channels: int) -> str:
    """Turn the axes: the mean acceleration is the third one, most horizontal acceleration is along the first."""
    acceleration = nodes("Slice", values, _integers(0), _integers(3), _integers(2))  # (n, L, 3)
    mean = nodes("ReduceMean", acceleration, axes=[1])  # (n, 1, 3)
    strength = _norms(nodes, mean, axes=[2])
    largest = nodes("ReduceMax", nodes("Abs", acceleration), axes=[1, 2])
    has_down = nodes("Greater", strength, nodes("Mul", largest, np.float64(1e-9)))  # (n, 1, 1)
    down = nodes("Div", mean, nodes("Where", has_down, strength, _ONE))
    # Two directions at right angles to it, from the axis that is nearest to that.
    nearest = nodes("Gather", np.eye(3), nodes("ArgMin", nodes("Abs", down), axis=2, keepdims=0))  # (n, 1, 3)
    part = nodes("Mul", nodes("ReduceSum", nodes("Mul", nearest, down), _integers(2)), down)
    first = nodes("Sub", nearest, part)
    first = nodes("Div", first, _norms(nodes, first, axes=[2]))
    plane = nodes("Concat", first, _cross(nodes, down, first), axis=1)  # (n, 2, 3)

    heading = _heading(nodes, nodes("Einsum", acceleration, plane, equation="nlc,npc->nlp"))  # (n, 1, 2)
    sideways = nodes("MatMul", heading, np.array([[0.0, 1.0], [-1.0, 0.0]]))  # a quarter turn from it
    horizontal = nodes("MatMul", nodes("Concat", heading, sideways, axis=1), plane)
    axes = nodes("Concat", horizontal, down, axis=1)  # (n, 3, 3), rows: the new axes
    triples = nodes("Reshape", values, _integers(0, -1, 3))
    turned = nodes("Einsum", triples, axes, equation="nlc,nac->nla")
    return nodes("Where", has_down, nodes("Reshape", turned, _integers(0, -1, n_channels)), values)


def _heading(nodes: Nodes, horizontal: str) -> str:
    """Direction (n, 1, 2) of most motion among points (n, L, 2), pointing where the farthest one lies.

    Python takes a singular value decomposition; in a plane there is a closed form. The major axis of the scatter matrix
    [[a, b], [b, c]] is (r + a - c, 2 b), and (2 b, r - a + c) is parallel to it; r = sqrt((a - c)^2 + 4 b^2). Of the
    two, the one whose first term is no difference of like numbers is taken.
    """
    scatter = nodes("Reshape", nodes("Einsum", horizontal, horizontal, equation="nlp,nlq->npq"), _integers(0, 1, 4))
    a, b, _, c = nodes.several(4, "Split", scatter, axis=2)  # (n, 1, 1)
    difference, twice_b = nodes("Sub", a, c), nodes("Add", b, b)
    root = _norms(nodes, nodes("Concat", difference, twice_b, axis=2), axes=[2])
    main = nodes("Add", root, nodes("Abs", difference))
    main = nodes("Where", nodes("Greater", root, _ZERO), main, _ONE)  # without motion any direction will do
    wide, high = nodes("Concat", main, twice_b, axis=2), nodes("Concat", twice_b, main, axis=2)
    axis = nodes("Where", nodes("GreaterOrEqual", difference, _ZERO), wide, high)
    axis = nodes("Div", axis, _norms(nodes, axis, axes=[2]))
    along = nodes("Einsum", horizontal, axis, equation="nlp,nap->nla")  # (n, L, 1)
    farthest = nodes("GatherElements", along, nodes("ArgMax", nodes("Abs", along), axis=1), axis=1)
    return nodes("Where", nodes("Less", farthest, _ZERO), nodes("Neg", axis), axis)


def _cross(nodes: Nodes, left: str, right: str) -> str:
    """Vector products over the last of three axes."""

    def ordered(value: str, *order: int) -> str:
        return nodes("Gather", value, _integers(*order), axis=2)

    forth = nodes("Mul", ordered(left, 1, 2, 0), ordered(right, 2, 0, 1))
    return nodes("Sub", forth, nodes("Mul", ordered(left, 2, 0, 1), ordered(right, 1, 2, 0)))


def _norms(nodes: Nodes, vectors: str, **attributes: Any) -> str:
    return nodes("Sqrt", nodes("ReduceSumSquare", vectors, **attributes))  # runtimes lack ReduceL2 of doubles


# ---- resampling -----------------------------------------------------------------------------------
def _resampled(nodes: Nodes, values: str, length: str, features: Any) -> str:
    """Motions (n, T, C) of float64, from sequences (n, L, C)."""
    resample = _evenly_in_time if features.resampling == "time" else _evenly_by_arc
    return resample(nodes, values, length, features.n_steps)


def _evenly_in_time(nodes: Nodes, values: str, length: str, n_steps: int) -> str:
    last = nodes("Sub", length, _integers(1))
    most = nodes.cast(last, np.float64)
    step = nodes("Div", most, np.float64(max(n_steps - 1, 1)))
    places = nodes("Min", nodes("Mul", step, np.arange(n_steps, dtype=np.float64)), most)  # (T,)
    before, after = _neighbours(nodes, nodes.cast(places, np.int64), last)
    fraction = nodes("Unsqueeze", nodes("Sub", places, nodes.cast(before, np.float64)), _integers(1))
    start, end = (nodes.cast(nodes("Gather", values, index, axis=1), np.float64) for index in (before, after))
    return _between(nodes, start, end, fraction)


def _evenly_by_arc(nodes: Nodes, values: str, length: str, n_steps: int) -> str:
    values = nodes.cast(values, np.float64)
    size = nodes("ReduceMax", nodes("Abs", values), axes=[1, 2])
    scaled = nodes("Div", values, nodes("Where", nodes("Greater", size, _ZERO), size, _ONE))
    held = nodes("Pad", scaled, _integers(0, 1, 0, 0, 0, 0), mode="edge")  # the first sample twice
    earlier = nodes("Slice", held, _integers(0), _integers(-1), _integers(1))
    ways = _norms(nodes, nodes("Sub", scaled, earlier), axes=[2], keepdims=0)
    travelled = nodes("CumSum", ways, np.int64(1))  # (n, L)
    total = nodes("ReduceMax", travelled, axes=[1])  # (n, 1)
    step = nodes("Div", total, np.float64(max(n_steps - 1, 1)))
    wanted = nodes("Min", nodes("Mul", step, np.arange(n_steps, dtype=np.float64)), total)  # (n, T)
    # Samples are in the order of the way there: so many of them lie no farther, and the last of these comes before.
    pairs = nodes("Unsqueeze", wanted, _integers(2)), nodes("Unsqueeze", travelled, _integers(1))
    reached = nodes.cast(nodes("GreaterOrEqual", *pairs), np.int32)  # (n, T, L)
    count = nodes.cast(nodes("ReduceSum", reached, _integers(2), keepdims=0), np.int64)
    last = nodes("Sub", length, _integers(1))
    before, after = _neighbours(nodes, nodes("Sub", count, _integers(1)), last)
    start, end = (nodes("GatherElements", travelled, index, axis=1) for index in (before, after))
    span = nodes("Sub", end, start)
    span = nodes("Where", nodes("Greater", span, _ZERO), span, _ONE)  # at rest both are one place
    fraction = nodes("Unsqueeze", nodes("Div", nodes("Sub", wanted, start), span), _integers(2))
    start, end = (
        nodes("GatherND", values, nodes("Unsqueeze", index, _integers(2)), batch_dims=1) for index in (before, after)
    )
    return _between(nodes, start, end, fraction)


def _neighbours(nodes: Nodes, before: str, last: str) -> tuple[str, str]:
    """Numbers of samples, held within the sequence, and those of the samples after them."""
    least = nodes("Max", nodes("Sub", last, _integers(1)), _integers(0))
    before = nodes("Min", nodes("Max", before, _integers(0)), least)
    return before, nodes("Min", nodes("Add", before, _integers(1)), last)


def _between(nodes: Nodes, start: str, end: str, fraction: str) -> str:
    return nodes("Add", nodes("Mul", start, nodes("Sub", _ONE, fraction)), nodes("Mul", end, fraction))


# ---- normalisation --------------------------------------------------------------------------------
def _normalized(nodes: Nodes, raw: str, features: Any) -> str:
    """Motions (n, T, C) of float32."""
    if features._body.any():
        raw = _relative_to_body(nodes, raw, features._body)
    if features.normalization in BY_TRAINING:
        scaled = nodes("Div", nodes("Sub", raw, features._offset), features._scale)
        return nodes.cast(nodes("Clip", scaled, np.float64(-FARTHEST), np.float64(FARTHEST)), np.float32)
    # Its own mean off each channel, then one scale for all channels, or one for each.
    axes = [1, 2] if features.normalization == "centered" else [1]
    centered = nodes("Sub", raw, nodes("ReduceMean", raw, axes=[1]))
    scale = nodes("Sqrt", nodes("ReduceMean", nodes("Mul", centered, centered), axes=axes))
    least = nodes("Mul", nodes("ReduceMax", nodes("Abs", raw), axes=axes), np.float64(ROUNDING))
    factor = nodes("Where", nodes("LessOrEqual", scale, least), _ZERO, nodes("Div", _ONE, scale))
    return nodes.cast(nodes("Mul", centered, factor), np.float32)


def _relative_to_body(nodes: Nodes, raw: str, body: NDArray[np.bool_]) -> str:
    points = nodes("Reshape", raw, _integers(0, 0, len(body), 3))
    own = nodes("Gather", points, np.flatnonzero(body).astype(np.int64), axis=2)
    middle = nodes("Mul", nodes("ReduceMean", own, axes=[2]), body[:, None].astype(np.float64))
    return nodes("Reshape", nodes("Sub", points, middle), _integers(0, 0, 3 * len(body)))


# ---- what is added to the channels ----------------------------------------------------------------
def _spectrum(nodes: Nodes, motions: str, n_steps: int) -> str:
    """Logarithms of the power in bands, (n, bands * C): a Fourier transform as a product, since T is fixed."""
    frequencies = np.arange(1, n_steps // 2 + 1)
    turns = np.outer(frequencies, np.arange(n_steps)) % n_steps * (2.0 * np.pi / n_steps)
    share = np.where(2 * frequencies == n_steps, 1.0, 2.0) / n_steps
    bands = np.where(np.floor(np.log2(frequencies)) == np.arange(N_BANDS)[:, None], share, 0.0)
    waves = nodes("MatMul", np.concatenate([np.cos(turns), np.sin(turns)]), nodes.cast(motions, np.float64))
    powers = nodes("MatMul", np.hstack([bands, bands]), nodes("Mul", waves, waves))  # (n, bands, C)
    return nodes("Reshape", nodes.cast(nodes("Log", nodes("Add", powers, _ONE)), np.float32), _integers(0, -1))


def _with_velocity(nodes: Nodes, motions: str, features: Any) -> str:
    """Motions and their velocities, (n, T, 2 C) of float32."""
    steps = np.arange(features.n_steps)
    before, after = np.maximum(steps - 1, 0), np.minimum(steps + 1, features.n_steps - 1)
    later, earlier = (nodes.cast(nodes("Gather", motions, index, axis=1), np.float64) for index in (after, before))
    slopes = nodes("Div", nodes("Sub", later, earlier), np.maximum(after - before, 1.0)[:, None])
    velocity = nodes.cast(nodes("Div", slopes, features._velocity_scale), np.float32)
    return nodes("Concat", motions, velocity, axis=2)


# ---- local patterns -------------------------------------------------------------------------------
def _shares(nodes: Nodes, motions: str, patterns: Any, n_steps: int) -> str:
    """Shares of time in which patterns match, (n, D * 84 * Q * 4), for D dilations and Q thresholds.

    A share jumps where a sum passes its threshold, and the thresholds are themselves such sums; where a body rests,
    both are rounding alone. So all sums are taken as the loops of `features.local` take them, which gives their bits.
    """
    n_dilations, _, n_thresholds = patterns.thresholds_.shape
    taps = _taps(nodes, _mixed(nodes, motions, patterns.mixtures_), patterns.dilations_, n_steps)  # (n, D, 12, 9, T)
    first, *others = nodes.several(N_TAPS, "Split", taps, axis=3)
    total = nodes("Neg", first)
    for tap in others:
        total = nodes("Sub", total, tap)
    third = np.float32(1.0 / 3.0)
    total = nodes("Reshape", nodes("Mul", total, third), _integers(0, n_dilations, 1, N_MIXTURES, n_steps))
    # Pattern k is of mixture k % 12: (84,) = (7, 12).
    own = np.arange(len(KERNELS)) % N_MIXTURES * N_TAPS
    taps = nodes("Reshape", taps, _integers(0, n_dilations, N_MIXTURES * N_TAPS, n_steps))
    a, b, c = (nodes("Gather", taps, (own + tap).reshape(-1, N_MIXTURES), axis=2) for tap in KERNELS.T)
    response = nodes("Add", nodes("Add", nodes("Add", total, a), b), c)  # (n, D, 7, 12, T)
    thresholds = (patterns.thresholds_ * third).reshape(n_dilations, -1, N_MIXTURES, n_thresholds, 1)
    matches = nodes("Greater", nodes("Unsqueeze", response, _integers(4)), thresholds)  # (n, D, 7, 12, Q, T)

    ends = np.array([0, (n_steps + 2) // 3, (2 * n_steps + 2) // 3, n_steps])
    steps = np.arange(n_steps)[:, None]
    segments = np.hstack([np.ones_like(steps), (steps >= ends[:-1]) & (steps < ends[1:])]).astype(np.float32)  # (T, 4)
    counts = nodes("Reshape", nodes("MatMul", nodes.cast(matches, np.float32), segments), _integers(0, -1))
    sizes = np.maximum(segments.sum(axis=0), np.float32(1.0))
    return nodes("Div", counts, np.tile(sizes, patterns.thresholds_.size))


def _mixed(nodes: Nodes, motions: str, mixtures: NDArray[np.float32]) -> str:
    """Mixtures of channels, (n, D, 12, T): one channel after another."""
    channels = nodes("Transpose", motions, perm=[0, 2, 1])  # (n, C, T)
    n_mixed = max(int((mixtures != 0.0).sum(axis=2).max()), 1)
    order = np.argsort(mixtures == 0.0, axis=2, kind="stable")  # those with a weight first
    weights = np.take_along_axis(mixtures, order, axis=2)
    total = ""
    for k in range(n_mixed):
        term = nodes("Mul", nodes("Gather", channels, order[:, :, k], axis=1), weights[:, :, k, None])
        total = nodes("Add", total, term) if total else term
    return total


def _taps(nodes: Nodes, signals: str, dilations: NDArray[np.int64], n_steps: int) -> str:
    """Nine copies of the signals (n, D, 12, T), shifted by multiples of the dilation, zeros outside: (n, D, 12, 9, T).

    The mixtures lie side by side meanwhile: copying rows of them is ten times as fast as copying single numbers.
    """
    n_dilations = len(dilations)
    # One zero at the end stands for all that lies outside.
    padded = nodes("Pad", signals, _integers(0, 0, 0, 0, 0, 0, 0, 1))
    together = nodes("Transpose", padded, perm=[0, 1, 3, 2])
    together = nodes("Reshape", together, _integers(0, n_dilations * (n_steps + 1), N_MIXTURES))
    shifts = (np.arange(N_TAPS) - N_TAPS // 2) * dilations[:, None]
    places = np.arange(n_steps) + shifts[:, :, None]  # (D, 9, T)
    places = np.where((places >= 0) & (places < n_steps), places, n_steps)
    places += np.arange(n_dilations)[:, None, None] * (n_steps + 1)
    copies = nodes("Gather", together, places.reshape(n_dilations, -1), axis=1)
    apart = nodes("Transpose", copies, perm=[0, 1, 3, 2])
    return nodes("Reshape", apart, _integers(0, n_dilations, N_MIXTURES, N_TAPS, n_steps))


def _integers(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)
