"""Estimators with device="cuda": the GPU is the tests' emulator here, CuPy a stand-in of NumPy."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse
from numpy.testing import assert_allclose, assert_array_equal

from gesda import SdAClassifier, SdARegressor, StackedDenoisingAutoencoder
from gesda.engine.cuda import gpus

sys.path.insert(0, str(Path(__file__).parents[1] / "emulator"))
from emulated import COMPILER, EmulatedDevice

pytestmark = pytest.mark.skipif(COMPILER is None, reason="the emulator needs a C++ compiler")
SMALL = {"hidden_layer_sizes": (12, 8), "pretrain_epochs": 2, "random_state": 3, "batch_size": 20}


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A GPU; what it was asked for is in the list."""
    asked = []

    def make(precision, index=0, memory_limit=None):
        asked.append((precision, index, memory_limit))
        device = EmulatedDevice(precision)
        device.adopt = lambda data: (data.array, int(data.array.ctypes.data))
        return device

    monkeypatch.setattr(gpus, "CupyDevice", make)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return asked


@pytest.fixture
def table():
    rng = np.random.default_rng(int(np.random.default_rng().integers(2**32)))
    return rng.random((80, 10)).astype(np.float32), rng.integers(0, 3, 80)


class OnTheGpu(np.ndarray):
    """An array whose memory is said to be a GPU's; NumPy stands in for CuPy."""

    __cuda_array_interface__ = {"version": 3}  # noqa: RUF012


@pytest.fixture
def cupy(monkeypatch):
    stand_in = SimpleNamespace(
        asarray=np.asarray, asnumpy=np.asarray,
        ascontiguousarray=lambda array, dtype: np.ascontiguousarray(array, dtype=dtype),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "cupy", stand_in)


def on_gpu(array):
    return array.view(OnTheGpu)


def test_training_and_prediction_are_those_of_the_cpu(gpu, table):
    X, y = table
    models = [SdAClassifier(device=device, max_iter=3, **SMALL).fit(X, y) for device in ("cpu", "cuda")]
    assert [model.device_ for model in models] == ["cpu", "cuda"]
    for method in ("transform", "predict_proba", "reconstruct", "score_samples"):
        expected, found = (getattr(model, method)(X) for model in models)
        assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert_allclose(models[1].loss_curve_, models[0].loss_curve_, rtol=1e-3)


@pytest.mark.parametrize("schedule", ["sequential", "crosspre"])
def test_schedules_early_stopping_and_untied_weights(gpu, table, schedule):
    X, y = table
    options = {"schedule": schedule, "tied_weights": False, "early_stopping": True, "max_iter": 3, "solver": "adam"}
    models = [SdARegressor(device=device, **options, **SMALL).fit(X, y) for device in ("cpu", "cuda")]
    assert_allclose(models[1].predict(X), models[0].predict(X), rtol=1e-2, atol=1e-2)


def test_what_the_device_is_asked_for(gpu, table):
    StackedDenoisingAutoencoder(device="cuda:2", precision="tf32", memory_limit=10**9, **SMALL).fit(table[0])
    assert gpu == [("tf32", 2, 10**9)]


def test_a_model_moves_between_devices_by_its_file(gpu, table, tmp_path):
    X, y = table
    model = SdAClassifier(device="cuda", precision="tf32", max_iter=2, **SMALL).fit(X, y)
    model.save(tmp_path / "model.gesda")
    there = SdAClassifier.load(tmp_path / "model.gesda").set_params(device="cpu")
    for one, other in zip(model.coefs_, there.coefs_, strict=True):
        assert_array_equal(one, other)
    assert_allclose(there.predict_proba(X), model.predict_proba(X), atol=1e-3)
    back = SdAClassifier.load(tmp_path / "model.gesda")
    assert_array_equal(back.predict_proba(X), model.predict_proba(X))


def test_training_goes_on_from_the_cpu_to_the_gpu(gpu, table):
    X, _ = table
    options = {**SMALL, "warm_start": True, "pretrain_solver": "adam"}
    mixed, alone = (StackedDenoisingAutoencoder(device="cpu", **options).fit(X) for _ in range(2))
    alone.fit(X)
    mixed.set_params(device="cuda").fit(X)
    assert_allclose(mixed.transform(X), alone.transform(X), atol=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16])
def test_small_types_are_kept_and_mean_the_same(gpu, table, dtype):
    X = (table[0] > 0.5).astype(dtype)
    found, expected = (
        StackedDenoisingAutoencoder(device="cuda", **SMALL).fit(data).transform(data)
        for data in (X, X.astype(np.float32))
    )
    assert_array_equal(found, expected)


def test_data_in_gpu_memory(gpu, table, cupy):
    X, y = table
    given = on_gpu(X.copy())
    models = [SdAClassifier(device="cuda", max_iter=2, **SMALL).fit(data, y) for data in (X, given)]
    assert_array_equal(models[1].predict_proba(given), models[0].predict_proba(X))
    assert_array_equal(models[1].reconstruct(given), models[0].reconstruct(X))
    assert models[1].n_features_in_ == 10
    standardised = on_gpu(X - X.mean(axis=0))
    models = [
        StackedDenoisingAutoencoder(device="cuda", **SMALL).fit(d) for d in (np.asarray(standardised), standardised)
    ]
    assert_array_equal(models[0].transform(X), models[1].transform(X))


