"""What the readers share: bounded reading of lines, cells to numbers, text to labels."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gesda.datasets._base import DataError, open_bytes, reading

MISSING = frozenset({"", "?", "na", "n/a", "nan", "-nan", "null", "none"})
# DEFLATE gives 1032 to 1 at most; text of measured numbers gives 2 to 10.
_BOMB_SIZE, _BOMB_RATIO = 1 << 26, 200


class _Bounded(io.RawIOBase):
    """A file whose decompressed size may not run away from its size on disk."""

    def __init__(self, path: str, file: IO[bytes]) -> None:
        self._path, self._file = path, file
        self._left = max(_BOMB_SIZE, _BOMB_RATIO * os.path.getsize(path)) if path.lower().endswith(".gz") else None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise DataError(
                    f"{self._path!r} grows more than {_BOMB_RATIO} times when it is decompressed, so it is no record "
                    f"of motion; check it, or decompress it yourself."
                )
        return len(data)


def lines_of(path: str, comment: str = "", edges: str | None = None) -> Iterator[tuple[int, str]]:
    """Number (from 1) and text of each line that is neither blank nor a comment; UTF-8, without the ``edges``.

    Tabs at the edges of a table are its empty cells. Comments are dropped before they are decoded: many files of the
    archives have them in another encoding.
    """
    mark = comment.encode()
    with reading(path), open_bytes(path) as file, io.BufferedReader(_Bounded(path, file), 1 << 16) as lines:
        for number, raw in enumerate(lines, 1):
            line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            if mark and line.lstrip().startswith(mark):
                continue
            if b"\0" in line:
                raise DataError(f"{path!r}, line {number}: there are zero bytes, so it is no text; check the file.")
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path!r}, line {number}: not UTF-8 text (byte {error.start}); convert the file."
                ) from None
            if text.strip():
                yield number, text.strip(edges)


def numbers(cells: Sequence[str], place: str) -> NDArray[np.float64]:
    """Cells as numbers, NaN where one is missing; ``place`` opens the error about a cell that is no number."""
    if not any("_" in cell for cell in cells):  # Python reads 1_0 as 10
        try:
            values = np.array(cells, dtype=np.float64)
            if not np.isinf(values).any():
                return values
        except ValueError:
            pass
    values = np.empty(len(cells))
    for i, cell in enumerate(cells):
        value = number(cell)
        if value is None and cell.strip().lower() not in MISSING:
            raise DataError(f"{place}, value {i} (from 0) is {cell.strip()[:40]!r}, not a finite number; correct it.")
        values[i] = np.nan if value is None else value
    return values


def number(cell: str) -> float | None:
    """One cell as a finite number, or None."""
    try:
        value = float(cell) if "_" not in cell else np.nan
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def without_padding(values: NDArray[np.float64], place: str) -> NDArray[np.float64]:
    """Cut the samples missing at the end, in all channels: how archives pad unequal lengths; (length, n_channels).

    A value missing elsewhere is an error.
    """
    missing = np.isnan(values)
    if not missing.any():
        return values
    filled = np.flatnonzero(~missing.all(axis=1))
    if not len(filled):
        raise DataError(f"{place}: all values are missing; remove the sequence.")
    values, missing = values[: filled[-1] + 1], missing[: filled[-1] + 1]
    if missing.any():
        sample, channel = np.argwhere(missing)[0]
        raise DataError(
            f"{place}: sample {sample}, channel {channel} (from 0) is missing; fill it in or remove the sequence."
        )
    return values


def as_labels(texts: Sequence[str | None], unlabeled: str | None) -> NDArray[Any] | None:
    """Labels as a `MotionDataset` keeps them: whole numbers as int64, else text; None if none is labelled.

    A class called -1, as in some sets of the UCR archive, stays text: as a number it would mean unlabelled.
    """
    cleaned = [None if text is None or text.strip().lower() in MISSING else text.strip() for text in texts]
    if unlabeled is not None:
        same = number(unlabeled)
        cleaned = [
            None if text is None or text == unlabeled or (same is not None and number(text) == same) else text
            for text in cleaned
        ]
    known = [text for text in cleaned if text is not None]
    if not known:
        return None
    values = [number(text) for text in known]
    whole = [int(value) for value in values if value is not None and value == round(value) and abs(value) < 2**53]
    if len(whole) < len(known):
        return np.array(cleaned, dtype=object)
    as_text = -1 in whole
    rest = iter(map(str, whole) if as_text else whole)
    labels = [next(rest) if text is not None else None if as_text else -1 for text in cleaned]
    return np.array(labels, dtype=object if as_text else np.int64)
