"""What `gesda deepmotion serve` begins with when no model is given: a recogniser pretrained on simulated motion."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from gesda.deepmotion.serve.motions import placed
from gesda.deepmotion.serve.workspace import RATES

_N_UNLABELED = 600
_KINDS: dict[str, Literal["pointer", "accelerometer"]] = {"pointer": "pointer", "phone": "accelerometer"}


def make_recognizer(kind: str) -> Any:
    """Make a recogniser that is not fitted; the same for each kind of input."""
    from gesda.deepmotion.recognition.recognizer import GestureRecognizer

    return GestureRecognizer(random_state=0)


def background(kind: str) -> Any:
    """Simulate unlabelled motion of a kind of input: gestures of several hands, and scribbles."""
    from gesda.deepmotion.data.synthetic import make_gestures

    motion = make_gestures(0, kind=_KINDS[kind], n_unlabeled=_N_UNLABELED, n_users=12, rate=RATES[kind], random_state=0)
    if kind == "pointer":
        motion = replace(motion, sequences=tuple(placed(sequence) for sequence in motion.sequences))
    return motion
