"""What every reader returns and raises, and the checks they share."""

from __future__ import annotations

import contextlib
import gzip
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray


class DataError(ValueError):
    """Data that cannot be read; the message names the file, the place and the remedy."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples with their labels.

    Parameters
    ----------
    X : ndarray of float32, shape (n_samples, n_features)
        C-contiguous and finite.
    y : ndarray, shape (n_samples,), or None
        Integers where all labels are whole numbers, else floats or strings.
    feature_names, target_names : tuple of str, or None
        Names of the columns; names of the classes 0, 1, ...
    name : str
        Where the data come from.
    """

    X: NDArray[np.float32]
    y: NDArray[Any] | None
    feature_names: tuple[str, ...] | None
    target_names: tuple[str, ...] | None
    name: str


def as_samples(array: NDArray[Any], what: str) -> NDArray[np.float32]:
    """Check an array of samples and flatten each to a row: (n, ...) -> (n, n_features), float32."""
    if array.dtype.kind not in "fiub":
        raise DataError(f"{what} has dtype {array.dtype}, not real numbers; convert it.")
    if array.ndim < 2:
        raise DataError(f"{what} has {array.ndim} dimension(s); samples need two, (n_samples, n_features).")
    if array.size == 0:
        raise DataError(f"{what} has shape {array.shape}: there is nothing to learn from.")
    with np.errstate(over="ignore"):
        samples = np.ascontiguousarray(array.reshape(len(array), -1), dtype=np.float32)
    bad = ~np.isfinite(samples)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise DataError(
            f"{what}: row {row}, column {column} (from 0) is {samples[row, column]:g} as float32; "
            f"fill in or remove missing and infinite values."
        )
    return samples


def as_labels(array: NDArray[Any], n_samples: int, what: str) -> NDArray[Any]:
    """Check an array of labels; whole numbers become integers."""
    if array.ndim == 2 and 1 in array.shape:
        array = array.reshape(-1)
    if array.ndim != 1 or array.dtype.kind not in "fiubUS":
        raise DataError(f"{what} has shape {array.shape} and dtype {array.dtype}; labels are one number or text each.")
    if len(array) != n_samples:
        raise DataError(f"{what} has {len(array)} labels for {n_samples} samples; give files that belong together.")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            row = int(np.flatnonzero(~np.isfinite(array))[0])
            raise DataError(
                f"{what}: label {row} (from 0) is missing or infinite; fill it in, or use -1 for unlabelled."
            )
        if (array == np.rint(array)).all() and (np.abs(array) < 2**53).all():
            return array.astype(np.int64)
        return array.astype(np.float64)
    if array.dtype.kind in "iub":
        return array.astype(np.int64)
    return array.astype(str)


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn what the system and the decoders raise into `DataError`."""
    try:
        yield
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(f"{path!r} is not UTF-8 text (byte {error.start}); convert it.") from error
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path!r} is damaged or cut off ({error}); fetch it again.") from error
    except MemoryError as error:
        raise DataError(f"{path!r} does not fit into memory, or claims so; check the file or read a part.") from error
    except OSError as error:  # gzip.BadGzipFile too
        raise DataError(f"{path!r} cannot be read ({error.strerror or error}); check its name and content.") from error


def open_bytes(path: str | os.PathLike[str]) -> IO[bytes]:
    """Open a file for reading, through gzip if its name ends with .gz."""
    if os.fspath(path).lower().endswith(".gz"):
        return cast("IO[bytes]", gzip.open(path, "rb"))
    return open(path, "rb")
