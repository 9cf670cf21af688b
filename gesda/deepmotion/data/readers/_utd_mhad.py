"""UTD-MHAD: one MATLAB file a recording, in a folder or a zip; inertial sensor and Kinect skeleton."""

from __future__ import annotations

import contextlib
import io
import os
import re
import warnings
import zipfile
from collections.abc import Iterator
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat, whosmat

from gesda.datasets import DataError
from gesda.datasets._base import reading
from gesda.deepmotion.data.sequences import MotionDataset

_NAME = re.compile(r"a(\d{1,4})_s(\d{1,4})_t(\d{1,4})_(inertial|skeleton)\.mat\Z", re.IGNORECASE)
_JOINTS = ["head", "shoulder_center", "spine", "hip_center"]
_JOINTS += [f"{side}_{part}" for side in ("left", "right") for part in ("shoulder", "elbow", "wrist", "hand")]
_JOINTS += [f"{side}_{part}" for side in ("left", "right") for part in ("hip", "knee", "ankle", "foot")]
_CHANNELS = {
    "inertial": tuple(f"{sensor}_{axis}" for sensor in ("acc", "gyro") for axis in "xyz"),
    "skeleton": tuple(f"{joint}_{axis}" for joint in _JOINTS for axis in "xyz"),
}
_RATES = {"inertial": 50.0, "skeleton": 30.0}
_KEYS = {"inertial": "d_iner", "skeleton": "d_skel"}
# The largest real file has 32 kB. MATLAB compresses inside the file, at most 1032 to 1.
_MAX_BYTES, _MAX_SAMPLES, _MAX_FILES = 1 << 19, 100_000, 100_000

_Key = tuple[int, int, int]  # action, subject, trial


def holds_utd(path: str) -> bool:
    """Whether a folder or a zip has files with names of UTD-MHAD."""
    return any(_NAME.search(name) for name in _names(path))


def read_utd(path: str) -> MotionDataset:
    """Read a folder or a zip of one modality; see `gesda.deepmotion.data.readers.load_motion`."""
    modality, recordings = _recordings(path)
    return _dataset(list(recordings.values()), list(recordings), (modality,), _RATES[modality], path)


def read_utd_mhad(inertial: str | os.PathLike[str], skeleton: str | os.PathLike[str]) -> MotionDataset:
    """Read both modalities of UTD-MHAD side by side [1]_.

    Recordings are matched by their names. Each skeleton is interpolated linearly to the samples of its inertial
    recording, first to first and last to last: the files have no time stamps, and the lengths of the two go
    together, though not in the ratio of the rates that the authors give.

    Parameters
    ----------
    inertial, skeleton : path-like
        A folder or a zip of ``a<action>_s<subject>_t<trial>_inertial.mat`` and ``..._skeleton.mat``.

    Returns
    -------
    MotionDataset
        66 channels: acceleration (g) and angular rate (degrees a second) in x, y, z, then x, y, z (m) of 20 joints.
        50 Hz; labels are the actions 1 to 27, groups the subjects 1 to 8; ordered by action, subject and trial.

    Raises
    ------
    DataError
        When a file cannot be read, or a recording has one modality only.

    References
    ----------
    .. [1] C. Chen, R. Jafari and N. Kehtarnavaz, "UTD-MHAD: A multimodal dataset for human action recognition
       utilizing a depth camera and a wearable inertial sensor", ICIP 2015.
    """
    sources = {"inertial": os.fspath(inertial), "skeleton": os.fspath(skeleton)}
    recordings = {}
    for expected, path in sources.items():
        modality, recordings[expected] = _recordings(path, expected)
        if modality != expected:
            raise DataError(f"{path!r} holds {modality} recordings where {expected} ones are needed; give the other.")
    for one, other in (("inertial", "skeleton"), ("skeleton", "inertial")):
        for action, subject, trial in recordings[one].keys() - recordings[other].keys():
            raise DataError(
                f"{sources[other]!r} lacks a{action}_s{subject}_t{trial}_{other}.mat, which {sources[one]!r} has in "
                f"its modality; give both of every recording."
            )
    joined = []
    for key, motion in recordings["inertial"].items():
        joints = recordings["skeleton"][key]
        at = np.linspace(0.0, len(joints) - 1.0, len(motion))
        stretched = np.stack([np.interp(at, np.arange(len(joints)), channel) for channel in joints.T], axis=1)
        joined.append(np.concatenate([motion, stretched], axis=1))
    name = f"{sources['inertial']} + {sources['skeleton']}"
    return _dataset(joined, list(recordings["inertial"]), ("inertial", "skeleton"), _RATES["inertial"], name)


def _dataset(
    sequences: list[NDArray[Any]], keys: list[_Key], modalities: tuple[str, ...], rate: float, name: str
) -> MotionDataset:
    channels = tuple(channel for modality in modalities for channel in _CHANNELS[modality])
    actions, subjects, _ = np.array(keys, dtype=np.int64).T
    return MotionDataset(tuple(sequences), actions, rate, channels, subjects, name)


