from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Samples = tuple[NDArray[np.float32]] | tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int32]]
_Poll = Callable[[float], bool] | None
_Stats = tuple[list[float], list[float], bool]

def available_variants(precision: int = ...) -> list[str]: ...
def has_bf16() -> bool: ...
def usable_threads() -> int: ...
def fma_peak(n_threads: int, seconds: float, variant: str = ...) -> float: ...

class Network:
    pretrain_steps: list[int]
    finetune_steps: int
    def __init__(
        self,
        layers: list[dict[str, Any]],
        optimizer: dict[str, Any],
        head: dict[str, Any] | None,
        seed: int,
        variant: str,
        n_threads: int,
        precision: int,
    ) -> None: ...
    @property
    def variant(self) -> str: ...
    def set_array(self, name: str, values: NDArray[np.float32]) -> None: ...
    def get_array(self, name: str, values: NDArray[np.float32]) -> None: ...
    def all_finite(self, name: str) -> bool: ...
    def pretrain_epoch(
        self,
        arrays: _Samples,
        epoch: int,
        order: NDArray[np.uint32],
        batch_size: int,
        training: list[bool],
        learning_rates: list[float],
        first_layer: int,
        noisy_handoff: bool,
        poll: _Poll,
    ) -> _Stats: ...
    def finetune_epoch(
        self,
        arrays: _Samples,
        classes: NDArray[np.int32] | None,
        values: NDArray[np.float32] | None,
        weights: NDArray[np.float32] | None,
        epoch: int,
        order: NDArray[np.uint32],
        batch_size: int,
        learning_rate: float,
        poll: _Poll,
    ) -> _Stats: ...
    def encode(self, arrays: _Samples, first_layer: int, n_layers: int, out: NDArray[np.float32]) -> None: ...
    def decode(self, arrays: _Samples, n_layers: int, out: NDArray[np.float32]) -> None: ...
    def predict(self, arrays: _Samples, out: NDArray[np.float32]) -> None: ...
