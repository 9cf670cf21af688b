"""What the page and the server say to each other, and the checks of what the page says.

A WebSocket carries JSON texts, one object each. The page sends objects with a ``type`` and the fields of the
table; each may have an ``id``, a whole number that the answer repeats as ``reply_to``.

============  =======================================  ==================================================
type          fields besides ``id``                    what the server does
============  =======================================  ==================================================
``use``       ``input``                                answers ``state``, ``map`` and ``curves``
``example``   ``input``, ``name``, ``stroke``          keeps an example of a gesture; learns it when it
                                                       has enough of them; answers ``taken``
``undo``      ``input``, ``name``                      takes the last example of a gesture back
``forget``    ``input``, ``name``                      deletes a gesture
``recognize`` ``input``, ``stroke``                    answers ``recognition``
``look``      ``input``, ``name``, ``index``           answers ``shape`` of one example, index from 0
``train``     ``input``                                trains the whole recogniser anew, with ``curves``
``stop``      ``input``                                ends that training after the epoch it is in
``samples``   ``input``, ``samples``                   pushes live motion into a stream; answers ``event``
``rest``      ``input``                                says that the live motion ends
``ping``                                               answers ``pong``
============  =======================================  ==================================================

``input`` is "pointer" (x, y: the pad's shorter side is 1, y points down) or "phone" (acceleration along three axes
in g, gravity included). ``name`` is plain text of at most 40 characters. ``stroke`` and ``samples`` are lists of rows
``[t, channel, ...]``, t in seconds, not decreasing. The recogniser gets drawings moved to the origin, their longer
side 1, and a phone's examples without the rest before and after.

The server sends, besides the answers above, ``state`` (the gestures and what is being done), ``learnt``, ``map``
(two principal components of all examples' encodings), ``curves`` (losses) and ``error`` with ``code`` and
``message``. Anything else than these texts is answered by an ``error``; who sends too many of them is
disconnected with a reason.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gesda.deepmotion.serve.motions import Motion

#: Channels of each kind of input.
CHANNELS = {"pointer": ("x", "y"), "phone": ("x", "y", "z")}

#: Close codes of the WebSocket; the page words them.
CLOSE_FAULTS, CLOSE_IDLE, CLOSE_FULL, CLOSE_SLOW = 4400, 4408, 4429, 4431

_LARGEST = 1e6  # of a coordinate (the pad's shorter side is 1) or of an acceleration, g
_LARGEST_TIME = 1e12  # seconds; a page counts from its opening, some from 1970
_JOINERS = "\u200c\u200d"  # some scripts need them; str.isprintable refuses them


@dataclass(frozen=True)
class Limits:
    """How much the server accepts; everything beyond is answered by an error.

    Attributes
    ----------
    message_bytes : int
        Length of one message.
    stroke_samples, push_samples : int
        Rows of one stroke and of one push of live motion.
    stroke_seconds : float
        Duration of one stroke.
    name_length : int
        Characters of a gesture's name.
    gestures, examples, examples_needed : int
        Gestures of one session and input, examples of one gesture, and examples that a gesture is learnt from.
    messages_per_second, burst : float
        Lasting rate of messages of one connection, and how many may come at once.
    faults : int
        Errors after which a connection is closed; one is forgiven every ten seconds.
    upload_bytes : int
        Size of an uploaded model.
    sessions, connections : int
        Sessions at a time, and connections of one session.
    session_seconds, idle_seconds : float
        How long a session without a connection is kept, and how long a connection may be silent.
    workers : int
        Threads that learn.
    """

    message_bytes: int = 192 * 1024
    stroke_samples: int = 4096
    push_samples: int = 512
    stroke_seconds: float = 30.0
    name_length: int = 40
    gestures: int = 24
    examples: int = 12
    examples_needed: int = 3
    messages_per_second: float = 40.0
    burst: float = 120.0
    faults: int = 20
    upload_bytes: int = 32 * 1024 * 1024
    sessions: int = 64
    connections: int = 4
    session_seconds: float = 2 * 3600.0
    idle_seconds: float = 1800.0
    workers: int = 2


class ProtocolError(ValueError):
    """A message that cannot be taken: a short code for the page and a sentence for the person."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Message:
    """One valid message of the page; fields that its type does not have are empty."""

    type: str
    id: int | None = None
    input: str = ""
    name: str = ""
    index: int = 0
    motion: Motion | None = field(default=None, compare=False)


