"""The recogniser of libgesda: what `GestureRecognizer` answers, from the same file, through the C ABI."""

from __future__ import annotations

import copy
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

numba = pytest.importorskip("numba", reason="gesda.deepmotion needs numba: pip install 'gesda[deepmotion]'")

from gesda.deepmotion import GestureRecognizer  # noqa: E402
from gesda.export.quantization import quantize_columns  # noqa: E402
from gesda.model_io import read_tensors, write_tensors  # noqa: E402
from gesda.runtime import Runtime  # noqa: E402

SMALL = {
    "n_members": 2, "hidden_layer_sizes": (24, 12), "pretrain_epochs": 1, "max_iter": 3, "n_jobs": 1, "random_state": 0,
}  # fmt: skip
#: Options of a recogniser, and its channels. Those of a body are 20 points and a triple that is none of it.
CONFIGURATIONS: dict[str, tuple[dict[str, Any], int]] = {
    "global": ({"normalization": "global"}, 3),
    "global, one channel, arc": ({"normalization": "global", "resampling": "arc"}, 1),
    "centered, arc": ({"normalization": "centered", "resampling": "arc"}, 2),
    "sequence, spectrum": ({"normalization": "sequence", "spectrum": True}, 2),
    "gravity": ({"normalization": "global", "orientation": "gravity"}, 6),
    "gravity, sequence, arc": ({"normalization": "sequence", "orientation": "gravity", "resampling": "arc"}, 3),
    "magnitude, spectrum": ({"normalization": "centered", "orientation": "magnitude", "spectrum": True}, 6),
    "body": ({"normalization": "relative"}, 63),
}
#: Single precision sums in another order; the distance among encodings magnifies them.
PROBABILITY, FAMILIARITY, USUAL_FAMILIARITY = 1e-5, 1e-3, 1e-4


@pytest.fixture(scope="module")
def seed() -> int:
    value = int(os.environ.get("GESDA_TEST_SEED", secrets.randbelow(2**31)))
    print(f"GESDA_TEST_SEED={value}")
    return value


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


# ---- motions --------------------------------------------------------------------------------------
def motion(rng: np.random.Generator, name: str, kind: int, length: int | None = None) -> NDArray[np.float32]:
    """A gesture of one of several kinds, as a device of this configuration would measure it."""
    options, n_channels = CONFIGURATIONS[name]
    length = int(rng.integers(20, 200)) if length is None else length
    turns = np.linspace(0.0, 2 * np.pi * (kind + 1), length)[:, None]
    values = np.sin(turns + rng.uniform(0.0, 1.0, n_channels)) + rng.normal(0.0, 0.05, (length, n_channels))
    if "orientation" in options:
        values[:, 2] += 9.81
        held, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        values = (values.reshape(length, -1, 3) @ held.T).reshape(length, n_channels)
    if options["normalization"] == "relative":
        values[:, :60] += np.tile(np.cumsum(rng.normal(0.0, 1.0, (length, 3)), axis=0), 20)
    return values.astype(np.float32)


def gestures(rng: np.random.Generator, name: str, n: int) -> list[NDArray[np.float32]]:
    return [motion(rng, name, i % 3) for i in range(n)]


def oddities(rng: np.random.Generator, name: str) -> Iterator[NDArray[np.float32]]:
    """What no gesture looks like, but for what even Python's own answer leaves to rounding."""
    options, n_channels = CONFIGURATIONS[name]
    noise = rng.normal(size=(70, n_channels))
    yield np.zeros_like(noise)
    yield 1e6 * noise
    yield 1e-20 * noise
    yield 1e30 * noise
    yield np.where(np.arange(n_channels) == 0, 3.7, noise)  # a channel without motion
    yield np.concatenate([noise[:20], np.tile(noise[20], (30, 1)), noise[20:]])  # a rest
    if options.get("orientation") != "gravity":
        yield np.ones_like(noise)
        yield np.zeros((1, n_channels))
    else:  # where nothing moves horizontally any heading will do; along an axis, both take the same one
        for axis in range(3):
            yield np.concatenate([np.tile(9.0 * np.eye(3)[axis], (70, 1)), noise[:, 3:]], axis=1)


