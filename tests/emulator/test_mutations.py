"""Mistakes in the product's kernels are found: each test makes one, trains on the emulator, and has to see it.

A mistake is a line of the source that is taken away or changed. It is found when the emulator stops with an error or
the parameters differ from the reference engine's, in one of a few trainings, since what it breaks may depend on chance.
"""

from __future__ import annotations

import shutil
from typing import NamedTuple

import numpy as np
import pytest
import scipy.sparse
from emulated import COMPILER, ROOT, EmulatedDevice, compile_kernels, compiled_kernels

from gesda.engine.cuda.engine import CudaEngine
from gesda.engine.reference import ReferenceEngine
from gesda.spec import FinetunePlan, HeadSpec, LayerSpec, NetworkSpec, PretrainPlan

pytestmark = pytest.mark.skipif(COMPILER is None, reason="the emulator needs a C++ compiler")
TRIES = 6
N_SAMPLES = 60


class Mistake(NamedTuple):
    file: str
    before: str
    after: str
    training: str


MISTAKES = {
    "tiles: a slice is used before all threads have copied it": Mistake(
        "product.cuh", "    sync_block();  // the slice is complete", "    // the slice is complete", "tiles"
    ),
    "tiles: a slice is used while it is on its way": Mistake(
        "product.cuh", "wait_for_copies<kStages - 2>()", "wait_for_copies<kStages - 1>()", "tiles"
    ),
    "tiles: sums overwrite slices that others read": Mistake(
        "product.cuh", "  sync_block();  // nobody reads the product's slices any more\n", "", "tiles"
    ),
    "tiles: a second product overwrites slices of the first": Mistake(
        "product.cuh", "  sync_block();  // nobody reads what an earlier product has left there\n", "", "tiles"
    ),
    "tiles: one slice too few": Mistake(
        "product.cuh", "(depth + kSlice - 1) / kSlice", "depth / kSlice", "tiles"
    ),
    "tiles: x~ of the next tick over that of this one": Mistake(
        "pretrain.cuh", "layer.noisy[next]", "layer.noisy[tick & 1]", "tiles"
    ),
    "tiles: the layer above gets its input a tick too early": Mistake(
        "pretrain.cuh", "epoch.layers[part.layer + 1], tick + 1)", "epoch.layers[part.layer + 1], tick)", "tiles"
    ),
    "panels: copies are not waited for": Mistake("panel.cuh", "  wait_for_copies<0>();\n", "", "panels"),
    "panels: a chunk overwrites one that others read": Mistake(
        "panel.cuh", "  wait_for_copies<0>();\n  sync_block();\n}", "  wait_for_copies<0>();\n}", "panels"
    ),
    "panels: every other chunk comes to the same place": Mistake(
        "panel.cuh", "weights + k0 / kChunk % 2 * Shape::kWeights", "weights", "panels"
    ),
    "panels: the next rows overwrite those of the gradient": Mistake(
        "panel.cuh", "kNext = Shape::kOverlaps ? 2 : 0;", "kNext = 0;", "panels"
    ),
    "panels: the next chunk is not fetched": Mistake(
        "panel.cuh", "fetch_now(k0 + kChunk);", "fetch_now(k0);", "panels"
    ),
    "panels: x is gathered over the d that is still read": Mistake(
        "panel.cuh", "part.blocks}, number, tick + 1)", "part.blocks}, number, tick)", "panels"
    ),
    "panels: the sums of a warp are left out": Mistake(
        "panel.cuh", "for (int w = 0; w < kWarps; ++w) sum", "for (int w = 1; w < kWarps; ++w) sum", "panels"
    ),
    "panels: the layer above gets the encoding by new weights": Mistake(
        "panel.cuh", "clean_input(epoch, epoch.layers[index + 1], tick + 2)",
        "clean_input(epoch, epoch.layers[index + 1], tick + 1)", "panels",
    ),
    "persistent: blocks do not wait for each other": Mistake(
        "persistent.cuh", "    sync_grid(arrivals, static_cast<unsigned>(i + 1));\n", "", "persistent"
    ),
    "persistent: the count of arrivals is off by one": Mistake(
        "persistent.cuh", "sync_grid(arrivals, static_cast<unsigned>(i + 1))",
        "sync_grid(arrivals, static_cast<unsigned>(i))", "persistent",
    ),
    "persistent: the panel on chip is not updated": Mistake(
        "panel.cuh", "float& w = on_chip[row * Shape::kStride + j];", "float w = on_chip[row * Shape::kStride + j];",
        "persistent",
    ),
    "fine-tuning: the logits change while others read them": Mistake(
        "dense.cuh", "  sync_warp();  // all have read the target's logit and the first\n", "", "fine-tuning"
    ),
    "fine-tuning: dropout is not undone on the way back": Mistake(
        "dense.cuh", "layer.out[at] / layer.scale;", "layer.out[at];", "fine-tuning"
    ),
    "gathering: values of a sparse row before its zeros": Mistake(
        "rows.cuh", "    if (!sparse) continue;\n    sync_block();\n", "    if (!sparse) continue;\n", "sparse"
    ),
    "losses: partial sums are read before they are written": Mistake(
        "steps.cuh", "  if (thread_index() % 32 == 0) partial[thread_index() / 32] = value;\n  sync_block();\n",
        "  if (thread_index() % 32 == 0) partial[thread_index() / 32] = value;\n", "tiles",
    ),
}  # fmt: skip