def _recordings(path: str, expected: str | None = None) -> tuple[str, dict[_Key, NDArray[Any]]]:
    """Modality and recordings, ordered by action, subject and trial; where both modalities lie, the expected one."""
    matches = [match for name in _names(path) if (match := _NAME.search(name))]
    modalities = {match[4].lower() for match in matches}
    if not modalities:
        raise DataError(f"{path!r} has no files a<action>_s<subject>_t<trial>_inertial.mat or _skeleton.mat in it.")
    if len(modalities) == 2 and expected is None:
        raise DataError(f"{path!r} holds both modalities; give one of them, or read both by read_utd_mhad.")
    modality = expected if expected is not None and expected in modalities else modalities.pop()
    names: dict[_Key, str] = {}
    for match in matches:
        if match[4].lower() == modality:
            key = (int(match[1]), int(match[2]), int(match[3]))
            if key in names:
                raise DataError(f"{path!r} has the recording {match[0]!r} twice; remove one.")
            names[key] = match.string
    contents = _contents(path, [names[key] for key in sorted(names)])
    return modality, {
        key: _matrix(content, modality, f"{path!r}, {names[key]}")
        for key, content in zip(sorted(names), contents, strict=True)
    }


def _names(path: str) -> list[str]:
    """Names of the files in a folder, relative to it, or in a zip."""
    if os.path.isdir(path):
        return [
            os.path.relpath(os.path.join(folder, file), path) for folder, _, files in os.walk(path) for file in files
        ]
    with _opened(path) as archive:
        names = [name for name in archive.namelist() if "__MACOSX" not in name]
    if len(names) > _MAX_FILES:
        raise DataError(f"{path!r} has {len(names)} files, more than {_MAX_FILES}; give UTD-MHAD's own zip.")
    return names


def _contents(path: str, names: list[str]) -> Iterator[bytes]:
    """Content of each file, none larger than the limit."""
    if os.path.isdir(path):
        for name in names:
            with reading(os.path.join(path, name)), open(os.path.join(path, name), "rb") as file:
                yield _bounded(file, f"{path!r}, {name}")
        return
    with _opened(path) as archive:
        for name in names:
            with archive.open(name) as member:
                yield _bounded(member, f"{path!r}, {name}")


def _bounded(file: IO[bytes], place: str) -> bytes:
    content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise DataError(f"{place}: more than {_MAX_BYTES} bytes, too large for one recording; check it.")
    return content


@contextlib.contextmanager
def _opened(path: str) -> Iterator[zipfile.ZipFile]:
    with reading(path):
        try:
            with zipfile.ZipFile(path) as archive:
                yield archive
        except (DataError, OSError, MemoryError):
            raise
        # An encrypted file is a RuntimeError, an unknown compression a NotImplementedError, damage anything.
        except Exception as error:
            raise DataError(f"{path!r} is damaged or no plain zip file ({error}); fetch it again.") from error


def _matrix(content: bytes, modality: str, place: str) -> NDArray[Any]:
    """The recording in a MATLAB file as (length, n_channels)."""
    key = _KEYS[modality]
    if not content.startswith(b"MATLAB 5.0 MAT-file"):
        raise DataError(f"{place}: it does not start as a MATLAB 5 file does; fetch it again.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damage, which the checks below find as well
            # The shapes first: they tell what loading would take, and cost nothing.
            shape = next((shape for name, shape, _ in whosmat(cast("str", io.BytesIO(content))) if name == key), None)
            fits = shape is not None and 1 <= int(np.prod(shape, dtype=float)) <= _MAX_SAMPLES * len(
                _CHANNELS[modality]
            )
            array = loadmat(cast("str", io.BytesIO(content)), variable_names=[key])[key] if fits else None
    except Exception as error:  # SciPy answers damage with whatever the bytes happened to cause
        raise DataError(f"{place}: damaged ({str(error)[:100] or type(error).__name__}); fetch it again.") from error
    wanted = "length x 6" if modality == "inertial" else "20 x 3 x length"
    right = shape is not None and (
        (len(shape) == 2 and shape[1] == 6) if modality == "inertial" else (len(shape) == 3 and shape[:2] == (20, 3))
    )
    if array is None or not right or not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        found = f"there is no {key}" if shape is None else f"{key} has shape {shape}"
        raise DataError(f"{place}: {found}; numbers of {wanted} are needed.")
    matrix = np.asarray(array, dtype=np.float64)
    matrix = matrix if modality == "inertial" else matrix.reshape(60, -1).T
    good = np.abs(matrix) <= np.finfo(np.float32).max
    if not good.all():
        sample, channel = np.argwhere(~good)[0]
        raise DataError(f"{place}: sample {sample}, {_CHANNELS[modality][channel]} is not finite; fetch it again.")
    return matrix
