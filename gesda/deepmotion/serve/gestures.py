"""Gestures and their examples: what a person has taught, and what of it the recogniser has learnt."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gesda.deepmotion.serve.motions import Motion, placed, without_rest


@dataclass(frozen=True, eq=False)
class Example:
    """One motion of a gesture, with a number that no other example of the session has."""

    number: int
    motion: Motion
    _made: dict[float, NDArray[np.float32]] = field(default_factory=dict, repr=False)

    def sequence(self, rate: float, kind: str) -> NDArray[np.float32]:
        """Return the motion as a recogniser takes it: uniform, a drawing placed, a wave without rest. Made once."""
        if rate not in self._made:
            self._made.clear()
            uniform = self.motion.uniform(rate)
            self._made[rate] = placed(uniform) if kind == "pointer" else without_rest(uniform, rate)
        return self._made[rate]


@dataclass(eq=False)
class Gesture:
    """One gesture: what it should be learnt from, and what it is learnt from.

    Attributes
    ----------
    name : str
    label : object
        What the recogniser calls it; a model that was uploaded may have numbers.
    colour : int
        Of all that the page shows of it.
    brought : bool
        Whether it came with a model, without its examples.
    examples : list of Example
    learnt : tuple of int
        Numbers of the examples that the recogniser has.
    failed : tuple of int or None
        Numbers of the examples that could not be learnt: they are not tried again.
    gone : bool
        Whether it is to be deleted as soon as the recogniser has forgotten it.
    """

    name: str
    label: Any
    colour: int
    brought: bool = False
    examples: list[Example] = field(default_factory=list)
    learnt: tuple[int, ...] = ()
    failed: tuple[int, ...] | None = None
    gone: bool = False
    seconds: float | None = None

    def wanted(self, needed: int) -> tuple[int, ...]:
        """Numbers of the examples that the recogniser should have."""
        if self.gone or (len(self.examples) < needed and not self.brought):
            return ()
        return tuple(example.number for example in self.examples)

    def stale(self, needed: int) -> bool:
        """Whether the recogniser has to learn or forget something of it."""
        wanted = self.wanted(needed)
        return self.gone or (wanted not in (self.learnt, self.failed))
