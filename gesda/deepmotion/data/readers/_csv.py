"""CSV with time stamps, one recording or many a file; every sequence is brought to one uniform rate."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gesda.datasets import DataError
from gesda.datasets._base import reading
from gesda.deepmotion.data.readers._base import MISSING, as_labels, lines_of, number
from gesda.deepmotion.data.sequences import MotionDataset

_TIMES = {"time", "times", "timestamp", "timestamps", "t", "seconds", "sec", "ms", "us", "ns", "datetime", "date"}
_LABELS = {"label", "class", "gesture", "activity", "action"}
_SEQUENCES = {"sequence", "sequence_id", "recording", "recording_id", "trial", "sample_id", "id"}
_GROUPS = {"subject", "user", "session", "person", "group", "participant"}
_UNITS = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
# A sequence with a gap may not fill the memory with what is interpolated across it.
_MAX_GROWTH = 100


@dataclass(frozen=True)
class Columns:
    """Which columns of a CSV file hold what, by name or number; None is found out by the name."""

    time: str | int | None = None
    labels: str | int | None = None
    sequences: str | int | None = None
    groups: str | int | None = None
    time_unit: str | None = None


@dataclass
class _Recording:
    """The lines of one sequence."""

    place: str
    label: str | None
    group: str | None
    lines: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    values: list[list[float]] = field(default_factory=list)


@dataclass(frozen=True)
class _Layout:
    """Where each thing stands in the lines of a file; -1: nowhere."""

    time: int
    label: int
    sequence: int
    group: int
    channels: tuple[int, ...]
    names: tuple[str, ...]
    unit: float
    has_header: bool
    n_columns: int


def read_csv(
    files: Iterable[tuple[str, str | None]],
    *,
    rate: float | None,
    columns: Columns,
    unlabeled: str | None,
    name: str,
) -> MotionDataset:
    """Read files, each with the label that its name or folder tells; see `load_motion`."""
    if rate is not None and not (np.isfinite(rate) and rate > 0):
        raise DataError(f"rate must be a positive number of Hz, or None; got {rate!r}.")
    recordings: list[_Recording] = []
    names: tuple[str, ...] = ()
    for path, label in files:
        layout, found = _read_one(path, label, rate, columns)
        if names and layout.names != names:
            raise DataError(
                f"{path!r} has channels {list(layout.names)} where the files before have {list(names)}; all files "
                f"need the same channels in the same order."
            )
        names = layout.names
        recordings += found
    if not recordings:
        raise DataError(f"{name!r} has no sequences; give a .csv file, or a folder LABEL/NAME.csv.")
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # times and values at the ends of their range
        merged = [_merged(recording) for recording in recordings]
        if rate is None:
            steps = np.concatenate([np.diff(times) for times, _ in merged])
            if not len(steps):
                raise DataError(f"{name!r}: no sequence has two time stamps, so the rate is unknown; give it.")
            rate = float(1.0 / np.median(steps))
        if not 0 < rate < np.inf:
            raise DataError(f"{name!r}: the time stamps tell no rate; give the rate or the time unit.")
        sequences: list[NDArray[Any]] = [
            _uniform(*stamped, rate, recording) for stamped, recording in zip(merged, recordings, strict=True)
        ]
    labels = as_labels([recording.label for recording in recordings], unlabeled)
    texts = [recording.group for recording in recordings]
    groups = as_labels(texts, None) if None not in texts else None
    return MotionDataset(tuple(sequences), labels, rate, names, groups, name)


def label_of_name(path: str) -> str | None:
    """Label that a file's name tells: ``circle_01.csv`` is a circle, ``01.csv`` is not labelled."""
    stem = re.sub(r"\.csv(\.gz)?\Z", "", os.path.basename(path), flags=re.IGNORECASE)
    return re.sub(r"[ _.-]*\(?\d*\)?\Z", "", stem) or None


