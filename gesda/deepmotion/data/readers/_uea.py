"""UEA archive: ``.ts`` and ``.arff``, sequences of several channels, the label last."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gesda.datasets import DataError
from gesda.deepmotion.data.readers._base import MISSING, as_labels, lines_of, number, numbers, without_padding
from gesda.deepmotion.data.sequences import MotionDataset

_ATTRIBUTE = re.compile(r"@attribute\s+('[^']*'|\"[^\"]*\"|\S+)\s+(.*)\Z", re.IGNORECASE)
_RELATIONAL = re.compile(r"(['\"])([^'\"]*)\1\s*(?:,(.*))?\Z")
_TRUE = {"true": True, "false": False}


class _Cases:
    """The sequences read so far; every one has the number of channels of the first."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.n_channels: int | None = None
        self.sequences: list[NDArray[Any]] = []
        self.labels: list[str | None] = []

    def add(self, line: int, channels: list[str], label: str | None) -> None:
        place = f"{self.path!r}, line {line}"
        if self.n_channels is None:
            self.n_channels = len(channels)
        if len(channels) != self.n_channels:
            raise DataError(f"{place}: {len(channels)} channel(s) where {self.n_channels} are expected; correct it.")
        values = [numbers(text.split(","), f"{place}, channel {c} (from 0)") for c, text in enumerate(channels)]
        lengths = [len(channel) for channel in values]
        if min(lengths) != max(lengths):
            raise DataError(f"{place}: the channels have {lengths} values; all channels of a sequence need as many.")
        self.sequences.append(without_padding(np.stack(values, axis=1), place))
        self.labels.append(label)

    def dataset(self, rate: float | None, unlabeled: str | None) -> MotionDataset:
        if not self.sequences:
            raise DataError(f"{self.path!r} has no sequences after its header; fetch it again.")
        labels = as_labels(self.labels, unlabeled)
        return MotionDataset(tuple(self.sequences), labels, rate, (), None, self.path)


def _check_label(label: str, known: list[str], place: str) -> str:
    """Give a label of the header's list, or one that means missing."""
    text = label.strip().strip("'\"").strip()
    if text.lower() in MISSING or not known or text in known:
        return text
    value = number(text)
    if value is None or value not in [number(name) for name in known]:
        raise DataError(f"{place}: label {text[:40]!r} is none of the header's ({', '.join(known[:20])}); correct it.")
    return text


# ---- .ts --------------------------------------------------------------------------------------------
def read_ts(path: str, *, rate: float | None, unlabeled: str | None) -> MotionDataset:
    """Read a ``.ts`` file; see `gesda.deepmotion.data.readers.load_motion`."""
    cases = _Cases(path)
    lines = lines_of(path, "#")
    has_labels, known = _ts_header(path, lines, cases)
    for line, text in lines:
        place = f"{path!r}, line {line}"
        if "(" in text[:40]:
            raise DataError(f"{place}: the values have time stamps; write @timeStamps false and plain values.")
        channels = text.split(":")
        label = _check_label(channels.pop(), known, place) if has_labels else None
        if not channels:
            raise DataError(f"{place}: there is no ':' between values and label; the line is cut off or no sequence.")
        cases.add(line, channels, label)
    return cases.dataset(rate, unlabeled)


