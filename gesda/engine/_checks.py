"""What an engine takes for granted of the arrays that it is given, each with one clear error.

May import `gesda.spec` and its own package.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gesda.engine import Array, Data
from gesda.spec import NetworkSpec, PretrainPlan


def check_shape(name: str, array: Array, shape: tuple[int, ...]) -> None:
    """Raise ValueError for an array of another shape."""
    if np.shape(array) != shape:
        raise ValueError(f"{name} must have shape {shape}; got {np.shape(array)}.")


def check_state(state: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError for an unknown array or one of another shape."""
    for name, values in state.items():
        if name not in shapes:
            raise ValueError(f"the network has no array {name!r}.")
        check_shape(name, values, shapes[name])


def check_plan(plan: PretrainPlan, spec: NetworkSpec) -> None:
    """Raise ValueError for a plan of another network."""
    if len(plan.training) != len(spec.layers):
        raise ValueError(f"the plan is for {len(plan.training)} layers, the network has {len(spec.layers)}.")


def check_data(data: Data, width: int) -> None:
    """Raise ValueError for data of another width."""
    if data.ndim != 2 or data.shape[1] != width:
        raise ValueError(f"the data must have shape (n_samples, {width}); got {data.shape}.")


def check_order(order: NDArray[np.uint32], n_samples: int) -> None:
    """Raise ValueError for a visit of a row that the data do not have."""
    if order.size and int(order.max()) >= n_samples:
        raise ValueError(f"the plan visits sample {int(order.max())}, but the data have {n_samples} rows.")


def check_classes(classes: Array, order: NDArray[np.uint32], n_samples: int, n_outputs: int) -> None:
    """Raise ValueError for class indices of visited rows that the head does not have."""
    check_shape("targets", classes, (n_samples,))
    visited = np.asarray(classes)[order]
    if visited.size and not (visited.min() >= 0 and visited.max() < n_outputs):
        raise ValueError(f"class indices of visited rows must lie in [0, {n_outputs}).")
