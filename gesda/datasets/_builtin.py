"""Built-in sets: scikit-learn's small real ones, which need no download, and synthetic ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gesda.datasets._base import Dataset
from gesda.datasets._synthetic import make_anomalies, make_bars

_REAL = {
    "digits": "1797 images of 8x8 pixels, 10 classes",
    "iris": "150 flowers, 4 measures, 3 classes",
    "wine": "178 wines, 13 measures, 3 classes",
    "breast_cancer": "569 tumours, 30 measures, 2 classes",
    "diabetes": "442 patients, 10 measures, a number to predict",
}
_SYNTHETIC: dict[str, tuple[str, Callable[[], Dataset]]] = {
    "bars": ("2000 images of 8x8 pixels made of bars, unlabelled", lambda: make_bars(2000, random_state=0)),
    "anomalies": ("2000 points of a curved mixture, 5 % anomalies", lambda: make_anomalies(2000, random_state=0)),
}

#: Name and one-line description of every built-in set.
BUILTIN: dict[str, str] = {**_REAL, **{name: text for name, (text, _) in _SYNTHETIC.items()}}


def load_builtin(name: str) -> Dataset:
    """Load a set of `BUILTIN`.

    The columns of the real sets are scaled to [0, 1]: digits by its known maximum of 16, the others by
    each column's smallest and largest value over the whole set, as fits for a demonstration. The numbers
    to predict of diabetes are left in their units.
    """
    if name in _SYNTHETIC:
        return _SYNTHETIC[name][1]()
    import sklearn.datasets

    bunch: Any = getattr(sklearn.datasets, f"load_{name}")()
    data = np.asarray(bunch.data, dtype=np.float64)
    low, high = (0.0, 16.0) if name == "digits" else (data.min(axis=0), data.max(axis=0))
    X = np.ascontiguousarray((data - low) / (high - low), dtype=np.float32)
    whole = name != "diabetes"
    y = bunch.target.astype(np.int64 if whole else np.float64)
    names = tuple(str(target) for target in bunch.target_names) if whole else None
    return Dataset(X, y, tuple(map(str, bunch.feature_names)), names, name)
