"""When a training has diverged: losses or weights that are not finite, or a loss out of all proportion.

A squared error can explode and stay a finite number for a while (a sum in double precision reaches 1e308),
so that the weights are worthless long before the first infinity. Imports nothing of gesda.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: A loss above so many times its layer's first one has exploded. Noise and a higher learning rate cost a factor of
#: ten at most; from here plain gradient descent with the same rate does not come back.
EXPLOSION = 1000.0


def squared_error_scale(values: NDArray[Any], shape: tuple[int, ...]) -> float:
    """Squared error that an untrained network may make: that of answers off by the values' own size, or by one.

    All rows count, since few large ones may make most of the loss.

    Parameters
    ----------
    values : ndarray
        What is to be reconstructed or predicted; of sparse data those that are stored.
    shape : (int, int)
        Rows and components of the whole.

    Examples
    --------
    >>> import numpy as np
    >>> squared_error_scale(np.array([[3.0, 4.0], [0.0, 0.0]]), (2, 2))
    7.25
    """
    flat = values.reshape(-1)
    # einsum casts as it goes: no temporary array of the size of the data.
    squares = float(np.einsum("i,i->", flat, flat, dtype=np.float64))
    return 0.5 * (squares / shape[0] + shape[1])


def find_divergence(
    records: Iterable[Mapping[str, Any]],
    earlier: Iterable[Mapping[str, Any]],
    nonfinite: str | None,
    scales: Mapping[int | None, float],
) -> tuple[str, str] | None:
    """Tell where and how an epoch diverged.

    It diverged when a loss or a weight is not finite, or when a loss is above `EXPLOSION` times the larger
    of the same layer's first loss and its scale. In a layer's first epoch the scale stands alone; where
    there is none (losses that cannot explode, data of unknown size), a first loss only has to be finite.

    Parameters
    ----------
    records : records of the epoch
    earlier : records of the same call before it
    nonfinite : name of a parameter array that is not finite after the epoch
    scales : loss that a healthy training may start with, by layer (None for fine-tuning)

    Returns
    -------
    None, or (where, what) as a warning says it
    """
    first: dict[int | None, float] = {}
    for record in earlier:
        first.setdefault(record.get("layer"), record["loss"])
    for record in records:
        layer, loss = record.get("layer"), record["loss"]
        usual = max((value for value in (first.get(layer), scales.get(layer)) if value is not None), default=0.0)
        place = "the output layer" if layer is None else f"layer {layer}"
        if not math.isfinite(loss):
            return place, f"its loss is {loss}"
        if usual > 0.0 and loss > EXPLOSION * usual:
            return place, f"its loss is {loss:.3g}, where up to {usual:.3g} is usual"
    if nonfinite is not None:
        where = f"layer {nonfinite.split('.')[1]}" if nonfinite.startswith("layers.") else "the output layer"
        return where, "its weights are no longer finite"
    return None
