"""Sequences of motion: the container that readers fill and the check that everything else relies on.

A sequence is one recorded gesture: a float32 array (length, n_channels), time first, uniformly sampled, finite,
of one sample or more. May import NumPy, and of gesda nothing but `DataError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gesda.datasets import DataError

__all__ = ["MotionDataset", "check_sequences", "concatenate"]


@dataclass(frozen=True, eq=False)
class MotionDataset:
    """Sequences of motion of any lengths, with their labels.

    What is given is checked and converted; sequences that are float32 and contiguous already are not copied.

    Parameters
    ----------
    sequences : sequence of array-like, each of shape (length, n_channels) or (length,)
        Finite; lengths may differ, channels not. Kept as a tuple of C-contiguous float32 arrays, two-dimensional.
    labels : array-like of shape (n_sequences,), optional
        Whole numbers, of which -1 means unlabelled, kept as int64; or text, of which None means unlabelled, kept
        as an object array. None: there are no labels at all.
    rate : float, optional
        Samples a second (Hz) of every sequence; None if not known.
    channels : sequence of str, optional
        A name for each channel, all different; ``("c0", "c1", ...)`` by default.
    groups : array-like of shape (n_sequences,), optional
        The person or session that each sequence comes from, for splits.
    name : str, default="motion"
        Where the data come from.

    Raises
    ------
    DataError
        When there are no sequences, a value is missing or infinite, or sizes do not fit; a `ValueError`.

    Examples
    --------
    >>> data = MotionDataset([[[0, 1], [0, 2]], [[3, 4]]], labels=["up", None], channels=("x", "y"), rate=50)
    >>> len(data), data.n_channels, data.lengths.tolist(), data.classes.tolist()
    (2, 2, [2, 1], ['up'])
    >>> data[data.labeled].labels
    array(['up'], dtype=object)
    """

    sequences: tuple[NDArray[np.float32], ...]
    labels: NDArray[Any] | None = None
    rate: float | None = None
    channels: tuple[str, ...] = ()
    groups: NDArray[Any] | None = None
    name: str = "motion"

    def __post_init__(self) -> None:
        sequences = tuple(check_sequences(self.sequences, name=self.name))
        n, n_channels = len(sequences), sequences[0].shape[1]
        channels = tuple(map(str, self.channels)) or tuple(f"c{i}" for i in range(n_channels))
        if len(channels) != n_channels or len(set(channels)) != n_channels:
            raise DataError(
                f"{self.name}: channels {list(channels)} are no names for {n_channels} channel(s); give each its own."
            )
        if self.rate is not None and not (np.isfinite(self.rate) and self.rate > 0):
            raise DataError(f"{self.name}: rate must be a positive number of Hz, or None; got {self.rate!r}.")
        # The class is frozen for its users; here it is still being made.
        object.__setattr__(self, "sequences", sequences)
        object.__setattr__(self, "channels", channels)
        object.__setattr__(self, "rate", None if self.rate is None else float(self.rate))
        if self.labels is not None:
            object.__setattr__(self, "labels", _check_labels(self.labels, n, self.name))
        if self.groups is not None:
            groups = np.asarray(self.groups)
            if groups.shape != (n,):
                raise DataError(f"{self.name}: groups have shape {groups.shape}; {n} sequences need ({n},).")
            object.__setattr__(self, "groups", groups)

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, key: slice | ArrayLike) -> MotionDataset:
        """Select sequences by a slice, by an array of numbers or by a mask; not empty."""
        if not isinstance(key, slice):
            key = np.asarray(key)
            if key.ndim != 1 or key.dtype.kind not in "iub" or (key.dtype.kind == "b" and len(key) != len(self)):
                raise DataError(
                    f"{self.name}: {len(self)} sequences are selected by a slice, by an array of numbers or by a mask "
                    f"of that length, not by {key.dtype} of shape {key.shape}; one sequence is .sequences[i]."
                )
        try:
            index = np.arange(len(self))[key]
        except IndexError as error:
            raise DataError(f"{self.name}: there are {len(self)} sequences only ({error}).") from None
        if not len(index):
            raise DataError(f"{self.name}: the selection is empty; select one sequence or more.")
        return MotionDataset(
            tuple(self.sequences[i] for i in index),
            None if self.labels is None else self.labels[index],
            self.rate,
            self.channels,
            None if self.groups is None else self.groups[index],
            self.name,
        )

    def __repr__(self) -> str:
        lengths = self.lengths
        rate = "" if self.rate is None else f", {self.rate:g} Hz"
        return (
            f"<MotionDataset {self.name!r}: {len(self)} sequences of {lengths.min()} to {lengths.max()} samples, "
            f"{self.n_channels} channel(s){rate}, {len(self.classes)} classes>"
        )

    @property
    def n_channels(self) -> int:
        """Number of channels, the same for every sequence."""
        return int(self.sequences[0].shape[1])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of samples of each sequence, shape (n_sequences,)."""
        return np.array([len(sequence) for sequence in self.sequences], dtype=np.int64)

    @property
    def labeled(self) -> NDArray[np.bool_]:
        """Mask of the sequences that have a label, shape (n_sequences,)."""
        if self.labels is None:
            return np.zeros(len(self), dtype=np.bool_)
        if self.labels.dtype.kind == "i":
            return np.asarray(self.labels != -1)
        return np.array([label is not None for label in self.labels], dtype=np.bool_)

    @property
    def classes(self) -> NDArray[Any]:
        """The different labels in order, without what stands for unlabelled."""
        if self.labels is None:
            return np.empty(0, dtype=object)
        return np.unique(self.labels[self.labeled])