def parse(text: str, limits: Limits) -> Message:
    """Read one message of the page.

    Parameters
    ----------
    text : str
        JSON.
    limits : Limits

    Returns
    -------
    Message

    Raises
    ------
    ProtocolError
        Anything that the module's table does not allow.

    Examples
    --------
    >>> parse('{"type": "undo", "input": "pointer", "name": " a  circle "}', Limits()).name
    'a circle'
    >>> parse('{"type": "undo", "input": "pointer"}', Limits())
    Traceback (most recent call last):
        ...
    gesda.deepmotion.serve.protocol.ProtocolError: a message of type 'undo' lacks 'name'.
    """
    if len(text) > limits.message_bytes or len(text.encode("utf-8", "surrogatepass")) > limits.message_bytes:
        raise ProtocolError("too-large", f"a message may have {limits.message_bytes} bytes; this one is longer.")
    content = _json(text)
    if not isinstance(content, dict):
        raise ProtocolError("malformed", f"a message is a JSON object; got {_kind_of(content)}.")
    kind = content.get("type")
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise ProtocolError("unknown", f"no message has the type {_short(kind)}; known are {', '.join(_FIELDS)}.")
    wanted = _FIELDS[kind]
    for key in content:
        if key not in wanted and key not in ("type", "id"):
            raise ProtocolError("malformed", f"a message of type {kind!r} has no field {_short(key)}.")
    for key in wanted:
        if key not in content:
            raise ProtocolError("malformed", f"a message of type {kind!r} lacks {key!r}.")
    values: dict[str, Any] = {"id": _id(content.get("id"))}
    for key in wanted:
        # Strokes come last in the table's rows: they need the input that was checked before.
        name, value = _READERS[key](content[key], values, limits)
        values[name] = value
    return Message(type=kind, **values)


def reply_to(text: str) -> int | None:
    """Find the id of a message that `parse` refused, so that the error can name it; None if there is none.

    Examples
    --------
    >>> reply_to('{"type": "nonsense", "id": 7}'), reply_to("nonsense")
    (7, None)
    """
    try:
        content = _json(text)
        return _id(content.get("id")) if isinstance(content, dict) else None
    except ProtocolError:
        return None


# ---- JSON -----------------------------------------------------------------------------------------
def _constant(name: str) -> Any:
    raise ProtocolError("malformed", f"{name} is not JSON; numbers must be finite.")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ProtocolError("malformed", "an object of the message has one key twice.")
    return content


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_constant, object_pairs_hook=_object)
    except ProtocolError:
        raise
    except RecursionError:
        raise ProtocolError("malformed", "the message is nested too deeply.") from None
    except ValueError:  # json's own, and Python's for whole numbers of thousands of digits
        raise ProtocolError("malformed", "the message is not valid JSON.") from None


