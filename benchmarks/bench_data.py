"""Real data for the accuracy benchmarks: MNIST and the uWave gestures, from GESDA_DATA or ../shared/data.

Neither belongs to the project; a benchmark skips with a message where they are absent.
"""

from __future__ import annotations

import gzip
import os
from dataclasses import dataclass
from pathlib import Path

import common
import numpy as np
from numpy.typing import NDArray


class DataMissing(Exception):
    """The data set is not on this machine; the message says where it was looked for."""


@dataclass
class Split:
    """Training, validation and test rows (float32, in [0, 1]) with class indices (int32)."""

    train: NDArray[np.float32]
    train_labels: NDArray[np.int32]
    validation: NDArray[np.float32]
    validation_labels: NDArray[np.int32]
    test: NDArray[np.float32]
    test_labels: NDArray[np.int32]
    n_classes: int


def find(*names: str) -> Path:
    """Folder that holds a data set, under GESDA_DATA or ../shared/data.

    Raises
    ------
    DataMissing
    """
    given = os.environ.get("GESDA_DATA")
    places = [Path(given)] if given else []
    places.append(common.ROOT.parent / "shared" / "data")
    for place in places:
        folder = place.joinpath(*names)
        if folder.is_dir():
            return folder
    raise DataMissing(f"no folder {'/'.join(names)} under GESDA_DATA or ../shared/data")


def _idx(path: Path) -> NDArray[np.uint8]:
    with gzip.open(path) as file:
        content = file.read()
    dimensions = content[3]
    shape = np.frombuffer(content, ">i4", dimensions, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def mnist() -> Split:
    """MNIST, pixels / 255: the first 50,000 to train, the last 10,000 of the training set to validate."""
    folder = find("mnist")
    x = _idx(folder / "train-images-idx3-ubyte.gz").reshape(-1, 784).astype(np.float32) / np.float32(255)
    y = _idx(folder / "train-labels-idx1-ubyte.gz").astype(np.int32)
    test = _idx(folder / "t10k-images-idx3-ubyte.gz").reshape(-1, 784).astype(np.float32) / np.float32(255)
    test_labels = _idx(folder / "t10k-labels-idx1-ubyte.gz").astype(np.int32)
    return Split(x[:50000], y[:50000], x[50000:], y[50000:], test, test_labels, 10)


def uwave() -> Split:
    """The three axes side by side (945 values), mapped from +-3 standard deviations to [0, 1].

    A fifth of the official training set validates. No figure on single recordings leaves this
    function: the test rows may not be passed on.
    """
    folder = find("uwave_ucr")

    def read(part: str) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        axes = [np.loadtxt(folder / f"UWaveGestureLibrary{axis}_{part}.tsv.gz", dtype=np.float32) for axis in "XYZ"]
        joined = np.concatenate([axis[:, 1:] for axis in axes], axis=1)
        labels: NDArray[np.int32] = axes[0][:, 0].astype(np.int32) - 1
        return np.clip(0.5 + joined / np.float32(6), 0, 1).astype(np.float32), labels

    x, y = read("TRAIN")
    test, test_labels = read("TEST")
    order = np.random.default_rng(0).permutation(len(x))
    held, kept = np.sort(order[: len(x) // 5]), np.sort(order[len(x) // 5 :])
    return Split(x[kept], y[kept], x[held], y[held], test, test_labels, 8)


def reduced(split: Split, rows: int) -> Split:
    """The first rows of every part, for quick runs."""
    return Split(
        split.train[:rows],
        split.train_labels[:rows],
        split.validation[:rows],
        split.validation_labels[:rows],
        split.test[:rows],
        split.test_labels[:rows],
        split.n_classes,
    )


def synthetic(n_features: int, rows: int, n_classes: int = 4, seed: int = 0) -> Split:
    """Noisy copies of random prototypes: something to learn where no data are at hand."""
    rng = np.random.default_rng(seed)
    prototypes = rng.random((n_classes, n_features))
    labels = rng.integers(0, n_classes, 3 * rows).astype(np.int32)
    x = np.clip(prototypes[labels] + 0.3 * rng.standard_normal((3 * rows, n_features)), 0, 1).astype(np.float32)
    a, b = rows, 2 * rows
    return Split(x[:a], labels[:a], x[a:b], labels[a:b], x[b:], labels[b:], n_classes)
