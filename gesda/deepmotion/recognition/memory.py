"""Examples that a recogniser keeps, so that learning a new gesture does not push the others out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
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
    pretrained : ndarray of bool, shape (n,)
        Whether the stack was pretrained on an example.
    """

    motions: NDArray[np.float32]
    durations: NDArray[np.float64]
    labels: NDArray[np.int64]
    folds: NDArray[np.int64]
    pretrained: NDArray[np.bool_]

    @cached_property
    def duration_range(self) -> tuple[float, float]:
        """Shortest and longest, in samples; 0 without examples."""
        return (float(self.durations.min()), float(self.durations.max())) if len(self) else (0.0, 0.0)

    def limited(self, rng: np.random.Generator) -> Memory:
        """Keep up to `CAPACITY` examples of each class, chosen at random."""
        return self._chosen({int(label): CAPACITY for label in np.unique(self.labels)}, rng)

    def with_examples(self, examples: Memory, rng: np.random.Generator) -> Memory:
        """Add examples; of more than the capacity, any may go."""
        pairs = zip(self._arrays(), examples._arrays(), strict=True)
        return Memory(*(np.concatenate(pair) for pair in pairs)).limited(rng)

    def without_class(self, label: int) -> Memory:
        """Forget a class; the numbers above move down by one."""
        kept = self[np.flatnonzero(self.labels != label)]
        return replace(kept, labels=kept.labels - (kept.labels > label))

    def lesson(self, new: int, most_new: int, most_old: int, rng: np.random.Generator) -> Memory:
        """Choose examples to learn from: up to `most_new` of the class `new`, up to `most_old` of each other."""
        return self._chosen({int(k): most_new if k == new else most_old for k in np.unique(self.labels)}, rng)

    def facts(self, times: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Labels, folds and what was pretrained on, of the examples and of their copies after them."""
        return np.tile(self.labels, times), np.tile(self.folds, times), np.tile(self.pretrained, times)

    def _chosen(self, most: dict[int, int], rng: np.random.Generator) -> Memory:
        chosen = [rng.permutation(np.flatnonzero(self.labels == label))[:count] for label, count in most.items()]
        return self[np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.intp)]

    def _arrays(self) -> tuple[NDArray[Any], ...]:
        return self.motions, self.durations, self.labels, self.folds, self.pretrained

    def __getitem__(self, index: NDArray[Any]) -> Memory:
        """Select examples by their numbers or by a mask."""
        return Memory(*(array[index] for array in self._arrays()))

    def __len__(self) -> int:
        return len(self.labels)
