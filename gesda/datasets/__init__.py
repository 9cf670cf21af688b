"""Data in: files that the command line reads, scikit-learn's built-in sets, and synthetic generators.

``load_dataset`` chooses the reader by the name: built-in sets, CSV, UCR ``.tsv``, IDX (MNIST), ``.npy`` and
``.npz``, each but the last two also gzipped. Nothing is downloaded. May import NumPy and scikit-learn, and
nothing of gesda.
"""

from __future__ import annotations

import os
import re

from gesda.datasets._arrays import read_idx, read_idx_pair, read_npy, read_npz
from gesda.datasets._base import DataError, Dataset
from gesda.datasets._builtin import BUILTIN, load_builtin
from gesda.datasets._synthetic import make_anomalies, make_bars
from gesda.datasets._tables import read_table

__all__ = ["BUILTIN", "DataError", "Dataset", "load_dataset", "make_anomalies", "make_bars", "read_idx"]

_IDX = re.compile(r"[.-]idx\d?(-[a-z]+)?(\.gz)?\Z", re.IGNORECASE)


def load_dataset(
    source: str | os.PathLike[str],
    *,
    target: str | int | None = None,
    labels: str | os.PathLike[str] | None = None,
    header: bool | None = None,
) -> Dataset:
    """Read a data set by the name of a built-in set or of a file.

    ========================  =====================================================================
    name                      what is read
    ========================  =====================================================================
    ``digits``, ``iris``...   a set of `BUILTIN`: scikit-learn's, columns scaled to [0, 1], or synthetic
    ``*.csv``                 comma, semicolon or tab separated; ``target`` names the label column
    ``*.tsv``                 UCR archive: the first column is the label unless ``target`` says otherwise
    ``*-idx3-ubyte``          IDX images scaled from 0..255 to [0, 1]; labels from the ``idx1`` file beside
    ``*.npz``                 arrays ``X`` and, if there, ``y`` (or the array that ``target`` names)
    ``*.npy``                 one array (n_samples, ...); ``target`` is the number of the label column
    ========================  =====================================================================

    CSV, ``.tsv`` and IDX files may be gzipped (``.gz``).

    Parameters
    ----------
    source : str or path-like
        A name of `BUILTIN`, or a file; a file of that name wins over a built-in set.
    target : str or int, optional
        Column of the labels, by name or by number from 0 (negative from the end).
    labels : path-like, optional
        A ``.npy`` or IDX file with the labels, one per sample.
    header : bool, optional
        Whether a table's first line holds names; found out if not given.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        When the source is unknown, unreadable, or holds something else than finite numbers; the message
        names the line and column.

    Examples
    --------
    >>> load_dataset("digits").X.shape
    (1797, 64)
    """
    path = os.fspath(source)
    lower = path.lower()
    if path in BUILTIN and not os.path.isfile(path):
        if target is not None or labels is not None:
            raise DataError(
                f"the built-in set {path!r} has its own labels; leave the target column and label file out."
            )
        return load_builtin(path)
    if _IDX.search(lower):
        if target is not None:
            raise DataError(f"{path!r}: an IDX file has no columns; give the file of its labels instead of a target.")
        return read_idx_pair(path, labels)
    table = lower.removesuffix(".gz")
    if table.endswith((".csv", ".tsv")):
        if labels is not None:
            raise DataError(f"{path!r}: a table holds its own labels; name their column as the target.")
        if table.endswith(".tsv"):
            return read_table(path, target=0 if target is None else target, header=header, delimiter="\t")
        return read_table(path, target=target, header=header)
    if lower.endswith(".npz"):
        if labels is not None:
            raise DataError(f"{path!r}: an .npz file holds its own labels; name their array as the target.")
        return read_npz(path, target)
    if lower.endswith(".npy"):
        return read_npy(path, target, labels)
    raise DataError(
        f"{path!r} is neither a built-in set ({', '.join(BUILTIN)}) nor a file whose kind is known by its name "
        f"(.csv, .tsv, .npy, .npz, -idx3-ubyte); rename or convert it."
    )