def test_bad_data_in_gpu_memory_are_refused(gpu, table, cupy):
    X, _ = table
    model = StackedDenoisingAutoencoder(device="cuda", **SMALL)
    bad = X.copy()
    bad[3, 4] = np.nan
    with pytest.raises(ValueError, match="Input X contains NaN or infinity"):
        model.fit(on_gpu(bad))
    with pytest.raises(ValueError, match="Expected 2D array"):
        model.fit(on_gpu(X[0]))
    with pytest.raises(TypeError, match="X must hold real numbers; got complex64"):
        model.fit(on_gpu(X.astype(np.complex64)))
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        model.fit(on_gpu(X[:0]))
    model.fit(on_gpu(X))
    with pytest.raises(ValueError, match=r"X has 9 features, but .* is expecting 10"):
        model.transform(on_gpu(X[:, :9].copy()))
    with pytest.raises(TypeError, match="X_unlabeled does not go together with data in GPU memory"):
        SdAClassifier(device="cuda", **SMALL).fit(on_gpu(X), table[1], X_unlabeled=X)


@pytest.mark.parametrize("device", ["cpu", "auto", "reference"])
def test_data_in_gpu_memory_need_the_gpu(table, device):
    with pytest.raises(TypeError, match=r"X lies in GPU memory, and device='.*': use device='cuda', or copy it"):
        StackedDenoisingAutoencoder(device=device, **SMALL).fit(on_gpu(table[0]))


def test_sparse_data(gpu, table):
    X = scipy.sparse.csr_array(np.where(table[0] > 0.6, table[0], 0.0))
    found, expected = (
        StackedDenoisingAutoencoder(device="cuda", **SMALL).fit(data).transform(data) for data in (X, X.toarray())
    )
    assert_array_equal(found, expected)


# ---- which device ---------------------------------------------------------------------------------
@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "CUDA", "", None, 3])
def test_unknown_devices(table, device):
    with pytest.raises(ValueError, match="device must be one of 'auto', 'cpu', 'cuda', 'reference', or 'cuda:1'"):
        StackedDenoisingAutoencoder(device=device, **SMALL).fit(table[0])


@pytest.mark.parametrize("limit", [0, -1, 0.5, "1GB"])
def test_unknown_memory_limits(table, limit):
    with pytest.raises(ValueError, match="memory_limit must be None or a number of bytes of at least 1"):
        StackedDenoisingAutoencoder(memory_limit=limit, **SMALL).fit(table[0])


def test_without_cupy_the_error_says_what_to_install(table, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(RuntimeError, match=r"device='cuda' needs CuPy: pip install 'gesda\[cuda\]'"):
        StackedDenoisingAutoencoder(device="cuda", **SMALL).fit(table[0])


def found_cupy(monkeypatch, there=True):
    monkeypatch.setattr(gpus.importlib.util, "find_spec", lambda name: object() if there else None)
    gpus._say_once.cache_clear()


def test_auto_takes_a_gpu_that_was_checked(gpu, table, monkeypatch, caplog):
    found_cupy(monkeypatch)
    monkeypatch.setattr(gpus, "is_checked", lambda device, precision: True)
    assert StackedDenoisingAutoencoder(**SMALL).fit(table[0]).device_ == "cuda"
    assert not caplog.records


def test_auto_says_once_that_a_gpu_was_not_checked(gpu, table, monkeypatch, caplog):
    found_cupy(monkeypatch)
    with caplog.at_level(logging.WARNING, "gesda"):
        models = [StackedDenoisingAutoencoder(**SMALL).fit(table[0]) for _ in range(2)]
    assert [model.device_ for model in models] == ["cpu", "cpu"]
    assert [record.getMessage() for record in caplog.records] == [
        "device='auto' takes the cpu: emulator has not been checked yet with precision='fp32'; run 'gesda warmup "
        "--precision fp32' once, or ask for device='cuda'."
    ]


def test_auto_says_once_why_a_gpu_cannot_be_used(table, monkeypatch, caplog):
    def make(*_):
        raise RuntimeError("the driver is too old.")

    found_cupy(monkeypatch)
    monkeypatch.setattr(gpus, "CupyDevice", make)
    with caplog.at_level(logging.WARNING, "gesda"):
        for _ in range(2):
            assert StackedDenoisingAutoencoder(**SMALL).fit(table[0]).device_ == "cpu"
    assert [record.getMessage() for record in caplog.records] == ["device='auto' takes the cpu: the driver is too old."]


def test_auto_is_silent_without_cupy(table, monkeypatch, caplog):
    found_cupy(monkeypatch, there=False)
    assert StackedDenoisingAutoencoder(**SMALL).fit(table[0]).device_ == "cpu"
    assert not caplog.records


@pytest.mark.parametrize("precision", ["tf32", "fp16"])
def test_the_cpu_computes_in_fp32_for_the_precisions_of_a_gpu(table, precision):
    models = [
        StackedDenoisingAutoencoder(device="cpu", precision=p, **SMALL).fit(table[0]) for p in (precision, "fp32")
    ]
    assert_array_equal(models[0].transform(table[0]), models[1].transform(table[0]))