def check_sequences(
    sequences: MotionDataset | Iterable[ArrayLike], *, n_channels: int | None = None, name: str = "sequences"
) -> list[NDArray[np.float32]]:
    """Check sequences of motion and give them as two-dimensional float32 arrays.

    Parameters
    ----------
    sequences : MotionDataset, sequence of array-like, or ndarray of shape (n, length, n_channels)
        Each array-like has shape (length, n_channels), or (length,) for one channel.
    n_channels : int, optional
        The number of channels to insist on; by default that of the first sequence.
    name : str, default="sequences"
        How to call them in an error.

    Returns
    -------
    list of ndarray of float32, each (length, n_channels)
        C-contiguous and finite; not copied where it was so already.

    Raises
    ------
    DataError
        A `ValueError` that names the sequence, sample and channel.

    Examples
    --------
    >>> [sequence.shape for sequence in check_sequences([[1, 2, 3], [4]])]
    [(3, 1), (1, 1)]
    """
    if isinstance(sequences, MotionDataset):
        checked = list(sequences.sequences)
        if n_channels is not None and sequences.n_channels != n_channels:
            raise DataError(_wrong_channels(name, 0, sequences.n_channels, n_channels))
        return checked
    if isinstance(sequences, np.ndarray) and sequences.dtype != object and sequences.ndim != 3:
        raise DataError(
            f"{name}: an array of shape {sequences.shape} was given where (n, length, n_channels) is needed; "
            f"give X[:, :, None] for rows that are sequences of one channel, or [X] for a single sequence."
        )
    if isinstance(sequences, (str, bytes, dict)) or not isinstance(sequences, Iterable):
        raise DataError(
            f"{name}: {type(sequences).__name__} holds no sequences; give a list of arrays (length, n_channels)."
        )
    checked = []
    for i, sequence in enumerate(sequences):
        checked.append(_check_one(sequence, i, n_channels, name))
        n_channels = checked[0].shape[1] if n_channels is None else n_channels
    if not checked:
        raise DataError(f"{name}: there are no sequences; give one or more.")
    return checked