def train(make_engine, training, rng):
    """Parameters and losses after an epoch."""
    layers = (LayerSpec(150, 50), LayerSpec(50, 140), LayerSpec(140, 33))  # more than a chunk of depth
    head = HeadSpec("softmax", 40, dropout=(0.2, 0.3, 0.1, 0.0)) if training == "fine-tuning" else None
    spec = NetworkSpec(layers, head=head, seed=int(rng.integers(2**63)))
    state = {name: rng.normal(0.0, 0.2, shape) for name, shape in spec.parameter_shapes().items()}
    data = np.where(rng.random((N_SAMPLES, 150)) < 0.5, 0.0, rng.random((N_SAMPLES, 150))).astype(np.float32)
    order, classes = rng.permutation(N_SAMPLES).astype(np.uint32), rng.integers(0, 40, N_SAMPLES).astype(np.int32)
    engine = make_engine(spec)
    engine.set_state(state)
    given = scipy.sparse.csr_array(data) if training == "sparse" else data
    if training == "fine-tuning":
        losses = (engine.finetune_epoch(given, classes, FinetunePlan(0, order, 20, 0.1)).loss,)
    else:
        losses = engine.pretrain_epoch(given, PretrainPlan(0, order, 20, (True,) * 3, (0.1,) * 3)).loss
    return {**engine.get_parameters(), "losses": np.array(losses)}


def is_found(library, training):
    """Whether some training fails, or differs from the reference engine's."""
    kind = training if training in ("tiles", "panels", "persistent") else "auto"
    for _ in range(TRIES):
        seed = int(np.random.default_rng().integers(2**63))

        def make(spec):
            device = EmulatedDevice("fp32", library=library)
            return CudaEngine(spec, device, variant=kind)

        try:
            found = train(make, training, np.random.default_rng(seed))
        except RuntimeError:
            return True
        expected = train(ReferenceEngine, training, np.random.default_rng(seed))
        for name, array in expected.items():
            if not np.allclose(found[name], array, rtol=1e-4, atol=1e-4):
                return True
    return False


def compiled(folder, mistake):
    shutil.copytree(ROOT / "kernels", folder / "kernels")
    path = folder / "kernels" / mistake.file
    text = path.read_text()
    assert mistake.before in text, f"{mistake.file} has changed; what is this mistake now?"
    path.write_text(text.replace(mistake.before, mistake.after, 1))
    return compile_kernels(folder / "kernels", "fp32", (2, 16), "-O1", "-Wno-unused")


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_found(tmp_path, name):
    assert is_found(compiled(tmp_path, MISTAKES[name]), MISTAKES[name].training)


@pytest.mark.parametrize("training", ["tiles", "panels", "persistent", "fine-tuning", "sparse"])
def test_without_a_mistake_nothing_is(training):
    assert not is_found(compiled_kernels("fp32", (2, 16)), training)
