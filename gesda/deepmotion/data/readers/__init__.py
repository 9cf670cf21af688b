"""Readers of recorded motion: UCR ``.tsv``, UEA ``.ts`` and ``.arff``, CSV with time stamps, UTD-MHAD ``.mat``.

``load_motion`` chooses the reader by the name. Nothing is downloaded, and whatever a file holds, the answer is a
checked `MotionDataset` or one `DataError`. May import NumPy and SciPy, and of gesda its datasets and sequences.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from gesda.datasets import DataError
from gesda.deepmotion.data.readers._csv import Columns, csv_files, label_of_name, read_csv
from gesda.deepmotion.data.readers._ucr import read_ucr
from gesda.deepmotion.data.readers._uea import read_arff, read_ts
from gesda.deepmotion.data.readers._utd_mhad import holds_utd, read_utd, read_utd_mhad
from gesda.deepmotion.data.sequences import MotionDataset

__all__ = ["load_motion", "read_utd_mhad"]

_Path = str | os.PathLike[str]


def load_motion(
    source: _Path | Sequence[_Path],
    *,
    rate: float | None = None,
    unlabeled: str | int | None = None,
    time: str | int | None = None,
    labels: str | int | None = None,
    sequences: str | int | None = None,
    groups: str | int | None = None,
    time_unit: str | None = None,
) -> MotionDataset:
    r"""Read recorded motion by the name of its file, files or folder.

    ==================================  ============================================================================
    name                                what is read
    ==================================  ============================================================================
    ``*.tsv``                           UCR archive: a sequence a line, the label first, values after it
    list of ``*.tsv``                   one file for each channel, the same sequences in the same order
    ``*.ts``                            UEA archive: ``@`` header; channels between ``:``, the label last
    ``*.arff``                          UEA archive: channels between literal ``\n``; or numbers, one channel
    ``*.csv``, list of ``*.csv``        a line a sample: time, channels; perhaps label, sequence and group
    folder with ``LABEL/NAME.csv``      a sequence a file, labelled by its folder
    folder with ``LABEL_NUMBER.csv``    a sequence a file, labelled by its name
    folder or ``.zip`` of UTD-MHAD      ``a<action>_s<subject>_t<trial>_inertial.mat``, or ``..._skeleton.mat``
    ==================================  ============================================================================

    Text files may be gzipped (``.gz``). Samples that are missing at the end of a sequence, in all its channels, are
    the archives' padding and are cut off; missing elsewhere, they are an error.

    CSV is interpolated linearly to a uniform rate, without a filter. Samples of the same time are averaged; time may
    not go back. The columns are found by their names (``time``, ``label``, ``sequence``, ``subject`` and the like)
    or told by the parameters; all others are channels. Without a header the first is the time. Without a column
    that tells sequences apart, the lines of one label that follow one another are a sequence.

    Parameters
    ----------
    source : path-like or sequence of path-like
        What to read; see the table.
    rate : float, optional
        Hz. CSV is interpolated to it; the median rate of the time stamps by default. UCR and UEA files do not tell
        their rate, which is only noted. UTD-MHAD has its own: 50 (inertial) and 30 (skeleton).
    unlabeled : str or int, optional
        A label that means unlabelled, besides those that are empty or ``?``.
    time, labels, sequences, groups : str or int, optional
        Columns of a CSV file, by name or number from 0.
    time_unit : {"s", "ms", "us", "ns"}, optional
        Of a CSV file's time; what the column's name ends with (``time_ms``, ``t [us]``), or seconds, by default.
        Dates with times as in ISO 8601 need none.

    Returns
    -------
    MotionDataset
        Labels that are whole numbers are int64, all others text. A class named -1 stays text, as -1 is unlabelled.

    Raises
    ------
    DataError
        When the source is unknown, unreadable or damaged; the message names the file and the place.

    Examples
    --------
    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "wave.csv")
    ...     with open(path, "w") as file:
    ...         _ = file.write("time,x,y,label\n0.0,0,1,up\n0.1,1,1,up\n0.2,2,1,up\n0.2,4,1,up\n")
    ...     data = load_motion(path)
    >>> data.labels, data.rate, data.sequences[0][:, 0].tolist()
    (array(['up'], dtype=object), 10.0, [0.0, 1.0, 3.0])
    """
    paths = [os.fspath(source)] if isinstance(source, str | os.PathLike) else [os.fspath(path) for path in source]
    if not paths or not all(isinstance(path, str) for path in paths):
        raise DataError(f"{source!r} names no file; give a path, or a list of paths.")
    columns = Columns(time, labels, sequences, groups, time_unit)
    mark = None if unlabeled is None else str(unlabeled)
    kinds = {_kind(path) for path in paths}
    if len(kinds) > 1 or (len(paths) > 1 and kinds - {"tsv", "csv"}):
        raise DataError(
            f"{len(paths)} files of kind {', '.join(sorted(kinds))} do not make one set; a list is of .tsv files, "
            f"one a channel, or of .csv files."
        )
    kind, path = kinds.pop(), paths[0]
    if kind not in ("csv", "folder") and columns != Columns():
        raise DataError(f"{path!r} is no CSV file; columns and time units are told for CSV only.")
    if kind == "tsv":
        return read_ucr(paths, rate=rate, unlabeled=mark)
    if kind == "ts":
        return read_ts(path, rate=rate, unlabeled=mark)
    if kind == "arff":
        return read_arff(path, rate=rate, unlabeled=mark)
    if kind == "csv":
        # A single file is a set of its own; its name says nothing of a gesture.
        files = [(each, label_of_name(each) if len(paths) > 1 else None) for each in paths]
        return read_csv(files, rate=rate, columns=columns, unlabeled=mark, name=" + ".join(paths))
    if kind == "folder" and (found := csv_files(path)):
        return read_csv(found, rate=rate, columns=columns, unlabeled=mark, name=path)
    if kind == "zip" or holds_utd(path):
        if rate is not None or mark is not None or columns != Columns():
            raise DataError(f"{path!r}: UTD-MHAD has its own rate, labels and columns; leave the parameters out.")
        return read_utd(path)
    raise DataError(
        f"{path!r} holds neither CSV files (LABEL/NAME.csv or LABEL_NUMBER.csv) nor files of UTD-MHAD; "
        f"check the folder."
    )


def _kind(path: str) -> str:
    if os.path.isdir(path):
        return "folder"
    name = path.lower().removesuffix(".gz")
    kind = name.rpartition(".")[2]
    if kind in ("tsv", "ts", "arff", "csv") or (kind == "zip" and name == path.lower()):
        return kind
    raise DataError(
        f"{path!r} is neither a folder nor a file whose kind is known by its name (.tsv, .ts, .arff, .csv, also .gz; "
        f".zip of UTD-MHAD); rename or convert it."
    )