# ---- comparing ------------------------------------------------------------------------------------
def compare(recognizer: GestureRecognizer, runtime: Runtime, motions: Any) -> None:
    """Both give the same answers, but for what rounding may decide."""
    names = list(recognizer.classes_)
    assert runtime.class_names == [str(name) for name in names]
    differences = []
    for samples in motions:
        expected, found = recognizer.recognize(samples), runtime.recognize(samples)
        probabilities = np.array([expected.probabilities[name] for name in names])
        np.testing.assert_allclose(found.probabilities, probabilities, rtol=0, atol=PROBABILITY)
        assert found.confidence == pytest.approx(expected.confidence, abs=PROBABILITY)
        assert found.familiarity == pytest.approx(expected.familiarity, abs=FAMILIARITY, rel=FAMILIARITY)
        differences.append(abs(found.familiarity - expected.familiarity) / max(1.0, abs(expected.familiarity)))
        if not names:
            assert (found.gesture, found.best) == (-1, -1)
            continue
        assert probabilities[found.best] >= probabilities.max() - 2 * PROBABILITY
        if abs(expected.familiarity - recognizer.threshold_) > FAMILIARITY * max(1.0, abs(expected.familiarity)):
            assert found.gesture == (-1 if expected.label is None else found.best)
    assert np.median(differences) < USUAL_FAMILIARITY


def saved(recognizer: GestureRecognizer, path: Path, **options: Any) -> tuple[GestureRecognizer, Runtime]:
    recognizer.save(path)
    return GestureRecognizer.load(path), Runtime(path, **options)


@pytest.fixture(scope="module")
def fitted(seed: int) -> Callable[[str], GestureRecognizer]:
    """Fits the recogniser of a configuration, once; tests that teach it take a copy."""
    made: dict[str, GestureRecognizer] = {}

    def fit(name: str) -> GestureRecognizer:
        if name not in made:
            options, _ = CONFIGURATIONS[name]
            labels = np.arange(18) % 3 * 10 - 7
            training = gestures(np.random.default_rng([seed, 1]), name, 18)
            made[name] = GestureRecognizer(**options, **SMALL).fit(training, labels)
        return made[name]

    return fit


# ---- the same answers -----------------------------------------------------------------------------
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_it_gives_pythons_answers(name, fitted, rng, tmp_path):
    pair = saved(fitted(name), tmp_path / "model.gesda")
    compare(*pair, gestures(rng, name, 12))
    compare(*pair, [motion(rng, name, 1, length) for length in (40, 127, 128, 129, 1000)])
    if CONFIGURATIONS[name][0].get("orientation") != "gravity":  # of two samples, both point equally far
        compare(*pair, [motion(rng, name, 1, length) for length in (1, 2)])


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_it_gives_pythons_answers_to_motions_that_are_no_gestures(name, fitted, rng, tmp_path):
    compare(*saved(fitted(name), tmp_path / "model.gesda"), oddities(rng, name))


@pytest.mark.parametrize("name", ["global", "magnitude, spectrum"])
def test_the_variant_for_every_machine_gives_them_too(name, fitted, rng, tmp_path):
    compare(*saved(fitted(name), tmp_path / "model.gesda", variant="baseline"), gestures(rng, name, 8))


def test_it_answers_after_teaching_and_forgetting(fitted, rng, tmp_path):
    taught = copy.deepcopy(fitted("global"))
    taught.add_gesture(99, gestures(rng, "global", 3))
    compare(*saved(taught, tmp_path / "more.gesda"), gestures(rng, "global", 6))
    taught.remove_gesture(3)  # its output stays in the networks
    _, runtime = saved(taught, tmp_path / "less.gesda")
    assert runtime.class_names == ["-7", "13", "99"]
    compare(taught, runtime, gestures(rng, "global", 6))


def test_it_rejects_everything_where_no_gesture_is_known(fitted, rng, tmp_path):
    forgetful = copy.deepcopy(fitted("global"))
    for name in forgetful.classes_:
        forgetful.remove_gesture(name)
    pair = saved(forgetful, tmp_path / "model.gesda")
    compare(*pair, gestures(rng, "global", 6))
    assert pair[1].n_outputs == 0 and pair[1].threshold == -np.inf
    forgetful.add_gesture("größer als zuvor", gestures(rng, "global", 2))
    compare(*saved(forgetful, tmp_path / "again.gesda"), gestures(rng, "global", 6))


def test_it_is_usable_after_pretraining_alone(rng, tmp_path):
    recognizer = GestureRecognizer(normalization="global", rate=50.0, **SMALL).fit(gestures(rng, "global", 6))
    pair = saved(recognizer, tmp_path / "model.gesda")
    compare(*pair, gestures(rng, "global", 4))
    assert pair[1].rate == 50.0


def test_it_describes_itself(fitted, tmp_path):
    recognizer, runtime = saved(fitted("gravity"), tmp_path / "model.gesda")
    assert runtime.kind == "recognizer" and runtime.weights == "fp32"
    assert (runtime.n_features, runtime.n_layers, runtime.n_hidden, runtime.n_outputs) == (6, 2, 12, 3)
    assert runtime.threshold == recognizer.threshold_ and runtime.rate == 0.0


