"""What the commands share: reading data and models, writing results, wording errors."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gesda.datasets import Dataset, load_dataset
from gesda.model_io import atomic_write

INTERRUPTED = 130


class UsageError(Exception):
    """Arguments that do not go together: exit status 2."""


def one_sentence(error: BaseException) -> str:
    """Word an exception on one line; by its class where it has no message."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return f"out of memory ({text or 'no details'}); use fewer samples, narrower layers or a larger machine."
    return text or type(error).__name__


def note(message: str) -> None:
    """Tell something on standard error."""
    print(f"gesda: {message}", file=sys.stderr, flush=True)


@contextmanager
def warnings_as_notes() -> Iterator[None]:
    """Show warnings as one line each; the one of an interruption is the command's own to tell."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        if "interrupted by user" not in str(message):
            note(f"warning: {' '.join(str(message).split())}")

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = show
        yield


def read_data(arguments: argparse.Namespace, source: str | None = None) -> Dataset:
    """Load the data that the arguments name."""
    header = {"auto": None, "yes": True, "no": False}[arguments.header]
    chosen = arguments.data if source is None else source
    # A label file belongs to the main data only.
    labels = arguments.labels if source is None else None
    return load_dataset(chosen, target=arguments.target, labels=labels, header=header)


def read_model(arguments: argparse.Namespace) -> Any:
    """Load the model that the arguments name, to run where they say."""
    from gesda.estimators import load

    model = load(arguments.model)
    given = {"device": arguments.device, "n_jobs": arguments.jobs}
    return model.set_params(**{name: value for name, value in given.items() if value is not None})


def labels_like(labels: NDArray[Any], classes: NDArray[Any]) -> NDArray[Any]:
    """Check that labels are comparable with a model's classes: both numbers or both text."""
    if (labels.dtype.kind in "US") == (classes.dtype.kind in "USO"):
        return labels
    kinds = ["text" if array.dtype.kind in "USO" else "numbers" for array in (labels, classes)]
    raise ValueError(
        f"the data's labels are {kinds[0]} (such as {labels[0]!s}), the model's classes {kinds[1]} "
        f"(such as {classes[0]!s}); check which column is the target."
    )


def check_output(path: str, suffixes: Sequence[str] = ()) -> None:
    """Refuse an output file that could not be written, before any work is done for it."""
    if suffixes and path != "-" and not path.lower().endswith(tuple(suffixes)):
        raise UsageError(f"the output {path!r} must end with {' or '.join(suffixes)}, or be - for standard output.")
    if path == "-":
        return
    folder = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(folder):
        raise ValueError(f"the output folder {folder!r} does not exist; create it first.")
    if os.path.isdir(path):
        raise ValueError(f"the output {path!r} is a folder; name a file in it.")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"the output folder {folder!r} is not writable; choose another.")


def emit(arguments: argparse.Namespace, result: Mapping[str, Any], lines: Sequence[str]) -> None:
    """Print the result: lines for a reader, or one JSON object for a program."""
    if arguments.json:
        print(json.dumps(_plain(result), allow_nan=False))
    else:
        for line in lines:
            print(line)


def _plain(value: Any) -> Any:
    """Turn values into those that JSON knows; NaN and infinity become null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_array(path: str, array: NDArray[Any], names: Sequence[str]) -> None:
    """Write rows to a .npy or .csv file, atomically, or as CSV to standard output (``-``)."""
    if path.lower().endswith(".npy"):
        with atomic_write(path) as file:
            np.save(file, array, allow_pickle=False)
    elif path == "-":
        _write_csv(sys.stdout, array, names)
    else:
        with atomic_write(path) as file:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="")
            _write_csv(text, array, names)
            text.detach()


def _write_csv(text: Any, array: NDArray[Any], names: Sequence[str]) -> None:
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    rows = array.reshape(len(array), -1)
    if rows.dtype.kind == "f":
        # Nine digits tell any two float32 apart, seventeen any two float64.
        np.savetxt(text, rows, fmt="%.9g" if rows.dtype.itemsize <= 4 else "%.17g", delimiter=",")
    else:
        writer.writerows(rows.tolist())
    text.flush()
