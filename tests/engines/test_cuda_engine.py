"""What the cuda engine promises beyond the contract: equal bits however it runs, data in every place, clear errors.

On the emulator, and with ``-m gpu`` on the device.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
from emulated import COMPILER, EmulatedDevice
from engine_cases import (
    CPU_MISSING,
    TOLERANCE,
    assert_same_bits,
    covering_networks,
    finetune_plan,
    pretrain_plan,
    random_data,
    random_state,
    random_targets,
    stack,
    with_head,
)

from gesda.engine.cuda import cache, check, tuning
from gesda.engine.cuda import data as cuda_data
from gesda.engine.cuda.data import DeviceRows, HostRows
from gesda.engine.cuda.engine import CudaEngine
from gesda.engine.cuda.variants import SHAPES, Variant, candidates, choose
from gesda.engine.reference import ReferenceEngine

WIDTHS = (70, 50, 90, 33)


def emulated_device(precision, **options):
    if COMPILER is None:
        pytest.skip("the emulator needs a C++ compiler")
    return EmulatedDevice(precision, **options)


def cuda_device(precision, panel=None, **options):
    from gesda.engine.cuda.cupy_device import CupyDevice

    device = CupyDevice(precision)
    if panel is not None:
        device.panels = (panel,)
    for name, value in options.items():
        setattr(device, name, value)
    return device


@pytest.fixture(params=["emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def make_device(request):
    """Makes a device for a precision; takes ``panel``, the shape of panels, and ``ticks_of_a_graph``."""

    def make(precision="fp32", ticks_of_a_graph=None, **options):
        device = (emulated_device if request.param == "emulated" else cuda_device)(precision, **options)
        if ticks_of_a_graph is not None:
            device.ticks_of_a_graph = ticks_of_a_graph
        return device

    return make


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def trained(device, spec, state, data, plans, tuning=(), targets=None, weights=None, **options):
    """State, losses and encodings after some epochs; data may be placed first."""
    engine = CudaEngine(spec, device, **options)
    engine.set_state(state)
    data = data(engine) if callable(data) else data
    losses = [engine.pretrain_epoch(data, plan).loss for plan in plans]
    losses += [(engine.finetune_epoch(data, targets, plan, weights).loss,) for plan in tuning]
    return {
        **engine.get_state(),
        "losses": np.concatenate([np.asarray(loss, dtype=np.float64) for loss in losses]),
        "codes": engine.encode(data),
    }


def a_job(rng, batch_size=20, n_samples=90, widths=WIDTHS):
    spec = stack(widths, "momentum")
    data = random_data(n_samples, widths[0], rng)
    return spec, random_state(spec, rng), data, [pretrain_plan(spec, n_samples, batch_size, epoch=e) for e in (0, 1)]


def without_losses(result):
    return {name: array for name, array in result.items() if name != "losses"}


# ---- equal bits -----------------------------------------------------------------------------------
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16"])
@pytest.mark.parametrize("variant", ["panels", "persistent", "tiles"])
def test_a_repeated_training_has_the_same_bits(make_device, rng, precision, variant):
    job = a_job(rng)
    one, other = (trained(make_device(precision), *job, precision=precision, variant=variant) for _ in range(2))
    assert_same_bits(one, other)


@pytest.mark.parametrize("variant", ["panels", "persistent", "tiles"])
def test_any_length_of_a_graph_has_the_same_bits(make_device, rng, variant):
    job = a_job(rng)
    one, *others = (trained(make_device(ticks_of_a_graph=n), *job, variant=variant) for n in (1, 2, 5, 64))
    for other in others:
        assert_same_bits(one, other)


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_persistent_panels_have_the_bits_of_panels(make_device, rng, precision):
    job = a_job(rng)
    device = make_device(precision)
    persistent = trained(device, *job, precision=precision, variant="persistent")
    assert_same_bits(trained(make_device(precision), *job, precision=precision, variant="panels"), persistent)


def test_persistent_panels_have_the_bits_of_panels_whatever_the_options(make_device, rng):
    for spec, handoff in covering_networks(rng):
        data, state = random_data(40, spec.layers[0].n_visible, rng), random_state(spec, rng)
        job = spec, state, data, [pretrain_plan(spec, 40, 17, handoff=handoff, rng=rng)]
        panels, persistent = (
            trained(many_multiprocessors(make_device()), *job, variant=kind) for kind in ("panels", "persistent")
        )
        assert_same_bits(panels, persistent)


def many_multiprocessors(device):
    device.multiprocessors = max(device.multiprocessors, 50)
    return device


@pytest.mark.parametrize("panel", [(1, 8), (2, 24), (4, 16), (7, 16)], ids=str)
def test_panels_of_every_shape_have_the_same_bits(make_device, rng, panel):
    # The reported loss is summed by panels, so its last digits may differ.
    job = a_job(rng, batch_size=16)
    expected = without_losses(trained(make_device(panel=(2, 16)), *job, variant="panels"))
    device = make_device(panel=panel)
    for variant in ("panels", "persistent") if panel != (7, 16) else ("panels",):
        found = without_losses(trained(many_multiprocessors(device), *job, variant=variant))
        assert_same_bits(expected, found)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("panel", [(2, 16), (4, 16)], ids=str)
def test_a_panel_that_stays_on_chip_between_its_uses_has_the_same_bits(make_device, rng, panel, tied):
    spec = stack((300, 70, 150), "momentum", tied=tied)
    job = spec, random_state(spec, rng), random_data(90, 300, rng), [pretrain_plan(spec, 90, 20)]
    results = []
    for multiprocessors in (50, 1):  # one for each panel, or not
        device = make_device(panel=panel)
        device.multiprocessors = multiprocessors
        results.append(trained(device, *job, variant="panels"))
    assert_same_bits(*results)


def test_an_engine_that_goes_on_has_the_bits_of_a_new_one_with_the_same_state(make_device, rng):
    spec, state, data, plans = a_job(rng)
    engine = CudaEngine(spec, make_device())
    engine.set_state(state)
    placed = engine.place(data)
    for plan in plans:
        fresh = CudaEngine(spec, make_device())
        fresh.set_state(engine.get_state())
        assert engine.pretrain_epoch(placed, plan).loss == fresh.pretrain_epoch(data, plan).loss
        assert_same_bits(engine.get_state(), fresh.get_state())


def test_epochs_of_one_kind_use_the_same_buffers(make_device, rng):
    spec, _, data, plans = a_job(rng)
    engine = CudaEngine(spec, make_device())
    placed, runs = engine.place(data), []
    for plan in (*plans, replace(plans[0], batch_size=7)):
        engine.pretrain_epoch(placed, plan)
        runs.append(engine._run)
    assert runs[0] is runs[1] and runs[1] is not runs[2]


# ---- data in every place --------------------------------------------------------------------------
def tuning_job(rng, batch_size=20, n_samples=90):
    spec = with_head(stack(WIDTHS[:3], "sgd"), "softmax", 5, dropout=(0.2, 0.1, 0.0))
    plans = [pretrain_plan(spec, n_samples, batch_size, rng=rng)]
    tuning = [finetune_plan(n_samples, batch_size, rng) for _ in range(2)]
    weights = rng.random(n_samples).astype(np.float32)
    return spec, random_state(spec, rng), plans, tuning, random_targets(spec, n_samples, rng), weights


@pytest.mark.parametrize("kind", ["dense", "sparse", "float16", "uint8"])
@pytest.mark.parametrize("batch_size", [20, 45])
def test_data_that_stay_and_data_that_stream_have_the_same_bits(make_device, rng, kind, batch_size):
    spec, state, *rest = tuning_job(rng, batch_size)
    dense = rng.integers(0, 2, (90, WIDTHS[0])).astype(np.float32)
    data = {
        "dense": dense, "sparse": scipy.sparse.csr_array(dense),
        "float16": dense.astype(np.float16), "uint8": dense.astype(np.uint8),
    }[kind]  # fmt: skip
    expected = trained(make_device(), spec, state, dense, *rest)
    placed = trained(make_device(), spec, state, lambda engine: engine.place(data), *rest)
    assert_same_bits(expected, placed)
    for ticks in (1, 4):
        streamed = trained(make_device(ticks_of_a_graph=ticks), spec, state, HostRows(data), *rest)
        assert_same_bits(expected, streamed)


def test_values_between_two_of_float16_are_read_exactly(make_device, rng):
    spec, state, *_ = tuning_job(rng)
    data = rng.random((90, WIDTHS[0])).astype(np.float16)
    data[0, :3] = 6e-8, -65504.0, 0.0  # a subnormal, the least, zero
    spec = replace(spec, layers=spec.layers[:1], head=None)
    engine = CudaEngine(spec, make_device())
    engine.set_state({name: array for name, array in state.items() if name.startswith("layers.0.")})
    assert np.array_equal(engine.encode(data), engine.encode(data.astype(np.float32)))


def test_data_that_do_not_fit_stream(make_device, rng, monkeypatch):
    data = random_data(50, WIDTHS[0], rng)
    engine = CudaEngine(stack(WIDTHS, "sgd"), make_device())
    assert isinstance(engine.place(data), DeviceRows)
    assert isinstance(engine.place(data, 1), DeviceRows)
    monkeypatch.setattr(cuda_data, "_SHARE", 0.0)
    assert isinstance(engine.place(data), HostRows)
    assert isinstance(engine.place(data, 1), HostRows)


class OnTheDevice:
    """As a CuPy array for the emulator."""

    def __init__(self, array):
        self.array, self.shape, self.ndim = array, array.shape, array.ndim


def test_arrays_on_the_device_are_used_where_they_lie(rng):
    spec, state, *rest = tuning_job(rng)
    data = random_data(90, WIDTHS[0], rng)
    expected = trained(emulated_device("fp32"), spec, state, data, *rest)
    given = OnTheDevice(data)
    assert CudaEngine(spec, emulated_device("fp32")).place(given).owner is given.array
    assert_same_bits(expected, trained(emulated_device("fp32"), spec, state, given, *rest))


@pytest.mark.gpu
def test_arrays_of_cupy_and_torch_are_used_where_they_lie(rng):
    cupy, torch = pytest.importorskip("cupy"), pytest.importorskip("torch")
    spec, state, *rest = tuning_job(rng)
    data = random_data(90, WIDTHS[0], rng)
    expected = trained(cuda_device("fp32"), spec, state, data, *rest)
    for given in (cupy.asarray(data), torch.from_numpy(data).cuda()):
        assert_same_bits(expected, trained(cuda_device("fp32"), spec, state, given, *rest))


def test_encodings_that_stay_on_the_device_are_the_encodings(make_device, rng):
    spec, state, data, _ = a_job(rng)
    engine = CudaEngine(spec, make_device())
    engine.set_state(state)
    codes, before = engine.encode(data, 2), engine.get_state()
    for placed in (engine.place(data, 2), engine.place(engine.place(data, 1), 2, 1)):
        assert placed.shape == codes.shape
        plan = pretrain_plan(spec, len(data), 30, training=(False, False, True), first_layer=2)
        results = []
        for rows in (codes, placed):
            engine.set_state(before)
            results.append((engine.pretrain_epoch(rows, plan).loss[2], engine.get_parameters()["layers.2.W"]))
        assert results[0][0] == results[1][0] and np.array_equal(results[0][1], results[1][1])


# ---- CPU and GPU ----------------------------------------------------------------------------------
@pytest.mark.skipif(bool(CPU_MISSING), reason=CPU_MISSING)
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16"])
@pytest.mark.parametrize("noise", ["masking", "gaussian", "salt_and_pepper", "swap"])
def test_an_epoch_ends_as_on_the_cpu(make_device, rng, precision, noise):
    from gesda.engine.cpu import CpuEngine

    spec, state, data, plans = a_job(rng)
    spec = replace(spec, layers=tuple(replace(layer, noise=noise) for layer in spec.layers))
    on_cpu, on_gpu = CpuEngine(spec), CudaEngine(spec, make_device(precision), precision=precision)
    for engine in (on_cpu, on_gpu):
        engine.set_state(state)
    losses = [engine.pretrain_epoch(data, plans[0]).loss for engine in (on_cpu, on_gpu)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=TOLERANCE[precision])
    found = on_gpu.get_parameters()
    for name, expected in on_cpu.get_parameters().items():
        change = np.linalg.norm(expected - state[name])
        assert np.linalg.norm(found[name] - expected) <= TOLERANCE[precision] * change + 1e-6 * np.linalg.norm(expected)


# ---- the choice of kernels ------------------------------------------------------------------------
def sized(multiprocessors, shared):
    device = EmulatedDevice.__new__(EmulatedDevice)
    device.multiprocessors, device.most_shared_bytes, device.panels = multiprocessors, shared, SHAPES
    return device


THREE = [(784, 1000), (1000, 1000), (1000, 1000)]
H200, ORIN, TURING = (132, 232448), (16, 166912), (40, 65536)


@pytest.mark.parametrize(
    ("device", "rows", "expected"),
    [
        (H200, 20, Variant("panels", (2, 24))),  # 126 panels on 132 multiprocessors
        (H200, 16, Variant("panels", (1, 24))),
        (H200, 113, Variant("tiles")),
        (TURING, 100, Variant("tiles")),  # its shared memory is too small for so many rows
    ],
)
def test_the_kernels_follow_the_device_and_the_minibatch(device, rows, expected):
    assert choose(sized(*device), THREE, rows) == expected


def test_persistent_panels_need_a_multiprocessor_each_and_room_for_w():
    kinds = {variant.kind for variant in candidates(sized(*H200), THREE, 20)}
    assert kinds == {"tiles", "panels", "persistent"}
    for device in (ORIN, TURING):
        assert "persistent" not in {variant.kind for variant in candidates(sized(*device), THREE, 20)}
        with pytest.raises(ValueError, match=r"variant='persistent' cannot run minibatches of 20 rows"):
            choose(sized(*device), THREE, 20, "persistent")


def test_an_unknown_variant(make_device):
    with pytest.raises(ValueError, match="variant must be 'auto' or one of 'tiles', 'panels', 'persistent'; got 'x'"):
        CudaEngine(stack(WIDTHS, "sgd"), make_device(), variant="x")


def test_tuning_measures_once(make_device, rng, monkeypatch):
    spec, state, data, plans = a_job(rng, n_samples=40)
    measured = []
    monkeypatch.setattr(tuning, "_seconds", lambda *arguments: measured.append(arguments[-1]) or len(measured))
    for _ in range(2):
        device = make_device()
        trained(device, spec, state, data, plans, tune=True)
    assert len(measured) == len({variant for variant in measured}) > 2
    assert device.launched >= {measured[0].kind} if hasattr(device, "launched") else True


def test_without_room_for_trials_nothing_is_tuned(make_device, rng, monkeypatch):
    def no_room(*arguments):
        raise MemoryError

    job = a_job(rng, n_samples=40)
    monkeypatch.setattr(tuning, "_seconds", no_room)
    assert_same_bits(trained(make_device(), *job), trained(make_device(), *job, tune=True))
    assert not cache.cache_file().exists()


def test_tuned_networks_are_told_apart(make_device, rng, monkeypatch):
    measured = []
    monkeypatch.setattr(tuning, "_seconds", lambda *arguments: measured.append(arguments[0]) or 1.0)
    for options in ({"tied": True}, {"tied": False}, {"optimizer": "adam"}, {"tied": False}):
        spec = stack(WIDTHS, **options)
        trained(make_device(), spec, random_state(spec, rng), random_data(40, 70, rng), [pretrain_plan(spec, 40, 20)],
                tune=True)  # fmt: skip
    assert len({id(spec) for spec in measured}) == 3


def test_tuning_leaves_the_parameters_alone(make_device, rng):
    spec, state, _, plans = a_job(rng, n_samples=40)
    known = CudaEngine(spec, make_device(), tune=True)
    known.set_state(state)
    before = known.get_state()
    for variant in candidates(known._device, [(70, 50), (50, 90), (90, 33)], 20):
        assert tuning._seconds(spec, known._device, plans[0], 20, variant) > 0.0
    assert_same_bits(before, known.get_state())


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path, monkeypatch):
    (tmp_path / "gesda").write_text("a file where the folder should be")
    cache.keep(3, "a")
    assert cache.recall("a") is None


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_a_damaged_cache_is_an_empty_one(tmp_path, text):
    cache.cache_file().parent.mkdir()
    cache.cache_file().write_text(text)
    assert cache.recall("a") is None
    cache.keep([1, 2], "a", 1)
    assert cache.recall("a", 1) == [1, 2]


# ---- the check of a device ------------------------------------------------------------------------
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16"])
def test_a_device_that_computes_what_it_should_is_checked(make_device, precision):
    device = make_device(precision)
    assert not check.is_checked(device, precision)
    differences = check.check(
        lambda spec, variant: CudaEngine(spec, device, precision=precision, variant=variant), device, precision
    )
    assert check.is_checked(device, precision)
    assert max(differences.values()) < check.TOLERANCE[precision] / 3


def test_a_device_that_computes_something_else_is_not():
    device = EmulatedDevice.__new__(EmulatedDevice)

    class Wrong(ReferenceEngine):
        def pretrain_epoch(self, data, plan, poll=None):
            return super().pretrain_epoch(data, replace(plan, learning_rates=(0.1, 0.101)), poll)

    with pytest.raises(RuntimeError, match="emulator does not compute what it should in panels"):
        check.check(lambda spec, variant: Wrong(spec), device, "fp32")
    assert not check.is_checked(device, "fp32")


# ---- memory ---------------------------------------------------------------------------------------
def test_a_network_that_does_not_fit():
    with pytest.raises(MemoryError, match=r"parameters and .* take [\d,]+ bytes of GPU memory .*device='cpu'"):
        CudaEngine(stack((1000, 1000), "adam"), emulated_device("fp32", memory=1 << 20))


def test_a_minibatch_that_does_not_fit_says_which_would(rng):
    spec, device = stack((300, 200), "sgd"), emulated_device("fp32", memory=1 << 20)
    engine, data = CudaEngine(spec, device), random_data(2000, 300, rng)
    with pytest.raises(MemoryError, match=r"a minibatch of 1500 rows takes .* use batch_size=\d+ or less") as found:
        engine.pretrain_epoch(data, pretrain_plan(spec, 2000, 1500))
    fits = int(str(found.value).split("batch_size=")[1].split(" ")[0])
    plan = replace(pretrain_plan(spec, 2 * fits, fits), order=np.arange(2 * fits, dtype=np.uint32) % 2000)
    assert engine.pretrain_epoch(data, plan).completed
