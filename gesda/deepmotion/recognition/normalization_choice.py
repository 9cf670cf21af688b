"""Which normalisation separates the labelled examples best: a linear classifier's word, in cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GroupKFold, StratifiedKFold, cross_val_score

from gesda.deepmotion.features import MotionFeatures
from gesda.deepmotion.features.normalization import NORMALIZATIONS, find_body

_MOST_EXAMPLES = 300
_LEAST_A_CLASS = 3
_LEAST_GROUPS = 3
_MOST_FOLDS = 5
_PENALTY = 100.0
#: Another normalisation has to separate this many more standard errors better than the first one that could do.
_MARGIN = 1.0


def choose_normalization(
    sequences: Sequence[NDArray[Any]],
    labels: NDArray[np.int64],
    groups: ArrayLike | None,
    options: dict[str, Any],
    rng: np.random.Generator,
) -> str:
    """Compare the normalisations on labelled examples, ``"global"`` unless another is clearly better.

    Parameters
    ----------
    sequences : sequence of ndarray (length, n_channels)
    labels : ndarray of int64, shape (n,)
        Class numbers, -1 for unlabelled.
    groups : array-like of shape (n,), optional
        People or sessions; what is asked then is how well unseen ones are told apart.
    options : dict
        More of `MotionFeatures`.
    rng : numpy.random.Generator

    Returns
    -------
    normalization : str
    """
    counts = np.bincount(labels[labels >= 0]) if (labels >= 0).any() else np.zeros(0, dtype=np.int64)
    usable = np.flatnonzero(counts >= _LEAST_A_CLASS)
    if len(usable) < 2:
        return NORMALIZATIONS[0]
    chosen = rng.permutation(np.flatnonzero(np.isin(labels, usable)))[:_MOST_EXAMPLES]
    few = np.bincount(labels[chosen])
    chosen = chosen[few[labels[chosen]] >= _LEAST_A_CLASS]
    if len(np.unique(labels[chosen])) < 2:
        return NORMALIZATIONS[0]
    picked = [sequences[i] for i in chosen]
    folds: Any = StratifiedKFold(_LEAST_A_CLASS, shuffle=True, random_state=int(rng.integers(2**31))).split
    people = np.zeros(len(chosen)) if groups is None else np.asarray(groups)[chosen]
    n_people = len(np.unique(people))
    if n_people >= _LEAST_GROUPS:
        folds = partial(GroupKFold(min(n_people, _MOST_FOLDS)).split, groups=people)
    splits = list(folds(labels[chosen], labels[chosen]))
    has_body = options.get("orientation", "keep") == "keep" and bool(find_body(picked).any())
    candidates = [name for name in NORMALIZATIONS if name != "relative" or has_body]
    scores = []
    for name in candidates:
        features = MotionFeatures(normalization=name, **options)
        rows = features.fit(picked, np.random.default_rng(0)).rows(*features.motions(picked))
        accuracy = cross_val_score(RidgeClassifier(_PENALTY), rows, labels[chosen], cv=splits)
        scores.append(float(accuracy.mean()))
    best = int(np.argmax(scores))
    noise = np.sqrt(max(scores[best] * (1.0 - scores[best]), 0.25 / len(chosen)) / len(chosen))
    return candidates[best] if scores[best] - scores[0] > _MARGIN * noise else candidates[0]
