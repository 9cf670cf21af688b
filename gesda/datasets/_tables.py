"""CSV and UCR .tsv files: numbers in rows, one of the columns perhaps a label.

NumPy's parser reads what is all numbers. Whatever it refuses is read again cell by cell, which either
understands it (labels of text) or knows the line and the column to name in the error.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gesda.datasets._base import DataError, Dataset, as_labels, as_samples, open_bytes, reading

_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?", "-nan"})


def read_table(
    path: str, *, target: str | int | None = None, header: bool | None = None, delimiter: str | None = None
) -> Dataset:
    """Read a table; see `gesda.datasets.load_dataset`."""
    with reading(path), open_bytes(path) as file:
        delimiter = delimiter or _delimiter(file.readline(1 << 22).decode("utf-8", "replace"))
    with reading(path):
        head = [cells for _, cells in zip(range(2), _rows(path, delimiter), strict=False)]
        if not head:
            raise DataError(f"{path!r} is empty; give a file with one sample per line.")
        has_header = _looks_like_header([cells for _, cells in head]) if header is None else header
        names = tuple(cell.strip() for cell in head[0][1]) if has_header else None
        n_columns = len(head[0][1])
        column = _target_column(path, target, names, n_columns)
        if n_columns - (column is not None) < 1:
            raise DataError(
                f"{path!r} has no column besides the target; check its delimiter ({delimiter!r} was found)."
            )
        values, labels = _numbers(path, delimiter, has_header, n_columns, column)
        if labels is None:
            values, labels = _cells(path, delimiter, names, n_columns, column)
    if len(values) == 0:
        raise DataError(f"{path!r} has a header but no samples; give a file with one sample per line.")
    if names is not None and column is not None:
        names = names[:column] + names[column + 1 :]
    X = as_samples(values, repr(path))
    y = None if column is None else as_labels(labels, len(X), f"{path!r}: the target column")
    return Dataset(X, y, names, None, path)


def _delimiter(line: str) -> str:
    """Choose the likeliest of the usual delimiters, by its count outside quotes in the first line."""
    outside = "".join(line.split('"')[::2])
    return max((",", ";", "\t"), key=outside.count)


def _rows(path: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Line number (from 1) and cells of every line that is not blank."""
    with open_bytes(path) as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        reader = csv.reader(text, delimiter=delimiter, skipinitialspace=True)
        try:
            for cells in reader:
                if any(cell.strip() for cell in cells) or len(cells) > 1:
                    yield reader.line_num, cells
        except csv.Error as error:
            raise DataError(f"{path!r}, line {reader.line_num}: {error}; check the quotes.") from error


def _number(cell: str) -> float | None:
    try:
        return float(cell) if "_" not in cell else None
    except ValueError:
        return None


def _looks_like_header(rows: list[list[str]]) -> bool:
    """Whether the first line holds names: text where the second line has a number, or nothing but text."""
    is_text = [_number(cell) is None and cell.strip().lower() not in _MISSING for cell in rows[0]]
    if all(is_text):
        return True
    return len(rows) > 1 and any(
        text and _number(cell) is not None for text, cell in zip(is_text, rows[1], strict=False)
    )


def _target_column(path: str, target: str | int | None, names: tuple[str, ...] | None, n_columns: int) -> int | None:
    if target is None:
        return None
    if isinstance(target, str) and names is not None and target in names:
        if names.count(target) > 1:
            raise DataError(f"{path!r} has {names.count(target)} columns named {target!r}; give the column's number.")
        return names.index(target)
    try:
        column = int(target)
    except ValueError:
        known = f"its columns are {', '.join(map(repr, names[:20]))}" if names else "it has no header"
        raise DataError(f"{path!r} has no column {target!r}; {known}, or give the column's number.") from None
    if not -n_columns <= column < n_columns:
        raise DataError(f"{path!r} has {n_columns} columns; there is no column number {column}.")
    return column % n_columns


def _numbers(
    path: str, delimiter: str, has_header: bool, n_columns: int, column: int | None
) -> tuple[NDArray[np.float64], NDArray[Any] | None]:
    """All-number tables by NumPy's parser; labels None where it finds anything else."""
    nothing = np.empty((0, 0))
    with open_bytes(path) as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        if has_header:
            next(csv.reader(text, delimiter=delimiter, skipinitialspace=True))
        rest = iter(text)
        first = next((line for line in rest if line.strip()), None)
        if first is None:
            return nothing, None

        def lines() -> Iterator[str]:
            yield first
            yield from rest

        try:
            table = np.loadtxt(lines(), delimiter=delimiter, quotechar='"', comments=None, ndmin=2)
        except ValueError as error:
            if isinstance(error, UnicodeDecodeError):
                raise
            return nothing, None
    if table.shape[1] != n_columns or not np.isfinite(table).all():
        return nothing, None
    if column is None:
        return table, np.empty(0)
    return np.delete(table, column, axis=1), table[:, column]


def _cells(
    path: str, delimiter: str, names: tuple[str, ...] | None, n_columns: int, column: int | None
) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Tables cell by cell: labels may be text, and an error names the line and the column."""
    values: list[NDArray[np.float64]] = []
    labels: list[str] = []
    rows = _rows(path, delimiter)
    if names is not None:
        next(rows)
    for line, cells in rows:
        if len(cells) != n_columns:
            raise DataError(
                f"{path!r}, line {line}: {len(cells)} values where the first line has {n_columns}; "
                f"every line needs one value per column."
            )
        row = np.empty(n_columns)
        for j, cell in enumerate(cells):
            if j == column:
                row[j] = 0.0
                if cell.strip().lower() in _MISSING:
                    raise DataError(_complaint(path, line, j, names, "is missing; label it, or use -1 for unlabelled"))
                continue
            value = _number(cell)
            if value is not None and math.isfinite(value):
                row[j] = value
            elif cell.strip().lower() in _MISSING:
                raise DataError(_complaint(path, line, j, names, "is missing; fill it in, or remove the line"))
            elif value is not None:
                raise DataError(
                    _complaint(path, line, j, names, f"is {cell.strip()!r}; only finite numbers are learned")
                )
            else:
                what = (
                    f"is not a number ({cell.strip()[:40]!r}); encode the column as numbers, name it as the target, or"
                )
                raise DataError(_complaint(path, line, j, names, f"{what} remove it"))
        values.append(row if column is None else np.delete(row, column))
        if column is not None:
            labels.append(cells[column].strip())
    numbers = [_number(label) for label in labels]
    if labels and all(number is not None and math.isfinite(number) for number in numbers):
        return np.array(values), np.array(numbers, dtype=np.float64)
    return np.array(values), np.array(labels)


def _complaint(path: str, line: int, column: int, names: tuple[str, ...] | None, what: str) -> str:
    shown = f"column {names[column]!r}" if names else f"column {column} (from 0)"
    return f"{path!r}, line {line}, {shown}: the value {what}."