# ---- other networks in the file -------------------------------------------------------------------
def altered(source: Path, target: Path, change: Callable[[dict[str, Any], dict[str, Any]], object]) -> Path:
    """The same file but for what `change` does to its arrays and metadata."""
    tensors, metadata = read_tensors(source)
    change(tensors, metadata)
    write_tensors(target, tensors, metadata)
    return target


def test_a_decoder_may_have_weights_of_its_own(fitted, rng, tmp_path):
    def untie(tensors: dict[str, Any], metadata: dict[str, Any]) -> None:
        for network, described in metadata["networks"].items():
            for k, layer in enumerate(described["network"]["layers"]):
                layer["tied"] = False
                tensors[f"{network}.layers.{k}.V"] = tensors[f"{network}.layers.{k}.W"].T.copy()

    fitted("global").save(tmp_path / "tied.gesda")
    runtime = Runtime(altered(tmp_path / "tied.gesda", tmp_path / "untied.gesda", untie))
    compare(fitted("global"), runtime, gestures(rng, "global", 6))


def weights_in(tensors: dict[str, NDArray[Any]]) -> list[str]:
    return [name for name in tensors if name.endswith((".W", "readers.weights")) and ".resume." not in name]


@pytest.mark.parametrize(("weights", "tolerance"), [("fp16", 1e-5), ("int8", 2e-3)])
def test_weights_of_fewer_bits_are_read_as_what_they_stand_for(weights, tolerance, fitted, rng, tmp_path):
    def shrink(tensors: dict[str, Any], metadata: dict[str, Any]) -> None:
        for name in weights_in(tensors):
            if weights == "fp16":
                tensors[name] = tensors[name].astype(np.float16)
            else:
                matrices = tensors[name].reshape(-1, *tensors[name].shape[-2:])
                codes, scales = zip(*map(quantize_columns, matrices), strict=True)
                tensors[f"{name}.scales"] = np.reshape(scales, (*tensors[name].shape[:-2], -1))
                tensors[name] = np.reshape(codes, tensors[name].shape)

    def widen(tensors: dict[str, Any], metadata: dict[str, Any]) -> None:
        for name in weights_in(tensors):
            scales = tensors.pop(f"{name}.scales", np.float32(1))
            tensors[name] = tensors[name].astype(np.float32) * np.expand_dims(scales, -2 if np.ndim(scales) else 0)

    fitted("global").save(tmp_path / "full.gesda")
    small = altered(tmp_path / "full.gesda", tmp_path / "small.gesda", shrink)
    wide = altered(small, tmp_path / "wide.gesda", widen)
    runtime = Runtime(small)
    assert runtime.weights == weights
    for samples in gestures(rng, "global", 8):
        found, expected = runtime.recognize(samples), Runtime(wide).recognize(samples)
        np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=0, atol=tolerance)
        assert found.familiarity == pytest.approx(expected.familiarity, abs=100 * tolerance)


# ---- files that describe no recogniser ------------------------------------------------------------
def _state(name: str, value: Any) -> Callable[[dict[str, Any], dict[str, Any]], object]:
    return lambda tensors, metadata: metadata["state"].__setitem__(name, value)


def _parameter(name: str, value: Any) -> Callable[[dict[str, Any], dict[str, Any]], object]:
    return lambda tensors, metadata: metadata["params"].__setitem__(name, value)


def _array(name: str, function: Callable[[Any], Any]) -> Callable[[dict[str, Any], dict[str, Any]], object]:
    return lambda tensors, metadata: tensors.__setitem__(name, function(tensors[name]))


def _layer(name: str, value: Any) -> Callable[[dict[str, Any], dict[str, Any]], object]:
    return lambda tensors, metadata: metadata["networks"]["member1"]["network"]["layers"][0].__setitem__(name, value)


def _with(array: Any, value: Any) -> Any:
    changed = np.array(array)
    changed.reshape(-1)[-1] = value
    return changed