def _ts_header(path: str, lines: Iterator[tuple[int, str]], cases: _Cases) -> tuple[bool, list[str]]:
    has_labels, known = False, list[str]()
    for line, text in lines:
        place = f"{path!r}, line {line}"
        if not text.startswith("@"):
            raise DataError(f"{place}: {text[:40]!r} comes before @data; a .ts file starts with its @ header.")
        tag, *values = text.split()
        tag = tag.lower()
        if tag == "@data":
            return has_labels, known
        if tag in ("@classlabel", "@timestamps", "@targetlabel") and (not values or values[0].lower() not in _TRUE):
            raise DataError(f"{place}: {tag} needs true or false, not {' '.join(values)[:40]!r}; correct the header.")
        if tag == "@classlabel":
            has_labels, known = _TRUE[values[0].lower()], values[1:]
        elif tag == "@timestamps" and _TRUE[values[0].lower()]:
            raise DataError(f"{place}: sequences with time stamps are not read from .ts; give them as CSV.")
        elif tag == "@targetlabel" and _TRUE[values[0].lower()]:
            raise DataError(f"{place}: the targets are numbers to predict, not gestures; give a set with @classLabel.")
        elif tag in ("@dimensions", "@dimension"):
            count = number(values[0]) if values else None
            if count is None or count < 1 or count != int(count):
                raise DataError(f"{place}: {tag} needs a whole number of channels; correct the header.")
            cases.n_channels = int(count)
    raise DataError(f"{path!r} has no @data line; it is cut off, or no .ts file.")


# ---- .arff ------------------------------------------------------------------------------------------
def read_arff(path: str, *, rate: float | None, unlabeled: str | None) -> MotionDataset:
    r"""Read an ``.arff`` file, relational (channels between literal ``\n``) or of one channel."""
    cases = _Cases(path)
    lines = lines_of(path, "%")
    relational, label_at, n_columns, known = _arff_header(path, lines)
    for line, text in lines:
        place = f"{path!r}, line {line}"
        if text.startswith("{"):
            raise DataError(f"{place}: sparse rows are not read; write every value.")
        if relational:
            match = _RELATIONAL.match(text)
            if match is None or (label_at is None) != (match[3] is None):
                raise DataError(
                    f"{place}: a sequence is written '...\\n...',label; the line is cut off or written otherwise."
                )
            label = None if label_at is None else _check_label(match[3], known, place)
            cases.add(line, match[2].split("\\n"), label)
        else:
            cells = text.split(",")
            if len(cells) != n_columns:
                raise DataError(f"{place}: {len(cells)} values where the header has {n_columns}; it may be cut off.")
            label = None if label_at is None else _check_label(cells.pop(label_at), known, place)
            cases.add(line, [",".join(cells)], label)
    return cases.dataset(rate, unlabeled)


def _arff_header(path: str, lines: Iterator[tuple[int, str]]) -> tuple[bool, int | None, int, list[str]]:
    """Whether sequences are relational, the column of the label, the number of columns, the labels' names."""
    relational, nested = False, False
    columns, label_at, known = 0, None, list[str]()
    for line, text in lines:
        place = f"{path!r}, line {line}"
        tag = text.split()[0].lower()
        if tag == "@data":
            if columns - (label_at is not None) < 1 or (relational and (columns > 2 or label_at == 0)):
                raise DataError(
                    f"{place}: the header has {columns} attribute(s) of which {int(label_at is not None)} holds names; "
                    f"give one relational attribute or numeric ones, then that of the label."
                )
            return relational, label_at, columns, known
        if tag == "@end":
            nested = False
        elif tag == "@attribute" and not nested:
            match = _ATTRIBUTE.match(text)
            if match is None:
                raise DataError(f"{place}: {text[:60]!r} is no attribute with a name and a type; correct the header.")
            kind = match[2].strip()
            if kind.lower() == "relational":
                relational = nested = True
            elif kind.startswith("{"):
                if label_at is not None:
                    raise DataError(f"{place}: there is a second attribute of names; a sequence has one label.")
                label_at = columns
                known = [name.strip().strip("'\"").strip() for name in kind.strip("{}").split(",")]
            elif kind.lower() not in ("numeric", "real", "integer"):
                raise DataError(f"{place}: attributes of type {kind[:40]!r} are not read; give numbers.")
            columns += 1
        elif not tag.startswith("@"):
            raise DataError(f"{place}: {text[:40]!r} comes before @data; an .arff file starts with its header.")
    raise DataError(f"{path!r} has no @data line; it is cut off, or no .arff file.")
