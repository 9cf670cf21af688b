"""What recogniser, committee and calibration hand each other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Examples(NamedTuple):
    """Rows with what is known of them.

    Attributes
    ----------
    rows : ndarray of float32, shape (n, n_features)
    labels : ndarray of int64, shape (n,)
        Class numbers.
    folds : ndarray of int64, shape (n,)
        The member that never learns an example; -1 for none.
    pretrained : ndarray of bool, shape (n,)
        Whether the stack was pretrained on it.
    """

    rows: NDArray[np.float32]
    labels: NDArray[np.int64]
    folds: NDArray[np.int64]
    pretrained: NDArray[np.bool_]
