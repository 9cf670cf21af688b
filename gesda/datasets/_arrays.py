"""NumPy's .npy and .npz, without pickle, and IDX, the format of MNIST."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gesda.datasets._base import DataError, Dataset, as_labels, as_samples, open_bytes, reading

_IDX_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_CHUNK = 1 << 24


@contextlib.contextmanager
def _loaded(path: str) -> Iterator[Any]:
    """Yield what numpy.load gives, its file open; whatever it or a damaged archive raises becomes `DataError`."""
    # The file is opened here, because numpy.load leaves its own open when an archive is damaged.
    with reading(path), open(path, "rb") as file:
        try:
            yield np.load(file, allow_pickle=False)
        except (DataError, OSError, MemoryError):
            raise
        except Exception as error:  # zlib, zipfile, ast and tokenize answer damage each in their own way
            raise DataError(
                f"{path!r} is damaged, or no NumPy file of plain numbers ({str(error).split(chr(10))[0][:120]}); "
                f"write it with numpy.save or numpy.savez, without objects."
            ) from error


def _read_npy(path: str) -> NDArray[Any]:
    with _loaded(path) as array:
        if not isinstance(array, np.ndarray):
            raise DataError(f"{path!r} holds several arrays; name it .npz.")
        return array


def read_npy(path: str, target: str | int | None, labels: str | os.PathLike[str] | None) -> Dataset:
    """Read one array of samples; the labels are one of its columns, or lie in a file of their own."""
    array = _read_npy(path)
    if target is None:
        X = as_samples(array, repr(path))
        y = None if labels is None else _read_labels(os.fspath(labels), len(X))
        return Dataset(X, y, None, None, path)
    if labels is not None:
        raise DataError(f"{path!r}: give either a target column or a label file, not both.")
    try:
        column = int(target)
    except ValueError:
        raise DataError(f"{path!r} has no column names; give the target's number, not {target!r}.") from None
    if array.ndim != 2 or not -array.shape[1] <= column < array.shape[1] or array.shape[1] < 2:
        raise DataError(f"{path!r} has shape {array.shape}; there is no target column number {column}.")
    X = as_samples(np.delete(array, column, axis=1), repr(path))
    return Dataset(X, as_labels(array[:, column], len(X), f"{path!r}: the target column"), None, None, path)


def read_npz(path: str, target: str | int | None) -> Dataset:
    """Read the arrays ``X`` and, if there or named, ``y``."""
    with _loaded(path) as archive:
        if isinstance(archive, np.ndarray):
            raise DataError(f"{path!r} holds one array only; name it .npy.")
        key = "y" if target is None else str(target)
        found = ", ".join(map(repr, archive.files[:20])) or "none"
        if "X" not in archive.files:
            raise DataError(
                f"{path!r} has no array named 'X'; found {found}. Write it with numpy.savez(..., X=X, y=y)."
            )
        if target is not None and key not in archive.files:
            raise DataError(f"{path!r} has no array named {key!r}; found {found}.")
        X, y = archive["X"], archive[key] if key in archive.files else None
    samples = as_samples(X, f"{path!r}: X")
    return Dataset(samples, None if y is None else as_labels(y, len(samples), f"{path!r}: {key}"), None, None, path)


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read one IDX file as it is.

    Parameters
    ----------
    path : str or path-like
        The file, gzipped if its name ends with ``.gz``.

    Returns
    -------
    ndarray
        Of the file's shape and type (unsigned bytes for MNIST), in the machine's byte order.

    Raises
    ------
    DataError
        When the file is no IDX file, or its size does not fit its header.
    """
    path = os.fspath(path)
    with reading(path), open_bytes(path) as file:
        magic = file.read(4)
        if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _IDX_DTYPES or not 1 <= magic[3] <= 8:
            raise DataError(f"{path!r} is no IDX file: it starts with {magic.hex(' ') or 'nothing'}; check the name.")
        sizes = file.read(4 * magic[3])
        if len(sizes) < 4 * magic[3]:
            raise DataError(f"{path!r} ends inside its header; fetch it again.")
        shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
        dtype = np.dtype(_IDX_DTYPES[magic[2]])
        expected = math.prod(shape) * dtype.itemsize
        # In pieces: a hostile header's size is never allocated before the bytes have been seen.
        content = bytearray()
        while len(content) <= expected and (piece := file.read(min(_CHUNK, expected + 1 - len(content)))):
            content += piece
    if len(content) != expected:
        more = "more than" if len(content) > expected else f"{len(content)} of"
        raise DataError(f"{path!r} holds {more} the {expected} bytes that its header {shape} tells; fetch it again.")
    return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def read_idx_pair(path: str, labels: str | os.PathLike[str] | None) -> Dataset:
    """Read IDX images, unsigned bytes scaled to [0, 1], and the labels beside them if there are any."""
    array = read_idx(path)
    if array.ndim < 2:
        raise DataError(f"{path!r} holds one value per sample, so labels; give the file of the images (idx3).")
    if labels is None:
        folder, name = os.path.split(path)
        beside = os.path.join(folder, re.sub(r"idx\d", "idx1", name.replace("images", "labels")))
        labels = beside if beside != path and os.path.isfile(beside) else None
    X = as_samples(array, repr(path))
    if array.dtype == np.uint8:
        X /= np.float32(255)
    y = None if labels is None else _read_labels(os.fspath(labels), len(X))
    return Dataset(X, y, None, None, path)


def _read_labels(path: str, n_samples: int) -> NDArray[Any]:
    array = _read_npy(path) if path.lower().endswith(".npy") else read_idx(path)
    return as_labels(array, n_samples, repr(path))
