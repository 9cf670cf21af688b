"""A recogniser that is enough for the tests of the web page: nearest neighbour among normalised, resampled motions."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from gesda.callbacks import Callback

STEPS = 32


class StandIn:
    """Same interface as `gesda.deepmotion.GestureRecognizer`; rejects what is far from all examples."""

    def __init__(self, n_channels: int, threshold: float = 0.45, epoch_seconds: float = 0.0) -> None:
        self.n_channels_, self.rate_, self.threshold_ = n_channels, 60.0, -threshold
        self.epoch_seconds = epoch_seconds
        self.gestures: dict[Any, list[np.ndarray]] = {}
        self.history_: list[dict[str, Any]] = []

    @property
    def classes_(self) -> np.ndarray:
        return np.array(list(self.gestures), dtype=object)

    def trajectory(self, sequences: list[np.ndarray]) -> np.ndarray:
        return np.stack([self._normal(np.asarray(sequence, dtype=np.float64)) for sequence in sequences])

    def _normal(self, sequence: np.ndarray) -> np.ndarray:
        if sequence.ndim != 2 or sequence.shape[1] != self.n_channels_ or not np.isfinite(sequence).all():
            raise ValueError(f"a sequence has the shape {sequence.shape}; (length, {self.n_channels_}) is wanted.")
        path = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(sequence, axis=0), axis=1))])
        grid = np.linspace(0.0, path[-1], STEPS)
        steps = np.stack([np.interp(grid, path, channel) for channel in sequence.T], axis=1)
        steps = steps - steps.mean(axis=0)
        return steps / (np.sqrt((steps**2).sum(axis=1).mean()) or 1.0)

    def fit(self, sequences: Any, labels: Any = None, *, callbacks: list[Callback] | None = None) -> StandIn:
        self.history_ = []
        run = SimpleNamespace(history=self.history_, phase="pretrain")
        for epoch in range(1, 21):
            time.sleep(self.epoch_seconds)
            stop = False
            for layer in range(2):
                record = {"phase": "pretrain", "layer": layer, "epoch": epoch, "loss": (1 + layer) / epoch**0.5}
                self.history_.append(record)
                stop = any([callback.on_epoch_end(run, record) for callback in callbacks or ()]) or stop
            if stop:
                break
        for callback in callbacks or ():
            callback.on_train_end(run)
        self.gestures = {}
        for sequence, label in zip(
            getattr(sequences, "sequences", sequences), labels if labels is not None else [], strict=False
        ):
            if label is not None:
                self.gestures.setdefault(label, []).append(self.trajectory([sequence])[0])
        return self

    def add_gesture(self, name: Any, examples: list[np.ndarray]) -> StandIn:
        self.gestures.setdefault(name, []).extend(self.trajectory(examples))
        return self

    def remove_gesture(self, name: Any) -> StandIn:
        del self.gestures[name]
        return self

    def recognize(self, sequence: np.ndarray) -> SimpleNamespace:
        steps = self.trajectory([sequence])[0]
        distances = {
            name: min(float(np.sqrt(((steps - example) ** 2).sum(axis=1).mean())) for example in examples)
            for name, examples in self.gestures.items()
        }
        weights = {name: np.exp(-8.0 * distance) for name, distance in distances.items()}
        shares = {name: weight / sum(weights.values()) for name, weight in weights.items()}
        best = min(distances, key=lambda name: distances[name])
        familiarity = -distances[best]
        label = best if familiarity >= self.threshold_ else None
        return SimpleNamespace(
            label=label, best=best, confidence=shares[best], familiarity=familiarity, probabilities=shares
        )

    def embed(self, sequences: list[np.ndarray]) -> np.ndarray:
        return self.trajectory(sequences).reshape(len(sequences), -1)

    def reconstruct(self, sequences: list[np.ndarray]) -> np.ndarray:
        steps = self.trajectory(sequences)
        kernel = np.ones(5) / 5
        for sequence in steps:
            for channel in sequence.T:
                channel[2:-2] = np.convolve(channel, kernel, mode="valid")
        return steps

    def save(self, path: str) -> None:
        content = {"format": "standin", "n_channels": self.n_channels_, "history": self.history_}
        examples = [[name, [example.tolist() for example in kept]] for name, kept in self.gestures.items()]
        Path(path).write_text(json.dumps({**content, "gestures": examples}), encoding="utf-8")

    @classmethod
    def load(cls, path: str) -> StandIn:
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            model = cls(content["n_channels"])
            model.history_ = content["history"]
            model.gestures = {name: [np.array(example) for example in kept] for name, kept in content["gestures"]}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path!r} is no stand-in's model; choose another file.") from error
        return model


class StandInStream:
    """Same interface as `gesda.deepmotion.GestureStream`: what moves is a gesture, what rests ends it."""

    def __init__(self, recognizer: StandIn, rate: float) -> None:
        self.recognizer = recognizer
        self.rows: list[np.ndarray] = []
        self.times: list[float] = []

    def push(self, samples: np.ndarray, times: np.ndarray) -> list[SimpleNamespace]:
        events = []
        for row, moment in zip(samples, times, strict=True):
            if np.abs(row).max() > 0.5:
                self.rows.append(row)
                self.times.append(float(moment))
            elif self.rows and moment - self.times[-1] > 0.2:
                events += self.flush()
        return events

    def flush(self) -> list[SimpleNamespace]:
        rows, times = self.rows, self.times
        self.rows, self.times = [], []
        if len(rows) < 4:
            return []
        answer = self.recognizer.recognize(np.array(rows))
        return [SimpleNamespace(label=answer.label, confidence=answer.confidence, start=times[0], end=times[-1])]
