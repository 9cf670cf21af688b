"""Engines: what executes an epoch plan.

`reference` (NumPy, float64, the oracle), `cpu` (the C++ core), `cuda` (kernels on a GPU). May import `gesda.spec`
only. The seam is an epoch: the trainer hands over a plan, the engine runs all its steps and returns
statistics.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gesda.engine.gpu_matrix import GpuMatrix, is_gpu_array
from gesda.spec import FinetunePlan, FinetuneStats, NetworkSpec, PretrainPlan, PretrainStats

if TYPE_CHECKING:
    import scipy.sparse

__all__ = [
    "DEVICES",
    "Array",
    "Data",
    "Engine",
    "GpuMatrix",
    "Poll",
    "check_device",
    "check_gpu",
    "compile_kernels",
    "is_gpu_array",
    "select",
]

Array: TypeAlias = NDArray[Any]
#: Rows of samples: a C-contiguous float32 array (n_samples, n_visible), or a CSR array of float32. The cuda engine
#: also takes float16 and uint8 arrays, and matrices in GPU memory.
Data: TypeAlias = "NDArray[np.float32] | scipy.sparse.csr_array | GpuMatrix"
#: Called every 0.1 s or so with the fraction of the epoch done; True asks the engine to stop.
#: An exception raised in it (KeyboardInterrupt too) stops the epoch and propagates.
Poll: TypeAlias = Callable[[float], bool]


DEVICES = ("auto", "cpu", "cuda", "reference")


class Engine(Protocol):
    """What every engine offers; `tests/engines/` holds all of them to it.

    Samples are addressed by their row number in the data given to the call, and that number is the
    sample id of the noise. After an interruption the parameters are usable: every update has been
    applied to all layers or to none.
    """

    name: str
    precision: str
    spec: NetworkSpec

    def get_state(self) -> dict[str, Array]:
        """Copies of all arrays of `NetworkSpec.state_shapes`, float32; the step counters are int64.

        The reference engine's are float64.
        """

    def set_state(self, state: Mapping[str, Array]) -> None:
        """Take over arrays by name; those not given stay as they are. Parameters start as zeros."""

    def get_parameters(self) -> dict[str, NDArray[np.float32]]:
        """Copies of all arrays of `NetworkSpec.parameter_shapes`."""

    def copy_parameters(self, into: Mapping[str, NDArray[np.float32]]) -> None:
        """Overwrite these arrays (float32, C-contiguous, shaped as in `get_parameters`) with the parameters."""

    def nonfinite_parameter(self) -> str | None:
        """Name of a parameter array that holds NaN or infinity; None where all are finite."""

    def place(self, data: Data, n_layers: int = 0, first_layer: int = 0) -> Any:
        """Keep rows, or their clean encodings by layers ``first_layer .. n_layers - 1``, where epochs read them fast.

        What it returns has a ``shape`` and may be given to any call in place of the data, which must not change.
        """

    def pretrain_epoch(self, data: Data, plan: PretrainPlan, poll: Poll | None = None) -> PretrainStats:
        """Run one epoch of pretraining."""

    def finetune_epoch(
        self,
        data: Data,
        targets: Array,
        plan: FinetunePlan,
        sample_weight: NDArray[np.float32] | None = None,
        poll: Poll | None = None,
    ) -> FinetuneStats:
        """Run one epoch of fine-tuning.

        ``targets`` has one entry per row of the data: class indices, int32 (n_samples,), for a softmax
        head; float32 (n_samples, n_outputs) for a linear one. A minibatch's loss is
        ``1/rows * sum_r weight_r loss_r``.
        """

    def encode(self, data: Data, n_layers: int | None = None, first_layer: int = 0) -> NDArray[np.float32]:
        """Clean encoding by layers ``first_layer .. n_layers - 1`` (all by default), row-major float32."""

    def decode(self, codes: NDArray[np.float32], n_layers: int | None = None) -> NDArray[np.float32]:
        """Decode encodings of layer ``n_layers - 1`` (the last by default) down to the input."""

    def predict(self, data: Data) -> NDArray[np.float32]:
        """The head's output: class probabilities (softmax) or values (linear), (n_samples, n_outputs)."""


