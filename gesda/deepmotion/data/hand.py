"""A simulated hand: it moves along a path as people do, and a sensor with its faults records it.

A gesture is a path in a plane, bent by the style of its user and anew in every repetition. The hand follows it by
the two-thirds power law, which ties speed to curvature [1]_, and starts and stops with minimum jerk [2]_. The
device turns with the arm; its sensor adds noise, bias, steps and limits. May import NumPy and SciPy, and
nothing of gesda.

References
----------
.. [1] F. Lacquaniti, C. Terzuolo and P. Viviani, "The law relating the kinematic and figural aspects of drawing
   movements", Acta Psychologica 54, 1983.
.. [2] T. Flash and N. Hogan, "The coordination of arm movements: an experimentally confirmed mathematical model",
   Journal of Neuroscience 5(7), 1985.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

Kind = Literal["accelerometer", "gyroscope", "pointer"]
_Array = NDArray[np.float64]

CHANNELS = {
    "pointer": ("x", "y"),
    "accelerometer": ("acc_x", "acc_y", "acc_z"),
    "gyroscope": ("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z"),
}
# By kind: noise, drift, resolution and limit in its unit (g, or screen heights), orientation in degrees.
DEFAULTS = {
    "pointer": {"noise": 0.001, "drift": 0.0, "resolution": 1 / 1080, "limit": 1.0, "orientation": 6.0},
    "accelerometer": {"noise": 0.02, "drift": 0.01, "resolution": 1 / 256, "limit": 4.0, "orientation": 12.0},
}
DEFAULTS["gyroscope"] = DEFAULTS["accelerometer"]
DEGREES_PER_G = 50.0  # (degrees a second) of the gyroscope's faults for each g of the accelerometer's
_GRAVITY = 9.81  # m/s^2
_ARM = 0.55  # m: the hand moves on a sphere about the elbow and shoulder, and turns with it
_HAND_SIZE, _SCREEN_SIZE = 0.3, 0.4  # height of a gesture: m in the air, screen heights on a screen
_LINE_DURATION = 0.55  # s for a straight line; longer paths take time with the power 0.75 of their length
_OVERSAMPLING = 8  # of the trajectory that is differentiated
_PATH_POINTS = 256


# ---- paths ------------------------------------------------------------------------------------------
def _circle(turns: float, start: float, width: float = 1.0) -> _Array:
    angle = 2 * np.pi * (start + turns * np.linspace(0, 1, 100))
    return 0.5 * np.stack([width * np.cos(angle), np.sin(angle)], axis=1)


def _lissajous(x: float, y: float, fx: int, fy: int, px: float, py: float) -> _Array:
    u = 2 * np.pi * np.linspace(0, 1, 160)
    return np.stack([x * np.sin(fx * u + px), y * np.sin(fy * u + py)], axis=1)


def _spiral() -> _Array:
    u = np.linspace(0, 1, 200)
    return np.asarray((0.08 + 0.42 * u)[:, None] * np.stack([np.cos(4 * np.pi * u), np.sin(4 * np.pi * u)], axis=1))


def _wave() -> _Array:
    u = np.linspace(0, 1, 120)
    return np.stack([u - 0.5, 0.25 * np.sin(4 * np.pi * u)], axis=1)


def _letter_s() -> _Array:
    upper, lower = _circle(0.7, 0.08, 1.2), _circle(-0.7, 0.25, 1.2)
    return np.concatenate([0.5 * upper + [0, 0.25], 0.5 * lower + [0, -0.25]])


# x to the right, y up, in a box of height 1 about the origin.
_PATHS: dict[str, _Array] = {
    "circle_cw": _circle(-1, 0.25),
    "circle_ccw": _circle(1, 0.25),
    "square": np.array([(-0.5, 0.5), (0.5, 0.5), (0.5, -0.5), (-0.5, -0.5), (-0.5, 0.5)]),
    "triangle": np.array([(0, 0.5), (0.55, -0.45), (-0.55, -0.45), (0, 0.5)]),
    "check": np.array([(-0.45, 0), (-0.15, -0.45), (0.5, 0.5)]),
    "zigzag": np.array([(-0.35, 0.5), (0.35, 0.25), (-0.35, 0), (0.35, -0.25), (-0.35, -0.5)]),
    "line_right": np.array([(-0.5, 0.0), (0.5, 0.0)]),
    "line_left": np.array([(0.5, 0.0), (-0.5, 0.0)]),
    "line_up": np.array([(0.0, -0.5), (0.0, 0.5)]),
    "line_down": np.array([(0.0, 0.5), (0.0, -0.5)]),
    "figure_eight": _lissajous(0.25, 0.5, 2, 1, 0, np.pi / 2),
    "infinity": _lissajous(0.5, 0.25, 1, 2, 0, 0),
    "spiral": _spiral(),
    "wave": _wave(),
    "letter_C": _circle(0.75, 0.125, 0.9),
    "letter_L": np.array([(-0.35, 0.5), (-0.35, -0.5), (0.35, -0.5)]),
    "letter_M": np.array([(-0.5, -0.5), (-0.3, 0.5), (0, -0.3), (0.3, 0.5), (0.5, -0.5)]),
    "letter_N": np.array([(-0.4, -0.5), (-0.4, 0.5), (0.4, -0.5), (0.4, 0.5)]),
    "letter_S": _letter_s(),
    "letter_V": np.array([(-0.4, 0.5), (0.0, -0.5), (0.4, 0.5)]),
    "letter_W": np.array([(-0.5, 0.5), (-0.27, -0.5), (0.0, 0.3), (0.27, -0.5), (0.5, 0.5)]),
    "letter_Z": np.array([(-0.4, 0.5), (0.4, 0.5), (-0.4, -0.5), (0.4, -0.5)]),
}
GESTURES: tuple[str, ...] = tuple(_PATHS)


@dataclass(frozen=True)
class Recorder:
    """The parameters of `gesda.deepmotion.data.synthetic.make_gestures` that hold for every sequence."""

    kind: Kind
    rate: float
    noise: float
    drift: float
    resolution: float
    limit: float
    orientation: float
    speed: float
    style: float
    variation: float
    tremor: float
    seed: int

    def rng(self, *key: int | str) -> np.random.Generator:
        """A generator of its own for each thing drawn, so that no parameter shifts the draws of another thing."""
        words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key]
        return np.random.default_rng([self.seed, *words])

    def record(self, user: int, gesture: str | None, repetition: int) -> _Array:
        """One sequence (length, n_channels); the gesture None is random motion."""
        name = gesture or "none"
        habit = self.rng("user", user)
        own, now = self.rng("style", user, name), self.rng("repetition", user, name, repetition)
        template = _random_path(now) if gesture is None else _PATHS[gesture]
        path = _bend(_bend(_resampled(template), own, self.style), now, self.variation)
        path = gaussian_filter1d(path, _PATH_POINTS * (0.008 + 0.015 * own.random()), axis=0, mode="nearest")
        pace = habit.normal() * 0.7 + own.normal() * 0.5 + now.normal() * 0.5
        angles = [np.deg2rad(self.orientation) * rng.normal(size=3) for rng in (habit, now)]
        duration, position = _follow(path, np.exp(self.speed * pace), self.rate, own, now)
        sensor = self.rng("sensor", user, name, repetition)
        if self.kind == "pointer":
            samples = self._pointer(position, angles, now)
        else:
            samples = self._inertial(position, duration, angles, habit, now)
        return self._sense(samples, sensor)

    def _pointer(self, position: _Array, angles: list[_Array], rng: np.random.Generator) -> _Array:
        turn = 0.7 * angles[0][0] + 0.7 * angles[1][0]
        matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        centre = np.array([8 / 9, 0.5]) + rng.uniform(-0.1, 0.1, 2)
        # The screen's y points down.
        return np.asarray((centre + _SCREEN_SIZE * (position @ matrix.T) * [1, -1])[::_OVERSAMPLING])

    def _inertial(
        self, position: _Array, duration: float, angles: list[_Array], habit: np.random.Generator, rng: Any
    ) -> _Array:
        """Acceleration in g, and angular rate in degrees a second, in the axes of the device."""
        step = 1.0 / (self.rate * _OVERSAMPLING)
        x, z = (_HAND_SIZE * position).T
        time = step * np.arange(len(x))
        # World axes: x to the right, y forward, z up; the hand stays at an arm's length.
        hand = np.stack([x, -(x**2 + z**2) / (2 * _ARM), z], axis=1)
        for frequency in rng.uniform(8, 12, 3):
            phase = 2 * np.pi * rng.random(3)
            hand += self.tremor * 1e-3 / 3 * np.sin(2 * np.pi * frequency * time[:, None] + phase)
        acceleration = np.gradient(np.gradient(hand, step, axis=0), step, axis=0)
        force = acceleration / _GRAVITY + [0.0, 0.0, 1.0]
        # The device is held in the user's way, follows the arm (pitch with height, yaw to the sides, some roll), and
        # turns slowly by itself.
        follows = np.array([0.8, 0.0, -0.8]) + 0.2 * habit.normal(size=3)
        lean = np.stack([z, x, x], axis=1) / _ARM * follows
        wander = np.deg2rad(self.orientation) * rng.normal(size=(2, 3)) / 3
        share = (time / duration)[:, None]
        turning = wander[0] * share + wander[1] * np.sin(np.pi * share)
        turn = Rotation.from_euler("xyz", 0.8 * angles[0] + 0.6 * angles[1] + turning + lean)
        acc = turn.inv().apply(force)[::_OVERSAMPLING]
        if self.kind == "accelerometer":
            return np.asarray(acc)
        rate = np.rad2deg((turn[:-1].inv() * turn[1:]).as_rotvec()) / step
        rate = np.concatenate([rate, rate[-1:]])[::_OVERSAMPLING]
        return np.concatenate([acc, rate], axis=1)

    def _sense(self, samples: _Array, rng: np.random.Generator) -> _Array:
        n, n_channels = samples.shape
        unit = np.where(np.arange(n_channels) < 3, 1.0, DEGREES_PER_G)
        noise, walk = rng.normal(size=(2, n, n_channels))
        bias = rng.normal(size=n_channels) + np.cumsum(walk, axis=0) / np.sqrt(10 * self.rate)
        samples = samples + unit * (self.drift * bias + self.noise * noise)
        if self.kind == "pointer":
            samples = np.clip(samples, 0.0, self.limit * np.array([16 / 9, 1.0]))
        else:
            samples = np.clip(samples, -self.limit * unit, self.limit * unit)
        if self.resolution:
            samples = np.round(samples / (unit * self.resolution)) * (unit * self.resolution)
        return np.asarray(samples)


def _resampled(points: _Array) -> _Array:
    """The path by equal steps of its length, (_PATH_POINTS, 2)."""
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    at = np.linspace(0, length[-1], _PATH_POINTS)
    return np.stack([np.interp(at, length, points[:, i]) for i in range(2)], axis=1)


def _random_path(rng: np.random.Generator) -> _Array:
    """Smooth random motion through some points of the box."""
    n = int(rng.integers(3, 9))
    points = rng.uniform(-0.55, 0.55, (n, 2))
    return np.asarray(gaussian_filter1d(_resampled(points), _PATH_POINTS / n * rng.uniform(0.05, 0.5), axis=0))


def _bend(path: _Array, rng: np.random.Generator, amount: float) -> _Array:
    """Change size, aspect, slant and shape by relative amounts of that spread."""
    size, aspect, slant, turn = amount * rng.normal(size=4)
    ends = np.abs(0.25 * amount * rng.normal(size=2)).clip(0, 0.2)
    cut = np.linspace(ends[0], 1 - ends[1], _PATH_POINTS) * (_PATH_POINTS - 1)
    path = np.stack([np.interp(cut, np.arange(_PATH_POINTS), path[:, i]) for i in range(2)], axis=1)
    u = np.linspace(0, np.pi, _PATH_POINTS)
    for k in range(1, 5):
        path = path + 0.25 * amount / k * np.sin(k * u + 2 * np.pi * rng.random())[:, None] * rng.normal(size=2)
    skew = np.array([[np.exp(aspect / 2), slant + 0.5 * turn], [-0.5 * turn, np.exp(-aspect / 2)]])
    return np.asarray(np.exp(size) * path @ skew.T)


def _follow(
    path: _Array, tempo: float, rate: float, own: np.random.Generator, now: np.random.Generator
) -> tuple[float, _Array]:
    """Duration (s) and positions on the path at the oversampled rate, with short rests before and after."""
    velocity = np.gradient(path, axis=0)
    steps = np.hypot(*velocity.T) + 1e-9
    turning = np.abs(np.gradient(np.unwrap(np.arctan2(velocity[:, 1], velocity[:, 0]))))
    length = float(steps.sum())
    curvature = turning / steps * length  # of the path scaled to length 1
    exponent = 1 / 3 + 0.05 * own.normal()
    slowness = np.cumsum(steps * (curvature + 1.0) ** np.clip(exponent, 0.1, 0.6))
    phase = (slowness - slowness[0]) / (slowness[-1] - slowness[0])
    moving = _LINE_DURATION * length**0.75 * tempo
    straight = float(np.hypot(*(path[-1] - path[0]))) / length
    ramp = np.clip(0.12 + 0.35 * straight**2 + 0.04 * own.normal(), 0.08, 0.5)
    before, after = now.uniform(0.02, 0.12, 2)
    n = max(round((before + moving + after) * rate), 1) * _OVERSAMPLING
    t = np.arange(n) / (rate * _OVERSAMPLING)
    tau = np.clip((t - before) / moving, 0, 1)
    speed = minimum_jerk(tau / ramp) * minimum_jerk((1 - tau) / ramp)
    # Hesitations and hurries within one repetition.
    speed *= np.exp(0.15 * np.sin(2 * np.pi * tau * now.uniform(0.5, 2) + 2 * np.pi * now.random()))
    travelled = np.cumsum(speed)
    travelled /= travelled[-1] or 1.0
    at = np.interp(travelled, phase, np.arange(len(path)))
    position = np.stack([np.interp(at, np.arange(len(path)), path[:, i]) for i in range(2)], axis=1)
    # A hand does not follow faster than some 10 Hz.
    position = gaussian_filter1d(position, 0.015 * rate * _OVERSAMPLING, axis=0, mode="nearest")
    return n / (rate * _OVERSAMPLING), np.asarray(position)


def minimum_jerk(x: _Array) -> _Array:
    """Way gone from 0 to 1 at rest, with the least jerk; x is the time from 0 to 1."""
    x = np.clip(x, 0, 1)
    return np.asarray(x**3 * (10 - 15 * x + 6 * x**2))
