"""Public sets of motion from the network: a register of addresses and checksums, and a cache of what was fetched.

Every file is pinned to a commit and checked against the SHA-256 of its content before it is read. Needs pooch,
which is imported where it is used. May import of gesda its datasets, and the sequences and readers beside.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gesda.datasets import DataError
from gesda.deepmotion.data.readers import load_motion, read_utd_mhad
from gesda.deepmotion.data.sequences import MotionDataset, concatenate

__all__ = ["MOTION_SETS", "fetch_motion"]

_RAW = "https://raw.githubusercontent.com"
_TIMEOUT = 30  # s without an answer


@dataclass(frozen=True)
class _File:
    url: str
    sha256: str

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class _Folder:
    """Files of one folder; the checksum is that of the lines ``<sha256>  <name>`` in the order of the names."""

    url: str
    names: tuple[str, ...]
    sha256: str


@dataclass(frozen=True)
class _Set:
    """A set: its files by split, side by side where there are several; or its folders."""

    splits: dict[str, tuple[_File, ...]] = field(default_factory=dict)
    folders: tuple[_Folder, ...] = ()
    rate: float | None = None
    channels: tuple[str, ...] = ()


def _files(root: str, *files: tuple[str, str]) -> tuple[_File, ...]:
    return tuple(_File(f"{_RAW}/{root}/{path}", sha256) for path, sha256 in files)


def _utd(modality: str, sha256: str) -> _Folder:
    # 27 actions, 8 subjects and 4 trials but for the three recordings that its authors left out.
    missing = {(8, 1, 4), (23, 6, 4), (27, 8, 4)}
    recordings = [(a, s, t) for a in range(1, 28) for s in range(1, 9) for t in range(1, 5)]
    return _Folder(
        f"{_RAW}/woo-chia-wei/kinect-sequence-classification/65e9b13950d7971c8d1e49e960f6796bd0dc9257/data/"
        f"{modality.capitalize()}",
        tuple(f"a{a}_s{s}_t{t}_{modality}.mat" for a, s, t in recordings if (a, s, t) not in missing),
        sha256,
    )


_AEON = "aeon-toolkit/aeon/a101ddc8b35a65441609b45c9bcce5aeafa0c131/aeon/datasets/data"
_UEA = "MARESH001/UWave_gesture_recognition-/eba5499347a36446da354dcd675d0cd4191adc05/notebook/data"
_UCR = "iwuqing/Time-Series-Classification-based-on-KNN/6f961db51e2633ba46524913177c518bd03bb843/data"
_INERTIAL = _utd("inertial", "70ce18d09e90c4ce8166d50f6b94e5152416957c9b8e342a71bbb9af08a7ee9e")
_SKELETON = _utd("skeleton", "4237d2dff669a193a6285e172b551439528d962fc903c798954f053b079e0add")

_REGISTER: dict[str, _Set] = {
    "basicmotions": _Set(
        {
            "train": _files(
                _AEON,
                (
                    "BasicMotions/BasicMotions_TRAIN.ts",
                    "8dc43cc6306cb679c888c01e26f91772ac4441a916da43bac8b79734a538b9d6",
                ),
            ),
            "test": _files(
                _AEON,
                (
                    "BasicMotions/BasicMotions_TEST.ts",
                    "79213102bc6fca1a398ad98ce1185dff0208fa3d1465e687f48288946b0ff8dc",
                ),
            ),
        },
        rate=10.0,
        channels=("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z"),
    ),
    "gunpoint": _Set(
        {
            "train": _files(
                _UCR,
                ("GunPoint/GunPoint_TRAIN.tsv", "4d14e4f44a6230087cb4b4ed7844c8b0feb76f07a76108cc367d689e0de8f609"),
            ),
            "test": _files(
                _UCR,
                ("GunPoint/GunPoint_TEST.tsv", "5537eb2f3050e1514f3221b5f4c9799b350fb229ea15eed9e78bbae855505ccf"),
            ),
        }
    ),
    "uwave_uea": _Set(
        {
            "train": _files(
                _UEA,
                ("UWaveGestureLibrary_TRAIN.arff", "170faf7bd964f6e05070b90a7b2ef3c86264472d4e3db2cec0e79ca021115a83"),
            ),
            # The name is misspelt there.
            "test": _files(
                _UEA,
                ("UWaveGestrueLibrary_TEST.arff", "cc6f6988e46806c90debc76314b8287d8dc7749f897e427aa32924df055bc0bb"),
            ),
        },
        channels=("x", "y", "z"),
    ),
    # The test files of this set are kept at no address that names their content.
    "uwave_ucr": _Set(
        {
            "train": _files(
                _UCR,
                (
                    "UWaveGestureLibraryX/UWaveGestureLibraryX_TRAIN.tsv",
                    "9e8d695d5a49a47a8322908c2000fb9fe8b593f9fbfce3332840d70de7503856",
                ),
                (
                    "UWaveGestureLibraryY/UWaveGestureLibraryY_TRAIN.tsv",
                    "35e429dc78f12811bb5986eff154528f39b9d04440283e1ac5f4474ea5e0a9aa",
                ),
                (
                    "UWaveGestureLibraryZ/UWaveGestureLibraryZ_TRAIN.tsv",
                    "2761f0ff70df83d37364cacac352b99242bef00bf13765890cb7bb2c7e2face2",
                ),
            )
        }
    ),
    "utd_mhad_inertial": _Set(folders=(_INERTIAL,)),
    "utd_mhad_skeleton": _Set(folders=(_SKELETON,)),
    "utd_mhad": _Set(folders=(_INERTIAL, _SKELETON)),
}
MOTION_SETS: tuple[str, ...] = tuple(_REGISTER)


def fetch_motion(name: str, *, split: str | None = None, cache: str | os.PathLike[str] | None = None) -> MotionDataset:
    """Fetch a public set of motion over the network, once, and read it.

    ======================  ==================================================================================
    name                    what is fetched
    ======================  ==================================================================================
    ``basicmotions``        UEA BasicMotions: watch, 6 channels, 10 Hz; 40 + 40 sequences of 4 activities
    ``gunpoint``            UCR GunPoint: hand's place from video, 1 channel; 50 + 150 sequences of 2 actions
    ``uwave_uea``           UEA UWaveGestureLibrary: remote, 3 channels; 120 + 320 sequences of 8 gestures
    ``uwave_ucr``           UCR UWaveGestureLibrary X, Y, Z: the same gestures; 896 sequences, training only
    ``utd_mhad_inertial``   UTD-MHAD: wrist or thigh, 6 channels, 50 Hz; 861 sequences of 27 actions
    ``utd_mhad_skeleton``   UTD-MHAD: Kinect, 60 channels, 30 Hz; the same recordings
    ``utd_mhad``            both side by side, 66 channels, 50 Hz
    ======================  ==================================================================================

    The recordings of ``uwave_uea`` and ``uwave_ucr`` overlap: never train on one and test on the other. The sets
    belong to those who recorded them; cite them, and ask before passing them on.

    Parameters
    ----------
    name : str
        One of `MOTION_SETS`.
    split : {"train", "test"}, optional
        That part of the set; all of it by default, where ``groups`` tells the part. UTD-MHAD has no parts: its
        ``groups`` are subjects, of which by custom the odd ones are for training.
    cache : path-like, optional
        Folder of what was fetched; ``$GESDA_CACHE``, or else the user's cache folder by default.

    Returns
    -------
    MotionDataset

    Raises
    ------
    DataError
        When the set or split is unknown, the network cannot be reached, or a file is not what its checksum says.
    ImportError
        When pooch is not installed.

    Examples
    --------
    >>> fetch_motion("no_such_set")
    Traceback (most recent call last):
    gesda.datasets._base.DataError: there is no set 'no_such_set'; the sets are basicmotions, ...
    """
    if name not in _REGISTER:
        raise DataError(f"there is no set {name!r}; the sets are {', '.join(_REGISTER)}.")
    entry = _REGISTER[name]
    if split is not None and split not in entry.splits:
        raise DataError(f"{name!r} has no split {split!r}; it has {' and '.join(entry.splits) or 'none'}.")
    pooch = _import_pooch()
    folder = Path(cache or os.environ.get("GESDA_CACHE") or pooch.os_cache("gesda"))
    if entry.folders:
        paths = [
            _fetch_folder(pooch, each, folder / "utd_mhad" / each.url.rpartition("/")[2]) for each in entry.folders
        ]
        data = load_motion(paths[0]) if len(paths) == 1 else read_utd_mhad(*paths)
        return replace(data, name=name)
    parts = []
    for part, files in entry.splits.items():
        if split in (None, part):
            fetched = [_fetch(pooch, file.url, file.sha256, folder / name / file.name) for file in files]
            data = load_motion(fetched[0] if len(fetched) == 1 else fetched, rate=entry.rate)
            channels = entry.channels or data.channels
            parts.append(replace(data, channels=channels, groups=np.full(len(data), part), name=name))
    return concatenate(parts, name=name)


def _import_pooch() -> Any:
    try:
        pooch = importlib.import_module("pooch")
    except ImportError as error:
        raise ImportError("fetching data needs pooch; run pip install 'gesda[deepmotion]'.") from error
    pooch.get_logger().setLevel("WARNING")
    return pooch


def _download(url: str, output_file: str, pooch: Any) -> None:
    """Fetch by HTTP; what `pooch.retrieve` calls with a temporary file, which it then checks and moves."""
    _import_pooch().HTTPDownloader(timeout=_TIMEOUT)(url, output_file, pooch)


def _fetch(pooch: Any, url: str, sha256: str | None, path: Path) -> str:
    """Path of a file that is in the cache, checked, or was fetched to it now."""
    known = None if sha256 is None else f"sha256:{sha256}"
    retrieve: Callable[..., str] = pooch.retrieve
    try:
        return retrieve(url, known, fname=path.name, path=path.parent, downloader=_download)
    except ValueError as error:  # pooch's answer to a wrong checksum
        raise DataError(f"{url} is not the file that is known by its checksum ({error}); nothing was kept.") from error
    except Exception as error:  # of the network or the disk; each library has its own
        raise DataError(
            f"{url} cannot be fetched ({type(error).__name__}: {str(error)[:150]}); check the network, or put the file "
            f"to {str(path)!r} yourself."
        ) from error


def _fetch_folder(pooch: Any, folder: _Folder, path: Path) -> str:
    """Path of a folder whose files together have the right checksum; some are fetched at a time."""
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(_fetch, pooch, f"{folder.url}/{name}", None, path / name) for name in folder.names]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    digest = hashlib.sha256()
    for name in sorted(folder.names):
        digest.update(f"{hashlib.sha256((path / name).read_bytes()).hexdigest()}  {name}\n".encode())
    if digest.hexdigest() != folder.sha256:
        # Which file is wrong is not known: none is kept.
        for name in folder.names:
            (path / name).unlink(missing_ok=True)
        raise DataError(f"{folder.url} does not hold the files that are known by their checksum; nothing was kept.")
    return str(path)
