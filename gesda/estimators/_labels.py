"""Which samples have a label, which classes there are, and what each sample weighs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight

UNLABELED = -1


def find_labels(y: Any, classes: NDArray[Any] | None = None) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Tell labelled from unlabelled samples.

    Numeric labels: -1 means unlabelled, unless the labels are exactly {-1, 1} (a binary problem in the
    other usual coding) or -1 is one of the known `classes`. Labels of type object: None, NaN and pandas'
    NA mean unlabelled, and where one of them occurs, -1 is a class as any other.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
    classes : ndarray, optional
        The classes, where they are known already.

    Returns
    -------
    labels : ndarray of shape (n_labelled,)
        The labels of the labelled samples.
    labelled : ndarray of bool, shape (n_samples,)

    Raises
    ------
    ValueError
        For NaN or infinity in numeric labels, for labels that are no classes, and when no sample has a label.

    Examples
    --------
    >>> find_labels([0, -1, 2])
    (array([0, 2]), array([ True, False,  True]))
    >>> find_labels([1, -1, 1])[1]
    array([ True,  True,  True])
    """
    # The missing values of pandas' and polars' own types: NumPy would make NaN of them, and floats of integers.
    if hasattr(y, "isna") and hasattr(y, "dtype") and not isinstance(y.dtype, np.dtype):
        y = y.to_numpy(dtype=object) if y.isna().any() else y
    elif hasattr(y, "null_count") and hasattr(y, "to_list"):
        y = np.array(y.to_list(), dtype=object) if y.null_count() else y
    labels = column_or_1d(y, warn=True)
    labelled = np.ones(len(labels), dtype=bool)
    if labels.dtype.kind == "O":
        labelled = np.array([not _is_missing(value) for value in labels], dtype=bool)
        # Out of the object array, so that numbers are compared as numbers and mixed types show as such.
        present = labels[labelled]
        labels_present = np.array(present.tolist()) if len(present) else present
        if labels_present.dtype.kind in "US" and not all(isinstance(value, str | bytes) for value in present):
            raise ValueError("Unknown label type: y mixes strings with other types; convert the labels to one type.")
    else:
        labels_present = labels
    if labels_present.dtype.kind == "f" and not np.isfinite(labels_present).all():
        kind = "NaN" if np.isnan(labels_present).any() else "infinity"
        raise ValueError(f"Input y contains {kind}. Mark unlabelled samples with -1, or pass them as X_unlabeled.")
    if labelled.all() and labels_present.dtype.kind in "if" and _is_marker(labels_present, classes):
        labelled = labels_present != UNLABELED
        labels_present = labels_present[labelled]
    if not len(labels_present):
        raise ValueError(f"y has no labelled sample: all {len(labels)} labels are missing or -1.")
    check_classification_targets(labels_present)
    return labels_present, labelled


def _is_missing(value: Any) -> bool:
    if value is None:
        return True
    try:
        return bool(value != value)  # NaN and NaT differ from themselves
    except TypeError:  # pandas' NA has no truth value
        return True


def _is_marker(labels: NDArray[Any], classes: NDArray[Any] | None) -> bool:
    """Whether -1 marks unlabelled samples."""
    if classes is not None:
        return UNLABELED not in classes.tolist()
    distinct = np.unique(labels)
    return not (len(distinct) == 2 and distinct[0] == UNLABELED and distinct[1] == 1)


def encode_labels(labels: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.int32]:
    """Indices of the labels in the sorted `classes`.

    Raises
    ------
    ValueError
        For a label that is none of the classes.
    """
    indices = np.searchsorted(classes, labels).clip(max=len(classes) - 1)
    unknown = labels[classes[indices] != labels]
    if len(unknown):
        raise ValueError(f"y has labels that are not in classes: {np.unique(unknown)[:5].tolist()!r}.")
    return indices.astype(np.int32)


def sample_weights(sample_weight: Any, data: Any) -> NDArray[np.float64]:
    """One finite weight of at least 0 for each row of the data; ones when none are given.

    Raises
    ------
    ValueError
        For a wrong shape, NaN, infinity or a negative weight.
    """
    weights: NDArray[np.float64] = _check_sample_weight(
        sample_weight, data, dtype=np.float64, ensure_non_negative=True, copy=True
    )
    return weights


def apply_class_weight(
    class_weight: Any, classes: NDArray[Any], indices: NDArray[np.int32], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Multiply the labelled samples' weights by those of their classes.

    Raises
    ------
    ValueError
        For a `class_weight` that is no dictionary, "balanced" or None, or names an unknown class.
    """
    if class_weight is None:
        return weights
    if (isinstance(class_weight, str) and class_weight != "balanced") or not isinstance(class_weight, str | dict):
        raise ValueError(f"class_weight must be a dictionary, 'balanced' or None; got {class_weight!r}.")
    per_class = np.ones(len(classes))
    if class_weight == "balanced":
        # scikit-learn's formula, on the weighted counts: a sample of weight 2 is two samples.
        counts = np.bincount(indices, weights=weights, minlength=len(classes))
        present = np.flatnonzero(counts > 0)  # with partial_fit a batch need not hold every class
        per_class[present] = counts.sum() / (len(present) * counts[present])
    elif isinstance(class_weight, dict):
        names = classes.tolist()
        unknown = [key for key in class_weight if key not in names]
        if unknown:
            raise ValueError(f"class_weight names classes that y does not have: {unknown[:5]!r}.")
        per_class = np.array([class_weight.get(name, 1.0) for name in names], dtype=np.float64)
        if not (np.isfinite(per_class) & (per_class >= 0)).all():
            raise ValueError(f"class_weight must hold finite numbers of at least 0; got {class_weight!r}.")
    else:
        raise ValueError(f"class_weight must be a dictionary, 'balanced' or None; got {class_weight!r}.")
    return weights * per_class[indices]


def rows_that_count(weights: NDArray[np.float64], labelled: NDArray[np.bool_] | None = None) -> NDArray[np.intp]:
    """Rows with a label and a weight above zero.

    Raises
    ------
    ValueError
        When there is none.
    """
    rows = np.flatnonzero(weights > 0 if labelled is None else (weights > 0) & labelled)
    if not len(rows):
        raise ValueError(
            "sample weights must contain at least one non-zero number; every labelled sample has weight zero."
        )
    return rows
