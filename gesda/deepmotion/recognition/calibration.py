"""What a committee says of known examples that it has not learnt: by that the unknown is told from the known.

The members leave examples out by themselves (`choose_folds`). The pretrained stack is one for all of them; a few
sequences are spared from pretraining, and say how much better it restores what it has learnt than what it has not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gesda.deepmotion.recognition.committee import LEAST_GROUPS, Committee
from gesda.deepmotion.recognition.examples import Examples
from gesda.deepmotion.recognition.familiarity import Familiarity

#: Share of the sequences that pretraining does without; none of fewer than five.
_SPARED, _LEAST_TO_SPARE = 0.1, 5
#: A group is spared as a whole if it is no larger part of the sequences.
_MOST_SPARED = 0.35
#: By how many deviations examples that were taught seem more familiar than others of their class.
_LENIENCE = 2.0


def spare(n: int, groups: ArrayLike | None, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Choose the sequences that pretraining does without: a tenth of them, or a person or session.

    Parameters
    ----------
    n : int
    groups : array-like of shape (n,), optional
    rng : numpy.random.Generator

    Returns
    -------
    spared : ndarray of bool, shape (n,)
    """
    spared = np.zeros(n, dtype=np.bool_)
    if n < _LEAST_TO_SPARE:
        return spared
    if groups is not None:
        names, members = np.unique(np.asarray(groups), return_inverse=True)
        small = np.flatnonzero(np.bincount(members) <= _MOST_SPARED * n)
        if len(names) >= LEAST_GROUPS and len(small):
            chosen: NDArray[np.bool_] = members == rng.choice(small)
            return chosen
    spared[rng.permutation(n)[: max(1, round(_SPARED * n))]] = True
    return spared


def optimism(committee: Committee, rows: NDArray[np.float32], spared: NDArray[np.bool_]) -> float:
    """How much worse the stack restores sequences that it was not pretrained on: a difference of log errors, >= 0.

    Parameters
    ----------
    committee : Committee
    rows : ndarray of float32, shape (n, n_features)
    spared : ndarray of bool, shape (n,)

    Returns
    -------
    float
    """
    if not spared.any():
        return 0.0
    errors = np.log(committee.errors(rows) + 1e-12)
    return max(0.0, float(errors[spared].mean() - errors[~spared].mean()))


def calibrate(
    committee: Committee, examples: Examples, optimism: float, copies: int, rejection_rate: float
) -> Familiarity:
    """Learn from known examples where the classes lie, and from those that a member left out how far off they may.

    Where classes are too small to leave any out, examples that were taught stand in, and the threshold is lowered.

    Parameters
    ----------
    committee : Committee
    examples : Examples
        Of all classes.
    optimism : float
        Of the pretrained stack.
    copies : int
        How many of the examples are variations of one.
    rejection_rate : float
        Share of known examples to reject, in (0, 1).

    Returns
    -------
    Familiarity
    """
    encodings, probabilities = committee.answer(examples.rows, examples.folds)
    familiarity = Familiarity.fit(encodings, examples.labels, committee.n_classes, examples.folds)
    left_out = examples.folds >= 0
    asked = left_out if left_out.any() else np.ones_like(left_out)
    errors = committee.errors(examples.rows[asked]) * np.exp(optimism * examples.pretrained[asked])
    measures = familiarity.measure(encodings[asked], probabilities[asked], errors, examples.folds[asked])
    familiarity.calibrate(measures, examples.labels[asked], copies, rejection_rate)
    if not left_out.any():
        familiarity.threshold -= _LENIENCE
    return familiarity