def check_device(device: Any) -> str:
    """Raise ValueError for what no engine is made for."""
    if not (isinstance(device, str) and (device in DEVICES or re.fullmatch(r"cuda:\d+", device))):
        known = ", ".join(map(repr, DEVICES))
        raise ValueError(f"device must be one of {known}, or 'cuda:1' and so on for other GPUs; got {device!r}.")
    return device


def select(
    device: str,
    spec: NetworkSpec,
    *,
    precision: str = "fp32",
    n_jobs: int | None = None,
    memory_limit: int | None = None,
    tune: bool = False,
) -> Engine:
    """Make the engine for a device.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "reference"}
        ``"cuda"`` is the first GPU, ``"cuda:1"`` the second one. ``"auto"`` takes the GPU if there is one that
        ``gesda warmup`` has checked, else the cpu.
    spec : NetworkSpec
    precision : {"fp32", "bf16", "tf32", "fp16"}
        Of the operands of matrix products; weights and sums are float32. bf16 is the cpu's, tf32 and fp16 are the
        GPU's, in whose place the cpu computes in fp32. The reference engine computes in float64 whatever is asked
        for.
    n_jobs : int or None
        Threads of the cpu engine; None means all that this process may use.
    memory_limit : int or None
        Bytes of GPU memory that may be used; None means all that is free.
    tune : bool
        Whether the cuda engine measures, once for each network and minibatch, which of its kernels are the fastest.

    Raises
    ------
    ValueError
        For an unknown device or precision.
    RuntimeError
        When the device cannot be used on this machine.
    """
    kind, _, index = check_device(device).partition(":")
    if kind == "reference":
        from gesda.engine.reference import ReferenceEngine

        return ReferenceEngine(spec)
    if kind in ("auto", "cuda"):
        from gesda.engine.cuda.engine import CudaEngine
        from gesda.engine.cuda.gpus import checked_gpu, gpu

        found = (
            gpu(precision, int(index or 0), memory_limit) if kind == "cuda" else checked_gpu(precision, memory_limit)
        )
        if found is not None:
            return CudaEngine(spec, found, precision=precision, tune=tune)
    from gesda.engine.cpu import CpuEngine

    return CpuEngine(spec, precision=precision if precision == "bf16" else "fp32", n_jobs=n_jobs)


def check_gpu(precision: str, device: str = "cuda") -> tuple[str, dict[str, float]]:
    """Compile the kernels that most trainings use, and compare trainings with the reference engine's.

    That a GPU passes is kept in the user's cache folder; `select` with "auto" takes only such ones.

    Parameters
    ----------
    precision : {"fp32", "tf32", "fp16"}
    device : str
        "cuda", or "cuda:1" and so on.

    Returns
    -------
    name : str
        Of the GPU.
    differences : dict of float
        The largest difference of a parameter for each phase, relative to the largest change of its array.

    Raises
    ------
    ValueError
        For another device or precision.
    RuntimeError
        When there is no usable GPU, or it does not compute what it should.
    """
    from gesda.engine.cuda.check import check
    from gesda.engine.cuda.engine import CudaEngine
    from gesda.engine.cuda.gpus import gpu

    kind, _, index = check_device(device).partition(":")
    if kind != "cuda":
        raise ValueError(f"device must be 'cuda', or 'cuda:1' and so on; got {device!r}.")
    found = gpu(precision, int(index or 0))
    differences = check(
        lambda spec, variant: CudaEngine(spec, found, precision=precision, variant=variant), found, precision
    )
    return found.name, differences


def compile_kernels(targets: Sequence[str], precisions: Sequence[str], folder: Path | None = None) -> Iterator[Path]:
    """Compile the GPU's kernels ahead, for machines without a compiler; needs NVRTC, no GPU.

    Parameters
    ----------
    targets : sequence of str
        Real architectures such as "sm_87"; or "all" alone.
    precisions : sequence of {"fp32", "tf32", "fp16"}
    folder : Path or None
        Where to; None is where this installation of GeSdA looks for them.

    Yields
    ------
    path : Path
        Each file when it is written.

    Raises
    ------
    ValueError
        For a target that is not named so.
    RuntimeError
        Without NVRTC, or when it fails.
    """
    from gesda.engine.cuda import source
    from gesda.engine.cuda.compile import compile_ahead

    chosen = Path(str(source.kernel_folder())) / "compiled" if folder is None else folder
    return compile_ahead(source, targets, precisions, chosen)