def _kind_of(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _short(value: object) -> str:
    """Quote what was found, never more of it than helps."""
    if isinstance(value, dict | list):
        return _kind_of(value)
    text = ascii(value)
    return text if len(text) <= 40 else f"{text[:36]}..."


# ---- fields ---------------------------------------------------------------------------------------
def _id(value: Any) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 <= value < 2**53:
        raise ProtocolError("malformed", f"'id' is a whole number from 0; got {_short(value)}.")
    return value


def _input(value: Any, values: dict[str, Any], limits: Limits) -> tuple[str, Any]:
    if not isinstance(value, str) or value not in CHANNELS:
        raise ProtocolError("malformed", f"'input' is one of {', '.join(CHANNELS)}; got {_short(value)}.")
    return "input", value


def clean_name(value: object, limits: Limits) -> str:
    """Check a gesture's name: printable text, its white space made single spaces.

    Raises
    ------
    ProtocolError
        Not text, empty, too long, or with control characters.
    """
    if not isinstance(value, str):
        raise ProtocolError("name", f"a gesture's name is text; got {_kind_of(value)}.")
    if len(value) > 4 * limits.name_length:
        raise ProtocolError("name", f"a gesture's name has at most {limits.name_length} characters.")
    name = " ".join(unicodedata.normalize("NFC", value).split())
    if not name:
        raise ProtocolError("name", "the gesture needs a name; type one first.")
    if len(name) > limits.name_length:
        raise ProtocolError(
            "name", f"a gesture's name has at most {limits.name_length} characters; this one has {len(name)}."
        )
    if not all(character.isprintable() or character in _JOINERS for character in name):
        raise ProtocolError("name", "a gesture's name may not have control characters.")
    return name


def _name(value: Any, values: dict[str, Any], limits: Limits) -> tuple[str, Any]:
    return "name", clean_name(value, limits)


def _index(value: Any, values: dict[str, Any], limits: Limits) -> tuple[str, Any]:
    if type(value) is not int or not 0 <= value < limits.examples:
        raise ProtocolError("malformed", f"'index' is a whole number from 0; got {_short(value)}.")
    return "index", value


def _stroke(value: Any, values: dict[str, Any], limits: Limits) -> tuple[str, Any]:
    motion = _rows(value, "stroke", len(CHANNELS[values["input"]]), limits.stroke_samples)
    if len(motion.times) < 2 or motion.times[-1] <= motion.times[0]:
        raise ProtocolError("too-short", "that was too short to be a gesture; make a longer one.")
    if motion.times[-1] - motion.times[0] > limits.stroke_seconds:
        raise ProtocolError("too-long", f"a gesture may last {limits.stroke_seconds:g} seconds; make a shorter one.")
    if np.ptp(motion.points, axis=0).max() <= 0.0:
        raise ProtocolError("too-short", "nothing moved; make a larger gesture.")
    return "motion", motion


def _samples(value: Any, values: dict[str, Any], limits: Limits) -> tuple[str, Any]:
    return "motion", _rows(value, "samples", len(CHANNELS[values["input"]]), limits.push_samples)


def _rows(value: Any, what: str, n_channels: int, most: int) -> Motion:
    if not isinstance(value, list):
        raise ProtocolError("malformed", f"{what!r} is a list of rows; got {_kind_of(value)}.")
    if not value:
        raise ProtocolError("too-short", f"{what!r} is empty; send at least one row.")
    if len(value) > most:
        raise ProtocolError("too-large", f"{what!r} may have {most} rows; got {len(value)}.")
    for number, row in enumerate(value):
        if not isinstance(row, list) or len(row) != 1 + n_channels:
            raise ProtocolError(
                "malformed", f"{what!r}, row {number}: a row is a list of the time and {n_channels} channels."
            )
        for position, entry in enumerate(row):
            bound = _LARGEST if position else _LARGEST_TIME
            # bool is an int to Python; an int may be too large for a float, so it is compared before it is converted.
            if type(entry) not in (int, float) or not -bound <= entry <= bound or math.isnan(entry):
                raise ProtocolError(
                    "malformed", f"{what!r}, row {number}: {_short(entry)} is no number within ±{bound:g}."
                )
    table = np.array(value, dtype=np.float64)
    if (np.diff(table[:, 0]) < 0.0).any():
        raise ProtocolError("malformed", f"the times of {what!r} go backwards; send rows in order.")
    return Motion(table[:, 0], table[:, 1:])


_READERS: dict[str, Callable[[Any, dict[str, Any], Limits], tuple[str, Any]]] = {
    "input": _input,
    "name": _name,
    "index": _index,
    "stroke": _stroke,
    "samples": _samples,
}
_FIELDS: dict[str, tuple[str, ...]] = {
    "use": ("input",),
    "example": ("input", "name", "stroke"),
    "undo": ("input", "name"),
    "forget": ("input", "name"),
    "recognize": ("input", "stroke"),
    "look": ("input", "name", "index"),
    "train": ("input",),
    "stop": ("input",),
    "samples": ("input", "samples"),
    "rest": ("input",),
    "ping": (),
}
