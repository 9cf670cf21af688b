"""Examples that a recogniser keeps, so that learning a new gesture does not push the others out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Examples kept of a gesture.
CAPACITY = 50


@dataclass(frozen=True, eq=False)
class Memory:
    """Normalised motions of labelled examples.

    Parameters
    ----------
    motions : ndarray of float32, shape (n, n_steps, n_channels)
    durations : ndarray of float64, shape (n,)
        Lengths in samples, as they were recorded.
    labels : ndarray of int64, shape (n,)
        Class numbers.
    folds : ndarray of int64, shape (n,)
        The member of the committee that never learns an example; -1 for none.
    """

    motions: NDArray[np.float32]
    durations: NDArray[np.float64]
    labels: NDArray[np.int64]
    folds: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        motions: NDArray[np.float32],
        durations: NDArray[np.float64],
        labels: NDArray[np.int64],
        folds: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> Memory:
        """Keep up to `CAPACITY` examples of each class, chosen at random."""
        chosen = [rng.permutation(np.flatnonzero(labels == label))[:CAPACITY] for label in np.unique(labels)]
        kept = np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.intp)
        return cls(motions[kept], durations[kept], labels[kept], folds[kept])

    def with_examples(
        self,
        motions: NDArray[np.float32],
        durations: NDArray[np.float64],
        label: int,
        folds: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> Memory:
        """Add examples of a class; of more than the capacity, any may go."""
        return Memory.of(
            np.concatenate([self.motions, motions]),
            np.concatenate([self.durations, durations]),
            np.concatenate([self.labels, np.full(len(motions), label, dtype=np.int64)]),
            np.concatenate([self.folds, folds]),
            rng,
        )

    def without_class(self, label: int) -> Memory:
        """Forget a class; the numbers above move down by one."""
        kept = self[np.flatnonzero(self.labels != label)]
        return Memory(kept.motions, kept.durations, kept.labels - (kept.labels > label), kept.folds)

    def lesson(self, new: int, most_new: int, most_old: int, rng: np.random.Generator) -> Memory:
        """Choose examples to learn from: up to `most_new` of the class `new`, up to `most_old` of each other."""
        chosen = [
            rng.permutation(np.flatnonzero(self.labels == label))[: most_new if label == new else most_old]
            for label in np.unique(self.labels)
        ]
        return self[np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.intp)]

    def __getitem__(self, index: NDArray[Any]) -> Memory:
        """Select examples by their numbers or by a mask."""
        return Memory(self.motions[index], self.durations[index], self.labels[index], self.folds[index])

    def __len__(self) -> int:
        return len(self.labels)
