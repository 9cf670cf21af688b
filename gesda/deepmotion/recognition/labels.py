"""Names of gestures and their numbers: what `fit` was given, what `add_gesture` adds."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

LONGEST_NAME = 200


@dataclass(frozen=True)
class Labels:
    """The gestures in the order of their class numbers: all text, or all whole numbers."""

    names: tuple[Any, ...] = ()

    @property
    def array(self) -> NDArray[Any]:
        """The names as an array: int64, or objects of type str."""
        if self.names and not isinstance(self.names[0], str):
            return np.array(self.names, dtype=np.int64)
        return np.array(self.names, dtype=object)

    def with_name(self, name: Any) -> Labels:
        """One gesture more."""
        return Labels((*self.names, name))

    def without_name(self, name: Any) -> Labels:
        """One gesture less."""
        return Labels(tuple(known for known in self.names if known != name))


def read_labels(labels: ArrayLike | None, n: int) -> tuple[NDArray[np.int64], Labels]:
    """Turn labels to class numbers, -1 for the unlabelled, and the sorted names of the classes."""
    numbers = np.full(n, -1, dtype=np.int64)
    if labels is None:
        return numbers, Labels()
    given = np.asarray(labels, dtype=object)
    if given.shape != (n,):
        raise ValueError(f"labels have shape {given.shape}; {n} sequences need ({n},).")
    plain: list[Any] = [_plain(value) for value in given]
    kinds = {type(value) for value in plain if value is not None}
    if kinds == {int}:
        plain = [None if value == -1 else value for value in plain]
    elif not kinds <= {str}:
        shown = sorted(kind.__name__ for kind in kinds)
        raise ValueError(f"labels must be all text or all whole numbers; got {', '.join(shown)}.")
    names = tuple(sorted({value for value in plain if value is not None}))
    number_of = {name: number for number, name in enumerate(names)}
    for i, value in enumerate(plain):
        if value is not None:
            numbers[i] = number_of[value]
    return numbers, Labels(names)


def as_name(name: Any, labels: Labels) -> Any:
    """Check the name of a gesture to be taught."""
    plain = _plain(name)
    if isinstance(plain, str) and not 0 < len(plain.strip()) <= LONGEST_NAME:
        raise ValueError(f"a gesture's name needs 1 to {LONGEST_NAME} characters; got {len(plain.strip())}.")
    if type(plain) not in (str, int) or plain == -1:
        raise ValueError(f"a gesture's name is text or a whole number other than -1; got {name!r:.80}.")
    if labels.names and type(labels.names[0]) is not type(plain):
        raise ValueError(f"the known gestures are {list(labels.names)[:3]!r}...; {name!r:.80} is of another kind.")
    return plain


def _plain(value: Any) -> Any:
    """NumPy's scalars, and floats that are whole numbers, as Python's own; missing values as None."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, bool):
        return value
    if isinstance(value, Integral) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    return value