def csv_files(folder: str) -> list[tuple[str, str | None]]:
    """CSV files of a folder ``LABEL/NAME.csv`` or ``LABEL_NUMBER.csv`` with their labels, in order of their names."""
    found: list[tuple[str, str | None]] = []
    with reading(folder):
        for entry in sorted(os.listdir(folder)):
            path = os.path.join(folder, entry)
            if entry.startswith("."):
                continue
            if os.path.isdir(path):
                inside = sorted(name for name in os.listdir(path) if _is_csv(name))
                found += [(os.path.join(path, name), entry) for name in inside]
            elif _is_csv(entry):
                found.append((path, label_of_name(path)))
    return found


def _is_csv(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith((".csv", ".csv.gz"))


# ---- one file -----------------------------------------------------------------------------------
def _read_one(path: str, label: str | None, rate: float | None, columns: Columns) -> tuple[_Layout, list[_Recording]]:
    lines = _cells(path)
    first = next(lines, None)
    if first is None:
        raise DataError(f"{path!r} is empty; give lines of a time and the channels' values.")
    layout = _layout(path, first[1], rate, columns)
    recordings: dict[str, _Recording] = {}
    previous: tuple[str, str | None] | None = None
    run = 0
    for line, cells in lines if layout.has_header else _after(first, lines):
        place = f"{path!r}, line {line}"
        if len(cells) != layout.n_columns:
            raise DataError(
                f"{place}: {len(cells)} values where the first line has {layout.n_columns}; it may be cut off."
            )
        own = label if layout.label < 0 else _text(cells[layout.label])
        key = cells[layout.sequence].strip() if layout.sequence >= 0 else ""
        if layout.sequence < 0:
            # Without a column that tells them apart, a sequence lasts as long as its label.
            run += previous is not None and previous[1] != own
            previous, key = ("", own), str(run)
        group = _text(cells[layout.group]) if layout.group >= 0 else None
        recording = recordings.setdefault(key, _Recording(place, own, group))
        if (recording.label, recording.group) != (own, group):
            raise DataError(
                f"{place}: label {own!r} and group {group!r} within a sequence of label {recording.label!r} and group "
                f"{recording.group!r}, which started at {recording.place}; a sequence has one of each."
            )
        recording.values.append([_value(cells[j], place, layout, j) for j in layout.channels])
        time = len(recording.times) / rate if layout.time < 0 and rate else _time(cells[layout.time], place, layout)
        if recording.times and time < recording.times[-1]:
            raise DataError(
                f"{place}: time {cells[layout.time].strip()!r} is before that of line {recording.lines[-1]}; sort the "
                f"lines by time, or add a column 'sequence' where several recordings follow one another."
            )
        recording.times.append(time)
        recording.lines.append(line)
    return layout, list(recordings.values())


def _after(first: tuple[int, list[str]], rest: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    yield first
    yield from rest


def _cells(path: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells; a quoted cell does not span lines."""
    delimiter = None
    for line, text in lines_of(path, "#", edges=" \r\n"):
        if delimiter is None:
            outside = "".join(text.split('"')[::2])
            delimiter = max((",", ";", "\t"), key=outside.count)
        try:
            yield line, next(csv.reader([text], delimiter=delimiter, skipinitialspace=True, strict=True))
        except csv.Error as error:
            raise DataError(f"{path!r}, line {line}: {error}; check the quotes.") from None


def _layout(path: str, cells: Sequence[str], rate: float | None, columns: Columns) -> _Layout:
    has_header = all(number(cell) is None and _seconds(cell) is None for cell in cells)
    names = [cell.strip() for cell in cells] if has_header else []

    def place(given: str | int | None, known: set[str], what: str) -> int:
        if given is None:
            return next((j for j, name in enumerate(names) if _plain(name) in known), -1)
        if isinstance(given, str) and given in names:
            return names.index(given)
        if isinstance(given, int) and -len(cells) <= given < len(cells):
            return given % len(cells)
        shown = f"its columns are {', '.join(map(repr, names[:20]))}" if names else f"it has {len(cells)} without names"
        raise DataError(f"{path!r} has no {what} column {given!r}; {shown}.")

    label = place(columns.labels, _LABELS, "label")
    sequence = place(columns.sequences, _SEQUENCES, "sequence")
    group = place(columns.groups, _GROUPS, "group")
    time = place(columns.time, _TIMES, "time")
    if time < 0 and not has_header and rate is None:
        time = 0
    if time < 0 and rate is None:
        raise DataError(
            f"{path!r} has no column named like a time among {', '.join(map(repr, names[:20]))}; name it, or give the "
            f"rate of its samples."
        )
    used = [j for j in (time, label, sequence, group) if j >= 0]
    if len(set(used)) != len(used):
        raise DataError(f"{path!r}: one column is named for two purposes; name different ones.")
    channels = tuple(j for j in range(len(cells)) if j not in used)
    if not channels:
        raise DataError(f"{path!r} has no channels besides its time and labels; check its delimiter.")
    shown = tuple(names[j] or f"c{i}" for i, j in enumerate(channels)) if names else ()
    shown = shown or tuple(f"c{i}" for i in range(len(channels)))
    if len(set(shown)) != len(shown):
        raise DataError(f"{path!r} has two channels of one name among {list(shown)[:20]}; rename one.")
    unit = columns.time_unit or (_unit(names[time]) if names and time >= 0 else "s")
    if unit not in _UNITS:
        raise DataError(f"time_unit {unit!r} is unknown; give one of {', '.join(_UNITS)}.")
    return _Layout(time, label, sequence, group, channels, shown, _UNITS[unit], has_header, len(cells))


def _plain(name: str) -> str:
    """A column's name in small letters, without its unit: ``Time (ms)`` and ``time_ms`` are ``time``."""
    name = re.sub(r"\s*[\[(].*[\])]\Z", "", name.strip().lower())
    return re.sub(r"[ _](s|sec|seconds|ms|us|ns)\Z", "", name).replace(" ", "_")


def _unit(name: str) -> str:
    match = re.search(r"(?:^|[ _\[(])(s|sec|seconds|ms|us|ns)[\])]?\Z", name.strip().lower())
    return match[1] if match else "s"


def _text(cell: str) -> str | None:
    return None if cell.strip().lower() in MISSING else cell.strip()


def _value(cell: str, place: str, layout: _Layout, column: int) -> float:
    value = number(cell)
    if value is None:
        name = layout.names[layout.channels.index(column)]
        what = "missing" if cell.strip().lower() in MISSING else f"{cell.strip()[:40]!r}, not a finite number"
        raise DataError(f"{place}, channel {name!r}: the value is {what}; fill it in or remove the line.")
    return value


def _time(cell: str, place: str, layout: _Layout) -> float:
    value = number(cell)
    seconds = _seconds(cell) if value is None else value * layout.unit
    if seconds is None:
        raise DataError(f"{place}: time {cell.strip()[:40]!r} is neither a number nor a date and time; correct it.")
    return seconds


def _seconds(cell: str) -> float | None:
    """A date and time as in ISO 8601, in seconds; None for anything else."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?Z?", cell.strip(), re.ASCII):
        return None
    try:
        return float(np.datetime64(cell.strip().removesuffix("Z"), "ns").astype(np.int64)) * 1e-9
    except (ValueError, OverflowError):
        return None


# ---- time -----------------------------------------------------------------------------------------
def _merged(recording: _Recording) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Time stamps from 0 on, each once, and values; samples of one stamp are averaged."""
    times = np.array(recording.times) - recording.times[0]
    values = np.array(recording.values)
    kept, first, counts = np.unique(times, return_index=True, return_counts=True)
    return kept, np.add.reduceat(values, first, axis=0) / counts[:, None]


def _uniform(
    times: NDArray[np.float64], values: NDArray[np.float64], rate: float, recording: _Recording
) -> NDArray[np.float64]:
    """Interpolate linearly to a uniform rate, from the first time stamp on."""
    span = float(times[-1]) * rate
    if not span <= _MAX_GROWTH * len(times) + 1000:
        raise DataError(
            f"{recording.place}: the sequence has {len(times)} samples in {times[-1]:g} s, {span:.0f} at {rate:g} Hz; "
            f"cut it at its gaps, or give another rate or time unit."
        )
    n = int(span + 0.01) + 1  # time stamps are rounded: the last sample is not lost by that
    at = np.arange(n) / rate
    return np.stack([np.interp(at, times, channel) for channel in values.T], axis=1)
