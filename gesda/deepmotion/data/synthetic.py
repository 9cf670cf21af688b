"""Synthetic sets: gestures of several users, random motion beside them, and streams with rests between.

They are the built-in data of examples, tests and measurements; how the hand moves is in `gesda.deepmotion.data.hand`.
May import NumPy, and of gesda that and its sequences.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gesda.datasets import DataError
from gesda.deepmotion.data.hand import CHANNELS, DEFAULTS, DEGREES_PER_G, GESTURES, Kind, Recorder, minimum_jerk
from gesda.deepmotion.data.sequences import MotionDataset, check_sequences, concatenate

__all__ = ["GESTURES", "make_gesture_stream", "make_gestures", "make_scribbles", "stream_of"]

# Repetitions that are given without their label are others than those given with it.
_UNLABELED_FROM = 1 << 20

_Seed = int | np.random.Generator | None


def make_gestures(
    n_per_class: int = 20,
    *,
    kind: Kind = "accelerometer",
    gestures: int | Sequence[str] | None = None,
    n_unlabeled: int = 0,
    scribbles: float = 0.5,
    n_users: int = 4,
    rate: float = 100.0,
    style: float = 0.2,
    variation: float = 0.1,
    speed: float = 0.25,
    tremor: float = 0.1,
    orientation: float | None = None,
    noise: float | None = None,
    drift: float | None = None,
    resolution: float | None = None,
    limit: float | None = None,
    random_state: _Seed = None,
) -> MotionDataset:
    """Make recordings of gestures in the air or on a screen, by users who each have their own style.

    A gesture is a path in a plane, 0.3 m high in the air or 0.4 screen heights on a screen. The style of the user
    and the repetition bend it; the hand follows it by the two-thirds power law [1]_ and starts and stops with
    minimum jerk [2]_. In the air it moves at an arm's length, and the device turns with the arm.

    Parameters
    ----------
    n_per_class : int, default=20
        Labelled sequences of each gesture, dealt to the users in turn; 0 with ``n_unlabeled`` for none.
    kind : {"accelerometer", "gyroscope", "pointer"}, default="accelerometer"
        ``"accelerometer"``: 3 channels in g, gravity included, in the axes of the device.
        ``"gyroscope"``: the same, then 3 channels of angular rate in degrees a second.
        ``"pointer"``: x and y in screen heights from the top left of a 16:9 screen, y down.
    gestures : int or sequence of str, optional
        Names out of `GESTURES`, or how many of them from the first on; all by default.
    n_unlabeled : int, default=0
        Sequences with the label None after the labelled ones: random motion and gestures.
    scribbles : float, default=0.5
        Share of the unlabelled sequences that is random motion.
    n_users : int, default=4
        ``groups`` holds the user's number of each sequence.
    rate : float, default=100.0
        Hz.
    style, variation : float, default=0.2, 0.1
        Relative spread of size, aspect, slant and shape between users, and between one user's repetitions.
    speed : float, default=0.25
        Spread of the logarithm of the duration, between users and repetitions together.
    tremor : float, default=0.1
        Amplitude in mm of the hand's tremor at 8 to 12 Hz; not for the pointer.
    orientation : float, optional
        Spread in degrees of how the device is held, by users and repetitions, and of its turning by itself within a
        third of that during a gesture; of the drawing's turn on a screen. 12 in the air and 6 on a screen by default.
    noise : float, optional
        Standard deviation of the sensor's white noise: 0.02 g or 0.001 screen heights by default.
    drift : float, optional
        Standard deviation of the sensor's bias, and of its random walk after 10 s: 0.01 g or 0 by default.
    resolution : float, optional
        Step of the sensor's values: 1/256 g or 1/1080 screen heights by default; 0 for none.
    limit : float, optional
        Larger values are clipped: 4 g by default. For the pointer, the part of the screen that is used, 1.
    random_state : int, Generator or None
        Seed. Each sequence draws its own numbers: changing the noise, or asking for more repetitions or other
        gestures, leaves all else as it was.

    Returns
    -------
    MotionDataset
        Ordered by gesture and repetition; labels are text.

    Raises
    ------
    DataError
        When a parameter is out of its range, or a gesture is unknown.

    Notes
    -----
    For the gyroscope, 1 g of noise, drift, resolution or limit stands for 50 degrees a second.

    References
    ----------
    .. [1] F. Lacquaniti, C. Terzuolo and P. Viviani, "The law relating the kinematic and figural aspects of drawing
       movements", Acta Psychologica 54, 1983.
    .. [2] T. Flash and N. Hogan, "The coordination of arm movements: an experimentally confirmed mathematical
       model", Journal of Neuroscience 5(7), 1985.

    Examples
    --------
    >>> data = make_gestures(3, gestures=["circle_cw", "letter_Z"], n_unlabeled=2, random_state=0)
    >>> len(data), data.channels, data.labels.tolist()[-3:]
    (8, ('acc_x', 'acc_y', 'acc_z'), ['letter_Z', None, None])
    """
    names = _gesture_names(gestures)
    if n_per_class < 0 or n_unlabeled < 0 or n_per_class + n_unlabeled < 1 or n_users < 1:
        raise DataError(
            f"n_per_class and n_unlabeled must not be negative nor both 0, n_users at least 1; got {n_per_class}, "
            f"{n_unlabeled} and {n_users}."
        )
    if not 0 <= scribbles <= 1:
        raise DataError(f"scribbles must lie in [0, 1]; got {scribbles}.")
    recorder = _recorder(
        kind, rate, random_state, style, variation, speed, tremor, orientation, noise, drift, resolution, limit
    )
    # (user, gesture, repetition, label)
    wanted: list[tuple[int, str | None, int, str | None]] = [
        (i % n_users, name, i, name) for name in names for i in range(n_per_class)
    ]
    for i in range(n_unlabeled):
        draw = recorder.rng("unlabeled", i)
        name = None if draw.random() < scribbles else names[int(draw.integers(len(names)))]
        wanted.append((i % n_users, name, _UNLABELED_FROM + i, None))
    return _dataset(recorder, wanted, f"synthetic {kind} gestures")


def make_scribbles(
    n_sequences: int = 100,
    *,
    kind: Kind = "accelerometer",
    n_users: int = 4,
    rate: float = 100.0,
    random_state: _Seed = None,
    **parameters: Any,
) -> MotionDataset:
    """Make random smooth motion that is no gesture, to test rejection.

    Parameters
    ----------
    n_sequences : int, default=100
    kind, n_users, rate, random_state
        As in `make_gestures`.
    **parameters
        Further parameters of `make_gestures`, of which only those of hand and sensor have an effect.

    Returns
    -------
    MotionDataset
        All labels are None.

    Examples
    --------
    >>> make_scribbles(2, kind="pointer", random_state=0).labels
    array([None, None], dtype=object)
    """
    return make_gestures(
        0,
        kind=kind,
        n_unlabeled=n_sequences,
        scribbles=1.0,
        n_users=n_users,
        rate=rate,
        random_state=random_state,
        **parameters,
    )


def make_gesture_stream(
    n_gestures: int = 20,
    *,
    kind: Kind = "accelerometer",
    gestures: int | Sequence[str] | None = None,
    n_scribbles: int = 0,
    n_users: int = 1,
    gap: tuple[float, float] = (0.5, 2.0),
    rate: float = 100.0,
    random_state: _Seed = None,
    **parameters: Any,
) -> tuple[NDArray[np.float32], list[tuple[Any, float, float]]]:
    """Make one long recording of gestures in random order, with rests between and at both ends.

    Parameters
    ----------
    n_gestures : int, default=20
    kind, gestures, n_users, rate, random_state
        As in `make_gestures`.
    n_scribbles : int, default=0
        Random motions among the gestures.
    gap : (float, float), default=(0.5, 2.0)
        Shortest and longest rest in seconds.
    **parameters
        Further parameters of `make_gestures`.

    Returns
    -------
    samples : ndarray of float32, shape (n_samples, n_channels)
    intervals : list of (label, start, end)
        What was done from when to when, in seconds and in order; the label of random motion is None.

    Examples
    --------
    >>> samples, intervals = make_gesture_stream(3, gestures=["check"], random_state=0)
    >>> samples.shape[1], [label for label, start, end in intervals]
    (3, ['check', 'check', 'check'])
    """
    names = _gesture_names(gestures)
    if n_gestures < 0 or n_scribbles < 0 or n_gestures + n_scribbles < 1:
        raise DataError(
            f"n_gestures and n_scribbles must not be negative, nor both 0; got {n_gestures}, {n_scribbles}."
        )
    seed = _seed(random_state)
    rng = np.random.default_rng([seed, 1])
    parts = []
    if n_gestures:
        per_class = -(-n_gestures // len(names)) * n_users
        made = make_gestures(
            per_class, kind=kind, gestures=names, n_users=n_users, rate=rate, random_state=seed, **parameters
        )
        order = rng.permutation(len(made))
        # As many of each gesture as can be: the repetitions of all gestures come before further ones.
        parts.append(made[order[np.argsort(order % per_class, kind="stable")][:n_gestures]])
    if n_scribbles:
        parts.append(
            make_scribbles(n_scribbles, kind=kind, n_users=n_users, rate=rate, random_state=seed, **parameters)
        )
    data = concatenate(parts)
    noise = parameters.get("noise")
    noise = DEFAULTS[kind]["noise"] if noise is None else noise
    unit = np.where(np.arange(data.n_channels) < 3, 1.0, DEGREES_PER_G)
    return stream_of(data[rng.permutation(len(data))], gap=gap, noise=noise * unit, random_state=rng)


def stream_of(
    data: MotionDataset,
    *,
    gap: tuple[float, float] = (0.5, 2.0),
    noise: float | ArrayLike = 0.0,
    random_state: _Seed = None,
) -> tuple[NDArray[np.float32], list[tuple[Any, float, float]]]:
    """String sequences together to one stream, with rests between and at both ends.

    In a rest every channel goes smoothly from the last value before it to the first value after it.

    Parameters
    ----------
    data : MotionDataset
        Sequences in the order of the stream; without a rate, samples count as seconds.
    gap : (float, float), default=(0.5, 2.0)
        Shortest and longest rest in seconds.
    noise : float or array-like of shape (n_channels,), default=0.0
        Standard deviation of white noise in the rests, in the unit of the channels.
    random_state : int, Generator or None
        Seed.

    Returns
    -------
    samples : ndarray of float32, shape (n_samples, n_channels)
    intervals : list of (label, start, end)
        Label and interval of each sequence, in seconds from the first sample: ``start`` is the time of its first
        sample, ``end`` that of its last. Unlabelled ones have the label None, or -1 if labels are numbers.

    Raises
    ------
    DataError
        When the gap is no interval of times from 0 on.

    Examples
    --------
    >>> data = MotionDataset([[0.0, 1.0], [2.0]], labels=["a", "b"], rate=1.0)
    >>> samples, intervals = stream_of(data, gap=(1, 1))
    >>> samples[:, 0].tolist(), intervals
    ([0.0, 0.0, 1.0, 1.5, 2.0, 2.0], [('a', 1.0, 2.0), ('b', 4.0, 4.0)])
    """
    sequences = check_sequences(data)
    shortest, longest = gap
    if not 0 <= shortest <= longest < np.inf:
        raise DataError(f"gap must be two times in seconds, the shorter first; got {gap}.")
    rng = np.random.default_rng(random_state)
    rate = data.rate or 1.0
    rests = np.rint(rng.uniform(shortest, longest, len(sequences) + 1) * rate).astype(int)
    spread = np.broadcast_to(np.asarray(noise, dtype=np.float64), (data.n_channels,))
    pieces: list[NDArray[Any]] = []
    intervals = []
    at = 0
    for i, rest in enumerate(rests.tolist()):
        before = sequences[i - 1][-1] if i else sequences[0][0]
        after = sequences[i][0] if i < len(sequences) else before
        way = minimum_jerk(np.arange(1, rest + 1) / (rest + 1))[:, None]
        pieces.append(before + (after - before) * way + spread * rng.normal(size=(rest, data.n_channels)))
        at += rest
        if i < len(sequences):
            label = None if data.labels is None else data.labels[i]
            intervals.append((label, at / rate, (at + len(sequences[i]) - 1) / rate))
            pieces.append(sequences[i])
            at += len(sequences[i])
    return np.concatenate(pieces).astype(np.float32), intervals


def _dataset(recorder: Recorder, wanted: list[tuple[int, str | None, int, str | None]], name: str) -> MotionDataset:
    sequences: list[NDArray[Any]] = [recorder.record(user, gesture, i) for user, gesture, i, _ in wanted]
    labels = np.array([label for *_, label in wanted], dtype=object)
    groups = np.array([user for user, *_ in wanted], dtype=np.int64)
    return MotionDataset(tuple(sequences), labels, recorder.rate, CHANNELS[recorder.kind], groups, name)


def _gesture_names(gestures: int | Sequence[str] | None) -> list[str]:
    if gestures is None:
        return list(GESTURES)
    if isinstance(gestures, int):
        if not 1 <= gestures <= len(GESTURES):
            raise DataError(f"there are {len(GESTURES)} gestures; got {gestures}.")
        return list(GESTURES[:gestures])
    names = [gestures] if isinstance(gestures, str) else list(gestures)
    unknown = [name for name in names if name not in GESTURES]
    if unknown or not names or len(set(names)) != len(names):
        raise DataError(
            f"gestures {names!r} are not different names out of {', '.join(GESTURES)}; "
            f"{'unknown: ' + ', '.join(map(repr, unknown)) if unknown else 'name each once'}."
        )
    return names


def _seed(random_state: _Seed) -> int:
    if random_state is None:
        return secrets.randbits(63)
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(1 << 63))
    if random_state < 0:
        raise DataError(f"random_state must not be negative; got {random_state}.")
    return int(random_state)


def _recorder(
    kind: Kind,
    rate: float,
    random_state: _Seed,
    style: float,
    variation: float,
    speed: float,
    tremor: float,
    orientation: float | None,
    noise: float | None,
    drift: float | None,
    resolution: float | None,
    limit: float | None,
) -> Recorder:
    if kind not in CHANNELS:
        raise DataError(f"kind must be one of {', '.join(map(repr, CHANNELS))}; got {kind!r}.")
    given = {"orientation": orientation, "noise": noise, "drift": drift, "resolution": resolution, "limit": limit}
    sensor = DEFAULTS[kind] | {name: value for name, value in given.items() if value is not None}
    hand = {"style": style, "variation": variation, "speed": speed, "tremor": tremor}
    for name, value in (sensor | hand).items():
        if not 0 <= value < np.inf:
            raise DataError(f"{name} must be a finite number that is not negative; got {value}.")
    if not (0 < rate < np.inf and sensor["limit"] > 0):
        raise DataError(f"rate and limit must be positive; got {rate} and {sensor['limit']}.")
    return Recorder(kind=kind, rate=float(rate), seed=_seed(random_state), **sensor, **hand)