BAD: dict[str, Callable[[dict[str, Any], dict[str, Any]], object]] = {
    "another normalization": _state("normalization", "best"),
    "another orientation": _parameter("orientation", "upright"),
    "another resampling": _parameter("resampling", "space"),
    "channels that do not fit": _state("n_channels", 4),
    "channels as text": _state("n_channels", "3"),
    "a gesture too few": _state("names", [-7, 3]),
    "a gesture twice": _state("names", [-7, 3, 3]),
    "text among numbers": _state("names", [-7, 3, "a"]),
    "no name": _state("names", ["a", "b", ""]),
    "the number for unlabelled": _state("names", [-7, 3, -1]),
    "an output twice": _state("outputs", [0, 1, 1]),
    "an output that is not there": _state("outputs", [0, 1, 3]),
    "a negative output": _state("outputs", [0, 1, -1]),
    "no rate": _state("rate", 0.0),
    "a rate as text": _state("rate", "50"),
    "no members": lambda tensors, metadata: [metadata["networks"].pop(f"member{k}") for k in range(2)],
    "a missing member": lambda tensors, metadata: metadata["networks"].pop("member0"),
    "a missing array": lambda tensors, metadata: tensors.pop("features.offset"),
    "a missing stack": lambda tensors, metadata: tensors.pop("stack.layers.1.W"),
    "a layer that is wider than its array": _layer("n_hidden", 2**20),
    "a layer of no width": _layer("n_hidden", 0),
    "a layer of other units": _layer("activation", "sigmoids"),
    "no channels": _array("features.offset", lambda array: array[:0]),
    "no scale": _array("features.scale", lambda array: _with(array, 0.0)),
    "a negative scale of velocities": _array("features.velocity_scale", lambda array: -array),
    "no deviation": _array("features.deviation", lambda array: _with(array, 0.0)),
    "a mean that is no number": _array("features.mean", lambda array: _with(array, np.nan)),
    "features too few": _array("features.mean", lambda array: array[:-1]),
    "a duration of no steps": _array("features.dilations", lambda array: 0 * array),
    "durations too many": _array("features.dilations", lambda array: np.tile(array, 2)),
    "durations of another shape": _array("features.dilations", lambda array: array[:, None]),
    "mixtures of other channels": _array("features.mixtures", lambda array: array[:, :, :-1]),
    "an infinite mixture": _array("features.mixtures", lambda array: _with(array, np.inf)),
    "thresholds too few": _array("features.thresholds", lambda array: array[:, :-1]),
    "a body of other points": _array("features.body", lambda array: np.tile(array, 2)),
    "weights of another shape": _array("member0.layers.1.W", lambda array: array.T.copy()),
    "weights that are no numbers": _array("member0.layers.1.W", lambda array: _with(array, np.nan)),
    "a bias that is too short": _array("stack.layers.0.c", lambda array: array[:-1]),
    "a head of another shape": _array("member1.head.W", lambda array: array[:, :-1]),
    "a linear classifier too few": _array("readers.weights", lambda array: array[:-1]),
    "linear classifiers of other gestures": _array("readers.bias", lambda array: array[:, :-1]),
    "linear classifiers of other rows": _array("readers.weights", lambda array: array[:, :-1]),
    "an infinite linear classifier": _array("readers.weights", lambda array: _with(array, np.inf)),
    "no spread": _array("familiarity.spread", lambda array: 0 * array),
    "a negative spread of a gesture": _array("familiarity.class_spread", lambda array: _with(array, -1.0)),
    "means of other gestures": _array("familiarity.means", lambda array: array[:, 1:]),
    "a whitening that is no number": _array("familiarity.whitening", lambda array: _with(array, np.nan)),
    "an infinite threshold": _array("familiarity.threshold", lambda array: array * np.inf),
    "an example of no length": _array("memory.durations", lambda array: _with(array, 0.0)),
    "an example of endless length": _array("memory.durations", lambda array: _with(array, np.inf)),
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_it_refuses_what_python_refuses(change, fitted, tmp_path):
    fitted("global").save(tmp_path / "good.gesda")
    bad = altered(tmp_path / "good.gesda", tmp_path / "bad.gesda", change)
    with pytest.raises(ValueError, match=r"bad\.gesda"):
        GestureRecognizer.load(bad)
    with pytest.raises(ValueError, match=r"bad\.gesda.*(recogniser|array|header|layer)"):
        Runtime(bad)


def test_it_refuses_taps_that_lie_outside_of_every_motion(fitted, tmp_path):
    fitted("global").save(tmp_path / "good.gesda")
    wide = _array("features.dilations", lambda array: _with(array, 2**40))
    with pytest.raises(ValueError, match="impossible duration"):
        Runtime(altered(tmp_path / "good.gesda", tmp_path / "bad.gesda", wide))


def test_it_refuses_motions_that_do_not_fit(fitted, rng, tmp_path):
    _, runtime = saved(fitted("global"), tmp_path / "model.gesda")
    samples = motion(rng, "global", 0)
    samples[3, 1] = np.nan
    for bad in (samples, samples[:0], samples[:, :2]):
        with pytest.raises(ValueError):
            runtime.recognize(bad)
