"""Saved states of a training: what a checkpoint holds, checked on the way in.

May import `gesda.engine` and `gesda.spec`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from gesda.engine import Array, Engine

CONTENT = "gesda training state"
STATE_VERSION = 1


@dataclasses.dataclass
class Call:
    """A call of `pretrain` or `finetune`: what it was asked, and where it stands."""

    phase: str
    arguments: dict[str, Any]
    first_record: int = 0
    rng_start: Any = None
    rng_end: Any = None
    stopped: str = ""  # the reason to run no further epoch: "converged", "callback" or "diverged"
    finished: bool = False


@dataclasses.dataclass
class Saved:
    """A checked state."""

    position: dict[str, Any]
    calls: list[Call]
    engine: dict[str, Array]
    best: dict[str, Array]

    @staticmethod
    def write(
        position: dict[str, Any], calls: list[Call], engine: Engine, best: Mapping[str, Array]
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        """Put a state into arrays by name and a few words for a file's header."""
        position = position | {
            "version": STATE_VERSION,
            "network": dataclasses.asdict(engine.spec),
            "calls": [dataclasses.asdict(call) for call in calls],
        }
        # An array, since a long history would outgrow a file's header. NaN and infinity are Python's own spelling.
        text = json.dumps(position, default=_plain).encode()
        tensors = {f"engine.{name}": array for name, array in engine.get_state().items()}
        tensors |= {f"best.{name}": array for name, array in best.items()}
        return tensors | {"trainer": np.frombuffer(text, dtype=np.uint8)}, {"content": CONTENT}

    @classmethod
    def read(cls, tensors: Mapping[str, Array], metadata: Mapping[str, Any], engine: Engine) -> Saved:
        """Check a state against the network that is to continue it."""
        try:
            position = json.loads(bytes(np.asarray(tensors["trainer"], dtype=np.uint8)))
            version, network = position["version"], position["network"]
            calls = [Call(**call) for call in position["calls"]]
            _ = position["history"], position["plateau"], position["best_score"], position["callbacks"]
            if metadata["content"] != CONTENT or not calls:
                raise ValueError(metadata["content"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError("this is no saved state of a training; give the file of a Checkpoint.") from error
        if version != STATE_VERSION:
            raise ValueError(f"the saved training has format {version}, this gesda reads {STATE_VERSION}.")
        if canonical(network) != canonical(dataclasses.asdict(engine.spec)):
            raise ValueError(
                "the saved training is that of another network (layers, optimiser, head or seed differ); "
                "continue it with the same parameters and random_state."
            )
        parts: dict[str, dict[str, Array]] = {}
        for prefix, shapes in (("engine.", engine.spec.state_shapes()), ("best.", engine.spec.parameter_shapes())):
            part = {name[len(prefix) :]: array for name, array in tensors.items() if name.startswith(prefix)}
            parts[prefix] = part
            if prefix == "best." and not part:
                continue
            for name, shape in shapes.items():
                if name not in part or part[name].shape != shape:
                    found = part[name].shape if name in part else "nothing"
                    raise ValueError(
                        f"the saved training is damaged: {prefix}{name} must have shape {shape}; got {found}."
                    )
        return cls(position, calls, parts["engine."], parts["best."])

    def records(self, n_calls: int) -> list[dict[str, Any]]:
        """Return the history at the end of the first `n_calls` calls (of 0: before the first)."""
        history: list[dict[str, Any]] = self.position["history"]
        return history[: self.calls[n_calls].first_record] if n_calls < len(self.calls) else list(history)


def _plain(value: Any) -> Any:
    """Turn NumPy values (the states of some bit generators) into what JSON knows."""
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": str(value.dtype)}
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be saved as JSON.")


def arrays_again(value: Any) -> Any:
    """Undo `_plain`."""
    if isinstance(value, dict):
        if value.keys() == {"array", "dtype"}:
            return np.array(value["array"], dtype=value["dtype"])
        return {key: arrays_again(entry) for key, entry in value.items()}
    return value


def copies_of(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Copy arrays by name, as C-contiguous float32."""
    return {name: np.array(array, dtype=np.float32, order="C") for name, array in arrays.items()}


def canonical(value: Any) -> str:
    """Spell a value so that what JSON cannot tell apart (tuples and lists) is equal."""
    return json.dumps(value, default=_plain, sort_keys=True)
