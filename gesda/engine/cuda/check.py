"""Whether a GPU computes what the reference engine computes; kept, so that ``device="auto"`` may rely on it.

May import `gesda.spec` and its own package.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from gesda.engine.cuda.cache import keep, recall
from gesda.engine.cuda.device import Device
from gesda.engine.cuda.source import kernel_hash
from gesda.engine.reference import ReferenceEngine
from gesda.spec import FinetunePlan, HeadSpec, LayerSpec, NetworkSpec, OptimizerSpec, PretrainPlan

#: Largest difference of a parameter after an epoch, relative to the largest change of its array.
TOLERANCE = {"fp32": 1e-3, "tf32": 3e-2, "fp16": 3e-2}
_WIDTHS = (200, 140, 90)
_ROWS = 240


def is_checked(device: Device, precision: str) -> bool:
    """Whether `check` has passed with these kernels on such a device."""
    return bool(recall("checked", device.name, kernel_hash(), precision))


def check(make_engine: Any, device: Device, precision: str) -> dict[str, float]:
    """Train a network on a device and on the reference engine; keep that they agree.

    Parameters
    ----------
    make_engine : function
        Makes a cuda engine for a `NetworkSpec` and a variant.
    device : Device
    precision : str

    Returns
    -------
    dict of float
        For pretraining by panels and by tiles and for fine-tuning the largest difference of a parameter, relative to
        the largest change of its array.

    Raises
    ------
    RuntimeError
        When they do not agree.
    """
    rng = np.random.default_rng(0)
    layers = tuple(LayerSpec(n, m) for n, m in pairwise(_WIDTHS))
    spec = NetworkSpec(layers, OptimizerSpec("momentum"), HeadSpec("softmax", 7, OptimizerSpec("sgd")), seed=1)
    weights = {
        name: rng.normal(0.0, 0.1, shape).astype(np.float32) if len(shape) == 2 else np.zeros(shape, np.float32)
        for name, shape in spec.parameter_shapes().items()
    }
    data = rng.random((_ROWS, _WIDTHS[0]), dtype=np.float32)
    order, classes = rng.permutation(_ROWS).astype(np.uint32), rng.integers(0, 7, _ROWS).astype(np.int32)
    differences = {}
    for phase, variant, batch in (("panels", "panels", 20), ("tiles", "tiles", 120), ("fine-tuning", "auto", 50)):
        states = []
        for engine in (make_engine(spec, variant), ReferenceEngine(spec)):
            engine.set_state(weights)
            if phase == "fine-tuning":
                engine.finetune_epoch(data, classes, FinetunePlan(0, order, batch, 0.1))
            else:
                engine.pretrain_epoch(data, PretrainPlan(0, order, batch, (True, True), (0.1, 0.1)))
            states.append(engine.get_parameters())
        differences[phase] = max(
            float(np.abs(states[0][name] - states[1][name]).max() / change)
            for name, before in weights.items()
            if (change := float(np.abs(states[1][name] - before).max())) > 0.0
        )
        if not differences[phase] <= TOLERANCE[precision]:
            raise RuntimeError(
                f"{device.name} does not compute what it should in {phase}: parameters differ from the reference "
                f"engine's by {differences[phase]:.2g} of their change, {TOLERANCE[precision]:g} is allowed for "
                f"precision={precision!r}; use device='cpu', and please report this with the output of 'gesda info'."
            )
    keep(True, "checked", device.name, kernel_hash(), precision)
    return differences
