"""UCR archive: one sequence of one channel a line, its label first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gesda.datasets import DataError
from gesda.deepmotion.data.readers._base import as_labels, lines_of, number, numbers, without_padding
from gesda.deepmotion.data.sequences import MotionDataset


def read_ucr(paths: Sequence[str], *, rate: float | None, unlabeled: str | None) -> MotionDataset:
    """Read the file of each channel and lay them side by side; see `gesda.deepmotion.data.readers.load_motion`."""
    files = [_read_one(path) for path in paths]
    first_labels, first_series = files[0]
    for path, (labels, series) in zip(paths[1:], files[1:], strict=True):
        if len(series) != len(first_series):
            raise DataError(
                f"{path!r} has {len(series)} sequences where {paths[0]!r} has {len(first_series)}; the files of the "
                f"channels need the same sequences in the same order."
            )
        for i, (one, other) in enumerate(zip(first_labels, labels, strict=True)):
            same = one == other or (number(one) is not None and number(one) == number(other))
            if not same or len(series[i]) != len(first_series[i]):
                raise DataError(
                    f"{path!r}, sequence {i} (from 0), has label {other!r} and {len(series[i])} samples where "
                    f"{paths[0]!r} has {one!r} and {len(first_series[i])}; the files of the channels need the same "
                    f"sequences in the same order."
                )
    sequences = [np.stack(channels, axis=1) for channels in zip(*(series for _, series in files), strict=True)]
    name = paths[0] if len(paths) == 1 else " + ".join(paths)
    return MotionDataset(tuple(sequences), as_labels(first_labels, unlabeled), rate, _axes(len(paths)), None, name)


def _axes(n: int) -> tuple[str, ...]:
    return ("x", "y", "z")[:n] if n <= 3 else ()


def _read_one(path: str) -> tuple[list[str], list[NDArray[Any]]]:
    labels, series = [], []
    for line, text in lines_of(path, edges=" \r\n"):
        place = f"{path!r}, line {line}"
        separator = next((mark for mark in ("\t", ",") if mark in text), None)
        label, *cells = text.rstrip("\t").split(separator)
        if not cells:
            raise DataError(f"{place}: there is no value after the label; a line is a label and its values.")
        values = without_padding(numbers(cells, place)[:, None], place)[:, 0]
        if number(label) is None and len(label) > 200:
            raise DataError(f"{place}: the label has {len(label)} characters; the label comes first, then the values.")
        labels.append(label)
        series.append(values)
    if not series:
        raise DataError(f"{path!r} is empty; give a file with one sequence a line.")
    return labels, series