def concatenate(datasets: Sequence[MotionDataset], *, name: str | None = None) -> MotionDataset:
    """Join sets of the same channels and rate, one after the other.

    Parameters
    ----------
    datasets : sequence of MotionDataset
        Sets without labels among sets with labels count as unlabelled.
    name : str, optional
        Of the result; the names of the sets joined by " + " by default.

    Returns
    -------
    MotionDataset
        ``groups`` are kept where every set has them.

    Raises
    ------
    DataError
        When there are no sets, or their channels, rates or kinds of label differ.

    Examples
    --------
    >>> wave = MotionDataset([[1.0, 2.0]], labels=["wave"])
    >>> concatenate([wave, MotionDataset([[0.0]])]).labels
    array(['wave', None], dtype=object)
    """
    if not datasets:
        raise DataError("there are no sets to join; give one or more.")
    first = datasets[0]
    name = " + ".join(data.name for data in datasets) if name is None else name
    for data in datasets[1:]:
        if data.channels != first.channels or data.rate != first.rate:
            raise DataError(
                f"{data.name!r} has channels {list(data.channels)} at {data.rate} Hz, {first.name!r} "
                f"{list(first.channels)} at {first.rate} Hz; resample or select channels before joining."
            )
    kinds = {data.labels.dtype for data in datasets if data.labels is not None}
    if len(kinds) > 1:
        raise DataError(f"{name}: some sets have numbers as labels and some have text; convert one of them.")
    labels = groups = None
    if kinds:
        kind = kinds.pop()
        nothing = None if kind.kind == "O" else -1
        labels = np.concatenate(
            [np.full(len(data), nothing, dtype=kind) if data.labels is None else data.labels for data in datasets]
        )
    if all(data.groups is not None for data in datasets):
        groups = np.concatenate([data.groups for data in datasets if data.groups is not None])
    sequences = tuple(sequence for data in datasets for sequence in data.sequences)
    return MotionDataset(sequences, labels, first.rate, first.channels, groups, name)


def _check_one(sequence: ArrayLike, i: int, n_channels: int | None, name: str) -> NDArray[np.float32]:
    try:
        array = np.asarray(sequence)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"its dtype is {array.dtype}")
    except (TypeError, ValueError) as error:  # ragged lists raise ValueError, text has a wrong dtype
        raise DataError(
            f"{name}: sequence {i} is no array of real numbers ({error}); give an array (length, n_channels)."
        ) from None
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise DataError(
            f"{name}: sequence {i} has {array.ndim} dimension(s), shape {array.shape}; it needs (length, n_channels)."
        )
    if array.size == 0:
        raise DataError(f"{name}: sequence {i} has shape {array.shape}; it needs one sample and one channel or more.")
    if n_channels is not None and array.shape[1] != n_channels:
        raise DataError(_wrong_channels(name, i, array.shape[1], n_channels))
    with np.errstate(over="ignore"):
        samples = np.ascontiguousarray(array, dtype=np.float32)
    finite = np.isfinite(samples)
    if not finite.all():
        sample, channel = (int(place) for place in np.argwhere(~finite)[0])
        raise DataError(
            f"{name}: sequence {i}, sample {sample}, channel {channel} (from 0) is {array[sample, channel]!s}, "
            f"not finite as float32; fill it in or remove the sequence."
        )
    return samples


def _wrong_channels(name: str, i: int, found: int, expected: int) -> str:
    return (
        f"{name}: sequence {i} has {found} channel(s) where {expected} are expected; time comes first, then channels."
    )


def _check_labels(labels: ArrayLike, n: int, name: str) -> NDArray[Any]:
    """Whole numbers become int64; text, with None for unlabelled, becomes an object array."""
    array = labels if isinstance(labels, np.ndarray) else np.array(labels, dtype=object)
    if array.shape != (n,):
        raise DataError(f"{name}: labels have shape {array.shape}; {n} sequences need ({n},).")
    if array.dtype.kind in "iub":
        return array.astype(np.int64)
    items = array.tolist()
    if all(item is None or isinstance(item, str) for item in items):
        result = np.empty(n, dtype=object)
        result[:] = [None if item is None else str(item) for item in items]
        return result
    if any(isinstance(item, str) for item in items):
        raise DataError(f"{name}: labels mix text and numbers; use one of them.")
    numbers = np.empty(n, dtype=np.int64)
    for i, item in enumerate(items):
        try:
            numbers[i] = -1 if item is None else int(item)
            exact = item is None or numbers[i] == item
        except (TypeError, ValueError, OverflowError):
            exact = False
        if not exact:
            raise DataError(
                f"{name}: label {i} (from 0) is {item!r}; a label is a whole number (-1 for unlabelled) or text "
                f"(None for unlabelled)."
            )
    return numbers
